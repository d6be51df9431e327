package sign

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/pgp"
	"singularity/priv"
	"singularity/sif"
	"singularity/verity"
)

// file returns an open file with that content.
func file(t *testing.T, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestJudgeForHelper: which images the setuid helper may have the kernel mount by
// their tree, and what the execution control list says.
func TestJudgeForHelper(t *testing.T) {
	build := func(signed bool) *storage {
		in := inputs()
		in[2].Data = bytes.NewReader(bytes.Repeat([]byte("hsqs567\n"), 1<<16))
		s := create(t, in...)
		if signed {
			s.signTrees(t)
		}
		return s
	}
	odd := create(t, bigInputs()...)
	odd.signTrees(t)
	oddChanged := &storage{b: bytes.Clone(odd.b)}
	changed := build(true)
	root, err := changed.open(t).Primary()
	if err != nil {
		t.Fatal(err)
	}
	changed.b[root.Off+5000] ^= 1
	if root, err = oddChanged.open(t).Primary(); err != nil {
		t.Fatal(err)
	}
	oddChanged.b[root.Off+5000] ^= 1
	renamed := build(true)
	copy(renamed.b[bytes.Index(renamed.b, []byte("inspect-metadata")):], "inspect-metadatb")
	list := func(mode string, k *pgp.Key) string {
		return "activated = true\n[[execgroup]]\ntagname = \"t\"\nmode = \"" + mode + "\"\ndirpath = \"\"\nkeyfp = [\"" + k.Fingerprint().String() + "\"]\n"
	}
	for _, c := range []struct {
		name   string
		s      *storage
		key    *pgp.Key
		list   string
		full   bool
		ok     bool
		tree   bool
		listed bool
		text   string
	}{
		{"trusted", build(true), alice(), "", false, true, true, false, "trusted Alice"},
		{"foreign", build(true), bob(), "", false, true, false, false, "unknown"},
		{"unsigned", build(false), alice(), "", false, true, false, false, "no hash tree"},
		{"half a block at its end", odd, alice(), "", false, true, false, false, "no hash tree"},
		{"changed where the kernel looks later", changed, alice(), "", false, true, true, false, "trusted"},
		{"changed, and all is read", changed, alice(), "", true, true, false, false, "refused"},
		{"another name of an object", renamed, alice(), "", false, true, false, false, "refused"},
		{"allowed by the list", build(true), alice(), list("whitelist", alice()), false, true, true, true, "trusted"},
		{"a tree that is of no use, with a list", odd, alice(), list("whitelist", alice()), false, true, false, true, "no hash tree"},
		{"the same, changed", oddChanged, alice(), list("whitelist", alice()), false, false, false, false, "ECL: image signature not valid"},
		{"not on the list", build(true), alice(), list("whitelist", bob()), false, false, false, false, "ECL: image not signed by required"},
		{"unsigned, with a list", build(false), alice(), list("blacklist", bob()), false, false, false, false, "ECL: image signature not valid"},
		{"foreign, with a list", build(true), bob(), list("blacklist", alice()), false, false, false, false, "ECL: image signature not valid"},
		{"changed, with a list, and all is read", changed, alice(), list("whitelist", alice()), true, false, false, false, "ECL: image signature not valid"},
		{"a list that says nothing", build(false), alice(), "activated = false\n", false, true, false, false, "no hash tree"},
		{"no list", build(true), alice(), "activated", false, false, false, false, "cannot use ecl.toml"},
		{"no image", &storage{b: []byte("hsqs")}, alice(), "", false, false, false, false, "s"},
	} {
		site := HelperSite{Full: c.full, Ring: file(t, keyrings(t, c.key)[0].Ring.(*pgp.Ring).Bytes())}
		if c.list != "" {
			site.List = file(t, []byte(c.list))
		}
		v := JudgeForHelper(context.Background(), file(t, c.s.b), site)
		if v.OK != c.ok || (v.Tree != nil) != c.tree || v.Listed != c.listed || !strings.Contains(v.Text, c.text) || len(v.Encode()) != priv.VerdictSize {
			t.Errorf("%s: %+v", c.name, v)
		}
		if v.Tree == nil {
			continue
		}
		// The tree of the verdict is that of the partition.
		r, err := verity.NewReader(bytes.NewReader(c.s.b[v.Off:v.Off+v.Size]), int64(v.Size), bytes.NewReader(c.s.b[v.Tree.Off:v.Tree.Off+v.Tree.Size]), int64(v.Tree.Size), v.Tree.Salt, verity.Digest(v.Tree.Root))
		if err == nil {
			err = r.Check(context.Background(), 1, nil)
		}
		if (err == nil) != (c.s != changed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestJudgeLocked (SC-060): the header of an encrypted partition is read by the tree
// that the kernel reads by; without one only root's image is looked into.
func TestJudgeLocked(t *testing.T) {
	build := func() *storage {
		in := inputs()
		in[2].Extra = sif.Partition{FS: sif.FSEncryptedSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()
		in[2].Data = bytes.NewReader(bytes.Repeat([]byte("LUKS567\n"), 1<<16))
		s := create(t, in...)
		s.signTrees(t)
		return s
	}
	changed := build()
	root, err := changed.open(t).Primary()
	if err != nil {
		t.Fatal(err)
	}
	changed.b[root.Off+5000] ^= 1
	for _, c := range []struct {
		name   string
		s      *storage
		key    *pgp.Key
		uid    int
		ok     bool
		looked bool
	}{
		{"trusted", build(), alice(), 1234, true, true},
		{"trusted, and its header changed", changed, alice(), 1234, false, true},
		{"foreign", build(), bob(), 1234, true, false},
		{"foreign, but root's", build(), bob(), 0, true, true},
	} {
		f := file(t, c.s.b)
		if err := os.Chown(f.Name(), c.uid, -1); err != nil {
			t.Skipf("only root can give images to others: %v", err)
		}
		looked := false
		v := JudgeForHelper(context.Background(), f, HelperSite{Ring: file(t, keyrings(t, c.key)[0].Ring.(*pgp.Ring).Bytes()), Unlock: func(r io.ReaderAt, size int64) (*priv.Crypt, error) {
			looked = true
			_, err := r.ReadAt(make([]byte, 8192), 0)
			return &priv.Crypt{Size: uint64(size)}, err
		}})
		if v.OK != c.ok || looked != c.looked || (v.Crypt != nil) != (c.ok && c.looked) || c.ok && v.FS != priv.CryptFS {
			t.Errorf("%s: looked %v, %+v", c.name, looked, v)
		}
	}
}

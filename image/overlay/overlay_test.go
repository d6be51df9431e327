package overlay

import (
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/extfs"
	"singularity/squashfs"
)

func create(t *testing.T, o Options) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "o.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	o.Size, o.UID, o.GID = max(o.Size, MinSize), os.Getuid(), os.Getgid()
	err = Create(f, o)
	if m, ok := errors.AsType[*MissingError](err); ok {
		t.Skip("needs " + m.Package)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func openExt(t *testing.T, f *os.File) *extfs.FS {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, err := extfs.Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCreate(t *testing.T) {
	for _, o := range []Options{{Sparse: true, Dirs: []string{"/usr/local/my", "data"}}, {Size: 80 << 20, Dirs: []string{"/usr/local/my", "data"}}} {
		f := create(t, o)
		e := openExt(t, f)
		for _, d := range []string{"/upper", "/work", "/upper/usr/local/my", "/upper/data"} {
			in, err := e.Walk(d, false)
			if err != nil || !in.IsDir() || in.Mode&0o777 != 0o755 || int(in.UID) != os.Getuid() {
				t.Errorf("%s: %+v, %v", d, in, err)
			}
		}
		if out, err := exec.Command("e2fsck", "-fn", f.Name()).CombinedOutput(); err != nil {
			t.Errorf("e2fsck: %v\n%s", err, out)
		}
		if got, err := f.Stat(); err != nil || got.Size() != max(o.Size, MinSize) {
			t.Errorf("size %d, %v", got.Size(), err)
		}
	}
}

func TestCreateRefusals(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "o.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, o := range []Options{{Size: MinSize - 1}, {Size: MinSize, Dirs: []string{"/"}}} {
		if err := Create(f, o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestSeal seals what debugfs, as another writer, has put into an overlay.
func TestSeal(t *testing.T) {
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skip("needs debugfs of e2fsprogs")
	}
	f := create(t, Options{Sparse: true, Dirs: []string{"/o", "/p"}})
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("debugfs", "-w", "-f", "-", f.Name())
	c.Stdin = strings.NewReader("write " + text + " upper/f\nln upper/f upper/g\nsif upper/f links_count 2\nsymlink upper/l /f\nwrite " + text + " upper/.wh.gone\n" +
		"write " + text + " upper/o/.wh..wh..opq\nea_set upper/p user.fuseoverlayfs.opaque y\nea_set upper/f user.mine 1\nwrite " + text + " work/hidden\n")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "o.sqfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	size, err := Seal(out, openExt(t, f), sha256.Sum256)
	if err != nil {
		t.Fatal(err)
	}
	r, err := squashfs.Open(out, size, squashfs.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = r.Each(func(path string, in *squashfs.Inode) error {
		list, err := r.Xattrs(in)
		if err != nil {
			return err
		}
		var names []string
		for _, x := range list {
			names = append(names, x.Name+"="+string(x.Value))
		}
		got[path] = map[uint32]string{0o040000: "dir", 0o100000: "file", 0o120000: "link", 0o020000: "char"}[in.Mode&0o170000] + " " + strings.Join(names, " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"": "dir ", "f": "file user.mine=1", "g": "file user.mine=1", "l": "link ", "gone": "char ",
		"o": "dir trusted.overlay.opaque=y user.overlay.opaque=y", "p": "dir trusted.overlay.opaque=y user.overlay.opaque=y"}
	for p, w := range want {
		if got[p] != w {
			t.Errorf("%q: got %q, want %q", p, got[p], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %q", got)
	}
	if b, err := r.ReadFile("g", 100); err != nil || string(b) != "content" {
		t.Errorf("g: %q, %v", b, err)
	}
}

package sign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"singularity/sif"
	"singularity/verity"
)

// bigInputs are as inputs, with a partition of some levels of hash blocks that is
// no multiple of a block, and a second one.
func bigInputs() []sif.Input {
	in := inputs()
	in[2].Data = bytes.NewReader(bytes.Repeat([]byte("0123456789abcde\n"), 40000*16+3))
	return append(in, sif.Input{Type: sif.DataPartition, Group: 1, Data: strings.NewReader("small"),
		Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartData, Arch: "amd64"}.Extra()})
}

// signTrees signs with hash trees.
func (s *storage) signTrees(t testing.TB) *Signed {
	t.Helper()
	done, err := Sign(context.Background(), s, int64(len(s.b)), Request{Signer: OpenPGP(alice(), nil, now), Now: now, Trees: true})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func (s *storage) trees(t testing.TB) []Tree {
	t.Helper()
	list, warnings := Trees(s.open(t))
	if len(warnings) > 0 {
		t.Fatal(warnings)
	}
	return list
}

var hows = []How{Full, ByTree, Lazy}

func TestSignAddsTrees(t *testing.T) {
	s := create(t, bigInputs()...)
	if done := s.signTrees(t); done.Trees != 2 || done.NoTrees != "" || len(done.Signatures) != 1 {
		t.Fatalf("Sign = %+v", done)
	}
	f := s.open(t)
	trees := s.trees(t)
	if len(trees) != 2 || trees[0].Object.Name != "verity.tree" || trees[0].Manifest.Name != "verity.json" ||
		trees[1].Object.Name != "verity.tree.4" || trees[1].Manifest.Name != "verity.json.4" {
		t.Fatalf("trees are %+v", trees)
	}
	for _, tree := range trees {
		if tree.Object.Off%4096 != 0 || tree.Object.Group != 1 || tree.Manifest.Group != 1 {
			t.Errorf("tree is %+v", tree)
		}
		r, err := tree.Reader(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(context.Background(), 1, nil); err != nil {
			t.Error(err)
		}
	}
	for _, how := range hows {
		r, err := s.verify(t, Options{How: how})
		if err != nil {
			t.Errorf("%d: %v", how, err)
			continue
		}
		want := 8
		if how == Lazy {
			want -= 4
		}
		if n := len(r.Signatures[0].Verified); n != want || len(r.Trees) != 2 {
			t.Errorf("%d: %d objects verified, want %d; %d trees", how, n, want, len(r.Trees))
		}
	}
	// A second signature checks the trees, and adds none.
	if done := s.signTrees(t); done.Trees != 0 || done.NoTrees != "" {
		t.Errorf("Sign again = %+v", done)
	}
	if r, err := s.verify(t, Options{}); err != nil || len(r.Signatures) != 2 {
		t.Errorf("verify after that: %v", err)
	}
}

func TestNoTreeWhereItWouldBreakSomething(t *testing.T) {
	s := create(t, inputs()...)
	s.sign(t, bob(), Selection{})
	if done := s.signTrees(t); done.Trees != 0 || done.NoTrees == "" {
		t.Errorf("Sign of a signed image = %+v", done)
	}
	if r, err := s.verify(t, Options{}); err != nil || len(r.Signatures) != 2 {
		t.Errorf("verify: %v", err)
	}
	full := &storage{}
	if _, err := sif.Create(full, sif.CreateOptions{Time: created, Slots: 5}, inputs()...); err != nil {
		t.Fatal(err)
	}
	if done := full.signTrees(t); done.Trees != 0 || !strings.Contains(done.NoTrees, "room") {
		t.Errorf("Sign of an image with room for one more object = %+v", done)
	}
	one := create(t, inputs()...)
	done, err := Sign(context.Background(), one, int64(len(one.b)), Request{Selection: Selection{Object: 3}, Signer: OpenPGP(alice(), nil, now), Now: now, Trees: true})
	if err != nil || done.Trees != 0 {
		t.Errorf("Sign of one object = %+v, %v", done, err)
	}
}

// TestFlippedPartition: what each way of verifying finds, and that what Lazy
// leaves out is found by the tree's reader.
func TestFlippedPartition(t *testing.T) {
	for _, c := range []struct {
		name string
		at   func(Tree) int64
		lazy bool // whether Lazy finds it
		tree bool // whether ByTree finds it
	}{
		{"data", func(t Tree) int64 { return t.Partition.Off + 77777 }, false, true},
		{"leaf", func(t Tree) int64 { return t.Object.Off + t.Object.Size - 4096 }, false, true},
		{"top", func(t Tree) int64 { return t.Object.Off + 4096 }, false, true},
		{"superblock", func(t Tree) int64 { return t.Object.Off + 20 }, false, true},
		{"manifest", func(t Tree) int64 { return t.Manifest.Off + 12 }, true, true},
	} {
		s := create(t, bigInputs()...)
		s.signTrees(t)
		tree := s.trees(t)[0]
		s.b[c.at(tree)] ^= 4
		for how, finds := range map[How]bool{Full: true, ByTree: c.tree, Lazy: c.lazy} {
			if _, err := s.verify(t, Options{How: how}); (err != nil) != finds {
				t.Errorf("%s, way %d: %v", c.name, how, err)
			}
		}
		if c.lazy || c.name == "superblock" {
			continue
		}
		r, err := tree.Reader(s.open(t))
		if err != nil {
			t.Fatal(err)
		}
		var block *verity.BlockError
		if err := r.Check(context.Background(), 1, nil); !errors.As(err, &block) {
			t.Errorf("%s: the reader says %v", c.name, err)
		}
	}
}

// TestCarelessSigner: a signature over a tree that is not that of the data.
func TestCarelessSigner(t *testing.T) {
	s := create(t, bigInputs()...)
	s.signTrees(t)
	tree := s.trees(t)[0]
	e, err := sif.Edit(s, int64(len(s.b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range e.File().Objects() {
		if o.Type == sif.DataSignature {
			if err := e.Delete(o.ID, sif.DeleteOptions{Compact: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.b[tree.Partition.Off+5000] ^= 1
	var want *TreeError
	if _, err := Sign(context.Background(), s, int64(len(s.b)), Request{Signer: OpenPGP(alice(), nil, now), Now: now}); !errors.As(err, &want) || want.Partition != 3 {
		t.Errorf("Sign = %v", err)
	}
	// Whoever signs with another program is found out by a full verification.
	text := s.statementOf(t)
	s.addStatement(t, text)
	for how, finds := range map[How]bool{Full: true, ByTree: true, Lazy: false} {
		if _, err := s.verify(t, Options{How: how}); (err != nil) != finds {
			t.Errorf("way %d: %v", how, err)
		}
	}
}

// statementOf returns a statement about group 1 as it is.
func (s *storage) statementOf(t testing.TB) string {
	t.Helper()
	f := s.open(t)
	tasks, err := Selection{Group: 1}.tasks(f)
	if err != nil {
		t.Fatal(err)
	}
	sums := objectSums{}
	if err := sums.rest(context.Background(), f, tasks); err != nil {
		t.Fatal(err)
	}
	list, err := state(f, tasks, sums)
	if err != nil {
		t.Fatal(err)
	}
	return string(list[0])
}

func TestManifests(t *testing.T) {
	partition := sif.Object{ID: 3, Size: 10000}
	good := newManifest(1, partition, sif.Object{ID: 5, Size: 8192}, []byte{0xab, 1}, verity.Digest{7})
	text := string(good.encode())
	got, err := decodeManifest([]byte(text))
	if err != nil || fmt.Sprint(*got) != fmt.Sprint(good) {
		t.Fatalf("decodeManifest(%s) = %+v, %v", text, got, err)
	}
	for _, c := range [][2]string{
		{`"version":1`, `"version":2`}, {`"version":1`, `"version":1.5`}, {`"version":1`, `"version":null`}, {`"version":1`, `"version":1,"version":1`},
		{`"dm-verity"`, `"dm-integrity"`}, {`"sha256",`, `"sha512",`}, {`4096`, `8192`}, {`ab01`, `AB01`}, {`ab01`, `ab0`},
		{`"sha256:07`, `"sha256:`}, {`"sha256:07`, `"sha512_256:07`}, {`"salt"`, `"Salt"`}, {`"size":10000`, `"size":-1e99`}, {`}}`, `}`}, {`"relativeId":2`, `"relativeId":-2`},
	} {
		bad := strings.Replace(text, c[0], c[1], 1)
		if bad == text {
			bad = text + c[1]
		}
		if m, err := decodeManifest([]byte(bad)); err == nil {
			t.Errorf("%s is read as %+v", bad, m)
		}
	}
}

// TestForeignManifest: what does not fit the objects is no tree.
func TestForeignManifest(t *testing.T) {
	s := create(t, bigInputs()...)
	s.signTrees(t)
	tree := s.trees(t)[0]
	text := string(s.b[tree.Manifest.Off:][:tree.Manifest.Size])
	for _, c := range [][2]string{
		{`"data":{"relativeId":2`, `"data":{"relativeId":3`}, {`"tree":{"relativeId":4`, `"tree":{"relativeId":5`}, {`"tree":{"relativeId":4`, `"tree":{"relativeId":9`},
		{`"offset":4096`, `"offset":4097`}, {`"size":102`, `"size":202`},
	} {
		bad := strings.Replace(text, c[0], c[1], 1)
		if bad == text || len(bad) != len(text) {
			t.Fatalf("%q is not in %s", c[0], text)
		}
		copy(s.b[tree.Manifest.Off:], bad)
		if list, warnings := Trees(s.open(t)); len(list) != 1 || len(warnings) != 1 {
			t.Errorf("%s: %d trees, %q", c[1], len(list), warnings)
		}
	}
}

func FuzzManifest(f *testing.F) {
	m := newManifest(1, sif.Object{ID: 3, Size: 10000}, sif.Object{ID: 5, Size: 8192}, []byte{1, 2}, verity.Digest{7})
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decodeManifest(text)
		if err != nil {
			return
		}
		again, err := decodeManifest(m.encode())
		if err != nil || fmt.Sprint(*again) != fmt.Sprint(*m) {
			t.Errorf("%+v becomes %+v, %v", m, again, err)
		}
	})
}

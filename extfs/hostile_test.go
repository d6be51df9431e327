package extfs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// sample returns one of the small images of testdata; its README says how they
// were made.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name+".img.gz"))
	must(t, err)
	defer file.Close()
	z, err := gzip.NewReader(file)
	must(t, err)
	b, err := io.ReadAll(z)
	must(t, err)
	return b
}

var samples = []string{"ext2", "ext3map", "ext4", "inline"}

// TestSamples reads the images that hostile tests start from, with no tool.
func TestSamples(t *testing.T) {
	for _, name := range samples {
		b := sample(t, name)
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		must(t, exercise(f, 1<<30))
		got, err := f.ReadFile("to-deep", 100)
		if string(got) != "deep\n" || err != nil {
			t.Errorf("%s: %q, %v, want deep", name, got, err)
		}
	}
}

// exercise reads everything in f, at most budget bytes of content, and returns
// the first error.
func exercise(f *FS, budget int64) error {
	buf := make([]byte, 8192)
	return f.Tree(func(path string, in *Inode) error {
		if _, err := f.Xattrs(in); err != nil {
			return err
		}
		if in.IsSymlink() {
			_, err := f.Readlink(in)
			return err
		}
		if !in.IsRegular() {
			return nil
		}
		for _, off := range []int64{0, 8192, 20000, in.Size - 5000} {
			if budget -= int64(len(buf)); budget < 0 || off < 0 {
				continue
			}
			if _, err := f.ReadAt(in, buf, off); err != nil && err != io.EOF {
				return err
			}
		}
		return nil
	})
}

// known tells if err is one of the errors that the package promises.
func known(err error) bool {
	for _, e := range []error{ErrNotExt, ErrCorrupt, ErrUnsupported, ErrLimit, ErrNotDir, ErrLoop, fs.ErrNotExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// recorder notes which blocks are read.
type recorder struct {
	b      []byte
	blocks map[int64]bool
}

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	for o := off &^ 1023; o < off+int64(len(p)); o += 1024 {
		r.blocks[o] = true
	}
	return bytes.NewReader(r.b).ReadAt(p, off)
}

// TestSC006CorruptImage damages metadata of sound images at random: each
// result must be a promised error or a readable tree, in little time and
// memory. It is also the user-space half of SC-059: these bytes never reach
// the kernel's driver.
func TestSC006CorruptImage(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 59))
	special := []byte{0, 1, 0x7f, 0x80, 0xff}
	for _, name := range samples {
		good := sample(t, name)
		rec := &recorder{b: good, blocks: map[int64]bool{}}
		f, err := Open(rec, int64(len(good)))
		must(t, err)
		must(t, f.Tree(func(_ string, in *Inode) error {
			_, err := f.Xattrs(in)
			return err
		}))
		var blocks []int64
		for o := range rec.blocks {
			blocks = append(blocks, o)
		}
		var before, after runtime.MemStats
		start, failed := time.Now(), 0
		runtime.ReadMemStats(&before)
		const rounds = 3000
		for range rounds {
			bad := bytes.Clone(good)
			for range 1 + rng.IntN(6) {
				at := blocks[rng.IntN(len(blocks))] + int64(rng.IntN(1024))
				for try := 0; try < 8 && bad[at] == 0; try++ { // most bytes are padding
					at = blocks[rng.IntN(len(blocks))] + int64(rng.IntN(1024))
				}
				bad[at] = special[rng.IntN(len(special))]
				if rng.IntN(3) == 0 {
					bad[at] = byte(rng.Uint32())
				}
			}
			err := openAndExercise(bad)
			if err != nil && !known(err) {
				t.Fatalf("%s: unexpected error %v", name, err)
			}
			if err != nil {
				failed++
			}
		}
		runtime.ReadMemStats(&after)
		perRound := (after.TotalAlloc - before.TotalAlloc) / rounds
		t.Logf("%s: %d of %d refused, %d KiB allocated each, %v", name, failed, rounds, perRound>>10, time.Since(start))
		if perRound > 8<<20 {
			t.Errorf("%s: %d bytes allocated per image on average", name, perRound)
		}
		if failed == 0 {
			t.Errorf("%s: no damage was noticed", name)
		}
	}
}

func openAndExercise(b []byte) error {
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return exercise(f, 1<<20)
}

// TestTruncated opens every prefix length around the structures.
func TestTruncated(t *testing.T) {
	good := sample(t, "ext4")
	for n := 0; n < len(good); n += 512 {
		if err := openAndExercise(good[:n]); !errors.Is(err, ErrNotExt) && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v, want ErrNotExt or ErrCorrupt", n, len(good), err)
		}
	}
}

// TestFeatures checks what is refused and what is a warning.
func TestFeatures(t *testing.T) {
	put := func(off int, v uint32) func([]byte) {
		return func(b []byte) { le.PutUint32(b[superOff+off:], le.Uint32(b[superOff+off:])|v) }
	}
	for _, c := range []struct {
		name   string
		change func([]byte)
		err    error
		warn   error
	}{
		{"sound", put(0x60, 0), nil, nil},
		{"dirty journal", put(0x60, incompatRecover), nil, ErrNeedsRecovery},
		{"errors", func(b []byte) { b[superOff+0x3a] = 3 }, nil, ErrNotClean},
		{"not unmounted", func(b []byte) { b[superOff+0x3a] = 0 }, nil, ErrNotClean},
		{"unknown read-only feature", put(0x64, 0x80000000), nil, nil},
		{"unknown feature", put(0x60, 0x40000000), ErrUnsupported, nil},
		{"encrypt", put(0x60, incompatEncrypt), ErrUnsupported, nil},
		{"casefold", put(0x60, incompatCasefold), ErrUnsupported, nil},
		{"journal device", put(0x60, incompatJournalDev), ErrUnsupported, nil},
		{"revision", put(0x4c, 2), ErrUnsupported, nil},
		{"magic", func(b []byte) { b[superOff+0x38] = 0 }, ErrNotExt, nil},
		{"block size", put(0x18, 0xffffffff), ErrCorrupt, nil},
		{"blocks", put(4, 0xfffffff0), ErrCorrupt, nil},
		{"inodes", put(0, 0xfffffff0), ErrCorrupt, nil},
		{"no groups", func(b []byte) { le.PutUint32(b[superOff+0x20:], 0) }, ErrCorrupt, nil},
		{"inode size", func(b []byte) { le.PutUint16(b[superOff+0x58:], 257) }, ErrCorrupt, nil},
		{"inode size 0", func(b []byte) { le.PutUint16(b[superOff+0x58:], 0) }, ErrCorrupt, nil},
	} {
		b := sample(t, "ext4")
		c.change(b)
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if err != nil || c.err != nil {
			continue
		}
		w := f.Warnings()
		if c.warn == nil && len(w) > 0 || c.warn != nil && (len(w) != 1 || w[0] != c.warn) {
			t.Errorf("%s: warnings %v, want %v", c.name, w, c.warn)
		}
	}
}

// patch finds inode n of an image and lets change alter its bytes.
func patch(t *testing.T, b []byte, path string, change func(inode []byte)) {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	in, err := f.Walk(path, false)
	must(t, err)
	table, err := f.inodeTable((in.Number - 1) / f.sb.inodesPerGroup)
	must(t, err)
	off := int64(table)*f.sb.BlockSize + int64((in.Number-1)%f.sb.inodesPerGroup)*f.sb.InodeSize
	change(b[off:][:f.sb.InodeSize])
}

// TestLoops builds the three loops that a tree of blocks or names can have.
func TestLoops(t *testing.T) {
	t.Run("extents", func(t *testing.T) {
		b := sample(t, "ext4")
		patch(t, b, "data", func(in []byte) {
			node := in[0x28:]
			le.PutUint16(node[2:], 1)  // one entry
			le.PutUint16(node[6:], 3)  // depth
			le.PutUint32(node[12:], 0) // from block 0
			le.PutUint32(node[16:], 40)
			le.PutUint16(node[20:], 0)
		})
		node := b[40*1024:]
		copy(node, []byte{0x0a, 0xf3, 1, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0})
		if err := openAndExercise(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
	t.Run("indirect", func(t *testing.T) {
		b := sample(t, "ext2")
		patch(t, b, "data", func(in []byte) {
			le.PutUint32(in[4:], 1<<30)
			for level := 12; level < 15; level++ {
				le.PutUint32(in[0x28+4*level:], 40)
			}
		})
		for i := range 256 {
			le.PutUint32(b[40*1024+4*i:], 40)
		}
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		in, err := f.Walk("data", false)
		must(t, err)
		if n, err := f.ReadAt(in, make([]byte, 1<<20), 1<<29); n != 1<<20 || err != nil {
			t.Errorf("%d, %v: a map of one block ends after three steps", n, err)
		}
	})
	t.Run("directory", func(t *testing.T) {
		b := sample(t, "ext2")
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		in, err := f.Walk("a/b", false)
		must(t, err)
		at := bytes.Index(b, []byte("\x04\x02deep")) // its entry in a/b
		if at < 0 {
			at = bytes.Index(b, []byte("\x04\x01deep"))
		}
		le.PutUint32(b[at-6:], in.Number)
		if err := openAndExercise(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
		f, err = Open(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		if _, err := f.Walk("a/b/deep/deep/deep/../../..", false); err != nil {
			t.Errorf("%v: a path ends, even in a loop", err)
		}
	})
}

// TestSharedDirectory maps every block of a directory to the same block of the
// image, so that it claims more names than the image has bytes for.
func TestSharedDirectory(t *testing.T) {
	b := sample(t, "ext2")
	patch(t, b, "a", func(in []byte) { le.PutUint32(in[4:], 1<<31) })
	if err := openAndExercise(b); !errors.Is(err, ErrLimit) && !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrLimit or ErrCorrupt", err)
	}
}

// TestHostileNames puts a separator into a name.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"d/ta", "\x00ata", "/ata"} {
		b := sample(t, "ext4")
		at := bytes.Index(b, []byte("\x04\x01data"))
		if at < 0 {
			t.Fatal("no entry named data")
		}
		copy(b[at+2:], name)
		if err := openAndExercise(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v, want ErrCorrupt", name, err)
		}
	}
}

// TestReserved checks that names cannot lead to the journal and the like.
func TestReserved(t *testing.T) {
	b := sample(t, "ext4")
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	for _, n := range []uint32{0, 1, 3, 8, 10, 1 << 31, ^uint32(0)} {
		if _, err := f.Inode(n); !errors.Is(err, ErrCorrupt) {
			t.Errorf("inode %d: %v, want ErrCorrupt", n, err)
		}
	}
}

// FuzzOpen replaces the beginning of a sound image: boot block, superblock and
// group descriptors. Small inputs let the fuzzer try many.
func FuzzOpen(f *testing.F) {
	var images [][]byte
	for i, name := range samples {
		images = append(images, sample(f, name))
		f.Add(uint8(i), images[i][:3072])
	}
	f.Fuzz(func(t *testing.T, which uint8, head []byte) {
		b := bytes.Clone(images[int(which)%len(images)])
		copy(b, head)
		if err := openAndExercise(b); err != nil && !known(err) {
			t.Fatal(err)
		}
	})
}

// FuzzWalk changes a sound image by a list of patches (three bytes of offset,
// one of value) and walks a path in it.
func FuzzWalk(f *testing.F) {
	f.Add(uint8(0), "a/b/../b/deep", []byte{})
	f.Add(uint8(1), "to-deep", []byte{0, 4, 0x18, 1})
	f.Add(uint8(2), "/loop/x", []byte{0, 4, 0x60, 0xff})
	f.Add(uint8(3), "many/name-77", []byte{0, 0x20, 4, 0xff})
	var images [][]byte
	for _, name := range samples {
		images = append(images, sample(f, name))
	}
	f.Fuzz(func(t *testing.T, which uint8, path string, patches []byte) {
		b := bytes.Clone(images[int(which)%len(images)])
		for ; len(patches) >= 4; patches = patches[4:] {
			b[(int(patches[0])<<16|int(patches[1])<<8|int(patches[2]))%len(b)] = patches[3]
		}
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if _, err := img.Walk(path, true); err != nil && !known(err) {
			t.Fatal(err)
		}
		if _, err := img.ReadFile(path, 1<<20); err == nil && len(path) == 0 {
			t.Fatal("the root was read as a file")
		}
		if err := exercise(img, 1<<18); err != nil && !known(err) {
			t.Fatal(err)
		}
	})
}

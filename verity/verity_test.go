package verity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var testSalt = bytes.Repeat([]byte{0x5a, 7}, 16)

// data returns bytes that differ from block to block.
func data(size int) []byte {
	b := make([]byte, size)
	x := uint32(size) | 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

func treeOf(t testing.TB, b []byte, workers int) *Tree {
	t.Helper()
	w := NewWriter(testSalt, workers)
	for p := b; len(p) > 0; {
		k := min(len(p), 12345)
		w.Write(p[:k])
		p = p[k:]
	}
	tree, err := w.Sum([16]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func area(t testing.TB, tree *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := tree.WriteTo(&b)
	if err != nil || n != tree.Size() || int64(b.Len()) != n {
		t.Fatalf("WriteTo = %d, %v, wrote %d, Size says %d", n, err, b.Len(), tree.Size())
	}
	return b.Bytes()
}

func readerOf(t testing.TB, b, tree []byte, root Digest) *Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(b), int64(len(b)), bytes.NewReader(tree), int64(len(tree)), testSalt, root)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sizes are those at which a level begins or a block is cut.
var sizes = []int{1, 4095, 4096, 4097, 2 * 4096, 128 * 4096, 128*4096 + 1, 129 * 4096, 16384 * 4096, 16384*4096 + 1, 16385*4096 - 7}

func TestSameAsVeritysetup(t *testing.T) {
	path, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("veritysetup (Debian package cryptsetup-bin) is not there")
	}
	dir := t.TempDir()
	dataFile, hashFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
	for _, size := range sizes {
		b := data(size)
		// It takes whole blocks only.
		padded := append(bytes.Clone(b), make([]byte, -size&4095)...)
		if err := os.WriteFile(dataFile, padded, 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(hashFile)
		out, err := exec.Command(path, "format", "--uuid=01020300-0000-0000-0000-000000000000", "--salt="+hex.EncodeToString(testSalt), dataFile, hashFile).CombinedOutput()
		if err != nil {
			t.Fatalf("veritysetup: %v\n%s", err, out)
		}
		want, err := os.ReadFile(hashFile)
		if err != nil {
			t.Fatal(err)
		}
		tree := treeOf(t, b, 3)
		if got := area(t, tree); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: our hash area (%d bytes) is not that of veritysetup (%d bytes)", size, len(got), len(want))
		}
		if root := hex.EncodeToString(tree.Root[:]); !strings.Contains(string(out), root) {
			t.Errorf("%d bytes: root %s, veritysetup says\n%s", size, root, out)
		}
		if err := os.WriteFile(hashFile, area(t, tree), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(path, "verify", dataFile, hashFile, hex.EncodeToString(tree.Root[:])).CombinedOutput(); err != nil {
			t.Errorf("%d bytes: veritysetup does not take our tree: %v\n%s", size, err, out)
		}
	}
}

func TestReadBack(t *testing.T) {
	for _, size := range sizes {
		b := data(size)
		tree := treeOf(t, b, 1)
		if n, err := TreeSize(int64(size)); err != nil || n != tree.Size() {
			t.Errorf("TreeSize(%d) = %d, %v, want %d", size, n, err, tree.Size())
		}
		if other := treeOf(t, b, runtime.NumCPU()+1); other.Root != tree.Root {
			t.Errorf("%d bytes: the root depends on the number of goroutines", size)
		}
		r := readerOf(t, b, area(t, tree), tree.Root)
		got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()+100))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: read %d bytes, %v", size, len(got), err)
		}
		for _, at := range [][2]int{{0, 1}, {size - 1, 1}, {size / 2, 9000}, {size / 3, 4096}, {size - 1, 50}} {
			off, n := at[0], min(at[1], size-at[0])
			p := make([]byte, n)
			if k, err := r.ReadAt(p, int64(off)); k != n || err != nil || !bytes.Equal(p, b[off:off+n]) {
				t.Errorf("%d bytes: ReadAt(%d bytes, %d) = %d, %v", size, n, off, k, err)
			}
		}
		if k, err := r.ReadAt(make([]byte, 10), int64(size)); k != 0 || err != io.EOF {
			t.Errorf("a read at the end gives %d, %v", k, err)
		}
		if k, err := r.ReadAt(make([]byte, 10), int64(size)-1); k != 1 || err != io.EOF {
			t.Errorf("a read over the end gives %d, %v", k, err)
		}
		var last int64
		if err := r.Check(context.Background(), 1, func(n int64) { last = n }); err != nil || last != int64(size) {
			t.Errorf("Check = %v after %d bytes", err, last)
		}
	}
}

func random(t testing.TB, n int) int {
	t.Helper()
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		t.Fatal(err)
	}
	return int(v.Int64())
}

// TestSC169_AnyBitFlipped flips one bit anywhere, in data or tree, below a reader
// whose caches are cold or warm: right bytes or a *BlockError, nothing else.
func TestSC169_AnyBitFlipped(t *testing.T) {
	b := data(600*4096 + 77)
	tree := treeOf(t, b, 2)
	hashes := area(t, tree)
	file := bytes.Clone(b)
	found := 0
	for range 10000 {
		inTree := random(t, 4) == 0
		r := readerOf(t, file, hashes, tree.Root)
		if random(t, 2) == 0 {
			r.ReadAt(make([]byte, 9000), int64(random(t, len(b))))
		}
		var bit, at int
		var flipped *byte
		if inTree {
			bit = random(t, len(hashes)*8)
			flipped = &hashes[bit/8]
			at = random(t, len(b))
		} else {
			bit = random(t, len(b)*8)
			flipped = &file[bit/8]
			at = max(0, bit/8-random(t, 9000))
		}
		*flipped ^= 1 << (bit % 8)
		p := make([]byte, min(10000, len(b)-at))
		n, err := r.ReadAt(p, int64(at))
		*flipped ^= 1 << (bit % 8)
		var block *BlockError
		switch {
		case !bytes.Equal(p[:n], b[at:at+n]):
			t.Fatalf("bit %d flipped (tree %v): a read of %d at %d gives wrong bytes", bit, inTree, len(p), at)
		case n < len(p) && !errors.As(err, &block):
			t.Fatalf("bit %d flipped (tree %v): a read of %d at %d gives %d, %v", bit, inTree, len(p), at, n, err)
		case n < len(p):
			found++
		}
	}
	if found < 3000 {
		t.Errorf("only %d of 10000 flipped bits were in the way of a read: the test looks at the wrong places", found)
	}
}

func TestWrongTree(t *testing.T) {
	b := data(300 * 4096)
	tree := treeOf(t, b, 1)
	hashes := area(t, tree)
	other := area(t, treeOf(t, data(300*4096-1), 1))
	read := func(r *Reader) error {
		_, err := r.ReadAt(make([]byte, 100), 5000)
		return err
	}
	var block *BlockError
	if err := read(readerOf(t, b, other, tree.Root)); !errors.As(err, &block) || block.Level != 1 {
		t.Errorf("with the tree of another image: %v", err)
	}
	root := tree.Root
	root[31] ^= 1
	if err := read(readerOf(t, b, hashes, root)); !errors.As(err, &block) {
		t.Errorf("with another root: %v", err)
	}
	r, err := NewReader(bytes.NewReader(b), int64(len(b)), bytes.NewReader(hashes), int64(len(hashes)), testSalt[1:], tree.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := read(r); !errors.As(err, &block) {
		t.Errorf("with another salt: %v", err)
	}
	if _, err := NewReader(bytes.NewReader(b), int64(len(b)), bytes.NewReader(hashes), int64(len(hashes))-4096, testSalt, tree.Root); err == nil {
		t.Error("a tree that is cut short is taken")
	}
	short, err := NewReader(bytes.NewReader(b[:5000]), int64(len(b)), bytes.NewReader(hashes), int64(len(hashes)), testSalt, tree.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := read(short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that has become shorter: %v", err)
	}
	bad := bytes.Clone(b)
	bad[200*4096] ^= 1
	bad[100*4096] ^= 1
	if err := readerOf(t, bad, hashes, tree.Root).Check(context.Background(), 1, nil); !errors.As(err, &block) || block.Block != 100 || block.Level != -1 {
		t.Errorf("Check = %v, want block 100", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := readerOf(t, b, hashes, tree.Root).Check(ctx, 2, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Check that is stopped: %v", err)
	}
}

func TestEmpty(t *testing.T) {
	if _, err := NewWriter(nil, 2).Sum([16]byte{}); err == nil {
		t.Error("a tree over nothing")
	}
	if _, err := NewReader(nil, 0, nil, 0, nil, Digest{}); err == nil {
		t.Error("a reader of nothing")
	}
	if _, err := TreeSize(1<<50 + 1); err == nil {
		t.Error("a tree over more than 1 PiB")
	}
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	b := data(500 * 4096)
	tree := treeOf(t, b, 1)
	r := readerOf(t, b, area(t, tree), tree.Root)
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			p := make([]byte, 5000)
			for i := range 300 {
				off := (i*7919 + g*4099*17) % (len(b) - len(p))
				if n, err := r.ReadAt(p, int64(off)); n != len(p) || err != nil || !bytes.Equal(p, b[off:off+n]) {
					t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestParseSuperblock(t *testing.T) {
	s := Superblock{UUID: [16]byte{9, 8}, Blocks: 77, Salt: testSalt}
	good := s.block()
	got, err := ParseSuperblock(good)
	if err != nil || got.UUID != s.UUID || got.Blocks != 77 || !bytes.Equal(got.Salt, testSalt) {
		t.Errorf("ParseSuperblock = %+v, %v", got, err)
	}
	for _, c := range []struct {
		at   int
		b    byte
		want string
	}{{0, 'V', "begin"}, {8, 2, "version 2"}, {12, 0, "hash type 0"}, {32, 'S', "algorithm"}, {64, 1, "blocks of 4097"}, {68, 1, "blocks of"},
		{79, 1, "blocks"}, {81, 2, "a salt of"}} {
		bad := bytes.Clone(good)
		bad[c.at] = c.b
		if _, err := ParseSuperblock(bad); !errors.Is(err, ErrFormat) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("byte %d = %d: %v, want %q", c.at, c.b, err, c.want)
		}
	}
	if _, err := ParseSuperblock(good[:511]); !errors.Is(err, ErrFormat) {
		t.Errorf("a short superblock: %v", err)
	}
}

func FuzzParseSuperblock(f *testing.F) {
	s := Superblock{Blocks: 5, Salt: testSalt}
	f.Add(s.block())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSuperblock(b)
		if err != nil {
			return
		}
		again, err := ParseSuperblock(s.block())
		if err != nil || again.Blocks != s.Blocks || !bytes.Equal(again.Salt, s.Salt) {
			t.Errorf("%+v becomes %+v, %v", s, again, err)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	p := data(16 << 20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		w := NewWriter(testSalt, 1)
		w.Write(p)
		w.Sum([16]byte{})
	}
}

func BenchmarkRead(b *testing.B) {
	p := data(16 << 20)
	tree := treeOf(b, p, 2)
	hashes := area(b, tree)
	for _, size := range []int{2000, 50000, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := readerOf(b, p, hashes, tree.Root)
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			off := 0
			for b.Loop() {
				r.ReadAt(buf, int64(off))
				if off += size; off+size > len(p) {
					off = 0
				}
			}
		})
	}
}

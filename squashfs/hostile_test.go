package squashfs

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// explore reads everything of an image. It returns the first error, and fails
// the test if the reader keeps slots.
func explore(t testing.TB, b []byte) error {
	r, err := Open(bytes.NewReader(b), int64(len(b)), ReaderOptions{CacheSize: 64 << 10})
	if err != nil {
		return err
	}
	defer r.Close()
	err = exploreReader(r)
	if r.blocks.held != 0 {
		t.Errorf("%d slots are still held", r.blocks.held)
	}
	return err
}

func exploreReader(r *Reader) error {
	files := 0
	buf := make([]byte, 64<<10)
	var first error
	note := func(err error) {
		if first == nil && err != io.EOF {
			first = err
		}
	}
	note(r.Each(func(path string, in *Inode) error {
		if files++; files > 2000 {
			return errors.New("enough")
		}
		_, err := r.Xattrs(in)
		note(err)
		if in.IsSymlink() {
			_, err := r.Readlink(in)
			note(err)
			_, err = r.Walk(path, true)
			_ = err // most links of a damaged image lead nowhere
		}
		if !in.IsRegular() {
			return nil
		}
		for _, off := range []int64{0, 100_000, in.Size / 2, in.Size - 10} {
			if off >= 0 {
				_, err := r.ReadAt(in, buf, off)
				note(err)
			}
		}
		return nil
	}))
	_, err := r.Export(1)
	_ = err
	return first
}

// smallImage is an image of a few files with everything in it, a few KiB long.
func smallImage(tb testing.TB, args ...string) []byte {
	dir := tb.TempDir()
	must(tb, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	for i := range 12 {
		must(tb, os.WriteFile(filepath.Join(dir, fmt.Sprintf("a/file%d", i)), bytes.Repeat([]byte("x1y"), 100*i), 0o644))
	}
	must(tb, os.WriteFile(filepath.Join(dir, "big"), bytes.Repeat([]byte("big"), 4000), 0o644))
	must(tb, os.Symlink("a/b", filepath.Join(dir, "link")))
	must(tb, os.Symlink("/a/../big", filepath.Join(dir, "a/b/up")))
	must(tb, os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "a/hard")))
	_, img := mksquashfs(tb, dir, append(args, "-b", "4K", "-nopad", "-all-time", "1", "-mkfs-time", "1")...)
	b, err := os.ReadFile(img)
	must(tb, err)
	return b
}

// TestEveryDamagedByte flips each byte of small images in three ways. Nothing
// may panic or hang; the error, if there is one, is a proper one.
func TestEveryDamagedByte(t *testing.T) {
	for _, args := range [][]string{{"-comp", "gzip"}, {"-noI", "-noId", "-noD", "-noF", "-noX"}, {"-comp", "zstd"}, {"-comp", "lz4"}, {"-comp", "lzo"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			b := smallImage(t, args...)
			must(t, explore(t, b))
			for i := range b {
				for _, x := range []byte{0xff, 1, 0x80} {
					b[i] ^= x
					start := time.Now()
					explore(t, b)
					if d := time.Since(start); d > 2*time.Second {
						t.Errorf("byte %d ^ %#x: took %v", i, x, d)
					}
					b[i] ^= x
				}
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	b := smallImage(t)
	for n := range b {
		if n%7 != 0 {
			continue
		}
		if err := explore(t, b[:n]); err == nil {
			t.Errorf("%d of %d bytes pass as a whole image", n, len(b))
		}
		// A file that shrinks after it was opened.
		r, err := Open(bytes.NewReader(b[:n]), int64(len(b)), ReaderOptions{})
		if err == nil {
			if err = exploreReader(r); err == nil {
				t.Errorf("%d of %d bytes are enough for everything", n, len(b))
			}
		}
	}
}

// Security cases SC-064 and SC-065: names that leave a directory, or that are
// there twice.
func TestForbiddenNames(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"aaa", "bbb", "ccc"} {
		must(t, os.WriteFile(filepath.Join(dir, n), nil, 0o644))
	}
	_, img := mksquashfs(t, dir, "-noI", "-nopad")
	good, err := os.ReadFile(img)
	must(t, err)
	for _, c := range []struct{ old, new, want string }{
		{"aaa", "../", "forbidden"}, {"bbb", "b/b", "forbidden"}, {"ccc", "c\x00c", "forbidden"}, {"aaa", "/aa", "forbidden"},
		{"bbb", "aaa", "twice"}, {"aaa", "zzz", "behind"}, {"ccc", "abc", "behind"},
	} {
		b := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		err := explore(t, b)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: got %v, want %q", c.new, c.old, err, c.want)
		}
	}
	for _, name := range []string{".", ".."} {
		if err := checkName(name, "", 0); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// A directory that contains itself must not keep a walk going.
func TestDirectoryCycle(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sub/sub2"), 0o755))
	_, img := mksquashfs(t, dir, "-noI", "-nopad")
	b, err := os.ReadFile(img)
	must(t, err)
	r, err := Open(bytes.NewReader(b), int64(len(b)), ReaderOptions{})
	must(t, err)
	ref, _, err := r.Lookup(r.Root(), "sub")
	must(t, err)
	sub2, _, err := r.Lookup(ref, "sub2")
	must(t, err)
	// In the listing of sub, point sub2 at sub: its offset field is the eight
	// bytes before the name.
	i := bytes.Index(b, []byte("sub2"))
	le.PutUint16(b[i-8:], uint16(ref&0xffff))
	if sub2>>16 != ref>>16 {
		t.Fatal("inodes lie in different blocks")
	}
	err = explore(t, b)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v", err)
	}
	r, err = Open(bytes.NewReader(b), int64(len(b)), ReaderOptions{})
	must(t, err)
	if _, err := r.Walk(strings.Repeat("sub/sub2/", 400), true); err == nil {
		t.Log("a long path through the cycle resolves, which is harmless")
	}
}

// SC-072: a block that inflates to more than a block must not be written further.
func TestBombs(t *testing.T) {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(make([]byte, 10<<20))
	w.Close()
	for c := range compressionNames {
		f, err := newDecompressor(c, 4096)
		must(t, err)
		dst := make([]byte, 8192)
		if n, err := f(dst[:4096:4096], z.Bytes()); err == nil || n > 4096 {
			t.Errorf("%v: %d bytes, %v", c, n, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(smallImage(f))
	f.Add(smallImage(f, "-noI", "-noId", "-noD", "-noF", "-noX"))
	f.Add(smallImage(f, "-comp", "lz4", "-noI"))
	f.Add(smallImage(f, "-comp", "lzo"))
	f.Fuzz(func(t *testing.T, b []byte) { explore(t, b) })
}

func FuzzWalk(f *testing.F) {
	img := smallImage(f)
	for _, p := range []string{"a/b/up", "link/../../..", "/a//./file3", "a/hard/x", ""} {
		f.Add(p)
	}
	r, err := Open(bytes.NewReader(img), int64(len(img)), ReaderOptions{})
	must(f, err)
	f.Fuzz(func(t *testing.T, path string) {
		if in, err := r.Walk(path, true); err == nil && in.IsSymlink() {
			t.Errorf("%q ends in a link", path)
		}
	})
}

func FuzzLZO(f *testing.F) {
	f.Add([]byte{21, 'a', 'b', 'c', 'd', 17, 0, 0})
	f.Add([]byte{0x12, 'a', 0x40, 0x00, 0x11, 0, 0})
	f.Add([]byte{0x00, 0x05, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 0x11, 0, 0})
	f.Fuzz(func(t *testing.T, src []byte) {
		dst := make([]byte, 5000)
		if n, err := unlzo(dst[:4096:4096], src); n < 0 || n > 4096 || err == nil && n == 0 && len(src) > 3 && src[0] > 17 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	f.Add(uint8(4), []byte("\xfd7zXZ\x00\x00\x01"))
	f.Add(uint8(2), []byte("\x5d\x00\x00\x10\x00\x05\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(uint8(6), []byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"))
	f.Add(uint8(5), []byte("\x50hello"))
	f.Fuzz(func(t *testing.T, kind uint8, src []byte) {
		unpack, err := newDecompressor(Compression(kind%6)+1, 4096)
		if err != nil {
			return
		}
		dst := make([]byte, 5000)
		for i := range dst[4096:] {
			dst[4096+i] = 0xa5
		}
		unpack(dst[:4096:4096], src)
		for i, x := range dst[4096:] {
			if x != 0xa5 {
				t.Fatalf("wrote %d bytes behind the end", i+1)
			}
		}
	})
}

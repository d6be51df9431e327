package squashfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mksquashfs packs dir with the real tool and opens the result.
func mksquashfs(tb testing.TB, dir string, args ...string) (*Reader, string) {
	tb.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		tb.Skip("needs mksquashfs")
	}
	img := filepath.Join(tb.TempDir(), "img")
	args = append([]string{dir, img, "-noappend", "-no-progress", "-quiet", "-processors", "2"}, args...)
	if out, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
		tb.Fatalf("mksquashfs %v: %v\n%s", args, err, out)
	}
	return openFile(tb, img), img
}

func openFile(tb testing.TB, img string) *Reader {
	tb.Helper()
	f, err := os.Open(img)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	r, err := Open(f, st.Size(), ReaderOptions{CacheSize: 1 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	return r
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// makeTree fills a directory with one of everything.
func makeTree(tb testing.TB) string {
	dir := tb.TempDir()
	rnd := rand.New(rand.NewSource(7))
	text := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "the quick brown fox\n"[(i+rnd.Intn(3))%20]
		}
		return b
	}
	noise := make([]byte, 300_000)
	rnd.Read(noise)
	for name, b := range map[string][]byte{
		"empty": nil, "one": {1}, "small": text(3000), "block": text(128 << 10), "text": text(700_123), "noise": noise,
		"sub/a": text(10), "sub/b": text(4096), "sub/deeper/c": text(131_073), "zero": make([]byte, 1<<20),
		"holes": append(append(text(5000), make([]byte, 400_000)...), text(5000)...),
	} {
		must(tb, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		must(tb, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	must(tb, os.Mkdir(filepath.Join(dir, "emptydir"), 0o700))
	must(tb, os.Mkdir(filepath.Join(dir, "many"), 0o755))
	for i := range 3000 {
		must(tb, os.WriteFile(filepath.Join(dir, fmt.Sprintf("many/file-%d-%s", i, strings.Repeat("x", i%100))), text(i%50), 0o600))
	}
	must(tb, os.Link(filepath.Join(dir, "text"), filepath.Join(dir, "sub/hard")))
	must(tb, os.Symlink("../text", filepath.Join(dir, "sub/link")))
	must(tb, os.Symlink("/sub/deeper", filepath.Join(dir, "abs")))
	must(tb, os.Symlink("../../../../../etc/passwd", filepath.Join(dir, "sub/outside")))
	must(tb, os.Symlink("loop", filepath.Join(dir, "loop")))
	must(tb, os.Symlink(strings.Repeat("long/", 800)+"end", filepath.Join(dir, "longlink")))
	must(tb, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o622))
	must(tb, os.Chmod(filepath.Join(dir, "small"), 0o4711|os.ModeSetuid))
	must(tb, os.Chtimes(filepath.Join(dir, "one"), sourceTime, sourceTime))
	if os.Getuid() == 0 {
		must(tb, unix.Mknod(filepath.Join(dir, "chr"), unix.S_IFCHR|0o640, int(unix.Mkdev(1, 3))))
		must(tb, unix.Mknod(filepath.Join(dir, "blk"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 70000))))
		must(tb, unix.Mknod(filepath.Join(dir, "sock"), unix.S_IFSOCK|0o640, 0))
		must(tb, os.Chown(filepath.Join(dir, "one"), 1234, 56789))
	}
	return dir
}

// compareTree checks every file of the image against the directory it was made
// from.
func compareTree(t *testing.T, r *Reader, dir string) {
	t.Helper()
	var want []string
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if rel != "." {
			want = append(want, rel)
		}
		return err
	}))
	var got []string
	must(t, r.Each(func(path string, in *Inode) error {
		if path != "" {
			got = append(got, path)
			compareFile(t, r, filepath.Join(dir, path), in)
		}
		return nil
	}))
	sort.Strings(want)
	sort.Strings(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("image has %d names, the source %d, or they differ", len(got), len(want))
	}
}

func compareFile(t *testing.T, r *Reader, path string, in *Inode) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	if in.Mode != st.Mode || in.UID != st.Uid || in.GID != st.Gid || in.ModTime != st.Mtim.Sec {
		t.Errorf("%s: mode %o owner %d:%d time %d, want %o %d:%d %d", path, in.Mode, in.UID, in.GID, in.ModTime, st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
	}
	if !in.IsDir() && uint64(in.Nlink) != uint64(st.Nlink) {
		t.Errorf("%s: %d links, want %d", path, in.Nlink, st.Nlink)
	}
	if uint64(in.Rdev) != uint64(st.Rdev) {
		t.Errorf("%s: device %#x, want %#x", path, in.Rdev, st.Rdev)
	}
	switch {
	case in.IsSymlink():
		want, err := os.Readlink(path)
		must(t, err)
		if got, err := r.Readlink(in); err != nil || got != want {
			t.Errorf("%s: link to %q, %v, want %q", path, got, err, want)
		}
	case in.IsRegular():
		if in.Size != st.Size {
			t.Errorf("%s: %d bytes, want %d", path, in.Size, st.Size)
			return
		}
		if st.Size > 1<<30 {
			return
		}
		want, err := os.ReadFile(path)
		must(t, err)
		f, err := r.File(in.Ref)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: content differs, %v", path, err)
		}
	}
}

func TestReaderAgainstMksquashfs(t *testing.T) {
	dir := makeTree(t)
	for _, args := range []string{
		"-comp gzip", "-comp gzip -Xstrategy huffman_only,fixed,run_length_encoded", "-comp gzip -Xwindow-size 8 -b 4K", "-comp gzip -b 1M",
		"-comp zstd", "-comp zstd -Xcompression-level 3", "-comp zstd -b 4K", "-comp zstd -b 1M -Xcompression-level 22",
		"-comp lz4", "-comp lz4 -Xhc -b 4K", "-comp lz4 -b 1M",
		"-comp xz", "-comp xz -b 4K", "-comp xz -b 1M", "-comp xz -Xdict-size 64K",
		"-comp lzo", "-comp lzo -b 4K", "-comp lzo -b 1M -Xalgorithm lzo1x_1", "-comp lzo -Xalgorithm lzo1x_1_15",
		"-comp lzma", "-comp lzma -b 4K",
		"-noI -noD -noF -noX -noId", "-noD -noF -b 4K", "-no-fragments", "-always-use-fragments -b 1M", "-no-exports -no-xattrs", "-no-duplicates -no-sparse", "-tailends", "-nopad",
	} {
		t.Run(args, func(t *testing.T) {
			r, _ := mksquashfs(t, dir, strings.Fields(args)...)
			compareTree(t, r, dir)
		})
	}
}

func TestOpenAtOddOffset(t *testing.T) {
	dir := makeTree(t)
	_, img := mksquashfs(t, dir)
	b, err := os.ReadFile(img)
	must(t, err)
	all := append([]byte("thirteen byte"), b...)
	r, err := Open(io.NewSectionReader(bytes.NewReader(all), 13, int64(len(b))), int64(len(b)), ReaderOptions{})
	must(t, err)
	compareTree(t, r, dir)
}

func TestLargeFile(t *testing.T) {
	for _, c := range []struct {
		args string
		size int64
	}{{"-b 1M", 4<<30 + 212345}, {"-b 4K -no-fragments", 300<<20 + 12345}} {
		args, size := c.args, c.size
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "large"))
		must(t, err)
		must(t, f.Truncate(size))
		marks := []int64{0, 1 << 20, size - 212345 - 3, size - 212345 + 70000, size - 9}
		for _, off := range marks {
			_, err := f.WriteAt([]byte("squashed!"), off)
			must(t, err)
		}
		must(t, f.Close())
		r, _ := mksquashfs(t, dir, strings.Fields(args)...)
		in, err := r.Walk("large", true)
		must(t, err)
		if in.Size != size {
			t.Fatalf("%s: %d bytes, want %d", args, in.Size, size)
		}
		for i := range marks {
			off := marks[len(marks)-1-i] // from the end: the block list is explored at once
			p := make([]byte, 9)
			if _, err := r.ReadAt(in, p, off); err != nil || string(p) != "squashed!" {
				t.Fatalf("%s: read %q, %v at %d", args, p, err, off)
			}
			p = make([]byte, 100_000)
			n, err := r.ReadAt(in, p, off+9)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if off == 1<<20 && !bytes.Equal(p[:n], make([]byte, n)) {
				t.Fatalf("%s: hole at %d is not empty", args, off)
			}
		}
	}
}

func TestWalk(t *testing.T) {
	dir := makeTree(t)
	r, _ := mksquashfs(t, dir)
	for path, want := range map[string]string{
		"": "", "/": "", "..": "", "/../../sub/../sub": "sub", "sub/link": "text", "abs/c": "sub/deeper/c", "abs/../b": "sub/b",
		"sub//./deeper///c": "sub/deeper/c", "abs/": "sub/deeper",
	} {
		in, err := r.Walk(path, true)
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		ref := r.Root()
		for _, name := range strings.FieldsFunc(want, func(c rune) bool { return c == '/' }) {
			ref, _, _ = r.Lookup(ref, name)
		}
		if in.Ref != ref {
			t.Errorf("%q: found inode %#x, want %q at %#x", path, in.Ref, want, ref)
		}
	}
	for path, want := range map[string]error{
		"none": fs.ErrNotExist, "sub/none/x": fs.ErrNotExist, "text/x": syscall.ENOTDIR, "loop": syscall.ELOOP,
		"sub/outside": fs.ErrNotExist, strings.Repeat("a/", 3000): syscall.ENAMETOOLONG,
	} {
		if _, err := r.Walk(path, true); !errors.Is(err, want) {
			t.Errorf("%.20q: got %v, want %v", path, err, want)
		}
	}
	if in, err := r.Walk("loop", false); err != nil || !in.IsSymlink() {
		t.Errorf("a link at the end was followed: %v", err)
	}
	if b, err := r.ReadFile("sub/link", 1<<20); err != nil || len(b) != 700_123 {
		t.Errorf("ReadFile through a link: %d bytes, %v", len(b), err)
	}
	if _, err := r.ReadFile("sub/link", 1000); err == nil {
		t.Errorf("ReadFile ignored its limit")
	}
}

func TestExport(t *testing.T) {
	r, _ := mksquashfs(t, makeTree(t))
	must(t, r.Each(func(path string, in *Inode) error {
		if ref, err := r.Export(in.Number); err != nil || ref != in.Ref {
			t.Errorf("%s: export of inode %d is %#x, %v, want %#x", path, in.Number, ref, err, in.Ref)
		}
		return nil
	}))
	if _, err := r.Export(0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("export of inode 0: %v", err)
	}
}

func TestXattrs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for all kinds of extended attributes")
	}
	dir := t.TempDir()
	big := strings.Repeat("value", 300)
	want := map[string]map[string]string{}
	set := func(file, name, value string) {
		if err := unix.Lsetxattr(filepath.Join(dir, file), name, []byte(value), 0); err != nil {
			t.Skipf("needs a file system with extended attributes: %v", err)
		}
		if want[file] == nil {
			want[file] = map[string]string{}
		}
		want[file][name] = value
	}
	for i := range 50 {
		name := fmt.Sprintf("f%d", i)
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		set(name, "user.number", fmt.Sprint(i))
		set(name, "trusted.big", big) // the same everywhere: stored once, out of line
		if i%2 == 0 {
			set(name, "security.test", "\x00\x01binary")
		}
	}
	must(t, os.Mkdir(filepath.Join(dir, "dir"), 0o755))
	set("dir", "user.empty", "")
	must(t, os.Symlink("f1", filepath.Join(dir, "link")))
	set("link", "trusted.link", "yes")
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	set("null", "trusted.dev", "yes")
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	set("fifo", "trusted.fifo", "yes")
	must(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644))
	for _, args := range []string{"-comp gzip", "-noX", "-comp zstd"} {
		r, _ := mksquashfs(t, dir, strings.Fields(args)...)
		compareTree(t, r, dir)
		must(t, r.Each(func(path string, in *Inode) error {
			xs, err := r.Xattrs(in)
			if err != nil {
				return err
			}
			if len(xs) != len(want[path]) {
				t.Errorf("%s: %d attributes, want %d", path, len(xs), len(want[path]))
			}
			for _, x := range xs {
				if v, ok := want[path][x.Name]; !ok || v != string(x.Value) {
					t.Errorf("%s: %s=%q, want %q", path, x.Name, x.Value, v)
				}
			}
			return nil
		}))
	}
}

func TestBlocksShareTheCache(t *testing.T) {
	dir := makeTree(t)
	r, _ := mksquashfs(t, dir)
	in, err := r.Walk("text", true)
	must(t, err)
	f, err := r.File(in.Ref)
	must(t, err)
	if b, ok, err := f.Blocks(nil, 0, 1000, false); len(b) != 0 || ok || err != nil {
		t.Fatalf("a cold block was at hand: %d, %v, %v", len(b), ok, err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "text"))
	must(t, err)
	for _, wait := range []bool{true, false} {
		b, ok, err := f.Blocks(nil, 130_000, 300_000, wait)
		if err != nil || !ok {
			t.Fatalf("wait %v: %v, %v", wait, ok, err)
		}
		h := sha256.New()
		for i := range b {
			h.Write(b[i].Data)
		}
		if w := sha256.Sum256(want[130_000:430_000]); !bytes.Equal(h.Sum(nil), w[:]) {
			t.Fatalf("wait %v: blocks differ from the file", wait)
		}
		for i := range b {
			b[i].Release()
		}
	}
	if r.blocks.held != 0 {
		t.Fatalf("%d slots are still held", r.blocks.held)
	}
	must(t, r.Close())
	if _, err := r.ReadAt(in, make([]byte, 10), 0); err == nil {
		t.Fatal("a closed reader reads")
	}
}

var sourceTime = time.Unix(1_234_567_890, 0)

// Many goroutines on a cache much smaller than what they read.
func TestParallelReads(t *testing.T) {
	dir := makeTree(t)
	r, _ := mksquashfs(t, dir, "-b", "4K") // the cache holds 256 blocks
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for _, name := range []string{"text", "noise", "holes", "sub/deeper/c", "small"} {
				want, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Error(err)
					return
				}
				in, err := r.Walk(name, true)
				if err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(want))
				for off := g * 1000 % len(want); off < len(want); off += 9000 {
					end := min(off+9000, len(want))
					if _, err := r.ReadAt(in, got[off:end], int64(off)); err != nil || !bytes.Equal(got[off:end], want[off:end]) {
						t.Errorf("%s at %d differs: %v", name, off, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if r.blocks.held != 0 {
		t.Errorf("%d slots are still held", r.blocks.held)
	}
}

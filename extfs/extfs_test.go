package extfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needs skips the test if a program is missing and returns its path.
func needs(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	t.Skip("needs " + name)
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// makeTree fills dir with every kind of file that this user can make.
func makeTree(t testing.TB, dir string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	for _, n := range []int{0, 1, 59, 60, 61, 100, 150, 1023, 1024, 4096, 4097, 12 << 10, 13 << 10, 70 << 10, 300 << 10, 1<<20 + 5} {
		must(t, os.WriteFile(p(fmt.Sprintf("file-%d", n)), noise(n), 0o640))
	}
	sparse, err := os.Create(p("sparse"))
	must(t, err)
	// The last block is content: some versions of mke2fs forget a hole at the
	// end of a file when they write inline_data.
	for _, off := range []int64{0, 50 << 10, 3 << 20, 70 << 20} {
		_, err = sparse.WriteAt(noise(3000), off)
		must(t, err)
	}
	must(t, sparse.Close())
	must(t, os.MkdirAll(p("a/b/c/d"), 0o755))
	must(t, os.WriteFile(p("a/b/c/d/deep"), []byte("deep\n"), 0o4755))
	must(t, os.Chmod(p("a/b/c/d/deep"), 0o755|os.ModeSetuid))
	must(t, os.Mkdir(p("empty"), 0o700))
	must(t, os.Mkdir(p("many"), 0o755))
	for i := range 1500 {
		must(t, os.WriteFile(p(fmt.Sprintf("many/a-rather-long-name-for-number-%d", i)), nil, 0o644))
	}
	must(t, os.WriteFile(p("many/"+strings.Repeat("x", 255)), []byte("long"), 0o644))
	for _, n := range []int{1, 59, 60, 61, 200, 1000} {
		must(t, os.Symlink(strings.Repeat("t", n), p(fmt.Sprintf("link-%d", n))))
	}
	must(t, os.Symlink("/a/b/../b/c", p("to-c")))
	must(t, os.Symlink("loop", p("loop")))
	must(t, os.Symlink("../../../../../file-1", p("a/up")))
	must(t, os.Link(p("file-100"), p("hardlink")))
	must(t, unix.Mkfifo(p("fifo"), 0o600))
	if os.Getuid() == 0 {
		must(t, unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(p("big"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
		must(t, os.Chown(p("file-61"), 70000, 80000))
		must(t, unix.Setxattr(p("file-61"), "security.test", []byte("label"), 0))
	}
	if unix.Setxattr(p("file-1"), "user.small", []byte("v"), 0) == nil {
		for i := range 5 {
			must(t, unix.Setxattr(p("file-100"), fmt.Sprintf("user.n%d", i), noise(100), 0))
		}
		must(t, unix.Setxattr(p("a"), "user.empty", nil, 0))
	}
	must(t, os.Chtimes(p("file-60"), time.Unix(1, 5), time.Unix(5_000_000_000, 123456789)))
	must(t, os.Chtimes(p("file-59"), time.Unix(1, 5), time.Unix(-1000, 0)))
}

// makeImage writes an image of dir with mke2fs.
func makeImage(t testing.TB, dir, size string, args ...string) string {
	t.Helper()
	mke2fs := needs(t, "mke2fs")
	img := filepath.Join(t.TempDir(), "img")
	args = append(append([]string{"-q", "-F", "-d", dir}, args...), img, size)
	command(t, mke2fs, args...)
	return img
}

func openImage(t testing.TB, path string) *FS {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	must(t, err)
	f, err := Open(file, info.Size())
	must(t, err)
	return f
}

// variants are the ways of mke2fs to store the same files.
var variants = []struct {
	name string
	args []string
}{
	{"ext2-1k", []string{"-t", "ext2", "-b", "1024"}},
	{"ext2-rev0", []string{"-t", "ext2", "-b", "1024", "-r", "0"}},
	{"ext2-4k", []string{"-t", "ext2", "-b", "4096", "-I", "128"}},
	{"ext3-1k", []string{"-t", "ext3", "-b", "1024"}},
	{"ext3-2k", []string{"-t", "ext3", "-b", "2048"}},
	{"ext4", []string{"-t", "ext4"}},
	{"ext4-1k", []string{"-t", "ext4", "-b", "1024", "-O", "64bit,metadata_csum"}},
	{"ext4-64k", []string{"-t", "ext4", "-b", "65536", "-N", "4096", "-O", "^has_journal"}},
	{"ext4-noextent", []string{"-t", "ext4", "-O", "^extent,^64bit,^metadata_csum"}},
	{"ext4-inline", []string{"-t", "ext4", "-O", "inline_data", "-I", "256"}},
	{"ext4-inline-1k", []string{"-t", "ext4", "-O", "inline_data", "-I", "1024", "-b", "1024"}},
	{"ext4-metabg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"}},
	{"ext4-nofiletype", []string{"-t", "ext4", "-O", "^filetype"}},
	{"ext4-sparse2", []string{"-t", "ext4", "-O", "sparse_super2"}},
	{"ext4-bigalloc", []string{"-t", "ext4", "-O", "bigalloc", "-b", "1024"}},
	{"ext4-eainode", []string{"-t", "ext4", "-O", "ea_inode,large_dir"}},
}

// TestVariants reads what mke2fs stored and compares it with the source tree.
func TestVariants(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(dir, 0o755))
	makeTree(t, dir)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			f := openImage(t, makeImage(t, dir, "64M", v.args...))
			if w := f.Warnings(); len(w) != 0 {
				t.Errorf("warnings %v, want none", w)
			}
			small := f.sb.InodeSize == minInodeSize
			noXattrs := v.name == "ext2-rev0" // which has none
			compareTree(t, f, dir, options{seconds: true, truncatedTime: small, noXattrs: noXattrs})
		})
	}
}

type options struct {
	seconds       bool // times without nanoseconds: mke2fs does not copy them
	truncatedTime bool // 32-bit times only
	noXattrs      bool // the image cannot hold extended attributes
}

// compareTree checks that f and the directory hold the same.
func compareTree(t *testing.T, f *FS, dir string, o options) {
	t.Helper()
	want := map[string]bool{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(rel, "lost+found") {
			return nil
		}
		want[rel] = true
		return err
	}))
	inodes := map[uint64]uint32{}
	must(t, f.Tree(func(path string, in *Inode) error {
		if strings.HasPrefix(path, "lost+found") {
			return nil
		}
		if !want[path] {
			t.Errorf("%s: in the image only", path)
			return nil
		}
		delete(want, path)
		if path == "." && o.seconds {
			return nil // mke2fs makes a root of its own
		}
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, path), &st))
		if n, ok := inodes[st.Ino]; ok && n != in.Number {
			t.Errorf("%s: the hard link became inode %d and %d", path, n, in.Number)
		}
		inodes[st.Ino] = in.Number
		compareFile(t, f, filepath.Join(dir, path), in, &st, o)
		return nil
	}))
	for path := range want {
		t.Errorf("%s: missing in the image", path)
	}
}

func compareFile(t *testing.T, f *FS, path string, in *Inode, st *unix.Stat_t, o options) {
	t.Helper()
	if in.Mode != st.Mode || in.UID != st.Uid || in.GID != st.Gid {
		t.Errorf("%s: mode %o owner %d:%d, want %o %d:%d", path, in.Mode, in.UID, in.GID, st.Mode, st.Uid, st.Gid)
	}
	if !in.IsDir() && (in.Size != st.Size || uint64(in.Nlink) != uint64(st.Nlink)) {
		t.Errorf("%s: size %d links %d, want %d %d", path, in.Size, in.Nlink, st.Size, st.Nlink)
	}
	got, want := in.ModTime, Timestamp{st.Mtim.Sec, uint32(st.Mtim.Nsec)}
	if o.seconds {
		got.Nsec, want.Nsec = 0, 0
	}
	if o.truncatedTime {
		want.Sec = int64(int32(want.Sec))
	}
	if got != want && !(o.seconds && want.Sec > 1<<32) {
		t.Errorf("%s: time %v, want %v", path, got, want)
	}
	switch in.Mode & ModeType {
	case ModeRegular:
		compareContent(t, f, path, in)
	case ModeSymlink:
		target, err := f.Readlink(in)
		if want, _ := os.Readlink(path); err != nil || target != want {
			t.Errorf("%s: link to %q, %v, want %q", path, target, err, want)
		}
	case ModeChar, ModeBlock:
		major, minor := in.Rdev>>8&0xfff, in.Rdev&0xff|in.Rdev>>12&0xfff00
		if unix.Mkdev(major, minor) != st.Rdev {
			t.Errorf("%s: device %d:%d, want %d:%d", path, major, minor, unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
	}
	if !o.noXattrs {
		compareXattrs(t, f, path, in)
	}
}

func compareContent(t *testing.T, f *FS, path string, in *Inode) {
	t.Helper()
	host, err := os.Open(path)
	must(t, err)
	defer host.Close()
	var a, b [100_000]byte // not a multiple of any block size
	for off := int64(0); ; off += int64(len(a)) {
		n, err1 := f.ReadAt(in, a[:], off)
		m, err2 := host.ReadAt(b[:], off)
		if n != m || err1 != err2 || !bytes.Equal(a[:n], b[:m]) {
			t.Errorf("%s: content differs in the %d bytes at %d: %d %v, want %d %v", path, len(a), off, n, err1, m, err2)
			return
		}
		if err1 != nil {
			return
		}
	}
}

func compareXattrs(t *testing.T, f *FS, path string, in *Inode) {
	t.Helper()
	list, err := f.Xattrs(in)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	got := map[string]string{}
	for _, x := range list {
		got[x.Name] = string(x.Value)
	}
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		n = 0
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.") {
			continue
		}
		value := make([]byte, 70000)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		if v, ok := got[name]; !ok || v != string(value[:n]) {
			t.Errorf("%s: attribute %s is %q (%v), want %q", path, name, v, ok, value[:n])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("%s: attributes %v in the image only", path, got)
	}
}

// mountImage mounts an image with the kernel.
func mountImage(t *testing.T, img, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount with the kernel")
	}
	needs(t, "mount")
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,"+options, img, dir).CombinedOutput(); err != nil {
		t.Skipf("needs a kernel that mounts this image: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	return dir
}

// TestKernel lets the kernel write (indexed directories, fragmented files,
// unwritten extents, nanoseconds, ACLs, trusted attributes) and compares its
// view with ours.
func TestKernel(t *testing.T) {
	for _, v := range variants {
		switch v.name {
		case "ext2-rev0", "ext4-64k", "ext3-2k", "ext4-nofiletype", "ext4-sparse2", "ext2-4k":
			continue // not mountable everywhere, or no different from another once written to
		}
		t.Run(v.name, func(t *testing.T) {
			empty := t.TempDir()
			img := makeImage(t, empty, "96M", v.args...)
			dir := mountImage(t, img, "user_xattr,acl")
			makeTree(t, dir)
			kernelExtras(t, dir, v.name)
			command(t, "umount", dir)
			dir = mountImage(t, img, "ro")
			f := openImage(t, img)
			compareTree(t, f, dir, options{seconds: f.sb.InodeSize == minInodeSize, truncatedTime: f.sb.InodeSize == minInodeSize})
		})
	}
}

func kernelExtras(t *testing.T, dir, variant string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	// Two files that grow in turns, then shrink in the middle: many extents.
	a, err := os.Create(p("frag-a"))
	must(t, err)
	b, err := os.Create(p("frag-b"))
	must(t, err)
	for i := range 800 {
		chunk := bytes.Repeat([]byte{byte(i)}, 4096)
		for _, f := range []*os.File{a, b} {
			_, err := f.WriteAt(chunk, int64(i)*8192)
			must(t, err)
		}
		if i%200 == 0 {
			must(t, a.Sync())
			must(t, b.Sync())
		}
	}
	if strings.HasPrefix(variant, "ext4") && variant != "ext4-noextent" {
		must(t, unix.Fallocate(int(a.Fd()), 0, 20<<20, 1<<20))
		_, err = a.WriteAt([]byte("written in the middle"), 20<<20+300_000)
		must(t, err)
		must(t, unix.Fallocate(int(b.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 40960, 12288))
	}
	must(t, a.Close())
	must(t, b.Close())
	must(t, os.Truncate(p("sparse"), 80<<20))
	must(t, os.Mkdir(p("indexed"), 0o755))
	for i := range 1500 {
		must(t, os.WriteFile(p(fmt.Sprintf("indexed/%s-%d", strings.Repeat("n", i%40), i)), nil, 0o600))
	}
	for i := 0; i < 1500; i += 3 {
		must(t, os.Remove(p(fmt.Sprintf("indexed/%s-%d", strings.Repeat("n", i%40), i))))
	}
	must(t, os.Mkdir(p("small"), 0o755))
	for i := range 12 { // grows past the 60 bytes of an inline directory
		must(t, os.WriteFile(p(fmt.Sprintf("small/%d", i)), []byte{byte(i)}, 0o600))
	}
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe9\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	must(t, unix.Setxattr(p("file-1023"), "system.posix_acl_access", acl, 0))
	must(t, unix.Setxattr(p("small"), "system.posix_acl_default", acl, 0))
	must(t, unix.Setxattr(p("file-1023"), "trusted.secret", []byte("x"), 0))
	if variant == "ext4-eainode" {
		must(t, unix.Setxattr(p("file-1"), "user.large", bytes.Repeat([]byte("large"), 8000), 0))
	}
}

// TestDebugfs compares numbers of inodes with those that debugfs finds.
func TestDebugfs(t *testing.T) {
	debugfs := needs(t, "debugfs")
	dir := t.TempDir()
	makeTree(t, dir)
	img := makeImage(t, dir, "64M", "-t", "ext4")
	f := openImage(t, img)
	for _, path := range []string{"/", "/a/b/c/d/deep", "/many/a-rather-long-name-for-number-777", "/hardlink"} {
		in, err := f.Walk(path, true)
		must(t, err)
		out := command(t, debugfs, "-R", "stat "+path, img)
		if want := fmt.Sprintf("Inode: %d ", in.Number); !strings.Contains(out, want) {
			t.Errorf("%s: %q not in %s", path, want, out)
		}
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir)
	f := openImage(t, makeImage(t, dir, "64M", "-t", "ext3"))
	for _, c := range []struct {
		path   string
		follow bool
		want   string // a path without links to the same file
		err    error
	}{
		{"", true, "/", nil}, {"///", true, "/", nil}, {"..", true, "/", nil}, {"/../../a/..", true, "/", nil},
		{"a/./b//c/", true, "a/b/c", nil}, {"to-c/d/deep", false, "a/b/c/d/deep", nil}, {"to-c", true, "a/b/c", nil},
		{"to-c/", false, "a/b/c", nil}, {"to-c/..", false, "a/b", nil}, {"a/up", true, "file-1", nil}, {"a/up", false, "a/up", nil},
		{"loop", true, "", ErrLoop}, {"loop/x", false, "", ErrLoop}, {"file-1/", true, "", ErrNotDir}, {"file-1/..", true, "", ErrNotDir},
		{"none", true, "", fs.ErrNotExist}, {"link-59", true, "", fs.ErrNotExist}, {"many/none", true, "", fs.ErrNotExist},
		{strings.Repeat("x", 300), true, "", fs.ErrNotExist}, {strings.Repeat("/", 70000), true, "", ErrLimit},
	} {
		in, err := f.Walk(c.path, c.follow)
		if !errors.Is(err, c.err) {
			t.Errorf("Walk(%.40q): %v, want %v", c.path, err, c.err)
		}
		if err != nil {
			continue
		}
		want, err := f.Walk(c.want, false)
		must(t, err)
		if in.Number != want.Number {
			t.Errorf("Walk(%q, %v) is inode %d, want %d (%s)", c.path, c.follow, in.Number, want.Number, c.want)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir)
	f := openImage(t, makeImage(t, dir, "64M", "-t", "ext4"))
	got, err := f.ReadFile("to-c/d/deep", 5)
	if string(got) != "deep\n" || err != nil {
		t.Errorf("%q, %v, want deep", got, err)
	}
	if got, err := f.ReadFile("file-0", 0); len(got) != 0 || err != nil {
		t.Errorf("%q, %v, want an empty file", got, err)
	}
	if _, err := f.ReadFile("sparse", 1<<20); !errors.Is(err, ErrLimit) {
		t.Errorf("%v, want ErrLimit", err)
	}
	if _, err := f.ReadFile("a", 1<<20); err == nil {
		t.Error("a directory was read as a file")
	}
	in, err := f.Walk("file-1", true)
	must(t, err)
	if n, err := f.ReadAt(in, make([]byte, 4), 1); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v, want 0, EOF", n, err)
	}
	if _, err := f.ReadAt(in, make([]byte, 4), -1); err == nil {
		t.Error("a negative offset was read")
	}
}

// TestReadDir checks the types and that "." and ".." are left out.
func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	must(t, os.Symlink("f", filepath.Join(dir, "l")))
	f := openImage(t, makeImage(t, dir, "4M", "-t", "ext3"))
	root, err := f.Inode(f.Root())
	must(t, err)
	list, err := f.ReadDir(root)
	must(t, err)
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s %o", e.Name, e.Type))
	}
	if s, want := strings.Join(got, ", "), "d 40000, f 100000, l 120000, lost+found 40000"; s != want {
		t.Errorf("%s, want %s", s, want)
	}
	file, err := f.Walk("f", true)
	must(t, err)
	if _, err := f.ReadDir(file); !errors.Is(err, ErrNotDir) {
		t.Errorf("%v, want ErrNotDir", err)
	}
}

// TestReadDirFrom reads directories in pieces of several sizes, of two readers
// at once.
func TestReadDirFrom(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir)
	for _, o := range [][]string{{"-t", "ext4", "-b", "1024"}, {"-t", "ext4", "-O", "inline_data", "-I", "256"}} {
		f := openImage(t, makeImage(t, dir, "64M", o...))
		for _, name := range []string{"many", "a", "empty"} {
			in, err := f.Walk(name, true)
			must(t, err)
			want, err := f.ReadDir(in)
			must(t, err)
			for _, size := range []int{1, 7, 100, 5000} {
				var got [2][]Dirent
				for more := true; more; {
					more = false
					for k := range got {
						n := 0
						must(t, f.ReadDirFrom(in, len(got[k]), func(e Dirent) bool {
							if n == size+k {
								more = true
								return false
							}
							n++
							got[k] = append(got[k], e)
							return true
						}))
					}
				}
				for k := range got {
					if !slices.Equal(got[k], want) {
						t.Errorf("%v %s, pieces of %d: %d names, want %d", o, name, size+k, len(got[k]), len(want))
					}
				}
			}
			// From anywhere, also where nobody stopped.
			for _, from := range []int{0, 1, len(want) / 2, len(want), len(want) + 1} {
				n := 0
				must(t, f.ReadDirFrom(in, from, func(Dirent) bool { n++; return true }))
				if n != max(len(want)-from, 0) {
					t.Errorf("%s from %d: %d names of %d", name, from, n, len(want))
				}
			}
		}
	}
}

// The place where a reader stopped is kept, so that the next piece starts there
// and a large directory is not parsed again for each.
func TestReadDirFromKeepsPlace(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir)
	f := openImage(t, makeImage(t, dir, "64M", "-t", "ext4", "-b", "1024"))
	in, err := f.Walk("many", true)
	must(t, err)
	last := int64(0)
	for from, n := 0, 10; n == 10; from += n {
		at := f.pages.load(in.Number, from)
		if from > 0 && at <= last {
			t.Fatalf("entry %d: kept at %d, want more than %d", from, at, last)
		}
		last = at
		n = 0
		must(t, f.ReadDirFrom(in, from, func(Dirent) bool {
			if n == 10 {
				return false
			}
			n++
			return true
		}))
	}
	if last == 0 {
		t.Error("no place was kept")
	}
}

// TestParallel reads one image from several goroutines; run with -race.
func TestParallel(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir)
	f := openImage(t, makeImage(t, dir, "64M", "-t", "ext4", "-b", "1024"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1500 {
				if _, err := f.Walk(fmt.Sprintf("many/a-rather-long-name-for-number-%d", i), false); err != nil {
					t.Error(err)
					return
				}
			}
			if b, err := f.ReadFile("file-307200", 1<<20); err != nil || len(b) != 300<<10 {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkTree(b *testing.B) {
	dir := b.TempDir()
	makeTree(b, dir)
	f := openImage(b, makeImage(b, dir, "64M", "-t", "ext4"))
	n := 0
	for b.Loop() {
		if err := f.Tree(func(string, *Inode) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/file")
}

package squashfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"singularity/squashfs/compress"
)

// memFile is an image in memory.
type memFile struct {
	b    []byte
	fail int64 // offset from which writes fail; 0 for never
}

var errDiskFull = errors.New("no space left on device")

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	if m.fail > 0 && off+int64(len(p)) > m.fail {
		return 0, errDiskFull
	}
	if n := off + int64(len(p)); n > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, n-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

// writeItem is an entry with its contents.
type writeItem struct {
	Entry
	data []byte
}

func makeImage(t testing.TB, o WriterOptions, items []writeItem) []byte {
	t.Helper()
	var m memFile
	w, err := newWriter(&m, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, it := range items {
		it.Size = int64(len(it.data))
		if err := w.Add(it.Entry, bytes.NewReader(it.data)); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if size%4096 != 0 || size > int64(len(m.b)) {
		t.Fatalf("size %d of %d written bytes", size, len(m.b))
	}
	return m.b[:size]
}

// writeFiles is a tree with one of everything, for blocks of size bytes.
func writeFiles(block int) []writeItem {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	text := func(n int) []byte {
		var b bytes.Buffer
		for b.Len() < n {
			fmt.Fprintf(&b, "line %d of %d\n", r.IntN(1000), n)
		}
		return b.Bytes()[:n]
	}
	file := func(path string, data []byte) writeItem {
		return writeItem{Entry{Path: path, Mode: ModeRegular | 0o644, ModTime: 1e9, UID: 1000, GID: 70000}, data}
	}
	sparse := slices.Concat(make([]byte, 3*block), text(block), make([]byte, 2*block+17))
	items := []writeItem{
		{Entry{Path: "", Mode: ModeDir | 0o751, ModTime: 5}, nil},
		{Entry{Path: "dir", Mode: ModeDir | 0o1777, ModTime: 6, UID: 4294967294, Xattrs: []Xattr{{"user.dir", []byte("x")}}}, nil},
		file("dir/empty", nil), file("dir/small", text(100)), file("dir/block", text(block)), file("dir/twoblocks", text(2*block)),
		file("dir/more", text(2*block+1)), file("dir/less", text(2*block-1)), file("dir/random", random(2*block+5)),
		file("dir/zero", make([]byte, 10)), file("dir/sparse", sparse), file("dir/allzero", make([]byte, 4*block)),
		file("copy/small", text(1)), file("missing/parents/of/file", []byte("x")),
		{Entry{Path: "dir/link", Mode: ModeSymlink | 0o777, Target: "../" + strings.Repeat("y", 300)}, nil},
		{Entry{Path: "dir/null", Mode: ModeChar | 0o666, Rdev: 0x103}, nil},
		{Entry{Path: "dir/disk", Mode: ModeBlock | 0o660, Rdev: 259<<8 | 0x12 | 0x345<<20}, nil},
		{Entry{Path: "dir/fifo", Mode: ModeFIFO | 0o600}, nil},
		{Entry{Path: "dir/socket", Mode: ModeSocket | 0o600}, nil},
		{Entry{Path: "dir/hard", Hardlink: "dir/more"}, nil},
		{Entry{Path: "dir/hardnull", Hardlink: "dir/null"}, nil},
		file("dir/"+strings.Repeat("n", 255), []byte("long name")),
		file("suid", text(5)),
	}
	items[len(items)-1].Mode |= 0o6000
	for i := range 40 {
		items = append(items, file(fmt.Sprintf("many/%02d", i), text(block/3+i)))
	}
	cap := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	items = append(items, writeItem{Entry{Path: "ping", Mode: ModeRegular | 0o755, Xattrs: []Xattr{
		{"user.big", random(2000)}, {"security.capability", cap}, {"user.a", nil}}}, text(9)})
	return items
}

var writeCompressors = []WriterOptions{{}, {Level: 1}, {Level: 9}, {Compression: Zstd}, {Compression: Zstd, Level: 15}, {Compression: LZ4}, {Compression: LZ4, Level: 9}, {Compression: XZ}, {NoCompress: true}}

func (o WriterOptions) name() string {
	return fmt.Sprintf("%v-%d-%v-%d", o.Compression, o.Level, o.NoCompress, o.BlockSize)
}

func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("needs " + name)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// describeTree returns one line for each node below dir, with the digests of
// contents and the attributes.
func describeTree(t *testing.T, dir string) string {
	t.Helper()
	list := command(t, "find", dir, "-mindepth", "1", "-printf", `%P %y %m %U %G %Ts %l`, "(", "-type", "d", "-printf", "\n", "-o", "-printf", ` %n`, "(", "-type", "f", "-printf", " %s\n", "-o", "-printf", "\n", ")", ")")
	lines := strings.Split(strings.TrimSpace(list), "\n")
	for i, l := range lines {
		f := strings.Split(l, " ")
		path := filepath.Join(dir, f[0])
		switch f[1] {
		case "f":
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines[i] += fmt.Sprintf(" %x", sha256.Sum256(b))
			fallthrough
		case "d":
			if _, err := exec.LookPath("getfattr"); err == nil {
				lines[i] += " " + getfattr(path)
			}
		case "c", "b":
			lines[i] += command(t, "stat", "-c", " %t:%T", path)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// getfattr returns the attributes of path; none where the image has no table of them.
func getfattr(path string) string {
	out, err := exec.Command("getfattr", "--absolute-names", "-d", "-e", "hex", "-m", "^(user|security[.]capability)", "--", path).Output()
	if err != nil {
		return ""
	}
	_, values, _ := strings.Cut(string(out), "\n")
	return values
}

func wantTree(items []writeItem) map[string]writeItem {
	m := map[string]writeItem{}
	for _, it := range items {
		if it.Hardlink != "" {
			first := m[it.Hardlink]
			first.Path = it.Path
			it = first
		}
		m[it.Path] = it
	}
	return m
}

// checkTree compares an unpacked or mounted image with what was put in.
func checkTree(t *testing.T, dir string, items []writeItem) {
	t.Helper()
	for path, it := range wantTree(items) {
		p := filepath.Join(dir, path)
		switch it.Mode & ModeType {
		case ModeRegular:
			b, err := os.ReadFile(p)
			if err != nil || !bytes.Equal(b, it.data) {
				t.Errorf("%q: %v, %d bytes, want the %d put in", path, err, len(b), len(it.data))
			}
		case ModeSymlink:
			if got, err := os.Readlink(p); got != it.Target {
				t.Errorf("%q: %v, target %q, want %q", path, err, got, it.Target)
			}
		}
		got := command(t, "stat", "-c", "%f %u %g %Y", p)
		want := fmt.Sprintf("%x %d %d %d\n", it.Mode, it.UID, it.GID, it.ModTime)
		if got != want {
			t.Errorf("%q: mode, owner and time %q, want %q", path, got, want)
		}
	}
}

func TestWriterUnsquashfs(t *testing.T) {
	needTool(t, "unsquashfs")
	needRoot(t)
	for i, o := range writeCompressors {
		o.BlockSize = []int{4096, DefaultBlockSize, MaxBlockSize}[i%3]
		t.Run(o.name(), func(t *testing.T) {
			items := writeFiles(o.BlockSize)
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, makeImage(t, o, items), 0o600); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "out")
			command(t, "unsquashfs", "-q", "-n", "-d", out, image)
			checkTree(t, out, items)
			if !strings.Contains(command(t, "unsquashfs", "-lls", image), "dir/hardnull") {
				t.Error("unsquashfs -lls does not show dir/hardnull")
			}
		})
	}
}

func TestWriterKernel(t *testing.T) {
	needTool(t, "mount")
	needRoot(t)
	var first string
	for i, o := range writeCompressors {
		o.BlockSize = []int{DefaultBlockSize, 4096, MaxBlockSize}[i%3]
		t.Run(o.name(), func(t *testing.T) {
			items := writeFiles(4096) // one tree, so that all mounts describe alike
			dir := mountImage(t, makeImage(t, o, items))
			checkTree(t, dir, items)
			got := describeTree(t, dir)
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("the tree differs between compressors:\n%s\n---\n%s", got, first)
			}
		})
	}
	for _, want := range []string{"dir/hard f 644 1000 70000 1000000000  2 8193", "dir/disk b 660 0 0 0  1 103:34512", "suid f 6644"} {
		if !strings.Contains(first, want) {
			t.Errorf("tree lacks %q:\n%s", want, first)
		}
	}
}

// mountImage mounts an image until the test ends.
func mountImage(t *testing.T, b []byte) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro,nodev,nosuid", image, dir).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "loop") || strings.Contains(string(out), "permission") || strings.Contains(string(out), "unknown filesystem") {
			t.Skipf("needs loop mounts: %s", out)
		}
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { command(t, "umount", dir) })
	return dir
}

func TestWriterReproducible(t *testing.T) {
	items := writeFiles(4096)
	for i := range 300 {
		items = append(items, items[3+i%20])
		items[len(items)-1].Path = fmt.Sprintf("more/%d", i)
	}
	for _, o := range []WriterOptions{{BlockSize: 4096}, {BlockSize: 4096, Compression: Zstd}, {BlockSize: 8192, Compression: LZ4}, {BlockSize: 4096, Compression: LZ4, Level: 3}} {
		var want []byte
		for _, procs := range []int{1, 4} {
			old := runtime.GOMAXPROCS(procs)
			for _, workers := range []int{1, 2, 7} {
				o.Workers = workers
				got := makeImage(t, o, items)
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s: image with %d workers on %d processors differs", o.name(), workers, procs)
				}
			}
			runtime.GOMAXPROCS(old)
		}
	}
}

// TestEncodersForgetEarlierBlocks holds what reproducibility rests on: the result of a used
// encoder is that of a new one.
func TestEncodersForgetEarlierBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, o := range writeCompressors {
		o.BlockSize, o.NewEncoder = 32<<10, brought
		s, err := newEncSettings(&o)
		if err != nil {
			t.Fatal(err)
		}
		used, err := s.newEncoder()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			src := make([]byte, 1+r.IntN(o.BlockSize))
			for j := range src {
				src[j] = byte(r.IntN(1 + i*4))
			}
			for range r.IntN(50) { // repeat parts
				copy(src[r.IntN(len(src)):], src[r.IntN(len(src)):])
			}
			fresh, err := s.newEncoder()
			if err != nil {
				t.Fatal(err)
			}
			a, okA, errA := used.Encode(make([]byte, 0, len(src)), src)
			b, okB, errB := fresh.Encode(make([]byte, 0, len(src)), src)
			if errA != nil || errB != nil || okA != okB || okA && !bytes.Equal(a, b) {
				t.Fatalf("%s: block %d of %d bytes: %v %v, %d and %d bytes", o.name(), i, len(src), errA, errB, len(a), len(b))
			}
		}
	}
}

func TestWriterFindsDuplicates(t *testing.T) {
	big := writeFiles(4096)[8].data
	var items []writeItem
	for i := range 1000 {
		items = append(items, writeItem{Entry{Path: fmt.Sprint("small", i), Mode: ModeRegular | 0o644}, []byte("the same contents")},
			writeItem{Entry{Path: fmt.Sprint("big", i), Mode: ModeRegular | 0o644}, big})
	}
	o := WriterOptions{BlockSize: 4096}
	one, all := len(makeImage(t, o, items[:2])), len(makeImage(t, o, items))
	if all > one+80*len(items)/4 {
		t.Errorf("image of 1000 equal pairs has %d bytes, of one pair %d", all, one)
	}
	needTool(t, "unsquashfs")
	needRoot(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/image", makeImage(t, o, items), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "unsquashfs", "-q", "-n", "-d", dir+"/out", dir+"/image")
	checkTree(t, dir+"/out", items[1990:])
}

// markedFile refuses to go back anywhere but to its mark and the superblock.
type markedFile struct {
	memFile
	mark int
	back int
}

func (m *markedFile) Mark() { m.mark = len(m.b) }

func (m *markedFile) Rewind() {
	m.b = m.b[:m.mark]
	m.back++
}

func (m *markedFile) WriteAt(p []byte, off int64) (int, error) {
	if end := int64(len(m.b)); off != 0 && off != end && end != 0 {
		return 0, fmt.Errorf("write at %d, the end is %d", off, end)
	}
	return m.memFile.WriteAt(p, off)
}

func TestWriterGoesBackToMarks(t *testing.T) {
	files := writeFiles(4096)
	o := WriterOptions{BlockSize: 4096, ModTime: 1}
	var m markedFile
	w, err := newWriter(&m, o)
	if err != nil {
		t.Fatal(err)
	}
	var items []writeItem
	for i := range 3 {
		for _, f := range files {
			if f.Mode&ModeType == ModeRegular && f.Hardlink == "" {
				items = append(items, writeItem{Entry{Path: fmt.Sprint(i, f.Path), Mode: f.Mode}, f.data})
			}
		}
	}
	for _, i := range items {
		i.Size = int64(len(i.data))
		if err := w.Add(i.Entry, bytes.NewReader(i.data)); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if m.back == 0 {
		t.Error("no duplicate was written over")
	}
	if !bytes.Equal(m.b[:size], makeImage(t, o, items)[:size]) {
		t.Error("an output with marks gets another image")
	}
}

// zeroStream is an endless hole that counts the bytes it has to hand out.
type zeroStream struct {
	left, read int64
}

func (z *zeroStream) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	z.read += n
	return int(n), nil
}

func (z *zeroStream) SkipHole(unit int64) (int64, error) {
	n := z.left / unit
	z.left -= n * unit
	return n, nil
}

func TestWriterSparse(t *testing.T) {
	const size = 10<<30 + 5
	var m memFile
	w, err := newWriter(&m, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	z := &zeroStream{left: size}
	if err := w.Add(Entry{Path: "hole", Mode: ModeRegular | 0o644, Size: size}, z); err != nil {
		t.Fatal(err)
	}
	n, err := w.Close()
	if err != nil || n > 1<<20 || z.read > 1<<20 {
		t.Fatalf("%v: image of a hole has %d bytes, %d were read", err, n, z.read)
	}
	needRoot(t)
	dir := mountImage(t, m.b[:n])
	if got := command(t, "stat", "-c", "%s %b", dir+"/hole"); got != fmt.Sprintf("%d 1\n", int64(size)) {
		t.Errorf("size and blocks %q", got)
	}
}

func TestWriterLargeDirectory(t *testing.T) {
	n := 100_000
	var m memFile
	w, err := newWriter(&m, WriterOptions{Level: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Add(Entry{Path: fmt.Sprintf("d/%x", i*7919%n), Mode: ModeRegular | 0o644}, nil); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	needRoot(t)
	dir := mountImage(t, m.b[:size])
	names, err := os.ReadDir(dir + "/d")
	if err != nil || len(names) != n {
		t.Fatalf("%v: %d names, want %d", err, len(names), n)
	}
	for i := 0; i < n; i += 97 {
		if _, err := os.Lstat(fmt.Sprintf("%s/d/%x", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriterEmpty(t *testing.T) {
	image := makeImage(t, WriterOptions{ModTime: 7}, nil)
	if len(image) != 4096 {
		t.Errorf("empty image has %d bytes", len(image))
	}
	if s, err := ParseSuperblock(image, int64(len(image))); err != nil || s.Inodes != 1 || s.ModTime != 7 {
		t.Errorf("superblock %+v, %v", s, err)
	}
	needTool(t, "unsquashfs")
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/image", image, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "unsquashfs", "-q", "-n", "-d", dir+"/out", dir+"/image")
	needRoot(t)
	mountImage(t, image)
}

func TestWriterReplaces(t *testing.T) {
	file := func(path, data string) writeItem {
		return writeItem{Entry{Path: path, Mode: ModeRegular | 0o600}, []byte(data)}
	}
	dir := func(path string) writeItem { return writeItem{Entry{Path: path, Mode: ModeDir | 0o700}, nil} }
	items := []writeItem{
		file("a", "old"), file("a", "new"),
		file("d/kept", "k"), dir("d"),
		file("e/gone", "g"), file("e", "now a file"),
		file("f", "a file"), dir("f"), file("f/x", "x"),
		file("h", "1"), {Entry{Path: "h2", Hardlink: "h"}, nil}, {Entry{Path: "h2", Hardlink: "h2"}, nil}, file("h", "2"),
		{Entry{Path: "e", Hardlink: "e"}, nil},
	}
	image := makeImage(t, WriterOptions{}, items)
	s, err := ParseSuperblock(image, int64(len(image)))
	if err != nil || s.Inodes != 9 {
		t.Errorf("%v: %d inodes, want root, a, d, d/kept, e, f, f/x, h, h2", err, s.Inodes)
	}
	needRoot(t)
	got := command(t, "sh", "-c", `cd "$1" && find . -type f | sort | while read f; do echo "$f $(stat -c %h "$f") $(cat "$f")"; done`, "sh", mountImage(t, image))
	if want := "./a 1 new\n./d/kept 1 k\n./e 1 now a file\n./f/x 1 x\n./h 1 2\n./h2 1 1\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWriterRefuses(t *testing.T) {
	reg := func(path string) Entry { return Entry{Path: path, Mode: ModeRegular | 0o644} }
	var owners []Entry
	for _, tc := range []struct {
		name  string
		entry Entry
		want  string
	}{
		{"climbing", reg("a/../../b"), `".." is not a name`},
		{"absolute", reg("/a"), `"" is not a name`},
		{"dot", reg("a/."), `"." is not a name`},
		{"empty name", reg("a//b"), `"" is not a name`},
		{"NUL", reg("a\x00b"), "is not a name"},
		{"long name", reg(strings.Repeat("x", 257)), "is not a name"},
		{"long path", reg(strings.Repeat("x/", 3000) + "x"), "cannot add a path of 6001 bytes"},
		{"below a file", reg("file/x"), `"file" is not a directory`},
		{"below a link", reg("link/x"), `"link" is not a directory`},
		{"no type", Entry{Path: "x", Mode: 0o644}, "has no file type"},
		{"file as root", reg("."), "the root is a directory"},
		{"dangling hard link", Entry{Path: "x", Hardlink: "nothing"}, "no such file was added"},
		{"hard link to a directory", Entry{Path: "x", Hardlink: "dir"}, "no such file was added"},
		{"empty link", Entry{Path: "x", Mode: ModeSymlink}, "its target has 0 bytes"},
		{"negative size", Entry{Path: "x", Mode: ModeRegular, Size: -1}, "size -1"},
		{"huge", Entry{Path: "x", Mode: ModeRegular, Size: 1 << 60}, "is not within 0 to"},
		{"access list", Entry{Path: "x", Mode: ModeRegular, Xattrs: []Xattr{{"system.posix_acl_access", nil}}}, "system.posix_acl_access"},
		{"attribute twice", Entry{Path: "x", Mode: ModeRegular, Xattrs: []Xattr{{"user.a", nil}, {"user.a", nil}}}, "twice"},
		{"attributes too large", Entry{Path: "x", Mode: ModeRegular, Xattrs: []Xattr{{"user.a", make([]byte, 40000)}, {"user.b", make([]byte, 40000)}}}, "more than 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, err := newWriter(&memFile{}, WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range []Entry{reg("file"), {Path: "link", Mode: ModeSymlink, Target: "dir"}, {Path: "dir", Mode: ModeDir}} {
				if err := w.Add(e, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Add(tc.entry, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if _, err := w.Close(); err != nil {
				t.Errorf("the writer is of no use after a refusal: %v", err)
			}
		})
	}
	for i := range 65536 {
		owners = append(owners, Entry{Path: "x", Mode: ModeFIFO, UID: uint32(i)})
	}
	w, err := newWriter(&memFile{}, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for i, e := range owners {
		if err = w.Add(e, nil); err != nil {
			if i != 65535 {
				t.Errorf("owner %d: %v", i, err)
			}
			break
		}
	}
	if err == nil {
		t.Error("65536 owners are accepted")
	}
}

func TestWriterOptionsRefused(t *testing.T) {
	for _, o := range []WriterOptions{{BlockSize: 5000}, {BlockSize: 2048}, {BlockSize: 2 << 20}, {Level: 10}, {Level: -1}, {Compression: Zstd, Level: 23}, {Compression: LZO}, {Compression: LZMA}, {Compression: 9}} {
		if w, err := newWriter(&memFile{}, o); err == nil {
			w.Abort()
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestWriterWrongSize(t *testing.T) {
	for _, size := range []int64{1, 5, 4095, 4096, 10000, 70000} {
		for _, have := range []int64{0, 4, 6, 4095, 4096, 4097, 9999, 10001, 80000} {
			if size == have {
				continue
			}
			w, err := newWriter(&memFile{}, WriterOptions{BlockSize: 4096})
			if err != nil {
				t.Fatal(err)
			}
			err = w.Add(Entry{Path: "some/file", Mode: ModeRegular, Size: size}, bytes.NewReader(make([]byte, have)))
			if err == nil || !strings.Contains(err.Error(), `"some/file"`) {
				t.Errorf("%d bytes for %d: %v", have, size, err)
			}
			if _, again := w.Close(); again != err {
				t.Errorf("Close reports %v after %v", again, err)
			}
		}
	}
}

func TestWriterDiskFull(t *testing.T) {
	before := runtime.NumGoroutine()
	items := writeFiles(4096)
	whole := int64(len(makeImage(t, WriterOptions{BlockSize: 4096}, items)))
	for limit := int64(1); limit < whole; limit += whole / 40 {
		w, err := newWriter(&memFile{fail: limit}, WriterOptions{BlockSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range items {
			it.Size = int64(len(it.data))
			if err = w.Add(it.Entry, bytes.NewReader(it.data)); err != nil {
				break
			}
		}
		_, last := w.Close()
		if !errors.Is(last, errDiskFull) || strings.Count(last.Error(), errDiskFull.Error()) != 1 || err != nil && err != last {
			t.Fatalf("room for %d bytes: Add %v, Close %v", limit, err, last)
		}
		if err := w.Add(Entry{Path: "x", Mode: ModeFIFO}, nil); !errors.Is(err, errWriterClosed) {
			t.Fatalf("Add after Close: %v", err)
		}
	}
	w, err := newWriter(&memFile{}, WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	if _, err := w.Close(); !errors.Is(err, errWriterClosed) {
		t.Errorf("Close after Abort: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched() // a goroutine that is done may still be counted for a moment
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestWriterClampsTimes(t *testing.T) {
	limit := int64(1000)
	image := makeImage(t, WriterOptions{MaxModTime: &limit}, []writeItem{
		{Entry{Path: "late", Mode: ModeFIFO, ModTime: 5000}, nil}, {Entry{Path: "early", Mode: ModeFIFO, ModTime: -5}, nil}, {Entry{Path: "between", Mode: ModeFIFO, ModTime: 999}, nil}})
	needRoot(t)
	got := command(t, "find", mountImage(t, image), "-type", "p", "-printf", "%P %Ts\n")
	for _, want := range []string{"late 1000\n", "early 0\n", "between 999\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("times %q, want %q", got, want)
		}
	}
}

// brought makes the encoders that package squashfs does not have itself.
func brought(c Compression, level, blockSize int) (Encoder, error) {
	return compress.New(c.String(), level, blockSize)
}

// newWriter is NewWriter with every compressor.
func newWriter(w io.WriterAt, o WriterOptions) (*Writer, error) {
	o.NewEncoder = brought
	o.Digest = sha256.Sum256
	return NewWriter(w, o)
}

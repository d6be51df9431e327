package hot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

// The test binary is the writer, too: sessions start it from their own file.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == WriterName {
		os.Exit(WriterMain(os.Args[2:], openSquashfs))
	}
	os.Exit(m.Run())
}

func openSquashfs(_ int, r *io.SectionReader) (any, error) {
	return squashfs.Open(r, r.Size(), squashfs.ReaderOptions{})
}

const fileSize = 5<<17 + 100 // five whole blocks and a tail

// content is what a file of the test image holds.
func content(seed uint64) []byte {
	out := make([]byte, 0, fileSize+8)
	h := fnv.New64a()
	for len(out) < fileSize {
		binary.Write(h, binary.LittleEndian, seed+uint64(len(out)))
		sum := h.Sum(nil)
		out = append(out, sum...)
		out = append(out, sum...)
	}
	return out[:fileSize]
}

// makeImage writes an image of n files and gives it a past: a file that changed
// just now is not watched.
func makeImage(t testing.TB, path string, n int, seed uint64) {
	t.Helper()
	makeImageWith(t, path, n, seed, squashfs.WriterOptions{Digest: sha256.Sum256})
}

func makeImageWith(t testing.TB, path string, n int, seed uint64, o squashfs.WriterOptions) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := squashfs.NewWriter(f, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := squashfs.Entry{Path: fmt.Sprintf("f%d", i), Mode: unix.S_IFREG | 0o644, Size: fileSize}
		if err := w.Add(e, bytes.NewReader(content(seed+uint64(i)))); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	waitOld(t, path)
}

// waitOld waits until the time of the last change is behind raceTime.
func waitOld(t testing.TB, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	await(t, "an image that is old enough", func() bool { return time.Since(time.Unix(st.Ctim.Unix())) > raceTime })
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

// fixture is a cache directory and an image with four files.
type fixture struct {
	*testing.T
	root, image string
	config      Config
	busy        bool // the host: nothing is fetched ahead
}

func newFixture(t *testing.T) *fixture {
	dir := t.TempDir()
	x := &fixture{T: t, root: filepath.Join(dir, "cachedir"), image: filepath.Join(dir, "image")}
	x.config = Config{Root: x.root, Limit: 64 << 20, Blocks: true, Program: "exec true"}
	makeImage(t, x.image, 4, 1)
	return x
}

func (x *fixture) dir() string { return filepath.Join(x.root, "cache/hot") }

func (x *fixture) files() []string {
	list, _ := filepath.Glob(filepath.Join(x.dir(), "*"+suffix))
	return list
}

// begin starts a session and waits until it has looked for its file.
func (x *fixture) begin() (*Session, *squashfs.Reader) {
	x.Helper()
	f, err := os.Open(x.image)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		x.Fatal(err)
	}
	r, err := squashfs.Open(f, st.Size(), squashfs.ReaderOptions{})
	if err != nil {
		x.Fatal(err)
	}
	s := newSession(x.config, Image{File: f, Size: st.Size(), Reader: r})
	s.idle = func() bool { return !x.busy }
	s.start()
	await(x, "the session", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.why != nil || s.known.Load() != nil
	})
	return s, r
}

// read reads files of the image and checks their content.
func (x *fixture) read(r *squashfs.Reader, seed uint64, files ...int) {
	x.Helper()
	for _, i := range files {
		in, err := r.Walk(fmt.Sprintf("/f%d", i), true)
		if err != nil {
			x.Fatal(err)
		}
		got := make([]byte, fileSize)
		if _, err := r.ReadAt(in, got, 0); err != nil && err != io.EOF {
			x.Fatal(err)
		}
		if !bytes.Equal(got, content(seed+uint64(i))) {
			x.Fatalf("file %d has wrong content", i)
		}
	}
}

// start is a whole start that reads files; want says whether it finds a file.
func (x *fixture) start(want bool, files ...int) *Session {
	x.Helper()
	s, r := x.begin()
	if (s.known.Load() != nil) != want {
		x.Fatalf("known %v, want %v: %v", !want, want, s)
	}
	x.read(r, 1, files...)
	s.End()
	return s
}

// first makes a start and waits for its file.
func (x *fixture) first(files ...int) string {
	x.Helper()
	x.start(false, files...)
	await(x, "a file", func() bool { return len(x.files()) > 0 })
	return x.files()[0]
}

func TestSecondStartFinds(t *testing.T) {
	for _, blocks := range []bool{true, false} {
		x := newFixture(t)
		x.config.Blocks = blocks
		name := x.first(0, 1)
		s := x.start(true, 0, 1)
		if n := s.loaded.Load(); (n > 0) != blocks {
			t.Errorf("blocks %v: %d taken from the cache", blocks, n)
		}
		if s.damaged.Load() {
			t.Error("the file is damaged")
		}
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 || (st.Size() > 10<<17) != blocks {
			t.Errorf("blocks %v: file of %d bytes, mode %v", blocks, st.Size(), st.Mode())
		}
		if st, err := os.Stat(x.dir()); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("directory: %v %v", st.Mode(), err)
		}
	}
}

// TestFetchedAhead: the session fetches what comes, without a read.
func TestFetchedAhead(t *testing.T) {
	x := newFixture(t)
	x.first(0, 1)
	s, r := x.begin()
	defer s.End()
	k := s.known.Load()
	await(t, "all blocks", func() bool {
		for i := range k.entries {
			if !r.Cached(k.entries[i].id) {
				return false
			}
		}
		return true
	})
	if len(k.entries) < 10 || int(s.fetched.Load()) > len(k.entries) {
		t.Errorf("%v of %d blocks", s, len(k.entries))
	}
	x.read(r, 1, 0, 1)
}

// TestDemandLoads: a read takes from the file what was not fetched.
func TestDemandLoads(t *testing.T) {
	x := newFixture(t)
	x.first(0)
	x.busy = true
	s, r := x.begin()
	var got int
	k := s.known.Load()
	p := make([]byte, 1<<17)
	for i := range k.entries {
		e := &k.entries[i]
		if n, ok := s.Load(e.id, p); ok {
			got++
			want := make([]byte, 1<<17)
			m, err := r.ReadBlock(e.id, want)
			if err != nil || !bytes.Equal(p[:n], want[:m]) {
				t.Errorf("block %d differs: %v", i, err)
			}
		}
	}
	if got == 0 {
		t.Skip("this file system tells not what is in memory")
	}
	x.read(r, 1, 0)
	if s.hits.Load() == 0 || s.fetched.Load() != 0 {
		t.Errorf("on a busy host: %v", s)
	}
	s.End()
	if _, ok := s.Load(squashfs.BlockID{Pos: 1, Size: 2}, p); ok {
		t.Error("an unknown block was loaded")
	}
	if _, ok := s.Load(k.entries[len(k.entries)-1].id, nil); ok {
		t.Error("a block was loaded to no room")
	}
}

// TestGrows: a start that goes another way adds what it touched.
func TestGrows(t *testing.T) {
	x := newFixture(t)
	name := x.first(0)
	old, _ := os.Stat(name)
	x.start(true, 0, 2, 3)
	await(t, "a larger file", func() bool {
		st, err := os.Stat(name)
		return err == nil && st.Size() > old.Size()
	})
	now, _ := os.Stat(name)
	s := x.start(true, 0, 2, 3)
	if n := len(s.known.Load().entries); n < 15 {
		t.Errorf("%d blocks known", n)
	}
	await(t, "no writer", func() bool { return !writing(x.dir()) })
	if st, _ := os.Stat(name); st.ModTime() != now.ModTime() || st.Size() != now.Size() {
		t.Error("a start that found all wrote again")
	}
}

func writing(dir string) bool {
	list, _ := filepath.Glob(filepath.Join(dir, prefix+"*"))
	return len(list) > 0
}

// TestDamaged: every file that is not whole is left alone, gives no wrong byte,
// and is replaced.
func TestDamaged(t *testing.T) {
	x := newFixture(t)
	name := x.first(0, 1)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x40
		return b
	}
	for what, c := range map[string]struct {
		bytes []byte
		known bool
	}{
		"empty": {nil, false}, "short": {good[:20], false}, "cut in the table": {good[:headerSize+60], false},
		"cut at the end": {good[:len(good)-1], false}, "longer": {append(bytes.Clone(good), 0), false},
		"magic": {flip(0), false}, "count": {flip(12), false}, "identity": {flip(40), false}, "table": {flip(headerSize + 300), false},
		"zeros":   {make([]byte, len(good)), false},
		"content": {flip(len(good) - 5), true}, "first block": {flip(len(good) - int(le.Uint64(good[20:])) + 7), true},
	} {
		if err := os.WriteFile(name, c.bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		s := x.start(c.known, 0, 1)
		if c.known && !s.damaged.Load() {
			t.Errorf("%s: nobody saw the damage", what)
		}
		await(t, "a new file ("+what+")", func() bool {
			b, _ := os.ReadFile(name)
			return bytes.Equal(b[:min(8, len(b))], magic[:]) && !bytes.Equal(b, c.bytes) && whole(name)
		})
	}
}

// whole tells whether every byte of a file is as written.
func whole(name string) bool {
	b, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	n, err := headSize(b)
	if err != nil || n > len(b) {
		return false
	}
	t, err := parseTable(b[:n], int64(len(b)))
	if err != nil {
		return false
	}
	for _, e := range t.entries {
		if checksum(b[e.off:e.off+int64(e.length)]) != e.crc {
			return false
		}
	}
	return true
}

// TestForeign: what others could have made is not used, nor a directory that they
// can look into (SC-079), and no link is followed.
func TestForeign(t *testing.T) {
	x := newFixture(t)
	name := x.first(0)
	try := func(what string) {
		t.Helper()
		s, r := x.begin()
		if s.known.Load() != nil {
			t.Errorf("%s: used", what)
		}
		s.over.Store(true) // no new file
		x.read(r, 1, 0)
	}
	os.Chmod(name, 0o644)
	try("a file that others may read")
	os.Chmod(name, 0o600)
	if os.Getuid() == 0 {
		os.Chown(name, 12345, 0)
		try("a file of another user")
		os.Chown(name, 0, 0)
		os.Chown(x.dir(), 12345, 0)
		try("a directory of another user")
		os.Chown(x.dir(), 0, 0)
	} else {
		t.Log("not root: files of other users not tried")
	}
	os.Rename(name, name+"x")
	os.Symlink(name+"x", name)
	try("a link")
	os.Remove(name)
	unix.Mkfifo(name, 0o600)
	try("a pipe")
	os.Remove(name)
	os.Rename(name+"x", name)
	for _, mode := range []os.FileMode{0o755, 0o770, 0o701} {
		os.Chmod(x.dir(), mode)
		try("a directory of mode " + mode.String())
	}
	os.Chmod(x.dir(), 0o700)
	os.Rename(x.dir(), x.dir()+"x")
	os.Symlink("hotx", x.dir())
	try("a link to the directory")
	os.Remove(x.dir())
	os.Rename(x.dir()+"x", x.dir())
	s, _ := x.begin()
	if s.known.Load() == nil {
		t.Errorf("the file as it was is not used: %v", s)
	}
}

// TestReplaced: an image that was replaced or changed is another one.
func TestReplaced(t *testing.T) {
	x := newFixture(t)
	x.first(0)
	st, _ := os.Stat(x.image)
	makeImage(t, x.image+"2", 4, 50)
	if err := os.Rename(x.image+"2", x.image); err != nil {
		t.Fatal(err)
	}
	s, r := x.begin()
	if s.known.Load() != nil {
		t.Error("a file of the old image is used")
	}
	x.read(r, 50, 0)
	s.over.Store(true)
	// In place, with the same size and the old time of modification.
	b, _ := os.ReadFile(x.image)
	if err := os.WriteFile(x.image, b, 0o644); err != nil {
		t.Fatal(err)
	}
	waitOld(t, x.image)
	x.config.Program = "exec other"
	s, r = x.begin()
	x.read(r, 50, 0)
	s.End()
	await(t, "the file", func() bool { return len(x.files()) == 2 })
	if err := os.WriteFile(x.image, b, 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(x.image, st.ModTime(), st.ModTime())
	waitOld(t, x.image)
	if s, _ := x.begin(); s.known.Load() != nil {
		t.Error("a file of the image before it was written is used")
	}
}

// TestRemoved: the files may go at any time.
func TestRemoved(t *testing.T) {
	x := newFixture(t)
	x.first(0, 1)
	s, r := x.begin()
	x.read(r, 1, 0)
	if err := os.RemoveAll(x.root); err != nil {
		t.Fatal(err)
	}
	x.read(r, 1, 1, 2, 3)
	s.End()
	x.first(0)
}

// TestLimit: all files together stay below the limit, and those go that were not
// used for the longest time.
func TestLimit(t *testing.T) {
	x := newFixture(t)
	x.config.Limit = 4 << 20
	for i := range 6 {
		x.config.Program = fmt.Sprint("exec ", i)
		s, r := x.begin()
		x.read(r, 1, i%4, (i+1)%4)
		id := s.identity
		s.End()
		name := filepath.Join(x.dir(), fileName(id))
		await(t, "the file", func() bool { return whole(name) && !writing(x.dir()) })
		old := time.Now().Add(time.Duration(i-100) * time.Minute)
		await(t, "the limit", func() bool {
			total := int64(0)
			for _, f := range x.files() {
				st, _ := os.Stat(f)
				total += st.Size()
			}
			return total <= x.config.Limit
		})
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the newest file is gone: %v", err)
		}
		os.Chtimes(name, old, old)
	}
	if n := len(x.files()); n < 2 || n > 4 {
		t.Errorf("%d files", n)
	}
	// A file alone has at most half of the room: later blocks have no content.
	x.config.Limit, x.config.Program = 1<<20, "exec large"
	x.start(false, 0, 1, 2, 3)
	await(t, "one file", func() bool { return len(x.files()) == 1 && !writing(x.dir()) && whole(x.files()[0]) })
	if st, _ := os.Stat(x.files()[0]); st.Size() > 1<<19 || st.Size() < 1<<17 {
		t.Errorf("file of %d bytes", st.Size())
	}
	x.start(true, 0, 1, 2, 3)
}

// TestUsedIsTouched: a file that is used becomes young.
func TestUsedIsTouched(t *testing.T) {
	x := newFixture(t)
	name := x.first(0)
	old := time.Now().Add(-2 * touchTime)
	os.Chtimes(name, old, old)
	x.start(true, 0)
	if st, _ := os.Stat(name); time.Since(st.ModTime()) > time.Minute {
		t.Errorf("last used %v ago", time.Since(st.ModTime()))
	}
}

// TestKilledWriter (SC-086): a writer that is killed at any moment leaves no bad file, and
// what it leaves goes later.
func TestKilledWriter(t *testing.T) {
	x := newFixture(t)
	left := 0
	for i := range 12 {
		x.config.Program = fmt.Sprint("exec ", i)
		x.start(false, 0, 1, 2, 3)
		end := time.Now().Add(time.Duration(3*i) * time.Millisecond)
		await(t, "the moment", func() bool { return time.Now().After(end) })
		for _, pid := range writers(t, x.image) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		await(t, "the end of the writer", func() bool { return len(writers(t, x.image)) == 0 })
		if writing(x.dir()) {
			left++
		}
		for _, f := range x.files() {
			if !whole(f) {
				t.Fatalf("after %d ms: %s is not whole", 3*i, f)
			}
		}
	}
	t.Logf("%d of 12 left a part, %d files are whole", left, len(x.files()))
	parts, _ := filepath.Glob(filepath.Join(x.dir(), prefix+"*"))
	for _, p := range parts {
		old := time.Now().Add(-2 * staleTime)
		os.Chtimes(p, old, old)
	}
	x.config.Program = "exec last"
	x.start(false, 0)
	await(t, "a clean directory", func() bool { return !writing(x.dir()) && len(writers(t, x.image)) == 0 })
}

// writers are the writer processes that have the image open.
func writers(t *testing.T, image string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd/4")
	for _, d := range dirs {
		if to, _ := os.Readlink(d); to != image {
			continue
		}
		var pid int
		fmt.Sscanf(d, "/proc/%d/", &pid)
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(cmd), WriterName) {
			out = append(out, pid)
		}
	}
	return out
}

// TestOneWriter: of many starts at once one writes.
func TestOneWriter(t *testing.T) {
	x := newFixture(t)
	s, r := x.begin()
	x.read(r, 1, 0)
	w := writer{dir: s.dir, r: r, limit: 64 << 20, blocks: true, unchanged: func() bool { return true }}
	name := fileName(s.identity)
	part := filepath.Join(x.dir(), prefix+strings.TrimSuffix(name, suffix)+".1.x")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.write(s.identity, s.order); err != errBusy {
		t.Errorf("second writer: %v", err)
	}
	os.Remove(part)
	if err := w.write(s.identity, s.order); err != nil || !whole(filepath.Join(x.dir(), name)) {
		t.Errorf("writer: %v", err)
	}
	// One that comes later finds all that it would write.
	now, _ := os.Stat(filepath.Join(x.dir(), name))
	for _, anew := range []bool{false, true} {
		w.anew = anew
		if err := w.write(s.identity, s.order); err != nil {
			t.Error(err)
		}
		if st, _ := os.Stat(filepath.Join(x.dir(), name)); os.SameFile(st, now) == anew {
			t.Errorf("anew %v: same file %v", anew, !anew)
		}
	}
	// An image that changes while it is read.
	os.Remove(filepath.Join(x.dir(), name))
	w.unchanged = func() bool { return false }
	if err := w.write(s.identity, s.order); err == nil || len(x.files()) > 0 || writing(x.dir()) {
		t.Errorf("a changed image was kept: %v", err)
	}
	s.over.Store(true)
}

// TestNoPlace: where nothing can be kept nothing happens.
func TestNoPlace(t *testing.T) {
	x := newFixture(t)
	x.config.Root = filepath.Join(x.image, "sub")
	x.start(false, 0)
	x.config.Root = "/proc/nothing"
	s := x.start(false, 0)
	await(t, "the end of the session", s.over.Load)
	var none *Session
	none.End()
	if none.String() != "off" || Begin(Config{}, Image{}) != nil {
		t.Error("a session without a directory")
	}
}

func FuzzTable(f *testing.F) {
	id := squashfs.BlockID{Pos: 96, Size: 70000}
	t := &table{identity: []byte("identity"), entries: []entry{{id: id, length: 5, crc: 7}, {id: squashfs.BlockID{Pos: 500, Size: squashfs.MetadataBlock}}}}
	f.Add(append(t.encode(), "bytes"...), true)
	f.Add((&table{}).encode(), false)
	f.Add(encodeMessage([]byte("identity"), []squashfs.BlockID{id}), false)
	path := filepath.Join(f.TempDir(), "image")
	makeImage(f, path, 2, 9)
	file, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	st, _ := file.Stat()
	r, err := squashfs.Open(file, st.Size(), squashfs.ReaderOptions{CacheSize: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if identity, ids, err := decodeMessage(b); err == nil && !bytes.Equal(encodeMessage(identity, ids), b) {
			t.Error("the message is not what was read")
		}
		n, err := headSize(b)
		if err != nil || n > len(b) {
			return
		}
		if n > maxHead {
			t.Fatalf("head of %d bytes", n)
		}
		if repair { // the checksum, and the size that must match
			b = bytes.Clone(b)
			le.PutUint64(b[20:], uint64(len(b)-n))
			le.PutUint32(b[28:], 0)
			le.PutUint32(b[28:], checksum(b[:n]))
		}
		tab, err := parseTable(b[:n], int64(len(b)))
		if err != nil {
			return
		}
		for _, e := range tab.entries {
			if e.off < int64(n) || e.off+int64(e.length) > int64(len(b)) {
				t.Fatalf("block at %d+%d of %d bytes", e.off, e.length, len(b))
			}
			r.Prefetch(e.id, nil) // must not panic, whatever it names
			r.Prefetch(e.id, b[e.off:e.off+int64(e.length)])
			r.Cached(e.id)
		}
		if again := tab.encode(); !bytes.Equal(again[headerSize:headerSize+len(tab.identity)], tab.identity) || len(again) != n {
			t.Error("the table is not what was read")
		}
	})
}

// TestOrderOnly: where no content is wanted none is taken, though it is there.
func TestOrderOnly(t *testing.T) {
	for _, busy := range []bool{false, true} {
		x := newFixture(t)
		x.first(0)
		x.config.Blocks, x.busy = false, busy
		if s := x.start(true, 0); s.loaded.Load() != 0 {
			t.Errorf("busy %v: %v", busy, s)
		}
	}
}

// TestStored: blocks that are stored as they are have no content here, and no start
// writes the file again for that.
func TestStored(t *testing.T) {
	x := newFixture(t)
	os.Remove(x.image)
	makeImageWith(t, x.image, 4, 1, squashfs.WriterOptions{NoCompress: true, Digest: sha256.Sum256})
	name := x.first(0, 1)
	old, _ := os.Stat(name)
	if old.Size() > 2000 {
		t.Errorf("file of %d bytes", old.Size())
	}
	if s := x.start(true, 0, 1); s.loaded.Load() != 0 || len(s.wanted()) > 0 {
		t.Errorf("%v", s)
	}
}

func TestConfigArgs(t *testing.T) {
	c := Config{Root: "/a b", Limit: 5, Blocks: true, Program: "exec x"}
	if got, err := ParseConfig(c.Args()); err != nil || got != c {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {"x", "true", "", ""}, {"1", "x", "", ""}, {"1", "true", ""}} {
		if _, err := ParseConfig(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestAdvance: the window follows the program, not a single touch far ahead.
func TestAdvance(t *testing.T) {
	s := &Session{at: -1, far: maxBlocks, window: 10}
	for _, step := range []struct{ touch, at, next int }{
		{3, 3, 4}, {2, 3, 5}, {12, 12, 13}, {80, 12, 14}, {13, 13, 15}, {83, 83, 84}, {14, 83, 85}, {84, 84, 86},
	} {
		s.advance(step.touch)
		if s.at != step.at {
			t.Errorf("touch of %d leads to %d, want %d", step.touch, s.at, step.at)
		}
		if i := s.pick(1000); i != step.next {
			t.Errorf("after %d: row %d is fetched, want %d", step.touch, i, step.next)
		}
	}
	s.next = 95
	if i := s.pick(1000); i != -1 || !s.hungry {
		t.Errorf("row %d is fetched, %d rows ahead", i, i-s.at)
	}
	if i := s.pick(95); i != 95 {
		t.Errorf("row %d of 95 is fetched", i)
	}
}

func TestRunning(t *testing.T) {
	for text, want := range map[string]int{"0.20 0.18 0.12 3/80 11206\n": 3, "": 0, "x": 0, "1 2 3 y/4 5": 0} {
		if n := running(text); n != want {
			t.Errorf("%q: %d run, want %d", text, n, want)
		}
	}
	for text, want := range map[string]int{"0-3\n": 3, "0\n": 0, "0-1,4-7": 7, "0,5": 5, "": 0} {
		if n := lastProcessor(text); n != want {
			t.Errorf("%q: last processor %d, want %d", text, n, want)
		}
	}
}

package fusefs

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// message builds a request as the kernel sends it.
func message(op uint32, node uint64, body []byte) []byte {
	b := make([]byte, inHeaderSize, inHeaderSize+len(body))
	le.PutUint32(b, uint32(inHeaderSize+len(body)))
	le.PutUint32(b[4:], op)
	le.PutUint64(b[8:], 77)
	le.PutUint64(b[16:], node)
	return append(b, body...)
}

// direct is a server whose answers go to a packet socket, and its other end.
func direct(tb testing.TB, c Config) (*Server, int) {
	tb.Helper()
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fds[1]) })
	s.fd = fds[0]
	return s, fds[1]
}

// answerOf reads one answer: its error number and body.
func answerOf(tb testing.TB, fd int) (syscall.Errno, []byte) {
	tb.Helper()
	b := make([]byte, 256<<10)
	n, err := unix.Read(fd, b)
	if err != nil || n < outHeaderSize || int(le.Uint32(b)) != n || le.Uint64(b[8:]) != 77 {
		tb.Fatalf("answer of %d bytes, %v: %x", n, err, b[:min(n, 32)])
	}
	return syscall.Errno(-int32(le.Uint32(b[4:]))), b[outHeaderSize:n]
}

func readBody(off uint64, size uint32) []byte {
	b := make([]byte, 40)
	le.PutUint64(b[8:], off)
	le.PutUint32(b[16:], size)
	return b
}

// broken is a tree whose files panic or fail.
type broken struct{ FS }

func (broken) Root() uint64 { return 1 }
func (broken) Stat() Stat   { return Stat{BlockSize: 4096, HasXattrs: true} }
func (broken) Attr(id uint64, a *Attr) error {
	if id == 1 {
		*a = Attr{Mode: modeDir | 0o755}
		return nil
	}
	return errors.New("damaged")
}
func (broken) Lookup(uint64, string) (uint64, bool, error) { panic("lookup") }
func (broken) Read(_ uint64, _ int64, _ int, _ *Data, wait bool) (bool, error) {
	if wait {
		panic("read")
	}
	return false, nil
}

// The C library and the kernel make buffers by the block size of a directory,
// for each opendir and READDIR: it is small whatever the image has.
func TestDirectoryBlockSize(t *testing.T) {
	s, fd := direct(t, Config{FS: smallFS(t), UID: -1, GID: -1})
	for _, test := range []struct {
		node uint64
		want uint32
	}{{1, dirBlockSize}, {fileNode(t, s), s.stat.BlockSize}} {
		r, _ := parse(message(opGetattr, test.node, make([]byte, 16)))
		s.handle(&r, make([]byte, replySize), new(Data))
		errno, body := answerOf(t, fd)
		if errno != 0 || le.Uint32(body[16+80:]) != test.want {
			t.Errorf("node %d: error %d, block size %d, want %d", test.node, errno, le.Uint32(body[16+80:]), test.want)
		}
	}
}

// fileNode is the number of the first regular file in the root of a tree.
func fileNode(tb testing.TB, s *Server) uint64 {
	tb.Helper()
	var node uint64
	err := s.tree.readDir(s.root, 0, func(e Dirent, _ uint64) bool {
		if e.Mode&modeType == modeRegular {
			node = s.number(e.ID)
		}
		return node == 0
	})
	if err != nil || node == 0 {
		tb.Fatalf("no regular file in the root: %v", err)
	}
	return node
}

// A panic answers EIO and is told once; the server goes on.
func TestPanicAnswersEIO(t *testing.T) {
	var told []string
	s, peer := direct(t, Config{FS: broken{}, UID: -1, GID: -1, OnError: func(err error) { told = append(told, err.Error()) }})
	defer unix.Close(s.fd)
	out := make([]byte, replySize)
	for _, m := range [][]byte{
		message(opLookup, 1, []byte("name\x00")), message(opLookup, 1, []byte("other\x00")),
		message(opRead, 9, readBody(0, 4096)), message(opGetattr, 9, make([]byte, 16)),
	} {
		r, ok := parse(m)
		if !ok || !s.handle(&r, out, new(Data)) {
			t.Fatalf("request %d ended the server", r.op)
		}
		if errno, _ := answerOf(t, peer); errno != syscall.EIO {
			t.Errorf("request %d: got %v, want EIO", r.op, errno)
		}
	}
	if len(told) != 3 || !strings.Contains(told[0], "panic") || told[2] != "damaged" {
		t.Errorf("told %q", told)
	}
}

func TestInit(t *testing.T) {
	out := make([]byte, replySize)
	body := func(major, minor uint32) []byte {
		b := make([]byte, 64)
		le.PutUint32(b, major)
		le.PutUint32(b[4:], minor)
		le.PutUint32(b[8:], 1<<17)
		le.PutUint32(b[12:], ^uint32(0))
		return b
	}
	for _, c := range []struct {
		major, minor, want uint32
		errno              syscall.Errno
	}{{7, 45, protoMinor, 0}, {7, 27, 27, 0}, {8, 1, 1, 0}, {7, 12, 0, syscall.EPROTO}, {6, 99, 0, syscall.EPROTO}} {
		n, errno := initialise(body(c.major, c.minor), out)
		if errno != c.errno {
			t.Errorf("kernel %d.%d: %v, want %v", c.major, c.minor, errno, c.errno)
			continue
		}
		if errno == 0 && (n != initOutSize || le.Uint32(out) != 7 || le.Uint32(out[4:]) != c.want) {
			t.Errorf("kernel %d.%d: %d bytes, version %d.%d", c.major, c.minor, n, le.Uint32(out), le.Uint32(out[4:]))
		}
	}
	if _, errno := initialise(nil, out); errno != syscall.EPROTO {
		t.Errorf("empty INIT: %v", errno)
	}
}

func TestLean(t *testing.T) {
	var l lean
	if !l.omit(5) {
		t.Fatal("the first list is full")
	}
	l.listed(100, 100)
	for range 25 {
		l.lookup(6) // of a directory that was not listed
	}
	if !l.omit(7) {
		t.Fatal("unrelated look-ups made lists full")
	}
	for range 26 {
		l.lookup(5)
	}
	if l.omit(8) {
		t.Fatal("look-ups of a quarter of the names did not make lists full")
	}
	l.listed(leanFull, 0)
	if !l.omit(9) {
		t.Fatal("lists stay full for ever")
	}
}

// smallFS is a squashfs with a few files.
func smallFS(tb testing.TB) FS {
	dir := tb.TempDir()
	for _, n := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(strings.Repeat(n, 5000)), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "d"), 0o755)
	os.Symlink("a", filepath.Join(dir, "l"))
	fs, err := openImage(pack(tb, dir))
	if err != nil {
		tb.Fatal(err)
	}
	return fs
}

// Requests that come through the loop, and its end when the other side goes.
func TestServeLoop(t *testing.T) {
	s, peer := direct(t, Config{FS: smallFS(t), UID: -1, GID: -1})
	done := make(chan error, 1)
	go func() { done <- s.Serve(s.fd) }()
	unix.Write(peer, []byte("too short"))
	unix.Write(peer, message(opLookup, 1, []byte("a\x00")))
	errno, body := answerOf(t, peer)
	if errno != 0 || len(body) != entrySize {
		t.Fatalf("LOOKUP: %v, %d bytes", errno, len(body))
	}
	node := le.Uint64(body)
	unix.Write(peer, message(opRead, node, readBody(4990, 4096)))
	if errno, body := answerOf(t, peer); errno != 0 || string(body) != "aaaaaaaaaa" {
		t.Errorf("READ at the end: %v, %q", errno, body)
	}
	unix.Write(peer, message(opRead, node, readBody(1<<40, 4096)))
	if errno, body := answerOf(t, peer); errno != 0 || len(body) != 0 {
		t.Errorf("READ behind the end: %v, %d bytes", errno, len(body))
	}
	unix.Write(peer, message(opRead, 1, readBody(0, 4096)))
	if errno, _ := answerOf(t, peer); errno == 0 {
		t.Errorf("READ of a directory worked")
	}
	unix.Write(peer, message(opWrite, node, make([]byte, 40)))
	if errno, _ := answerOf(t, peer); errno != syscall.EROFS {
		t.Errorf("WRITE: %v", errno)
	}
	unix.Write(peer, message(opLookup, 1, []byte("none\x00")))
	if errno, body := answerOf(t, peer); errno != 0 || le.Uint64(body) != 0 || le.Uint64(body[16:]) != forever {
		t.Errorf("absent name: %v, %x", errno, body)
	}
	unix.Write(peer, message(opDestroy, 0, nil))
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("server ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("server did not end")
	}
}

// Contents are made when somebody looks, once, and not before.
func TestLoad(t *testing.T) {
	calls := map[string]int{}
	load := func(name string, content []byte) Extra {
		return Extra{Path: name, Mode: modeRegular | 0o600, Load: func() []byte { calls[name]++; return content }}
	}
	s, peer := direct(t, Config{FS: smallFS(t), UID: -1, GID: -1, Extras: []Extra{
		load("a", []byte("loaded")), load("b", nil), load("new", []byte{}), load("none", nil), load("d/x", []byte("in d")),
	}})
	ask := func(m []byte) []byte {
		t.Helper()
		r, _ := parse(m)
		s.handle(&r, make([]byte, replySize), new(Data))
		errno, body := answerOf(t, peer)
		if errno != 0 {
			t.Fatal(errno)
		}
		return body
	}
	if ask(message(opLookup, 1, []byte("c\x00"))); len(calls) != 0 {
		t.Fatalf("loaded before anybody looked: %v", calls)
	}
	for name, want := range map[string]string{"a": "loaded", "b": strings.Repeat("b", 5000), "new": ""} {
		for range 2 {
			e := ask(message(opLookup, 1, []byte(name+"\x00")))
			node, size := le.Uint64(e), le.Uint64(e[entrySize-attrSize+8:])
			if got := ask(message(opRead, node, readBody(0, 8192))); string(got) != want || size != uint64(len(want)) {
				t.Errorf("%s: %d bytes, said to be %d, want %d", name, len(got), size, len(want))
			}
		}
	}
	if e := ask(message(opLookup, 1, []byte("none\x00"))); le.Uint64(e) != 0 {
		t.Error("a file without content is there")
	}
	list := string(ask(message(opReaddir, 1, readBody(0, 8192))))
	for name, n := range map[string]int{"a": 1, "b": 1, "new": 1, "none": 0} {
		if strings.Count(list, "\x00"+name+"\x00") != n {
			t.Errorf("%q is not listed %d times in %q", name, n, list)
		}
	}
	if want := map[string]int{"a": 1, "b": 1, "new": 1, "none": 1}; !maps.Equal(calls, want) {
		t.Errorf("loaded %v times, want %v", calls, want)
	}
}

func FuzzRequest(f *testing.F) {
	for _, m := range [][]byte{
		message(opInit, 0, make([]byte, 64)), message(opLookup, 1, []byte("a\x00")), message(opGetattr, 1, make([]byte, 16)),
		message(opRead, 34, readBody(0, 1<<17)), message(opReaddirplus, 1, readBody(0, 4096)), message(opReaddir, 1, readBody(3, 100)),
		message(opReaddir, 1, readBody(1<<63, 4096)), message(opGetxattr, 1, []byte("\x00\x01\x00\x00\x00\x00\x00\x00user.x\x00")),
		message(opReadlink, 66, nil), message(opStatfs, 1, nil), message(opDestroy, 0, nil), message(opReaddir, synthetic+2, readBody(0, 4096)),
	} {
		f.Add(m)
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Config{FS: smallFS(f), UID: -1, GID: -1, Extras: []Extra{{Path: "d/x", Mode: modeRegular | 0o644, Content: []byte("x")}},
		OnError: func(err error) {
			if strings.HasPrefix(err.Error(), "panic") {
				panic(err)
			}
		}})
	if err != nil {
		f.Fatal(err)
	}
	s.fd = null
	out, data := make([]byte, replySize), new(Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			le.PutUint32(b, uint32(len(b)))
		}
		if r, ok := parse(b); ok {
			s.handle(&r, out, data)
		}
	})
}

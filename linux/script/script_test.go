package script

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// start runs s with its output in a pipe and returns that and the exit status.
func start(t *testing.T, s *Script, out *os.File, r io.Reader) (string, syscall.WaitStatus, error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	pid, err := s.Start(0, p[1])
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(p[1])
	out.Close()
	failed := s.ReadFailure(p[0])
	syscall.Close(p[0])
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return string(text), ws, failed
}

func pipe(t *testing.T) (*os.File, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, w
}

func TestSlotsSkipsAndExec(t *testing.T) {
	r, w := pipe(t)
	s := new(Script)
	cwd := Int(-100)
	bad := s.Call("open nothing", syscall.SYS_OPENAT, cwd, s.Str("/nonexistent"), Int(0))
	s.SkipOK(bad, 1) // fails: the next step is the other way
	dir := s.Call("open /", syscall.SYS_OPENAT, cwd, s.Str("/"), Int(syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC))
	etc := s.Call("open etc", syscall.SYS_OPENAT, dir.Arg(), s.Str("etc"), Int(syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC))
	s.Call("enter etc", syscall.SYS_FCHDIR, etc.Arg())
	s.Call("join output", syscall.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
	s.Exec([]string{"/nonexistent/sh", "/bin/sh"}, []string{"sh", "-c", "pwd; echo $A"}, []string{"A=b c"}, "")
	text, ws, err := start(t, s, w, r)
	if err != nil || !ws.Exited() || ws.ExitStatus() != 0 || text != "/etc\nb c\n" {
		t.Errorf("got %q, status %v, error %v", text, ws, err)
	}
}

func TestFailureNamesStep(t *testing.T) {
	r, w := pipe(t)
	s := new(Script)
	s.Call("enter the void", syscall.SYS_CHDIR, s.Str("/nonexistent"))
	s.Exec([]string{"/bin/true"}, []string{"true"}, nil, "")
	_, ws, err := start(t, s, w, r)
	if ws.ExitStatus() != 127 || !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "cannot enter the void") {
		t.Errorf("status %v, error %v", ws, err)
	}
}

func TestEqualAndWant(t *testing.T) {
	st := make([]uint64, 18)
	s := new(Script)
	s.Call("look at /", syscall.SYS_NEWFSTATAT, Int(-100), s.Str("/"), s.Words(st), Int(0))
	if err := s.Here(); err != nil {
		t.Fatal(err)
	}
	s.Equal("see the same directory", st, 0, 1, st[0], st[1])
	if err := s.Here(); err != nil {
		t.Errorf("same values: %v", err)
	}
	s.Equal("see the same directory", st, 0, 1, st[0], st[1]+1)
	if err := s.Here(); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("other values: %v", err)
	}
	w := new(Script)
	w.Want(w.Call("be process 0", syscall.SYS_GETPID), 0)
	if err := w.Here(); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("unwanted result: %v", err)
	}
}

func TestExecErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		p := dir + "/" + name
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		name, path string
		want       syscall.Errno
	}{
		{"missing", dir + "/none", syscall.ENOENT},
		{"directory", dir, syscall.EACCES},
		{"not executable", write("plain", "x", 0o644), syscall.EACCES},
		{"interpreter missing", write("nointerp", "#!/nonexistent/interp\n", 0o755), syscall.ELIBACC},
	} {
		r, w := pipe(t)
		s := new(Script)
		s.Exec([]string{c.path}, []string{"x"}, nil, "")
		_, _, err := start(t, s, w, r)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	r, w := pipe(t)
	s := new(Script)
	s.Call("join output", syscall.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
	s.Exec([]string{write("noshebang", "echo \"$0 $1\"\n", 0o755)}, []string{"x", "arg"}, nil, "/bin/sh")
	text, _, err := start(t, s, w, r)
	if err != nil || text != dir+"/noshebang arg\n" {
		t.Errorf("script without #!: got %q, %v", text, err)
	}
}

// inPID runs a script in a new PID namespace, as root or in a new user
// namespace.
func inPID(t *testing.T, s *Script) syscall.WaitStatus {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	flags := uintptr(syscall.CLONE_NEWPID)
	if os.Getuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
	}
	pid, err := s.Start(flags, p[1])
	if err != nil {
		t.Skip("no PID namespace here: ", err)
	}
	syscall.Close(p[1])
	if err := s.ReadFailure(p[0]); err != nil {
		t.Fatal(err)
	}
	syscall.Close(p[0])
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return ws
}

func TestInit(t *testing.T) {
	for _, c := range []struct {
		command string
		want    int
	}{
		{"exit 7", 7},
		{"kill -9 $$", 128 + 9},
		{"test $$ = 2", 0},
		{"(exit 3) & wait $!; exit $?", 3},
		// An orphan is reaped by process 1, a signal to it reaches the program.
		{"trap 'exit 5' USR1; kill -USR1 1; while :; do sleep 0.02; done", 5},
	} {
		s := new(Script)
		all, none := []uint64{^uint64(0)}, []uint64{0}
		s.Call("block", syscall.SYS_RT_SIGPROCMASK, Int(2), s.Words(all), Int(0), Int(8))
		s.Init(false, false)
		s.Call("unblock", syscall.SYS_RT_SIGPROCMASK, Int(2), s.Words(none), Int(0), Int(8))
		s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", c.command}, nil, "")
		if ws := inPID(t, s); !ws.Exited() || ws.ExitStatus() != c.want {
			t.Errorf("%s: status %v, want %d", c.command, ws, c.want)
		}
	}
}

func TestLaunch(t *testing.T) {
	for _, c := range []struct {
		path, command string
		wait          bool
		want          syscall.Errno
	}{
		// Descriptor 40 is the one that stays, standard output is standard error.
		{"/bin/sh", "echo launched >/proc/self/fd/40; test -e /proc/self/fd/41 && echo leaked >/proc/self/fd/40; echo other", true, 0},
		{"/bin/sh", "exit 3", true, syscall.EIO},
		{"/nonexistent", "", true, syscall.ENOENT},
		{"/nonexistent", "", false, syscall.ENOENT},
		{"/bin/sh", "echo launched >/proc/self/fd/40", false, 0},
	} {
		r, w := pipe(t)
		s := new(Script)
		s.Call("name the descriptor", syscall.SYS_DUP3, Int(int(w.Fd())), Int(40), Int(syscall.O_CLOEXEC))
		s.Call("name another", syscall.SYS_DUP3, Int(int(w.Fd())), Int(41), Int(syscall.O_CLOEXEC))
		s.Launch("launch", []string{c.path}, []string{"sh", "-c", c.command}, nil, 40, c.wait)
		s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", "test ! -e /proc/self/fd/40"}, nil, "")
		text, ws, err := start(t, s, w, r)
		want := ""
		if c.want == 0 {
			want = "launched\n"
		}
		if text != want || c.want == 0 && (err != nil || ws != 0) || c.want != 0 && !errors.Is(err, c.want) {
			t.Errorf("%+v: got %q, status %v, error %v", c, text, ws, err)
		}
	}
}

func TestStore(t *testing.T) {
	s := new(Script)
	w := []uint64{1, 2}
	r, wr := new([2]int), []byte("x")
	if err := syscall.Pipe(r[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(r[0])
	defer syscall.Close(r[1])
	n := s.Call("write", syscall.SYS_WRITE, Int(r[1]), s.Bytes(wr), Int(1))
	s.Store(n, w, 1)
	s.Equal("see the result", w, 0, 1, 1, 1)
	if err := s.Here(); err != nil || w[1] != 1 {
		t.Errorf("got %v %d", err, w)
	}
}

// A child that shares our memory goes on while the parent allocates, collects
// and ends threads, and starts its program with the parent's blocked signals.
func TestChildBesideBusyParent(t *testing.T) {
	r, w := pipe(t)
	var gate [2]int
	if err := syscall.Pipe2(gate[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	s := new(Script)
	s.Call("join output", syscall.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
	s.Want(s.Call("wait", syscall.SYS_READ, Int(gate[0]), s.Bytes(make([]byte, 1)), Int(1)), 1)
	for range 200 {
		s.Call("look at /", syscall.SYS_FACCESSAT, Int(-100), s.Str("/"), Int(0))
	}
	s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", "grep SigBlk /proc/self/status"}, nil, "")
	go func() {
		for range 50 {
			runtime.GC()
			done := make(chan []byte)
			go func() {
				runtime.LockOSThread() // ends its thread
				done <- make([]byte, 1<<20)
			}()
			<-done
		}
		syscall.Write(gate[1], []byte{1})
		syscall.Close(gate[1])
	}()
	text, ws, err := start(t, s, w, r)
	own, _ := os.ReadFile("/proc/thread-self/status")
	if err != nil || ws != 0 || !strings.HasPrefix(text, "SigBlk:") || !strings.Contains(string(own), text) {
		t.Errorf("got %q, status %v, error %v; own:\n%s", text, ws, err, own)
	}
}

// The way for hosts and processors where a child cannot share our memory.
func TestCopiedChild(t *testing.T) {
	r, w := pipe(t)
	s := new(Script)
	s.Call("join output", syscall.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
	s.Exec([]string{"/bin/sh"}, []string{"sh", "-c", "echo copied"}, nil, "")
	pid, e := s.copied(0, int(w.Fd()))
	if e != 0 {
		t.Fatal(e)
	}
	w.Close()
	text, _ := io.ReadAll(r)
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil || string(text) != "copied\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestOtherwise: a program by its descriptor takes the place of one that is
// missing, or whose interpreter is, and of no other.
func TestOtherwise(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"lost": "#!/nonexistent/sh\n", "text": "echo by the shell\n"} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/closed", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, shell, want string
		errno             syscall.Errno
	}{
		{path: dir + "/none", want: "otherwise\n"}, {path: dir + "/lost", want: "otherwise\n"}, {path: dir + "/text", want: "otherwise\n"},
		{path: dir + "/text", shell: "/nonexistent", want: "otherwise\n"}, {path: dir + "/text", shell: "/bin/sh", want: "by the shell\n"},
		{path: "/bin/true"}, {path: dir + "/closed", errno: syscall.EACCES},
	} {
		program, err := os.Open("/bin/sh")
		if err != nil {
			t.Fatal(err)
		}
		r, w := pipe(t)
		s := new(Script)
		s.Call("set the output", syscall.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
		s.Exec([]string{c.path}, []string{"x"}, nil, c.shell)
		s.Otherwise(int(program.Fd()), []string{"sh", "-c", "echo otherwise"})
		got, _, err := start(t, s, w, r)
		program.Close()
		if got != c.want || c.errno == 0 && err != nil || c.errno != 0 && !errors.Is(err, c.errno) {
			t.Errorf("%s: %q, %v; want %q, %v", c.path, got, err, c.want, c.errno)
		}
	}
}

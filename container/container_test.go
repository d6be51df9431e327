package container

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"singularity/host"
	"singularity/plan"
)

// here is the plan of a program in the host's own root, as this user in a user
// namespace.
func here(args ...string) *plan.Plan {
	return &plan.Plan{
		IDs:  plan.IDs{Mode: plan.SingleID, UID: os.Getuid(), GID: os.Getgid(), InsideUID: os.Getuid(), InsideGID: os.Getgid()},
		Root: plan.Root{Kind: plan.HostRoot},
		Process: plan.Process{Paths: plan.Search(args[0], []string{"PATH=/usr/bin:/bin"}), Args: args, Env: []string{"PATH=/usr/bin:/bin", "WORD=value"},
			Dirs: []string{"/nonexistent", "/usr", "/"}, Umask: -1},
	}
}

// run carries p out and returns what it wrote, or skips the test where this
// host makes no user namespaces.
func run(t *testing.T, p *plan.Plan, h Hooks) (syscall.WaitStatus, string, error) {
	t.Helper()
	if f := host.UserNamespaces(); f != nil {
		t.Skip(f.Error())
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	h.Stdio = [3]*os.File{null, w, w}
	out := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		out <- string(b)
	}()
	ws, err := Run(p, nil, h)
	w.Close()
	text := <-out
	r.Close()
	if f := host.Explain(err); f != nil {
		t.Skip(err.Error() + ": " + f.Cause)
	}
	return ws, text, err
}

func TestRun(t *testing.T) {
	descriptors := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	ws, out, err := run(t, here("sh", "-c", "id -u; pwd; echo $WORD; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; exit 7"), Hooks{})
	before := descriptors()
	want := strconv.Itoa(os.Getuid()) + "\n/usr\nvalue\nNoNewPrivs:\t1\n4\n"
	if err != nil || ws.ExitStatus() != 7 || out != want {
		t.Errorf("status %d, %v, wrote %q, want 7 and %q", ws.ExitStatus(), err, out, want)
	}
	ws, _, err = run(t, here("sh", "-c", "kill -TERM $$"), Hooks{})
	if err != nil || !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		t.Errorf("status %#x, %v, want the end by SIGTERM", ws, err)
	}
	_, _, err = run(t, here("nosuchprogram"), Hooks{})
	if e := new(ExecError); !errors.As(err, &e) || e.Errno != syscall.ENOENT || e.Program != "nosuchprogram" {
		t.Errorf("got %v, want an ExecError", err)
	}
	if n := descriptors(); n != before {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
}

// A container is killed when its caller wants no more of it.
func TestDone(t *testing.T) {
	done := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(done) })
	ws, _, err := run(t, here("sleep", "1000"), Hooks{Done: done})
	if err != nil || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("status %#x, %v, want the end by SIGKILL", ws, err)
	}
}

// The descriptor for the parent stays open, alone, and takes the place of the
// parent-death signal.
func TestParent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	fd := strconv.Itoa(int(r.Fd()))
	p := here("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '")
	ws, out, err := run(t, p, Hooks{Parent: r})
	if fields := strings.Fields(out); err != nil || ws != 0 || len(fields) != 5 || !strings.Contains(" "+out, " "+fd+" ") {
		t.Errorf("status %#x, %v, descriptors %q, want 0, 1, 2, that of ls and %s", ws, err, out, fd)
	}
	b := newBuilder(p, Hooks{Parent: r}, int(w.Fd()))
	if err := b.rest(false, nil, wires{}); err != nil {
		t.Fatal(err)
	}
	if text := b.s.String(); strings.Contains(text, "parent-death") || !strings.Contains(text, "keep the parent's descriptor open\n") {
		t.Errorf("the steps are\n%s", text)
	}
}

// busyboxRoot is a root file system.
func busyboxRoot(t *testing.T) plan.Root {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(dir, "bin/busybox")).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return plan.Root{Kind: plan.DirRoot, Path: dir, Dev: st.Dev, Ino: st.Ino}
}

// A directory becomes the root: read-only, with a generated file, a bind that
// it has no place for, and nothing of the host.
func TestRunDirectory(t *testing.T) {
	root := busyboxRoot(t)
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "file"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := here("/bin/busybox", "sh", "-c", "b=/bin/busybox; $b cat /etc/passwd /mnt/data/file; $b touch /new 2>&- || echo read-only; $b touch /mnt/data/new 2>&- || echo bind read-only; $b ls /")
	p.Root = root
	p.Process.Dirs = []string{"/"}
	p.Mounts = []plan.Mount{{Source: data, Destination: "/mnt/data", ReadOnly: true, Tag: "user"}}
	p.Files = []plan.File{
		{Path: "/mnt/data", Dir: true, Perm: 0o755},
		{Path: "/etc/passwd", Perm: 0o644, Load: func([]byte) ([]byte, error) { return []byte("new\n"), nil }},
	}
	ws, out, err := run(t, p, Hooks{})
	if want := "new\ncontent\nread-only\nbind read-only\nbin\netc\nmnt\nproc\n"; err != nil || ws != 0 || out != want {
		t.Errorf("status %#x, %v, wrote %q, want %q", ws, err, out, want)
	}
	if names, _ := os.ReadDir(root.Path); len(names) != 3 {
		t.Errorf("the directory was changed: %v", names)
	}
	// Another directory under the same name is refused.
	p.Root.Ino++
	if _, _, err := run(t, p, Hooks{}); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("got %v for a directory that was replaced, want ESTALE", err)
	}
}

// TestForward decides about signals where a terminal is and where none is.
func TestForward(t *testing.T) {
	if os.Getenv("CONTAINER_TEST_TERMINAL") != "" {
		forwardOnTerminal(t)
		return
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTSTP, syscall.SIGWINCH} {
		if !forward(caught{sig, false}) {
			t.Errorf("%v that a process sent is not passed on", sig)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1} {
		if !forward(caught{sig, true}) {
			t.Errorf("%v is not passed on", sig)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs /dev/ptmx: " + err.Error())
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("needs /dev/pts: " + err.Error())
	}
	defer slave.Close()
	c := exec.Command("/proc/self/exe", "-test.run=^TestForward$", "-test.v")
	c.Env = append(os.Environ(), "CONTAINER_TEST_TERMINAL=1")
	c.Stdin, c.SysProcAttr = slave, &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("on a terminal: %v\n%s", err, out)
	}
}

// forwardOnTerminal runs in the foreground of a terminal.
func forwardOnTerminal(t *testing.T) {
	if !IsTerminal() || !inForeground() {
		t.Fatal("not in the foreground of a terminal")
	}
	for _, c := range []struct {
		sig      syscall.Signal
		terminal bool
		want     bool
	}{
		{syscall.SIGINT, true, false}, {syscall.SIGQUIT, true, false}, {syscall.SIGTSTP, true, false}, {syscall.SIGWINCH, true, false},
		{syscall.SIGINT, false, true}, {syscall.SIGTERM, true, true}, {syscall.SIGHUP, true, true},
	} {
		if got := forward(caught{c.sig, c.terminal}); got != c.want {
			t.Errorf("%v (from the terminal: %v): passed on is %v, want %v", c.sig, c.terminal, got, c.want)
		}
	}
}

func TestExit(t *testing.T) {
	if got := Exit(syscall.WaitStatus(7 << 8)); got != 7 {
		t.Errorf("got %d, want 7", got)
	}
}

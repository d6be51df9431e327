package cgroupfs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hierarchy returns a mounted hierarchy in which this process may make groups.
func hierarchy(t *testing.T) *Dir {
	t.Helper()
	for _, m := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		if d, err := OpenMount(m); err == nil && d.Writable() {
			t.Cleanup(func() { d.Close() })
			return d
		}
	}
	t.Skip("needs a cgroup hierarchy that the caller may write to")
	return nil
}

func TestGroup(t *testing.T) {
	root := hierarchy(t)
	name := "cgroupfs-test-" + strconv.Itoa(os.Getpid())
	g, made, err := root.Mkdir(name)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	defer root.Rmdir(name)
	defer g.Close()
	if _, made, err := root.Mkdir(name); err != nil || made {
		t.Errorf("second Mkdir: made %v, %v", made, err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := g.Write("cgroup.procs", pid); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Read("cgroup.procs"); err != nil || got != pid {
		t.Errorf("cgroup.procs holds %q, want %q (%v)", got, pid, err)
	}
	if err := root.Rmdir(name); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Rmdir of a group with a process: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := root.Rmdir(name); err != nil {
		t.Error(err)
	}
	if root.Same(name, g) {
		t.Error("a removed group is still the same")
	}
}

func TestLock(t *testing.T) {
	root := hierarchy(t)
	name := "cgroupfs-lock-" + strconv.Itoa(os.Getpid())
	a, _, err := root.Mkdir(name)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Rmdir(name)
	b, err := root.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !a.Lock(false) || b.Lock(true) {
		t.Error("a lock that is held could be taken")
	}
	a.Close()
	if !b.Lock(true) {
		t.Error("the lock did not end with its directory")
	}
}

// TestForged holds for SC-030: what is not the kernel's own file is refused
// before it is written.
func TestForged(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "memory.max"), nil, 0o644)
	if _, err := OpenMount(dir); !errors.Is(err, ErrNotCgroup) {
		t.Errorf("an ordinary directory as hierarchy: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	os.Symlink("/sys/fs/cgroup", link)
	if _, err := OpenMount(link); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link as hierarchy: %v", err)
	}
	root := hierarchy(t)
	for _, name := range []string{"../../../proc/self/comm", "/proc/self/comm", ".."} {
		if err := root.Write(name, "x"); err == nil {
			t.Errorf("Write(%q) left the hierarchy", name)
		}
	}
}

// TestCovered holds for SC-030: a file of a group or of /proc that is covered by
// another one is refused.
func TestCovered(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	root := hierarchy(t)
	name := "cgroupfs-cover-" + strconv.Itoa(os.Getpid())
	g, _, err := root.Mkdir(name)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Rmdir(name)
	defer g.Close()
	victim := filepath.Join(t.TempDir(), "victim")
	os.WriteFile(victim, []byte("untouched"), 0o644)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Error(err)
			return
		}
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		covered, err := OpenMount(root.Name())
		if err != nil {
			t.Error(err)
			return
		}
		defer covered.Close()
		for _, at := range []string{filepath.Join(g.Name(), "cgroup.procs"), "/proc/" + strconv.Itoa(os.Getpid()) + "/mountinfo"} {
			if err := unix.Mount(victim, at, "", unix.MS_BIND, ""); err != nil {
				t.Error(at, err)
			}
		}
		if err := covered.Write(name+"/cgroup.procs", "0"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("write to a covered file: %v", err)
		}
		if _, err := ReadProc("self/mountinfo"); !errors.Is(err, unix.EXDEV) {
			t.Errorf("read of a covered file of /proc: %v", err)
		}
		unix.Mount("tmpfs", "/proc", "tmpfs", 0, "")
		if _, err := ReadProc("self/cgroup"); !errors.Is(err, ErrNotProc) {
			t.Errorf("read of a forged /proc: %v", err)
		}
	}()
	<-done
	if text, _ := os.ReadFile(victim); string(text) != "untouched" {
		t.Errorf("the file that covered holds %q", text)
	}
}

func TestReadProc(t *testing.T) {
	text, err := ReadProc("self/mountinfo")
	if err != nil || !strings.Contains(text, "/proc") {
		t.Errorf("mountinfo %q, %v", text, err)
	}
	if _, err := ReadProc("../etc/passwd"); err == nil {
		t.Error("left /proc")
	}
}

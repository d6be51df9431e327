package vm

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image makes a directory image with a shell in it.
func image(t *testing.T) string {
	t.Helper()
	if os.Getenv("RUN_IN_VM") == "" {
		t.Skip("needs a virtual machine: run e2e/vm/run")
	}
	root := t.TempDir()
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp", "etc", "root", "home"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "cat", "ls", "sleep", "dd", "echo", "true", "mount", "mkdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func command(args ...string) *exec.Cmd {
	return exec.Command(os.Getenv("SINGULARITY_E2E_PREFIX")+"/bin/singularity", args...)
}

func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
			return strings.TrimSpace(out.String()), 128 + int(ws.Signal())
		}
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode()
}

// groups lists the groups of containers.
func groups() []string {
	var list []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (filepath.Base(filepath.Dir(p)) == "singularity" || strings.HasPrefix(d.Name(), "singularity-") && d.Name() != "singularity-callers") {
			list = append(list, p)
		}
		return nil
	})
	return list
}

// waitGone waits until no group of a container is left.
func waitGone(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := groups()
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("groups are left: %q", left)
			return
		}
	}
}

func v1() bool {
	_, err := os.Stat("/sys/fs/cgroup/memory")
	return err == nil
}

func TestMemory(t *testing.T) {
	box := image(t)
	script := "cat /sys/fs/cgroup$(cat /proc/self/cgroup | while IFS=: read a b c; do case $b in '') echo $c;; memory) echo /memory$c;; esac; done | { while read x; do y=$x; done; echo $y; })/memory.*max"
	if v1() {
		script = strings.ReplaceAll(script, "memory.*max", "memory.limit_in_bytes")
		script = strings.ReplaceAll(script, "'') echo $c;;", "")
	} else {
		script = strings.ReplaceAll(script, "memory.*max", "memory.max")
	}
	out, code := run(t, "exec", "--memory", "48m", box, "sh", "-c", script)
	if code != 0 || out != "50331648" {
		t.Errorf("inside the limit is %q, status %d", out, code)
	}
	if out, code := run(t, "exec", "--memory", "24m", box, "dd", "if=/dev/zero", "of=/dev/null", "bs=90M", "count=1"); code != 137 {
		t.Errorf("90 MB under a limit of 24 MB: %q, status %d", out, code)
	}
	if out, code := run(t, "exec", "--memory", "24m", box, "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("%q, status %d", out, code)
	}
	waitGone(t)
}

func TestPIDs(t *testing.T) {
	box := image(t)
	out, _ := run(t, "exec", "--pids-limit", "6", box, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 30 >/dev/null 2>&1 & done")
	if !strings.Contains(out, "fork") {
		t.Errorf("8 processes under a limit of 6: %q", out)
	}
	// What the program left running went with its group.
	waitGone(t)
}

func TestFile(t *testing.T) {
	box := image(t)
	file := filepath.Join(t.TempDir(), "limits.toml")
	if err := os.WriteFile(file, []byte("[pids]\nlimit = 5\n[memory]\nlimit = 67108864\nquotas = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := run(t, "exec", "--apply-cgroups", file, box, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 30 >/dev/null 2>&1 & done")
	if !strings.Contains(out, "fork") || !strings.Contains(out, `"memory.quotas" is no limit`) {
		t.Errorf("%q, status %d", out, code)
	}
	out, code = run(t, "exec", "--apply-cgroups", file, "--memory", "1g", box, "true")
	if code != 255 || !strings.Contains(out, "cannot apply a cgroups TOML file while using limit flags") {
		t.Errorf("%q, status %d", out, code)
	}
	waitGone(t)
}

// TestTreeReadOnly holds for SC-034 and SC-035: a program cannot change its
// limits through the tree that it sees, nor by mounting one.
func TestTreeReadOnly(t *testing.T) {
	box := image(t)
	for _, flags := range [][]string{nil, {"--fakeroot"}} {
		file := map[bool]string{true: "/sys/fs/cgroup/memory/singularity/*/memory.limit_in_bytes /sys/fs/cgroup/memory/release_agent", false: "/sys/fs/cgroup$(cat /proc/self/cgroup | while IFS=: read a b c; do echo $c; done)/memory.max"}[v1()]
		args := append(append([]string{"exec", "--memory", "48m"}, flags...), box, "sh", "-c",
			"for f in "+file+"; do test -e $f || echo missing; echo 1000000000 >$f && echo written; done; mkdir /tmp/cg-$$; mount -t cgroup2 none /tmp/cg-$$ && echo mounted; mount -t cgroup -o memory none /tmp/cg-$$ && echo mounted; true")
		out, code := run(t, args...)
		root := os.Getuid() == 0 // with its own rights, which no limit takes away
		if code != 0 || strings.Contains(out, "written") || strings.Contains(out, "missing") || strings.Contains(out, "mounted") && !root || !strings.Contains(out, "Read-only file system") {
			t.Errorf("%q: status %d: %q", flags, code, out)
		}
	}
	waitGone(t)
}

// TestNoDescriptor holds for SC-033: no descriptor of the tree reaches the
// program.
func TestNoDescriptor(t *testing.T) {
	box := image(t)
	out, code := run(t, "exec", "--memory", "48m", box, "sh", "-c", "ls -l /proc/$$/fd | while read a b c d e f g h i j k; do echo $i $k; done; for n in 3 4 5 6 7 8 9 10; do ls /proc/$$/fd/$n/. && echo leak; done 2>/dev/null; true")
	if code != 0 || strings.Contains(out, "cgroup") || strings.Contains(out, "leak") {
		t.Errorf("status %d: %q", code, out)
	}
	for _, fd := range []string{"3", "5", "7"} {
		out, _ = run(t, "exec", "--memory", "48m", "--pwd", "/proc/self/fd/"+fd, box, "sh", "-c", "ls cgroup.procs ../cgroup.procs 2>/dev/null; true")
		if strings.Contains(out, "cgroup.procs") {
			t.Errorf("descriptor %s was entered: %q", fd, out)
		}
	}
	waitGone(t)
}

// TestKilled proves that a kill -9 of the start leaves nothing: no process, no
// group.
func TestKilled(t *testing.T) {
	box := image(t)
	cmd := command("exec", "--memory", "48m", box, "sleep", "987")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asleep := func() bool {
		list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range list {
			if b, _ := os.ReadFile(f); strings.HasPrefix(string(b), "sleep\x00987") {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(30 * time.Second); !asleep(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the container does not start")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	for end := time.Now().Add(10 * time.Second); asleep(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the program is left")
		}
	}
	waitGone(t)
}

// TestImpossible proves that a start which cannot have its limits does not
// happen, and that the message says what is missing.
func TestImpossible(t *testing.T) {
	box := image(t)
	out, code := run(t, "exec", "--cpuset-cpus", "4000", box, "echo", "started")
	if code != 255 || strings.Contains(out, "started") || !strings.Contains(out, "cannot apply cgroups") {
		t.Errorf("%q, status %d", out, code)
	}
	waitGone(t)
}

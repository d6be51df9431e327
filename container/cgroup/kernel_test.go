package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/cgroupfs"
)

// These tests make real groups on whatever this host has: hierarchies of version
// 1 as root, the unified one as root or as a user to whom it is delegated, by a
// directory or by systemd. e2e/vm runs them on all of these.

const killedHelper, makesNodes = "CGROUP_TEST_KILLED", "CGROUP_TEST_NODES"

func TestMain(m *testing.M) {
	if os.Getenv(killedHelper) != "" {
		// A start that will be killed.
		g, _, err := New(&Limits{}, false)
		if err != nil {
			os.Stdout.WriteString("error " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Stdout.WriteString(g.Path() + " " + strconv.Itoa(g.guard.pid) + "\n")
		syscall.Pause()
	}
	if dir := os.Getenv(makesNodes); dir != "" {
		for major := range uint32(512) {
			for _, kind := range []uint32{unix.S_IFBLK, unix.S_IFCHR} {
				if err := unix.Mknod(dir+"/node", kind|0o600, int(unix.Mkdev(major, 1))); err != unix.EPERM {
					os.Stdout.WriteString("major " + strconv.Itoa(int(major)) + ": " + fmt.Sprint(err) + "\n")
				}
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newGroup makes a group, or skips if this host has none for the caller.
func newGroup(t *testing.T, l *Limits) *Group {
	t.Helper()
	g, notes, err := New(l, true)
	if lack := new(MissingError); errors.As(err, &lack) && os.Getenv("RUN_IN_VM") == "" {
		t.Skipf("needs control groups that the caller may make: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Remove() })
	for _, n := range notes {
		t.Log("note:", n)
	}
	return g
}

// shell runs a script in the group g.
func shell(g *Group, script string) (string, error) {
	enter := ""
	for i := range g.Procs() {
		enter += "echo 0 >&" + strconv.Itoa(3+i) + " || exit 99; exec " + strconv.Itoa(3+i) + ">&-;"
	}
	cmd := exec.Command("/bin/sh", "-c", enter+script)
	cmd.ExtraFiles = g.Procs()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// at returns the path of a file of g in the host's tree.
func (g *Group) at(controller, file string) string {
	return path.Join(g.memberOf(controller).dir.Name(), file)
}

func TestLimitsBind(t *testing.T) {
	l, err := FromFlags(Flags{Memory: "32m", PIDs: "8", CPUs: "0.5", CPUShares: "512"})
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup(t, l)
	out, err := shell(g, "cat /proc/self/cgroup")
	if err != nil || !strings.Contains(out, g.Path()+"\n") && !strings.HasSuffix(out, g.Path()) {
		t.Errorf("the process is in\n%s\nnot in %s (%v)", out, g.Path(), err)
	}
	file := map[bool]string{true: "memory.max", false: "memory.limit_in_bytes"}[g.members[0].dir.V2()]
	if b, err := os.ReadFile(g.at("memory", file)); strings.TrimSpace(string(b)) != "33554432" {
		t.Errorf("%s holds %q (%v)", file, b, err)
	}
	// Ten sleeps do not fit into eight tasks.
	if out, err := shell(g, "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 20 >/dev/null 2>&1 & done"); err == nil && !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("10 processes under a limit of 8: %q, %v", out, err)
	}
	if s, err := ReadStats(g.Path()); err != nil || s.PIDs.Current == 0 || s.PIDs.Limit != 8 || s.Memory.Usage.Limit != 32<<20 || s.CPU.Usage.Total == 0 {
		t.Errorf("statistics %+v, %v", s, err)
	}
	if err := killAll(g.memberOf("pids").dir); err != nil {
		t.Error(err)
	}
	// Eighty megabytes do not fit into 32.
	if out, err := shell(g, "dd if=/dev/zero of=/dev/null bs=80M count=1"); err == nil {
		t.Errorf("80 MB under a limit of 32 MB: %q", out)
	}
}

func TestRemove(t *testing.T) {
	g := newGroup(t, &Limits{})
	if _, err := shell(g, "sleep 600 >/dev/null 2>&1 & sleep 600 >/dev/null 2>&1 & :"); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, m := range g.members {
		dirs = append(dirs, m.dir.Name())
	}
	// A container may make groups in its own.
	if err := os.Mkdir(dirs[0]+"/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("removal took %v", d)
	}
	for _, d := range dirs {
		if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", d, err)
		}
	}
}

// TestKilled proves that a killed start leaves nothing, and if its guard is
// killed too, nothing that the next start does not remove; and that a living one
// is let alone.
func TestKilled(t *testing.T) {
	newGroup(t, &Limits{}).Remove()
	h, err := cgroupfs.FindHost()
	if err != nil {
		t.Fatal(err)
	}
	controller := cgroupfs.Unified
	if !h.V2 {
		controller = "pids"
	}
	there := func(place string) bool {
		d, err := h.Open(controller, place)
		if err == nil {
			d.Close()
		} else if !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
		return err == nil
	}
	start := func() (*exec.Cmd, string, int) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), killedHelper+"=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		word, guard, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "error" {
			cmd.Wait()
			t.Skipf("needs a group without systemd: %s", line)
		}
		pid, _ := strconv.Atoi(guard)
		return cmd, word, pid
	}
	kill := func(cmd *exec.Cmd) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	killed, dead, guard := start()
	if guard <= 0 || !there(dead) {
		t.Errorf("a start has guard %d, and its group is there: %v", guard, there(dead))
	}
	kill(killed)
	for end := time.Now().Add(20 * time.Second); there(dead); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the group of a killed start is left")
		}
	}
	killed, dead, guard = start()
	syscall.Kill(guard, syscall.SIGKILL)
	kill(killed)
	alive, living, _ := start()
	defer kill(alive)
	// The kernel may need a moment to let go of the guard's lock.
	for end := time.Now().Add(20 * time.Second); there(dead); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the group of a start that was killed with its guard is left")
		}
		g, _, err := New(&Limits{}, false)
		if err != nil {
			t.Fatal(err)
		}
		g.Remove()
	}
	if !there(living) {
		t.Error("the group of a living start is gone")
	}
}

// TestDevices holds for SC-043: what is not allowed is denied.
func TestDevices(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: device limits are not a user's")
	}
	c := "c"
	rule := func(allow bool, access string, major, minor int64) DeviceRule {
		return DeviceRule{Allow: allow, Type: c, Access: access, Major: &major, Minor: &minor}
	}
	g := newGroup(t, &Limits{Devices: []DeviceRule{{Access: "rwm"}, rule(true, "rw", 1, 3), rule(true, "r", 1, 5), rule(true, "rwm", 1, 9)}})
	dir := t.TempDir()
	for _, c := range []struct {
		script string
		ok     bool
	}{
		{"echo x >/dev/null", true},
		{": </dev/zero", true},
		{"echo x >/dev/zero", false},
		{": </dev/random", false},
		{"mknod " + dir + "/a c 1 3", false},
		{"mknod " + dir + "/b c 1 9", true},
		{"mknod " + dir + "/c b 1 9", false},
	} {
		if out, err := shell(g, c.script); (err == nil) != c.ok {
			t.Errorf("%s: %v %s, allowed must be %v", c.script, err, out, c.ok)
		}
	}
	// Nothing is allowed by default: every other number, as a device of either kind.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := shell(g, makesNodes+"="+dir+" exec "+self); err != nil || out != "" {
		t.Errorf("%v, devices that no rule allows: %s", err, out)
	}
	if again, _, err := New(&Limits{}, true); err == nil && again.Path() == g.Path() {
		t.Error("a group that is in use was made again")
	}
	g.Remove()
	g = newGroup(t, &Limits{Devices: []DeviceRule{rule(false, "w", 1, 5)}})
	for script, ok := range map[string]bool{": </dev/zero": true, "echo x >/dev/zero": false, "echo x <>/dev/zero": false, ": </dev/random": true} {
		if out, err := shell(g, script); (err == nil) != ok {
			t.Errorf("%s: %v %s, allowed must be %v", script, err, out, ok)
		}
	}
}

// TestNotPossible proves that a limit is never dropped in silence.
func TestNotPossible(t *testing.T) {
	newGroup(t, &Limits{}).Remove()
	for _, f := range []Flags{{CPUSetCPUs: "60000"}, {CPUSetMems: "60000"}} {
		l, err := FromFlags(f)
		if err != nil {
			t.Fatal(err)
		}
		if g, _, err := New(l, true); err == nil {
			t.Errorf("%+v could be applied", f)
			g.Remove()
		}
	}
	l := &Limits{Hugepages: []Hugepages{{PageSize: "3MB", Limit: 1 << 21}}}
	if g, _, err := New(l, true); err == nil {
		t.Error("a limit of pages that do not exist could be applied")
		g.Remove()
	}
}

func TestPathOf(t *testing.T) {
	at, err := PathOf(os.Getpid())
	if err != nil {
		t.Skipf("needs a mounted cgroup tree: %v", err)
	}
	if !strings.HasPrefix(at, "/") {
		t.Errorf("path %q", at)
	}
}

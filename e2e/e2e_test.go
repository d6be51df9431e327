package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"singularity/host"
)

var marks atomic.Int64

func TestScripts(t *testing.T) {
	p := params(t)
	p.Dir = "testdata"
	testscript.Run(t, p)
}

// TestSite changes the administrator's files and acts as an ordinary user: only
// e2e/run does that, to an installation that it throws away.
func TestSite(t *testing.T) {
	if os.Getenv("SINGULARITY_E2E_SITE") == "" || os.Getuid() != 0 {
		t.Skip("needs root and the setuid helper: run e2e/run")
	}
	bare, err := user.Lookup("singularity-bare")
	if err != nil {
		t.Fatal(err)
	}
	p := params(t)
	p.Dir = "testdata/site"
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("BARE", bare.Uid)
		return setup(e)
	}
	testscript.RunT(oneByOne{t}, p)
}

// oneByOne runs scripts one after another: they change the same files.
type oneByOne struct{ *testing.T }

func (oneByOne) Parallel() {}

func (oneByOne) Verbose() bool { return testing.Verbose() }

func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

// params makes the images and says how scripts run.
func params(t *testing.T) testscript.Params {
	prefix := os.Getenv("SINGULARITY_E2E_PREFIX")
	if prefix == "" {
		t.Skip("needs an installed copy: run e2e/run")
	}
	path := prefix + "/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
	t.Setenv("PATH", path)
	images, err := os.MkdirTemp("", "images")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(images) })
	env := makeImages(t, images)
	return testscript.Params{
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// A directory that everybody could read would be a different case.
			home := filepath.Join(e.WorkDir, "home")
			if err := os.Mkdir(home, 0o755); err != nil {
				return err
			}
			e.Setenv("HOME", home)
			e.Setenv("PATH", path)
			e.Setenv("PREFIX", prefix)
			e.Setenv("E2E_IGNORE_FLAG", os.Getenv("E2E_IGNORE_FLAG")) // see e2e/flags
			e.Setenv("UID", strconv.Itoa(os.Getuid()))
			e.Setenv("GID", strconv.Itoa(os.Getgid()))
			e.Setenv("MARK", fmt.Sprintf("9%07d%03d", os.Getpid(), marks.Add(1)))
			for k, v := range env {
				e.Setenv(k, v)
			}
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"pty": ptyCommand, "signal": signalCommand, "gone": goneCommand, "running": runningCommand, "nothing": nothingCommand,
			"holders": holdersCommand, "serve": serveCommand, "registry": registryCommand, "library": libraryCommand, "replicas": replicasCommand, "web": webCommand,
			"keyserver": keyserverCommand, "site": siteCommand, "hostile": hostileCommand,
		},
	}
}

// condition knows: root, user, helper (the setuid helper is installed), userns (containers have a user namespace), subuid, cgroup1, apparmor, selinux, landlock, cni, tun, named, tool:NAME.
func condition(name string) (bool, error) {
	if tool, ok := strings.CutPrefix(name, "tool:"); ok {
		_, err := exec.LookPath(tool)
		return err == nil, nil
	}
	switch name {
	case "named": // this machine has a name with an address
		_, _, err := machine()
		return err == nil, nil
	case "apparmor":
		return host.AppArmor(), nil
	case "selinux":
		return host.SELinux(), nil
	case "landlock":
		return host.Landlock() > 0, nil
	case "cni": // plug-ins, and a kernel with what they make
		_, err := os.Stat("/usr/lib/cni/bridge")
		return err == nil && exec.Command("unshare", "-n", "sh", "-c", "ip link add type veth && ip link add type bridge && iptables -t nat -S").Run() == nil, nil
	case "tun":
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil, nil
	case "root":
		return os.Getuid() == 0, nil
	case "user":
		return os.Getuid() != 0, nil
	case "helper":
		return os.Getenv("SINGULARITY_E2E_HELPER") != "", nil
	case "userns":
		return os.Getuid() != 0 && os.Getenv("SINGULARITY_E2E_HELPER") == "", nil
	case "cgroup1":
		_, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes")
		return err == nil, nil
	case "subuid":
		text, err := os.ReadFile("/etc/subuid")
		user := os.Getenv("USER")
		if out, e := exec.Command("id", "-un").Output(); e == nil {
			user = strings.TrimSpace(string(out))
		}
		return err == nil && strings.Contains("\n"+string(text), "\n"+user+":"), nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// makeImages makes one image of every kind from a busybox.
func makeImages(t *testing.T, dir string) map[string]string {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	root := filepath.Join(dir, "sandbox")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "var/tmp", "root", "usr/share", ".singularity.d/env", "opt"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	run("cp", busybox, filepath.Join(root, "bin/busybox"))
	run("cp", os.Getenv("SINGULARITY_E2E_PREFIX")+"/bin/probe", filepath.Join(root, "bin/probe"))
	out, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" {
			os.Symlink("busybox", filepath.Join(root, "bin", a))
		}
	}
	for path, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/hosts": "", "etc/resolv.conf": "", "etc/localtime": "",
		".singularity.d/env/90-environment.sh": "export FROM_IMAGE=\"image value\"\n", ".singularity.d/runscript": "#!/bin/sh\necho run \"$@\"\n", ".singularity.d/test": "#!/bin/sh\nexit ${1:-0}\n",
		"opt/broken": "#!/nonexistent/interpreter\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"SANDBOX": root, "SIF": filepath.Join(dir, "image.sif"), "EXT3": filepath.Join(dir, "image.ext3")}
	for _, c := range []string{"gzip", "zstd", "lz4", "xz", "lzo"} {
		f := filepath.Join(dir, c+".sqfs")
		env[strings.ToUpper(c)] = f
		run("mksquashfs", root, f, "-comp", c, "-all-root", "-quiet", "-no-progress")
	}
	run("mke2fs", "-q", "-t", "ext3", "-d", root, env["EXT3"], "8M")
	run("singularity", "-q", "build", env["SIF"], root)
	return env
}

// findMarked returns the processes one of whose arguments holds mark.
func findMarked(mark string) []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		text, _ := os.ReadFile(d)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		if pid != os.Getpid() && strings.Contains(string(text), mark) {
			out = append(out, pid)
		}
	}
	return out
}

// signalCommand sends a signal to a marked process: signal NUMBER MARK [program
// name, as in /proc/PID/comm].
func signalCommand(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	sent := 0
	for _, pid := range findMarked(args[1]) {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if len(args) < 3 || strings.TrimSpace(string(comm)) == args[2] {
			ts.Check(syscall.Kill(pid, syscall.Signal(n)))
			sent++
		}
	}
	if sent == 0 {
		ts.Fatalf("no process with %q", args[1:])
	}
}

// runningCommand waits until a marked process of that name runs.
func runningCommand(ts *testscript.TestScript, neg bool, args []string) {
	poll(ts, "no process with "+strings.Join(args, " "), func() bool {
		for _, pid := range findMarked(args[0]) {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if len(args) < 2 || strings.TrimSpace(string(comm)) == args[1] {
				return true
			}
		}
		return false
	})
}

// goneCommand waits until no marked process is left.
func goneCommand(ts *testscript.TestScript, neg bool, args []string) {
	var what string
	poll(ts, "processes are left", func() bool {
		left := findMarked(args[0])
		for _, pid := range left {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			what = fmt.Sprintf("left: %q\n%s", line, text)
		}
		return len(left) == 0
	}, &what)
}

// holdersCommand waits until so many processes hold a shared mount of the
// image: holders COUNT IMAGE [SIGNAL]. It sends them the signal.
func holdersCommand(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	image := ts.MkAbs(args[1])
	var found []int
	what := ""
	poll(ts, "wrong number of holders", func() bool {
		found = nil
		for _, pid := range findMarked("@holder") {
			if to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/4", pid)); to == image {
				found = append(found, pid)
			}
		}
		what = fmt.Sprintf("%d of %d", len(found), want)
		return len(found) == want
	}, &what)
	if len(args) > 2 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		for _, pid := range found {
			ts.Check(syscall.Kill(pid, syscall.Signal(n)))
		}
	}
}

// serveCommand serves a directory by http on the loopback device, and sets URL:
// serve DIR.
func serveCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(s.Close)
	ts.Setenv("URL", s.URL)
}

// nothingCommand waits until no build has left anything temporary: here, in the
// directory for temporary files, or as a mount.
func nothingCommand(ts *testscript.TestScript, neg bool, args []string) {
	var what string
	poll(ts, "a build left something", func() bool {
		var left []string
		for _, dir := range []string{ts.Getenv("WORK"), ts.Getenv("TMPDIR")} {
			for _, pattern := range []string{".build-*", "build-temp-*"} {
				found, _ := filepath.Glob(filepath.Join(dir, pattern))
				left = append(left, found...)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		ts.Check(err)
		if strings.Contains(string(mounts), ts.Getenv("WORK")) {
			left = append(left, "a mount in "+ts.Getenv("WORK"))
		}
		what = fmt.Sprintf("left: %q", left)
		return len(left) == 0
	}, &what)
}

package host

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// machine returns a kernel with the given files, seen by an ordinary user, on
// which everything else works.
func machine(files map[string]string) *kernel {
	all := map[string]string{
		"/proc/self/uid_map": "0 0 4294967295\n", "/proc/self/status": "Name:\tx\nNoNewPrivs:\t0\nSeccomp:\t0\n",
		"/proc/sys/user/max_user_namespaces": "1000\n", "/proc/filesystems": "nodev\tsysfs\nnodev\tfuse\nnodev\toverlay\n\text4\n",
	}
	for k, v := range files {
		all[k] = v
		if v == "-" {
			delete(all, k)
		}
	}
	return &kernel{
		uid: 1001,
		read: func(path string) ([]byte, error) {
			if text, ok := all[path]; ok {
				return []byte(text), nil
			}
			return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
		},
		open: func(string) error { return nil },
		tool: func(name string) (Tool, error) {
			return Tool{Path: "/usr/bin/" + name, RootOwned: true, SetUID: true}, nil
		},
	}
}

func TestUserNamespaces(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		root  bool
		want  string // in the cause; "" for no finding
	}{
		{"fine", nil, false, ""},
		{"max 0", map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, false, "user.max_user_namespaces is 0"},
		{"max 0 for root", map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}, true, "user.max_user_namespaces is 0"},
		{"clone 0", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, false, "kernel.unprivileged_userns_clone is 0"},
		{"clone 0 for root", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, true, ""},
		{"clone 1", map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "1\n"}, false, ""},
		{"apparmor", map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "/proc/self/attr/current": "unconfined\n"}, false, "apparmor_restrict_unprivileged_userns is 1"},
		{"apparmor with profile", map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "/proc/self/attr/current": "singularity (unconfined)\n"}, false, ""},
		{"not built", map[string]string{"/proc/self/uid_map": "-"}, false, "CONFIG_USER_NS"},
		{"no proc", map[string]string{"/proc/self/uid_map": "-", "/proc/self/status": "-"}, false, "/proc is not mounted"},
		{"seccomp", map[string]string{"/proc/self/status": "Name:\tx\nSeccomp:\t2\n"}, false, "seccomp"},
	} {
		k := machine(c.files)
		if c.root {
			k.uid = 0
		}
		check(t, c.name, k.userNamespaces(), ErrNoUserNS, c.want)
	}
}

func check(t *testing.T, name string, got *Finding, kind error, want string) {
	t.Helper()
	switch {
	case want == "" && got != nil:
		t.Errorf("%s: %v, want no finding", name, got)
	case want == "":
	case got == nil:
		t.Errorf("%s: no finding, want %q", name, want)
	case !strings.Contains(got.Cause, want) || got.Cure == "" || !errors.Is(got, kind):
		t.Errorf("%s: %v (cure %q), want %q as %v", name, got, got.Cure, want, kind)
	}
}

func TestFUSE(t *testing.T) {
	open := func(err error) func(string) error {
		return func(path string) error { return &os.PathError{Op: "open", Path: path, Err: err} }
	}
	for _, c := range []struct {
		name string
		err  error
		fs   string
		want string
	}{
		{"missing", syscall.ENOENT, "nodev\tfuse\n", "/dev/fuse does not exist"},
		{"missing module", syscall.ENOENT, "nodev\tsysfs\n", "module fuse is not loaded"},
		{"no module", syscall.ENODEV, "", "module fuse is not loaded"},
		{"mode", syscall.EACCES, "", "uid 1001 may not open /dev/fuse"},
		{"cgroup", syscall.EPERM, "", "does not allow /dev/fuse"},
		{"other", syscall.EIO, "", "input/output error"},
	} {
		k := machine(map[string]string{"/proc/filesystems": c.fs})
		k.open = open(c.err)
		check(t, c.name, k.fuse(), ErrNoFUSE, c.want)
	}
	check(t, "fine", machine(nil).fuse(), ErrNoFUSE, "")
}

func TestIDMaps(t *testing.T) {
	good := Tool{Path: "/usr/bin/x", RootOwned: true, SetUID: true}
	for _, c := range []struct {
		name   string
		change func(*Tool)
		want   string
	}{
		{"fine", func(*Tool) {}, ""},
		{"capabilities", func(t *Tool) { t.SetUID, t.FileCaps = false, true }, ""},
		{"neither", func(t *Tool) { t.SetUID = false }, "neither setuid"},
		{"owner", func(t *Tool) { t.RootOwned = false }, "others than root"},
		{"nosuid", func(t *Tool) { t.NoSUID = true }, "nosuid"},
	} {
		tool := good
		c.change(&tool)
		k := machine(nil)
		k.tool = func(string) (Tool, error) { return tool, nil }
		check(t, c.name, k.idMaps(), ErrNoMaps, c.want)
	}
	k := machine(nil)
	k.tool = func(name string) (Tool, error) { return Tool{}, &MissingToolError{name} }
	check(t, "missing", k.idMaps(), ErrNoMaps, "newuidmap")
	check(t, "no_new_privs", machine(map[string]string{"/proc/self/status": "NoNewPrivs:\t1\n"}).idMaps(), ErrNoMaps, "no_new_privs")
}

func TestExplain(t *testing.T) {
	off := map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}
	filter := map[string]string{"/proc/self/status": "Seccomp:\t2\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		err   error
		kind  error
	}{
		{"nil", off, nil, nil},
		{"no number", off, errors.New("something else"), nil},
		{"sentinel", off, fmt.Errorf("x: %w", ErrNoUserNS), ErrNoUserNS},
		{"switched off", off, fmt.Errorf("cannot create the container's process: %w", syscall.ENOSPC), ErrNoUserNS},
		{"limit reached", nil, fmt.Errorf("cannot create the container's process: %w", syscall.ENOSPC), ErrNoUserNS},
		{"disk full", nil, fmt.Errorf("cannot write: %w", syscall.ENOSPC), nil},
		{"filter", filter, fmt.Errorf("x: %w", syscall.EPERM), ErrNoUserNS},
		{"filter does not answer so", filter, fmt.Errorf("x: %w", syscall.EINVAL), nil},
		{"chroot", map[string]string{"/proc/self/mountinfo": "9 8 0:5 / /proc rw - proc proc rw\n"}, fmt.Errorf("cannot create the container's process: %w", syscall.EPERM), ErrNoUserNS},
		{"chroot on a mount", map[string]string{"/proc/self/mountinfo": "8 7 8:1 /x / rw - ext4 /dev/sda rw\n"}, fmt.Errorf("cannot create the container's process: %w", syscall.EPERM), ErrNoUserNS},
		{"not the host", nil, fmt.Errorf("x: %w", syscall.EPERM), nil},
		{"overlay", map[string]string{"/proc/filesystems": "nodev\tproc\n"}, fmt.Errorf("cannot mount the overlay: %w", syscall.ENODEV), ErrNoOverlay},
		{"finding", nil, fmt.Errorf("x: %w", finding(ErrNoFUSE, "a", "b")), ErrNoFUSE},
	} {
		got := machine(c.files).explain(c.err)
		if got == nil != (c.kind == nil) || got != nil && !errors.Is(got, c.kind) {
			t.Errorf("%s: %v, want %v", c.name, got, c.kind)
		}
	}
	noMap := fmt.Errorf("cannot write /proc/self/uid_map: %w", syscall.EPERM)
	k := machine(map[string]string{"/proc/self/status": "CapEff:\t0000000000000000\n"})
	k.uid = 0
	if got := k.explain(noMap); !errors.Is(got, ErrNoMaps) || !strings.Contains(got.Cure, "SETFCAP") {
		t.Errorf("root without rights: %v, want ErrNoMaps", got)
	}
	k = machine(map[string]string{"/proc/self/status": "CapEff:\t000001ffffffffff\n"})
	k.uid = 0
	if got := k.explain(noMap); got != nil {
		t.Errorf("root with all rights: %v", got)
	}
	k = machine(nil)
	k.open = func(string) error { return syscall.EACCES }
	if got := k.explain(fmt.Errorf("cannot open /dev/fuse: %w", syscall.EACCES)); !errors.Is(got, ErrNoFUSE) {
		t.Errorf("%v, want ErrNoFUSE", got)
	}
}

func TestChangedRoot(t *testing.T) {
	for _, c := range []struct{ mounts, want string }{
		{"9 8 0:5 / /proc rw - proc proc rw\n", "this process is in a chroot"},
		{"8 7 8:1 /x / rw - ext4 /dev/sda rw\n9 8 0:5 / /proc rw - proc proc rw\n", "a security module may"},
		{"-", "a security module may"},
	} {
		check(t, c.mounts, machine(map[string]string{"/proc/self/mountinfo": c.mounts}).changedRoot(), ErrNoUserNS, c.want)
	}
}

// TestRunning asks the real machine; every answer must be complete.
func TestRunning(t *testing.T) {
	for _, f := range []*Finding{UserNamespaces(), FUSE(), Overlay(), IDMaps()} {
		if f != nil && (f.What == "" || f.Cause == "" || f.Cure == "") {
			t.Errorf("incomplete finding %+v", f)
		}
	}
	if kind, err := FileSystem("/proc"); err != nil || kind != "0x9fa0" {
		t.Errorf("/proc is %s, %v, want 0x9fa0", kind, err)
	}
	if _, err := FileSystem("/no/such/path"); err == nil {
		t.Error("a missing path has a file system")
	}
	k := machine(map[string]string{"/sys/kernel/security/lsm": "capability,yama"})
	if got := strings.Join(k.securityModules(), " "); got != "capability yama" {
		t.Errorf("security modules %q", got)
	}
}

package host

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a Finding is about.
var (
	ErrNoUserNS  = errors.New("user namespaces are not available")
	ErrNoFUSE    = errors.New("FUSE is not available")
	ErrNoOverlay = errors.New("the overlay file system is not available")
	ErrNoMaps    = errors.New("id maps with ranges are not available")
)

// Finding is a feature that this host lacks. It is an error that wraps one of
// the sentinels above.
type Finding struct {
	What  string // the feature, as a statement: "user namespaces are not available"
	Cause string // why: which switch, file or permission
	Cure  string // what to do, with a command if there is one

	kind error
}

func (f *Finding) Error() string { return f.What + ": " + f.Cause }

// Unwrap returns the sentinel.
func (f *Finding) Unwrap() error { return f.kind }

func finding(kind error, cause, cure string) *Finding {
	return &Finding{What: kind.Error(), Cause: cause, Cure: cure, kind: kind}
}

// kernel is how the probes see the machine. Tests show them another one.
type kernel struct {
	uid  int
	read func(path string) ([]byte, error)
	open func(path string) error // for reading and writing
	tool func(name string) (Tool, error)
}

func running() *kernel {
	return &kernel{
		uid:  os.Getuid(),
		read: readFile,
		open: func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
			if err == nil {
				f.Close()
			}
			return err
		},
		tool: idMapTool,
	}
}

// UserNamespaces returns why this process cannot make a user namespace, or nil
// if nothing speaks against it.
func UserNamespaces() *Finding { return running().userNamespaces() }

// FUSE returns why this process cannot serve a file system, or nil.
func FUSE() *Finding { return running().fuse() }

// Overlay returns why no overlay can be mounted, or nil.
func Overlay() *Finding { return running().overlay() }

// IDMaps returns why newuidmap and newgidmap cannot write maps, or nil.
func IDMaps() *Finding { return running().idMaps() }

// Explain returns what this host lacks that made err happen while a container
// was started, or nil if nothing does. It looks at the error number, at
// /dev/fuse in the text, and at the machine.
func Explain(err error) *Finding { return running().explain(err) }

func (k *kernel) explain(err error) *Finding {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Finding](err); ok {
		return f
	}
	text := err.Error()
	switch {
	case errors.Is(err, ErrNoFUSE) || strings.Contains(text, "/dev/fuse"):
		return k.fuse()
	case errors.Is(err, ErrNoOverlay) || errors.Is(err, syscall.ENODEV) && strings.Contains(text, "overlay"):
		return k.overlay()
	case errors.Is(err, ErrNoMaps) || strings.Contains(text, "newuidmap") || strings.Contains(text, "newgidmap"):
		return k.idMaps()
	case errors.Is(err, ErrNoUserNS):
		return k.userNamespaces()
	}
	no, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return nil
	}
	switch no {
	case syscall.ENOSPC, syscall.EUSERS:
		if f := k.userNamespaces(); f != nil {
			return f
		}
		if n := k.line("/proc/sys/user/max_user_namespaces"); n != "" && strings.Contains(text, "process") {
			return finding(ErrNoUserNS, "the limit of "+n+" of them (or of 32 inside each other) is reached",
				"raise it: sudo sysctl user.max_user_namespaces=28633")
		}
	case syscall.EPERM, syscall.ENOSYS: // what a filter answers
		if f := k.userNamespaces(); f != nil {
			return f
		}
		switch {
		case no == syscall.EPERM && k.uid != 0 && strings.Contains(text, "process"):
			return k.changedRoot()
		case no == syscall.EPERM && k.uid == 0 && strings.Contains(text, "uid_map"):
			return k.rootMap()
		}
	case syscall.EACCES, syscall.EINVAL:
		return k.switches()
	}
	return nil
}

// rootMap tells if this process is root without the right to map root (Linux
// 5.12), as in a container that took every capability away.
func (k *kernel) rootMap() *Finding {
	caps, err := strconv.ParseUint(k.status("CapEff"), 16, 64)
	if err != nil || caps&(1<<unix.CAP_SETFCAP) != 0 {
		return nil
	}
	return finding(ErrNoMaps, "root without CAP_SETFCAP may not map itself into a user namespace",
		"start as an ordinary user, or give the container around this process the capability: docker run --cap-add SETFCAP")
}

// line returns the content of a small file without the newline, "" if there is
// none.
func (k *kernel) line(path string) string {
	b, err := k.read(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(b), "\x00"))
}

// status returns a field of /proc/self/status.
func (k *kernel) status(field string) string {
	for line := range strings.Lines(k.line("/proc/self/status")) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (k *kernel) userNamespaces() *Finding {
	if f := k.switches(); f != nil {
		return f
	}
	return k.confined()
}

// switches finds what the kernel or an administrator switched off.
func (k *kernel) switches() *Finding {
	if _, err := k.read("/proc/self/uid_map"); errors.Is(err, os.ErrNotExist) {
		if _, err := k.read("/proc/self/status"); err != nil {
			return finding(ErrNoUserNS, "/proc is not mounted", "mount it: sudo mount -t proc proc /proc")
		}
		return finding(ErrNoUserNS, "this kernel was built without them (CONFIG_USER_NS)", "use a kernel that has them")
	}
	if k.line("/proc/sys/user/max_user_namespaces") == "0" {
		return finding(ErrNoUserNS, "the kernel setting user.max_user_namespaces is 0",
			"ask an administrator to run: echo user.max_user_namespaces=28633 | sudo tee /etc/sysctl.d/90-userns.conf && sudo sysctl --system")
	}
	if k.uid == 0 {
		return nil
	}
	if k.line("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
		return finding(ErrNoUserNS, "the kernel setting kernel.unprivileged_userns_clone is 0",
			"ask an administrator to run: echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/90-userns.conf && sudo sysctl --system")
	}
	// A profile for our program lifts the restriction; then we are not
	// unconfined.
	if k.line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" && k.unconfined() {
		return finding(ErrNoUserNS, "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1) and has no profile for this program",
			"ask an administrator to install the AppArmor profile of this program with a line \"userns,\", or to run: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0")
	}
	return nil
}

// unconfined tells if no AppArmor profile is in force for this process.
func (k *kernel) unconfined() bool {
	label := k.line("/proc/self/attr/apparmor/current")
	if label == "" {
		label = k.line("/proc/self/attr/current")
	}
	return label == "" || label == "unconfined"
}

// confined finds a container or service around this process.
func (k *kernel) confined() *Finding {
	if k.status("Seccomp") == "2" {
		return finding(ErrNoUserNS, "a system call filter (seccomp) of the container or service around this process is in force",
			"let the outer container make namespaces and mounts, e.g. docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined")
	}
	return nil
}

// changedRoot is the finding about a refusal that no switch explains. The kernel
// makes no user namespace for a process whose root is not that of its mount
// namespace; only if no mount lies on "/" can the process tell by itself.
func (k *kernel) changedRoot() *Finding {
	cause := "the kernel refuses one to a process in a chroot, and a security module may"
	if mounts := k.line("/proc/self/mountinfo"); mounts != "" && !mountedRoot(mounts) {
		cause = "this process is in a chroot, where the kernel allows none"
	}
	return finding(ErrNoUserNS, cause, "start outside of the chroot, or enter its directory by other means (systemd-nspawn, bwrap, pivot_root)")
}

// mountedRoot tells whether a line of mountinfo is about the root directory.
func mountedRoot(mounts string) bool {
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return true
		}
	}
	return false
}

func (k *kernel) fuse() *Finding {
	const dev = "/dev/fuse"
	err := k.open(dev)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ENOENT):
		if !k.fileSystem("fuse") {
			return finding(ErrNoFUSE, dev+" does not exist and the kernel module fuse is not loaded", "ask an administrator to run: sudo modprobe fuse")
		}
		return finding(ErrNoFUSE, dev+" does not exist", "inside another container, give it the device: docker run --device /dev/fuse")
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return finding(ErrNoFUSE, "the kernel module fuse is not loaded", "ask an administrator to run: sudo modprobe fuse")
	case errors.Is(err, syscall.EACCES):
		return finding(ErrNoFUSE, "uid "+strconv.Itoa(k.uid)+" may not open "+dev, "ask an administrator to run: sudo chmod 0666 "+dev)
	case errors.Is(err, syscall.EPERM):
		return finding(ErrNoFUSE, "the container or service around this process does not allow "+dev, "give it the device: docker run --device /dev/fuse; for a systemd unit: DeviceAllow=/dev/fuse rw")
	default:
		return finding(ErrNoFUSE, "cannot open "+dev+": "+errorText(err), "check the device: ls -l "+dev)
	}
	return nil
}

// errorText returns err without the path that a PathError adds.
func errorText(err error) string {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// fileSystem tells if the kernel knows a file system.
func (k *kernel) fileSystem(name string) bool {
	for line := range strings.Lines(k.line("/proc/filesystems")) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	return false
}

func (k *kernel) overlay() *Finding {
	if !k.fileSystem("overlay") {
		return finding(ErrNoOverlay, "the kernel module overlay is not loaded", "ask an administrator to run: sudo modprobe overlay")
	}
	return nil
}

func (k *kernel) idMaps() *Finding {
	if k.status("NoNewPrivs") == "1" && k.uid != 0 {
		return finding(ErrNoMaps, "this process may not gain privileges (no_new_privs), so newuidmap has no effect",
			"start outside of the container or service that sets it")
	}
	for _, name := range []string{"newuidmap", "newgidmap"} {
		t, err := k.tool(name)
		switch {
		case err != nil:
			return finding(ErrNoMaps, errorText(err), "install it: sudo apt install uidmap, or sudo dnf install shadow-utils")
		case !t.RootOwned:
			return finding(ErrNoMaps, t.Path+" can be changed by others than root", "install it again from the distribution")
		case t.NoSUID:
			return finding(ErrNoMaps, t.Path+" lies on a file system mounted with nosuid", "mount the file system without nosuid")
		case !t.Works():
			return finding(ErrNoMaps, t.Path+" is neither setuid root nor has file capabilities", "ask an administrator to run: sudo chmod u+s "+t.Path)
		}
	}
	return nil
}

// SecurityModules returns the security modules of the running kernel, in the
// order in which they decide: "capability", "yama", "apparmor", ... It is nil
// if securityfs is not mounted.
func SecurityModules() []string { return running().securityModules() }

func (k *kernel) securityModules() []string {
	s := k.line("/sys/kernel/security/lsm")
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// fileSystems are the kinds of file system that matter for temporary files and
// sandboxes, by the number that statfs(2) returns.
var fileSystems = map[uint32]string{
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlay",
	0x6969: "nfs", 0xfe534d42: "smb", 0xff534d42: "cifs", 0x0bd00bd0: "lustre", 0x47504653: "gpfs", 0x19830326: "beegfs",
	0x00c36400: "ceph", 0x65735546: "fuse", 0x2fc12fc1: "zfs", 0x73717368: "squashfs", 0x5346414f: "afs", 0x01021997: "9p",
}

// FileSystem returns the kind of file system that path lies on, for messages
// about temporary directories: "tmpfs", "nfs", "lustre", ... or the number in
// hexadecimal. Memory and network file systems are poor places for sandboxes.
func FileSystem(path string) (string, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return "", &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if name, ok := fileSystems[uint32(st.Type)]; ok {
		return name, nil
	}
	return "0x" + strconv.FormatUint(uint64(uint32(st.Type)), 16), nil
}

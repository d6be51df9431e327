package container

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/container/seccomp"
	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Sizes of structures that are passed with their size, in bytes.
const (
	mountAttrSize = 32 // struct mount_attr: set, clear, propagation, user namespace
	openHowSize   = 24 // struct open_how: flags, mode, resolve
)

// builder turns a plan into a script.
type builder struct {
	p        *plan.Plan
	h        Hooks
	s        *script.Script
	errfd    int // the child's report; -1 if the script runs in this process
	files    [2]uint64
	attach   string // a directory of the host that mounts are put on before the pivot
	root     script.Slot
	joinsPID bool // the PID namespace is that of a running container
	holds    bool // this is a holder's: the parent gets the namespaces
	mntNS    script.Slot
	userNS   script.Slot
	helper   bool  // the setuid helper carries the script out
	hold     *Hold // the shared mount that the container joins; may be nil
	held     script.Slot
	img      *Served       // of hold
	dirs     []script.Slot // the sandbox, then the layers that are directories
	points   script.Slot   // the tmpfs of layer
	images   []*Served
	sent     script.Slot // where the parent is told of the FUSE file systems
	stage    *stage      // nil unless layers or images are put together
	fuse     []*device   // of the file systems that programs serve
	keep     []int       // descriptors that stay open until execve closes them, in order
}

func newBuilder(p *plan.Plan, h Hooks, errfd int) *builder {
	b := &builder{p: p, h: h, s: new(script.Script), errfd: errfd, attach: "/tmp", helper: p.IDs.Helper}
	if errfd >= 0 {
		b.keep = []int{errfd}
		if h.Parent != nil {
			b.keepOpen(int(h.Parent.Fd()))
		}
	} else {
		b.keep = poller()
	}
	if h.Shell != nil {
		b.keep = append(b.keep, int(h.Shell.Fd()))
		slices.Sort(b.keep)
	}
	if unix.Access(b.attach, unix.F_OK) != nil {
		b.attach = "/proc"
	}
	if !script.NewMounts() {
		b.s.Classic(b.attach)
	}
	return b
}

func (b *builder) keepOpen(fd int) {
	b.keep = append(b.keep, fd)
	slices.Sort(b.keep)
}

// poller returns the descriptors of the Go runtime's own poller, which a
// process that runs a script in itself must not close: another thread uses
// them until execve.
func poller() []int {
	var keep []int
	names, _ := os.ReadDir("/proc/self/fd")
	for _, n := range names {
		if to, _ := os.Readlink("/proc/self/fd/" + n.Name()); to == "anon_inode:[eventpoll]" || to == "anon_inode:[eventfd]" {
			if fd, err := strconv.Atoi(n.Name()); err == nil {
				keep = append(keep, fd)
			}
		}
	}
	slices.Sort(keep)
	return keep
}

var atCwd = script.Int(unix.AT_FDCWD)

// write adds: open path, write text, close. It returns the first of these steps.
func (b *builder) write(path, text string) script.Slot {
	fd := b.s.Call("open "+path, unix.SYS_OPENAT, atCwd, b.s.Str(path), script.Int(unix.O_WRONLY|unix.O_CLOEXEC))
	b.s.Call("write "+path, unix.SYS_WRITE, fd.Arg(), b.s.Bytes([]byte(text)), script.Int(len(text)))
	b.s.Call("close "+path, unix.SYS_CLOSE, fd.Arg())
	return fd
}

// maps writes the maps of a single id, which any process may do for itself.
func (b *builder) maps() {
	ids := &b.p.IDs
	if ids.Mode != plan.SingleID {
		return
	}
	b.write("/proc/self/setgroups", "deny")
	b.write("/proc/self/uid_map", itoa(ids.InsideUID)+" "+itoa(ids.UID)+" 1")
	b.write("/proc/self/gid_map", itoa(ids.InsideGID)+" "+itoa(ids.GID)+" 1")
}

// detachMounts keeps what is mounted here off the host. A mount namespace of a
// user namespace follows the host without being followed; root's must be told.
func (b *builder) detachMounts() {
	if b.p.IDs.Mode == plan.HostIDs && !b.helper {
		b.s.Call("detach the mounts from the host's", unix.SYS_MOUNT, script.Int(0), b.s.Str("/"), script.Int(0), script.Int(unix.MS_REC|unix.MS_SLAVE), script.Int(0))
	}
}

// rest adds everything behind the id maps.
func (b *builder) rest(overlay bool, devs []*device, w wires) error {
	if b.p.Root.Kind == plan.JoinedRoot {
		return b.process()
	}
	b.detachMounts()
	if b.p.IDs.Mode == plan.Ranges && !b.p.IDs.KeepGroups {
		b.s.Call("drop the supplementary groups", unix.SYS_SETGROUPS, script.Int(0), script.Int(0))
	}
	b.namespaces(w)
	b.label()
	if b.p.Root.Kind == plan.HostRoot {
		if b.p.Namespaces.PID {
			b.s.Call("attach the procfs", unix.SYS_MOVE_MOUNT, b.proc().Arg(), b.s.Str(""), atCwd, b.s.Str("/proc"), script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		}
		return b.process()
	}
	if len(devs)+len(b.fuse) > 0 {
		b.mountDevices(devs, w.ready)
	}
	sources := make([]script.Slot, len(b.p.Mounts))
	for i := range b.p.Mounts {
		switch m := &b.p.Mounts[i]; m.Kind {
		case plan.SessionDir, plan.ImageBind:
		case plan.FuseFS:
			sources[i] = b.fuse[m.Image].mount
		default:
			sources[i] = b.source(m)
		}
	}
	if b.hold != nil {
		b.enterHeld()
	}
	b.openDirs()
	b.session(sources)
	b.makeStage(devs, sources, w)
	extra, err := b.makeRoot(overlay, devs)
	if err != nil {
		return err
	}
	for i := range b.p.Mounts {
		m := &b.p.Mounts[i]
		b.place(sources[i], m.Source, m.Destination, m.Optional, m.Tag)
	}
	for _, e := range extra {
		b.place(e.tree, e.path, e.path, true, "files")
	}
	b.pivot()
	return b.process()
}

// source opens a detached copy of the mounts at m.Source.
func (b *builder) source(m *plan.Mount) script.Slot {
	switch m.Kind {
	case plan.Proc:
		return b.proc()
	case plan.Devpts:
		return b.devpts()
	case plan.Tmpfs:
		return b.tmpfs("1777", 0, "a tmpfs for "+m.Destination)
	case plan.Mqueue:
		return b.newMount("mqueue", "the message queues", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	}
	t := b.s.Call("open bind source "+strconv.Quote(m.Source), unix.SYS_OPEN_TREE, atCwd, b.s.Str(m.Source),
		script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
	b.s.Text(t, "mount source "+m.Source+" doesn't exist")
	attr := b.nosuid()
	if !m.Devices {
		attr |= unix.MOUNT_ATTR_NODEV
	}
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	b.setattr(t, attr, unix.AT_RECURSIVE, "restrict the bind of "+strconv.Quote(m.Source))
	if b.s.IsClassic() {
		b.restrictBelow(t, m.Source, attr)
	}
	return t
}

// nosuid is the attribute of a mount that keeps setuid programs without effect,
// unless they are allowed.
func (b *builder) nosuid() uint64 {
	if r := b.p.Rights; r != nil && r.AllowSetuid {
		return 0
	}
	return unix.MOUNT_ATTR_NOSUID
}

func (b *builder) setattr(t script.Slot, attr uint64, flags int, label string) {
	propagation := uint64(0)
	if b.p.PrivateMounts {
		propagation = unix.MS_PRIVATE
	}
	b.s.Call(label, unix.SYS_MOUNT_SETATTR, t.Arg(), b.s.Str(""), script.Int(unix.AT_EMPTY_PATH|flags), b.s.Words([]uint64{attr, 0, propagation, 0}), script.Int(mountAttrSize))
}

// place moves a detached mount to its destination.
//
// Security: the destination is resolved by the kernel inside the new root, so
// a link in the image cannot lead the mount to a directory of the host, and
// the descriptor that was resolved is the one that is mounted on.
func (b *builder) place(t script.Slot, source, destination string, optional bool, tag string) {
	how := []uint64{unix.O_PATH | unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	d := b.s.Call("find the destination "+strconv.Quote(destination)+" in the container", unix.SYS_OPENAT2, b.root.Arg(),
		b.s.Str(strings.TrimLeft(destination, "/")), b.s.Words(how), script.Int(openHowSize))
	b.s.Text(d, "destination "+destination+" doesn't exist in container")
	m := b.s.Call("mount "+strconv.Quote(source)+" on "+strconv.Quote(destination), unix.SYS_MOVE_MOUNT, t.Arg(), b.s.Str(""), d.Arg(), b.s.Str(""),
		script.Int(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
	if optional {
		b.s.SkipFail(d, 1)
		b.s.Optional(m)
	}
}

// pivot makes b.root the root and drops the host's mounts.
func (b *builder) pivot() {
	b.s.Call("enter the new root", unix.SYS_FCHDIR, b.root.Arg())
	dot := b.s.Str(".")
	b.s.Call("pivot to the new root", unix.SYS_PIVOT_ROOT, dot, dot)
	b.s.Call("drop the old root", unix.SYS_UMOUNT2, dot, script.Int(unix.MNT_DETACH))
}

// proc makes the procfs of a new PID namespace. It must be made while the
// host's is still visible: the kernel gives a user namespace no more of /proc
// than it sees.
func (b *builder) proc() script.Slot {
	return b.newMount("proc", procName, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// newMount makes a file system of the given type, with options in pairs, and a
// detached mount of it.
func (b *builder) newMount(kind, name string, attr int, options ...string) script.Slot {
	label := "mount " + name
	fs := b.s.Call(label, unix.SYS_FSOPEN, b.s.Str(kind), script.Int(unix.FSOPEN_CLOEXEC))
	for i := 0; i+1 < len(options); i += 2 {
		set := b.config(fs, options[i], options[i+1])
		if options[i] == "gid" {
			// Root of a user namespace may have no such group mapped.
			b.s.Optional(set)
		}
	}
	b.s.Call(label, unix.SYS_FSCONFIG, fs.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
	return b.s.Call(label, unix.SYS_FSMOUNT, fs.Arg(), script.Int(unix.FSMOUNT_CLOEXEC), script.Int(attr))
}

// procLabel marks the steps whose failure means that this host lets nobody
// mount a procfs in a user namespace.
const (
	procName  = "a procfs of the PID namespace"
	procLabel = "mount " + procName
)

// NoProc tells whether err says that a plan with a PID namespace cannot be carried out
// here, because no procfs may be mounted.
func NoProc(err error) bool {
	se := new(script.Error)
	return errors.As(err, &se) && se.Label == procLabel
}

// process adds the last steps: the attributes of the process, then execve.
func (b *builder) process() error {
	p := &b.p.Process
	s := b.s
	if b.helper {
		s.Drop() // and take the capabilities of the plan
	}
	// Security: every descriptor but the standard three is closed before the
	// first path is walked that the user may choose, since /proc/self/fd/N of
	// a directory of the host would lead out of the container.
	for i, f := range b.h.Stdio {
		if f != nil && int(f.Fd()) != i {
			s.Call("set a standard descriptor", unix.SYS_DUP3, script.Int(int(f.Fd())), script.Int(i), script.Int(0))
		}
	}
	from := 3
	for _, fd := range b.keep {
		if fd > from {
			s.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(from), script.Int(fd-1), script.Int(0))
		}
		from = max(from, fd+1)
	}
	s.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(from), script.Uint(1<<32-1), script.Int(0))
	if p.Idle && !b.launches() {
		b.idle()
		return nil
	}
	if p.Init || p.Idle {
		b.init()
	}
	if p.Console != "" {
		b.console()
	}
	if p.Stay && !p.Idle {
		s.Call("begin a session", unix.SYS_SETSID)
	}
	if r := b.p.Rights; r != nil && !b.helper {
		b.bound(r)
		b.setIDs(r)
	}
	if !b.launches() {
		b.enterDir()
	}
	if p.Umask >= 0 {
		s.Call("set the umask", unix.SYS_UMASK, script.Int(p.Umask))
	}
	if b.files[0] != 0 {
		s.Call("restore the limit of open files", unix.SYS_PRLIMIT64, script.Int(0), script.Int(unix.RLIMIT_NOFILE), s.Words(b.files[:]), script.Int(0))
	}
	if r := b.p.Rights; r != nil && !b.helper {
		b.capabilities(r)
	}
	b.noNewPrivs()
	b.landlock()
	if err := b.filter(); err != nil {
		return err
	}
	if f := b.h.Parent; f != nil {
		s.Call("keep the parent's descriptor open", unix.SYS_FCNTL, script.Int(int(f.Fd())), script.Int(unix.F_SETFD), script.Int(0))
	}
	if b.errfd >= 0 && b.h.Parent == nil {
		s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGKILL)))
		parent := syscall.Getpid()
		if b.p.Namespaces.PID || b.joinsPID {
			parent = 0
		}
		if p.Init {
			parent = 1
		}
		s.Want(s.Call("see the parent alive", unix.SYS_GETPPID), parent)
	}
	if st := entry.Read(); st.Masked || p.Init {
		s.Call("restore the blocked signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), s.Words([]uint64{b.mask(st)}), script.Int(0), script.Int(8))
	}
	// A profile comes last, since it may refuse every call before.
	if err := b.profile(); err != nil {
		return err
	}
	if b.launches() {
		b.launchFuse()
		if p.Idle {
			s.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
			return nil
		}
		// Before, nobody would have answered in such a file system.
		b.enterDir()
	}
	s.Exec(p.Paths, p.Args, p.Env, p.Shell)
	if f := b.h.Shell; f != nil && p.OwnShell != nil {
		s.Otherwise(int(f.Fd()), append([]string{"sh", ShellVerb}, p.OwnShell...))
	}
	return nil
}

// enterDir enters the first of the working directories that can be entered.
func (b *builder) enterDir() {
	dirs := b.p.Process.Dirs
	for i, d := range dirs {
		b.s.SkipOK(b.s.Call("enter "+strconv.Quote(d), unix.SYS_CHDIR, b.s.Str(d)), len(dirs)-1-i)
	}
}

// idle ends the script as process 1 of an instance without a program.
func (b *builder) idle() {
	b.blockSignals()
	b.s.Idle()
}

// filter installs the seccomp filters of our own: that of fakeroot, by which
// changes of ownership, or only the making of devices, succeed without effect,
// and that of a shared terminal.
func (b *builder) filter() error {
	for _, f := range []struct {
		on   bool
		name string
		make func() ([]unix.SockFilter, error)
	}{
		{b.p.IDs.FakeOwners, "fakeroot", seccomp.Fakeroot},
		{b.p.IDs.FakeDevices && !b.p.IDs.FakeOwners, "fakeroot", seccomp.Devices},
		{b.p.Process.GuardTerminal, "terminal", seccomp.Terminal},
	} {
		if !f.on {
			continue
		}
		code, err := f.make()
		if err != nil {
			return err
		}
		program := b.s.Pointers(script.Int(len(code)), b.s.Bytes(seccomp.Bytes(code))) // struct sock_fprog
		b.s.Call("install the "+f.name+" filter", unix.SYS_PRCTL, script.Int(unix.PR_SET_SECCOMP), script.Int(unix.SECCOMP_MODE_FILTER), program)
	}
	return nil
}

// overlayFailed tells whether the script ended at the overlay, which not every
// file system of a sandbox can be the lower layer of.
func (b *builder) overlayFailed(err error) bool {
	se := new(script.Error)
	return errors.As(err, &se) && se.Label == overlayLabel
}

func (b *builder) skipped(err error) {
	debugf(b.h, "no overlay over "+b.p.Root.Path+": "+err.Error())
}

// explain turns a failure of the script into one that names cause and object.
func (b *builder) explain(err error) error {
	se := new(script.Error)
	if !errors.As(err, &se) {
		return err
	}
	if se.Exec {
		return &ExecError{Program: b.p.Process.Args[0], Errno: se.Errno}
	}
	return err
}

// ExecError says why the program in the container could not be started.
type ExecError struct {
	Program string
	Errno   syscall.Errno
}

func (e *ExecError) Error() string {
	switch e.Errno {
	case syscall.ENOENT:
		if strings.Contains(e.Program, "/") {
			return strconv.Quote(e.Program) + ": no such file or directory"
		}
		return strconv.Quote(e.Program) + ": executable file not found in $PATH"
	case syscall.ELIBACC:
		return "exec " + e.Program + " failed: a shared library is likely missing in the image"
	case syscall.EACCES:
		return strconv.Quote(e.Program) + ": permission denied"
	}
	return "exec " + e.Program + " failed: " + e.Errno.Error()
}

// Unwrap returns the error number.
func (e *ExecError) Unwrap() error { return e.Errno }

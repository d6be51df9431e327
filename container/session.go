package container

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

// namespaces enters the network namespace that is named, makes the others (but
// for that of process ids, which begins with the clone), and brings them up.
func (b *builder) namespaces(w wires) {
	s, n := b.s, b.p.Namespaces
	if b.p.NetnsPath != "" && !b.helper { // which enters it before
		fd := s.Call("open the network namespace "+b.p.NetnsPath, unix.SYS_OPENAT, atCwd, s.Str(b.p.NetnsPath), script.Int(unix.O_RDONLY|unix.O_CLOEXEC))
		s.Call("join the network namespace "+b.p.NetnsPath, unix.SYS_SETNS, fd.Arg(), script.Int(unix.CLONE_NEWNET))
		s.Call("close the network namespace", unix.SYS_CLOSE, fd.Arg())
	}
	flags := 0
	for _, f := range []struct {
		on   bool
		flag int
	}{{n.IPC, unix.CLONE_NEWIPC}, {n.UTS, unix.CLONE_NEWUTS}, {n.Net, unix.CLONE_NEWNET}} {
		if f.on {
			flags |= f.flag
		}
	}
	if flags != 0 {
		s.Call("create namespaces", unix.SYS_UNSHARE, script.Int(flags))
	}
	if name := b.p.Hostname; name != "" {
		s.Call("set the host name", unix.SYS_SETHOSTNAME, s.Str(name), script.Int(len(name)))
	}
	if n.Net {
		b.loopback()
	}
	if b.h.Attach != nil {
		b.awaitNetwork(w)
	}
}

// awaitNetwork waits until the parent has given the network namespace its devices.
func (b *builder) awaitNetwork(w wires) {
	s := b.s
	// The ports in here are nobody else's.
	b.s.SkipFail(b.write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), 2)
	// The child may share the table of descriptors, so no end of file would come
	// from a parent that is gone.
	s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGKILL)))
	parent := syscall.Getpid()
	if b.p.Namespaces.PID {
		parent = 0
	}
	s.Want(s.Call("see the parent alive", unix.SYS_GETPPID), parent)
	s.Want(s.Call("tell of the network namespace", unix.SYS_WRITE, script.Int(w.inNet), s.Bytes([]byte{1}), script.Int(1)), 1)
	s.Want(s.Call("wait for the network", unix.SYS_READ, script.Int(w.attached), s.Bytes(make([]byte, 1)), script.Int(1)), 1)
}

// ifreq is struct ifreq: the name, then the flags; 40 bytes.
type ifreq [5]uint64

// loopback brings up the loopback device.
func (b *builder) loopback() {
	s := b.s
	var r ifreq
	r[0] = uint64('l') | uint64('o')<<8
	r[2] = unix.IFF_UP | unix.IFF_RUNNING
	fd := s.Call("open a socket", unix.SYS_SOCKET, script.Int(unix.AF_INET), script.Int(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), script.Int(0))
	s.Call("bring up the loopback device", unix.SYS_IOCTL, fd.Arg(), script.Int(unix.SIOCSIFFLAGS), s.Words(r[:]))
	s.Call("close the socket", unix.SYS_CLOSE, fd.Arg())
}

func (b *builder) tmpfs(mode string, size int64, name string) script.Slot {
	options := []string{"mode", mode}
	if b.p.Ramfs {
		return b.newMount("ramfs", name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...)
	}
	if size > 0 {
		options = append(options, "size", itoa(int(size)))
	}
	return b.newMount("tmpfs", name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...)
}

// ttyGroup is the group of terminals on every distribution.
const ttyGroup = "5"

func (b *builder) devpts() script.Slot {
	options := []string{"newinstance", "", "ptmxmode", "0666", "mode", "0620"}
	if b.p.IDs.Mode == plan.HostIDs {
		options = append(options, "gid", ttyGroup)
	}
	return b.newMount("devpts", "the pseudo-terminals", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
}

// session makes the session's file system and fills in the sources of the
// mounts that show a part of it. All other sources must be open already, since
// it covers a directory of the host.
func (b *builder) session(sources []script.Slot) {
	list := b.p.Session.Entries
	if len(list) == 0 {
		return
	}
	s := b.s
	t := b.tmpfs("1777", b.p.Session.Size, "the session's file system")
	b.attachMount(t, "attach the session's file system")
	// The permissions are those that the plan says.
	old := s.Call("clear the umask", unix.SYS_UMASK, script.Int(0))
	for i := range list {
		e := &list[i]
		switch {
		case e.Link != "":
			s.Call("create /"+e.Path, unix.SYS_SYMLINKAT, s.Str(e.Link), t.Arg(), s.Str(e.Path))
		case e.File:
			fd := s.Call("create /"+e.Path, unix.SYS_OPENAT, t.Arg(), s.Str(e.Path), script.Int(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC), script.Int(int(e.Perm)))
			s.Call("close /"+e.Path, unix.SYS_CLOSE, fd.Arg())
		default:
			s.Call("create /"+e.Path, unix.SYS_MKDIRAT, t.Arg(), s.Str(e.Path), script.Int(int(e.Perm)))
		}
	}
	s.Call("restore the umask", unix.SYS_UMASK, old.Arg())
	for i := range b.p.Mounts {
		m := &b.p.Mounts[i]
		if m.Kind != plan.SessionDir {
			continue
		}
		sources[i] = s.Call("open /"+m.Source+" of the session", unix.SYS_OPEN_TREE, t.Arg(), s.Str(m.Source), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC))
	}
}

// init makes the fork whose parent stays as process 1.
func (b *builder) init() {
	b.blockSignals()
	b.s.Init(b.p.Process.Stay, b.launches())
}

// blockSignals blocks all signals, as process 1 wants them, and lets it end with
// the launcher.
func (b *builder) blockSignals() {
	s := b.s
	all := ^uint64(0)
	s.Call("block signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), s.Words([]uint64{all}), script.Int(0), script.Int(8))
	if b.errfd >= 0 {
		s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGKILL)))
		// A parent in another PID namespace has no id here.
		b.seeParent()
	}
}

// seeParent ends the start if the parent is gone: then the pipe to it is in error,
// which poll reports unasked.
func (b *builder) seeParent() {
	s := b.s
	s.Want(s.Call("see the parent alive", unix.SYS_PPOLL, s.Words([]uint64{uint64(b.errfd)}), script.Int(1), s.Words([]uint64{0, 0}), script.Int(0), script.Int(0)), 0)
}

// mask is the signal mask of the program: that of the caller.
func (b *builder) mask(st entry.State) uint64 {
	if st.Masked {
		return st.Mask
	}
	var set unix.Sigset_t
	unix.PthreadSigmask(unix.SIG_SETMASK, nil, &set)
	return set.Val[0]
}

// console puts the container's own terminal device in place of the standard
// descriptors that are terminals, so that their names can be found inside.
func (b *builder) console() {
	var terminals []int
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil && b.h.Stdio[fd] == nil {
			terminals = append(terminals, fd)
		}
	}
	if len(terminals) == 0 {
		return
	}
	s := b.s
	dev := s.Call("open the console", unix.SYS_OPENAT, atCwd, s.Str(b.p.Process.Console), script.Int(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC))
	s.SkipFail(dev, len(terminals)+1)
	for _, fd := range terminals {
		s.Call("use the console", unix.SYS_DUP3, dev.Arg(), script.Int(fd), script.Int(0))
	}
	s.Call("close the console", unix.SYS_CLOSE, dev.Arg())
}

// MakeDirs makes the directories of the host that p needs, with the rights of
// the caller. It follows no link in what it makes.
func MakeDirs(p *plan.Plan) error {
	for _, d := range p.HostDirs {
		if err := os.Mkdir(d.Path, os.FileMode(d.Perm&0o777)); err != nil {
			if st, e := os.Lstat(d.Path); e == nil && st.IsDir() {
				continue
			}
			return err
		}
		if err := unix.Chmod(d.Path, d.Perm); err != nil {
			return &os.PathError{Op: "chmod", Path: strings.Clone(d.Path), Err: err}
		}
	}
	return nil
}

package container

import (
	"encoding/binary"
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

// Running is a running container.
type Running struct {
	FD  int // a pidfd of its process 1
	PID int // the number of that process
}

// nsFlags are the flags of setns for the names in /proc/PID/ns.
var nsFlags = [...]struct {
	name string
	flag int
}{
	{"user", unix.CLONE_NEWUSER}, {"mnt", unix.CLONE_NEWNS}, {"pid", unix.CLONE_NEWPID}, {"ipc", unix.CLONE_NEWIPC},
	{"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"cgroup", unix.CLONE_NEWCGROUP},
}

// namespaces returns the flags of the namespaces of r that are not ours.
func (r *Running) namespaces() (int, error) {
	flags := 0
	for _, n := range nsFlags {
		var own, other unix.Stat_t
		if err := unix.Stat("/proc/self/ns/"+n.name, &own); err != nil {
			return 0, err
		}
		if err := unix.Stat("/proc/"+itoa(r.PID)+"/ns/"+n.name, &other); err != nil {
			return 0, err
		}
		if own.Ino != other.Ino {
			flags |= n.flag
		}
	}
	return flags, nil
}

// Join carries out p, which plan.Join made, in the running container r, and
// waits for its end.
func Join(p *plan.Plan, r *Running, h Hooks) (syscall.WaitStatus, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	flags, err := unix.CLONE_NEWPID, error(nil)
	if !p.IDs.Helper { // which finds them by itself
		flags, err = r.namespaces()
	}
	if err != nil {
		return 0, err
	}
	m := newMonitor(h.Done)
	defer m.stop()
	c, err := startJoined(p, r, flags, h)
	if err != nil {
		return 0, err
	}
	return m.wait(c)
}

func startJoined(p *plan.Plan, r *Running, flags int, h Hooks) (*child, error) {
	var errs, left [2]int
	for _, q := range []*[2]int{&errs, &left} {
		if err := syscall.Pipe2(q[:], syscall.O_CLOEXEC); err != nil {
			return nil, err
		}
	}
	defer unix.Close(left[0])
	b := newBuilder(p, h, errs[1])
	b.files = entry.Read().Files
	b.joinsPID = flags&unix.CLONE_NEWPID != 0
	b.label()
	b.enterGroups()
	if !b.helper {
		// The kernel checks at once that the process is still there and that this
		// one may join it.
		b.s.Call("join the namespaces of the instance", unix.SYS_SETNS, script.Int(r.FD), script.Int(flags))
		b.s.Leave(left[1])
	}
	if p.IDs.Mode == plan.Ranges && !p.IDs.KeepGroups {
		b.s.Call("drop the supplementary groups", unix.SYS_SETGROUPS, script.Int(0), script.Int(0))
	}
	if err := b.process(); err != nil {
		return nil, err
	}
	start := func() (int, error) { return b.s.Start(0, errs[1]) }
	if b.helper {
		start = func() (int, error) { return b.askJoin(r, left[1]) }
	}
	pid, err := start()
	unix.Close(errs[1])
	unix.Close(left[1])
	if err != nil {
		return nil, err
	}
	id := receiveID(left[0])
	reap(pid)
	c := &child{pid: id, failed: make(chan error, 1)}
	err = b.explain(b.s.ReadFailure(errs[0]))
	unix.Close(errs[0])
	if id == 0 || err != nil {
		if id != 0 {
			reap(id)
		}
		if err == nil {
			err = errors.New("cannot join the instance: it has ended")
		}
		return nil, err
	}
	c.failed <- nil
	return c, nil
}

// joinHold adds the way into the user namespace of a shared mount, with a mount
// namespace that is still a copy of the caller's, so that bind sources are what
// the caller sees. A PID namespace begins with a fork, whose id goes to left.
func (b *builder) joinHold(left int) {
	s := b.s
	if b.hold.user >= 0 {
		s.Call("join the user namespace of the image's mount", unix.SYS_SETNS, script.Int(b.hold.user), script.Int(unix.CLONE_NEWUSER))
	}
	flags := unix.CLONE_NEWNS
	if b.p.Namespaces.PID {
		flags |= unix.CLONE_NEWPID
	}
	s.Call("create namespaces", unix.SYS_UNSHARE, script.Int(flags))
	if b.p.Namespaces.PID {
		s.Leave(left)
	}
}

// enterHeld goes on in a copy of the mount namespace that holds the shared
// mount. The bind sources are open already.
func (b *builder) enterHeld() {
	s := b.s
	s.Call("join the mount namespace of the image's mount", unix.SYS_SETNS, script.Int(b.hold.mnt), script.Int(unix.CLONE_NEWNS))
	s.Call("create a mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
	b.held = s.Call("open the image's mount", unix.SYS_OPENAT, atCwd, s.Str(b.attach), script.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
}

// heldRoot makes the shared mount the root, below a layer of the container's own
// if it lacks something.
func (b *builder) heldRoot() {
	s := b.s
	if b.hold.layer {
		b.layer(true)
		s.Call("enter the image", unix.SYS_FCHDIR, b.held.Arg())
		b.overlay(".")
	} else {
		b.root = s.Call("clone the image's mount", unix.SYS_OPEN_TREE, b.held.Arg(), s.Str(""), script.Int(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH))
	}
	b.attachMount(b.root, "attach the image")
}

// receiveID reads the process id that Leave wrote; 0 if there is none.
func receiveID(fd int) int {
	var b [8]byte
	for {
		n, err := syscall.Read(fd, b[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || n != len(b):
			return 0
		}
		return int(binary.NativeEndian.Uint64(b[:]))
	}
}

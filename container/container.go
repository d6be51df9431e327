// Package container carries out a plan: it makes the namespaces and the mounts,
// starts the program, serves the image to it, forwards signals and returns how
// it ended.
//
// In: a plan.Plan and, for an image file, a file system to serve. Out: the
// program's wait status. Nothing of the host changes: all mounts live in a
// mount namespace that ends with its last process, and no file is created
// outside of it.
//
// There are two shapes. A process that became alone in a user namespace before
// the Go runtime started (package linux/entry) carries the plan out in itself
// and becomes the program: Exec. Every other one clones a child that does it
// (package linux/script), and stays as FUSE server, forwarder of signals and
// bearer of the exit status: Run. If a terminal is attached, the server is a
// process of its own in a session of its own, since a server must go on when
// its container is stopped from the keyboard.
//
// The order of the system calls is fixed: id maps; mount namespace; the FUSE
// file system; every bind source, opened before anything can cover it; the
// root; the binds, each destination resolved inside the new root by openat2;
// pivot_root; all descriptors closed; the working directory; no_new_privs;
// execve. The new mount calls of Linux 5.12 are needed.
//
// Files: container.go (Run, Exec), steps.go (the calls), root.go (root file
// systems), session.go (namespaces, file systems in memory), hold.go, holder.go
// (mounts that containers share), join.go (running containers), layers.go
// (overlays and images), programs.go (programs that write to images), caps.go (ids and
// capabilities), confine.go (LSM labels, Landlock and seccomp profiles),
// fuse.go (FUSE file systems that programs serve), monitor.go (signals and exit status), server.go (the FUSE server, in this
// process or its own).
package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

// Hooks are the ends of a container in the calling program; all may be nil.
type Hooks struct {
	Warning func(string)
	Debug   func(string)
	// Stdio replaces the standard descriptors of the program. A file's own
	// number must not be 0, 1 or 2 of another place.
	Stdio [3]*os.File
	// Panic ends this process and so the container: a fault was found in an image
	// that is served with Served.Panic.
	Panic func()
	// Done, when closed, kills the container.
	Done <-chan struct{}
	// Started is called once the program runs, with the process id of the
	// container's first process. If it fails, the container is killed.
	Started func(pid int) error
	// Parent, if not nil, stays open in the program under its own number, and
	// the program does not die with this process: it must look at Parent.
	Parent *os.File
	// Shell is the program for plan.Process.OwnShell; ShellVerb is its first
	// argument. It is the caller's to close.
	Shell *os.File
	// Procs are files of a control group, open for writing: the container's
	// process writes "0" to each, which enters the group, before it does
	// anything else. They are the caller's to close.
	Procs []*os.File
	// Netns, if not nil, is the network namespace that the container begins in:
	// one of root's, which the container has no rights over. It is the caller's to
	// close.
	Netns *os.File
	// NetID is the same for the setuid helper: the name of a network namespace that
	// it made for the caller.
	NetID string
	// Attach, if not nil, gives the container's own network namespace its devices.
	// It is called while the process pid waits in that namespace. It cannot be
	// used together with Netns.
	Attach func(pid int) error
}

// ShellVerb is the first argument of a program that shall be the shell of a
// container; no verb of the command line is called so.
const ShellVerb = "@shell"

// ErrInterrupted says that the container was ended before its program started.
var ErrInterrupted = errors.New("interrupted")

// Exec carries p out in the calling process, which package entry has moved to
// a new user namespace, and replaces it by the program. It returns only on
// failure.
func Exec(p *plan.Plan, st entry.State, h Hooks) error {
	runtime.LockOSThread()
	var failed *script.Script
	for _, overlay := range []bool{!p.Root.NoPoints, false} {
		b := newBuilder(p, h, -1)
		if failed != nil {
			b.s.Continue(failed)
		}
		b.files = st.Files
		b.maps()
		b.s.Call("create a mount namespace", unix.SYS_UNSHARE, script.Int(unix.CLONE_NEWNS))
		if err := b.rest(overlay, nil, wires{}); err != nil {
			return err
		}
		err := b.s.Here()
		if !overlay || !b.overlayFailed(err) {
			return b.explain(err)
		}
		// The tmpfs of the failed attempt must not hide what is below it.
		failed = b.s
		b = newBuilder(p, h, -1)
		b.s.Call("remove the tmpfs", unix.SYS_UMOUNT2, b.s.Str(b.attach), script.Int(unix.MNT_DETACH))
		if err := b.s.Here(); err != nil {
			return err
		}
		// The maps are written already: from here on only the rest.
		b.skipped(err)
		p.IDs.Mode = plan.HostIDs
	}
	return nil
}

// lostPoint tells that a mount point, which was open, was none any more: the kernel
// looks names of a FUSE mount up anew at times, and what it had before is gone then
// though the file system never changes. It was seen once in thousands of starts
// on a busy shared mount.
func lostPoint(err error) bool {
	se := new(script.Error)
	return errors.As(err, &se) && se.Errno == syscall.ENOENT && strings.HasPrefix(se.Label, "mount \"")
}

// Run carries p out in a child of the calling process and waits for its end.
// The images are those that p numbers; the root, if it is one, comes first.
func Run(p *plan.Plan, images []*Served, h Hooks) (syscall.WaitStatus, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := newMonitor(h.Done)
	defer m.stop()
	c, err := start(p, images, h, !p.Root.NoPoints)
	if refused := new(KernelRefused); c == nil && errors.As(err, &refused) {
		debugf(h, refused.Error())
		images[0].Kernel = 0
		c, err = start(p, images, h, !p.Root.NoPoints)
	}
	if c == nil && err != nil && points(p, images) {
		if se := new(script.Error); errors.As(err, &se) && se.Label == overlayLabel {
			debugf(h, "no overlay over "+p.Root.Path+": "+se.Errno.Error())
			c, err = start(p, images, h, false)
		}
	}
	if c == nil && lostPoint(err) {
		debugf(h, err.Error()+": once again")
		c, err = start(p, images, h, !p.Root.NoPoints)
	}
	if c == nil && NoLayers(err) && p.DropTmpfs() {
		warn(h, "Disabling --writable-tmpfs: "+err.Error()+" ("+p.Root.Path+")")
		c, err = start(p, images, h, true)
	}
	if err != nil {
		return 0, err
	}
	if h.Started != nil {
		if err := c.started(h.Started); err != nil {
			return 0, err
		}
	}
	ws, err := m.wait(c)
	if c.hold != nil && images[0].Tree != nil {
		for _, fault := range c.hold.faults() {
			warn(h, "The image is damaged: "+fault)
		}
	}
	c.end(h)
	return ws, err
}

// serve starts to answer on the devices.
func (c *child) serve(b *builder, images []*Served, devs []*device, fds []int, closeFD func(int)) (err error) {
	if len(devs) > 0 {
		if c.server, err = b.serveAll(images, devs, fds); err != nil {
			return err
		}
	}
	return c.fuse.start(b, closeFD)
}

// end ends the programs that serve file systems.
func (c *child) end(h Hooks) {
	c.programs.end(h)
	c.fuse.end()
}

// started waits until the program runs and tells f.
func (c *child) started(f func(int) error) error {
	err := <-c.failed
	if err == nil {
		if err = f(c.pid); err != nil {
			syscall.Kill(c.pid, syscall.SIGKILL)
		}
	}
	if err != nil {
		reap(c.pid)
		return err
	}
	c.failed <- nil
	return nil
}

// child is a started container.
type child struct {
	pid      int
	hold     *Hold          // nil: the mount is the container's own
	init     bool           // pid is a process 1 of ours, the program its child
	server   *serverProcess // nil: none, or in this process
	failed   chan error     // the child's report: nil once the program runs
	programs programs       // that write to images
	fuse     fusePrograms   // of the host
}

// start clones the child and brings the server up.
func start(p *plan.Plan, images []*Served, h Hooks, overlay bool) (*child, error) {
	var errs, sync, ready, staged, proceed, left, inNet, attached [2]int
	pipes := []*[2]int{&errs, &sync, &ready, &left}
	if h.Attach != nil {
		pipes = append(pipes, &inNet, &attached)
	}
	if p.Programs() {
		if !script.NewMounts() {
			return nil, errOldKernel
		}
		pipes = append(pipes, &staged, &proceed)
	}
	var fds []int
	closeFD := func(fd int) {
		for i := range fds {
			if fds[i] == fd {
				syscall.Close(fd)
				fds[i] = -1
			}
		}
	}
	defer func() {
		for _, fd := range fds {
			if fd >= 0 {
				syscall.Close(fd)
			}
		}
	}()
	for _, q := range pipes {
		if err := syscall.Pipe2(q[:], syscall.O_CLOEXEC); err != nil {
			return nil, err
		}
		fds = append(fds, q[0], q[1])
	}

	b := newBuilder(p, h, errs[1])
	b.files = entry.Read().Files
	flags := uintptr(unix.CLONE_NEWNS)
	if p.IDs.Mode != plan.HostIDs && !entry.Read().Unshared {
		flags |= unix.CLONE_NEWUSER
	}
	if p.Namespaces.PID {
		flags |= unix.CLONE_NEWPID
	}
	hold := joined(p, images, h)
	switch {
	case hold != nil:
		flags = 0
		b.hold, b.img, images = hold, images[0], nil
		b.joinHold(left[1])
	case p.IDs.Mode == plan.Ranges:
		b.s.Want(b.s.Call("wait for the id maps", unix.SYS_READ, script.Int(sync[0]), b.s.Bytes(make([]byte, 1)), script.Int(1)), 1)
	default:
		b.maps()
	}
	b.enterGroups()
	devs, err := b.openDevices(images, ready[1])
	err = errors.Join(err, b.openFuse(ready[1]))
	for _, d := range slices.Concat(devs, b.fuse) {
		if d != nil {
			fds = append(fds, d.fd)
		}
	}
	if err != nil {
		return nil, err
	}
	served := len(devs)+len(b.fuse) > 0
	shared := served && !b.helper
	if shared {
		flags |= unix.CLONE_FILES
	}
	if err := b.rest(overlay, devs, wires{ready: ready[1], staged: staged[1], proceed: proceed[0], inNet: inNet[1], attached: attached[0]}); err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(b) // the child may work with the memory of the script
	var pid int
	if b.helper {
		if pid, err = b.askHelper(images, slices.Concat(devs, b.fuse), ready[1]); err != nil {
			return nil, err
		}
		closeFD(ready[1])
	} else if pid, err = b.clone(flags); err != nil {
		return nil, err
	}
	if !shared {
		closeFD(errs[1])
	}
	if hold != nil && p.Namespaces.PID {
		closeFD(left[1])
		id := receiveID(left[0])
		reap(pid)
		if id == 0 {
			return nil, b.explain(b.s.ReadFailure(errs[0]))
		}
		pid = id
	}
	c := &child{pid: pid, init: p.Process.Init, hold: hold, failed: make(chan error, 1)}
	abort := func(err error) (*child, error) {
		syscall.Kill(pid, syscall.SIGKILL)
		reap(pid)
		c.end(h)
		return nil, err
	}
	if p.IDs.Mode == plan.Ranges {
		if err := writeRanges(pid, &p.IDs); err != nil {
			return abort(fmt.Errorf("could not use fakeroot: %w", err))
		}
		syscall.Write(sync[1], []byte{1})
	}
	if h.Attach != nil {
		if err := b.ready(pid, inNet[0], errs[0], func() bool { return readByte(inNet[0]) }); err != nil {
			return abort(err)
		}
		if err := h.Attach(pid); err != nil {
			return abort(err)
		}
		syscall.Write(attached[1], []byte{1})
	}
	if served {
		told := func() bool { return b.s.Receive(ready[0], b.sent) }
		if b.helper {
			told = func() bool { return readByte(ready[0]) }
		}
		if err := b.ready(pid, ready[0], errs[0], told); err != nil {
			return abort(err)
		}
		closeFD(errs[1])
		if err := c.serve(b, images, devs, fds, closeFD); err != nil {
			return abort(err)
		}
	}
	if p.Programs() {
		if err := b.ready(pid, staged[0], errs[0], func() bool { return readByte(staged[0]) }); err != nil {
			return abort(err)
		}
		if err := c.programs.start(b, pid, images); err != nil {
			return abort(err)
		}
		syscall.Write(proceed[1], []byte{1})
	}
	if overlay && points(p, images) || len(p.Layers) > 0 {
		// A failed overlay is tried again without, so wait for the verdict.
		err := b.s.ReadFailure(errs[0])
		if err != nil {
			reap(pid)
			c.end(h)
			return nil, b.explain(err)
		}
		c.failed <- nil
		return c, nil
	}
	report := errs[0]
	for i := range fds {
		if fds[i] == report {
			fds[i] = -1
		}
	}
	go func() {
		err := b.s.ReadFailure(report)
		syscall.Close(report)
		c.failed <- b.explain(err)
	}()
	return c, nil
}

// clone starts the script, in the network namespace that it shall begin in.
func (b *builder) clone(flags uintptr) (int, error) {
	if b.h.Netns == nil {
		return b.s.Start(flags, b.errfd)
	}
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(own)
	if err := unix.Setns(int(b.h.Netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("cannot join the container's network namespace: %w", err)
	}
	pid, err := b.s.Start(flags, b.errfd)
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil && err == nil {
		syscall.Kill(pid, syscall.SIGKILL)
		reap(pid)
		err = fmt.Errorf("cannot go back to the host's network namespace: %w", back)
	}
	return pid, err
}

// points tells whether the root lacks its mount points, which an overlay shows or
// nothing does.
func points(p *plan.Plan, images []*Served) bool {
	return p.Root.Kind == plan.DirRoot || len(images) > 0 && images[0].Kernel != 0 && p.Root.Kind == plan.ServedRoot
}

// joined returns the hold on a shared mount, or nil if the container mounts its
// image itself.
func joined(p *plan.Plan, images []*Served, h Hooks) *Hold {
	if len(images) == 0 || images[0] == nil || images[0].Hold == nil {
		return nil
	}
	img := images[0]
	hold := img.Hold
	img.Hold = nil
	if len(images) > 1 || len(p.Layers)+len(p.Fuse) > 0 || p.Root.Kind != plan.ServedRoot {
		hold.Close()
		return nil
	}
	if err := hold.request(img, p, h); err != nil {
		debugf(h, "not sharing a mount: "+err.Error())
		hold.Close()
		return nil
	}
	return hold
}

// ready waits until the child has something to say on the descriptor ready,
// which received then reads. While it makes the FUSE file systems both
// share one table of descriptors, so the parent's ends of the pipes stay open,
// and only the process itself tells that it is gone.
func (b *builder) ready(pid, ready, errs int, received func() bool) error {
	timeout := -1
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS { // before Linux 5.3 the process is looked at now and then
		pidfd, timeout = -1, lookInterval
	} else if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	list := []unix.PollFd{{Fd: int32(ready), Events: unix.POLLIN}, {Fd: int32(errs), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(list, timeout)
		if err == unix.EINTR || err == nil && n == 0 && !childEnded(pid) {
			continue
		} else if err != nil {
			return err
		}
		switch {
		case list[1].Revents != 0:
			return b.explain(b.s.ReadFailure(errs))
		case list[0].Revents != 0:
			if !received() {
				return ErrInterrupted
			}
			return nil
		}
		return ErrInterrupted
	}
}

// lookInterval is how often ready looks at a process that no descriptor tells of.
const lookInterval = 20 // milliseconds

// childEnded tells whether a child has ended, and leaves it to be waited for.
func childEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err != nil && err != unix.EINTR || info.Signo != 0
}

func reap(pid int) syscall.WaitStatus {
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
			return ws
		}
	}
}

func debugf(h Hooks, s string) {
	if h.Debug != nil {
		h.Debug(s)
	}
}

func warn(h Hooks, s string) {
	if h.Warning != nil {
		h.Warning(s)
	}
}

// IsTerminal tells whether one of the standard descriptors is a terminal.
func IsTerminal() bool {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return true
		}
	}
	return false
}

// writeRanges writes the id maps of pid with the programs newuidmap and
// newgidmap, which alone may map other ids than the caller's.
func writeRanges(pid int, ids *plan.IDs) error {
	for _, m := range []struct {
		tool   string
		caller int
		inside int
		maps   []plan.Map
	}{
		{"newuidmap", ids.UID, ids.InsideUID, ids.UIDMap},
		{"newgidmap", ids.GID, ids.InsideGID, ids.GIDMap},
	} {
		args := []string{m.tool, itoa(pid), itoa(m.inside), itoa(m.caller), "1"}
		for _, l := range m.maps {
			args = append(args, itoa(int(l.Inside)), itoa(int(l.Outside)), itoa(int(l.Count)))
		}
		if err := runTool(m.tool, args); err != nil {
			return err
		}
	}
	return nil
}

// runTool runs a program of the system, never one of the caller's PATH.
func runTool(name string, args []string) error {
	path, err := findTool(name)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(path, args, &os.ProcAttr{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Files: []*os.File{nil, nil, w}})
	w.Close()
	if err != nil {
		return err
	}
	text := make([]byte, 512)
	n, _ := r.Read(text)
	st, err := p.Wait()
	if err != nil {
		return err
	}
	if !st.Success() {
		return errors.New("cannot map ids with " + path + ": " + string(text[:max(n, 0)]))
	}
	return nil
}

// MissingToolError says that a program of the system is not installed.
type MissingToolError struct{ Tool string }

func (e *MissingToolError) Error() string { return "cannot find the program " + e.Tool }

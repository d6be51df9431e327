package container

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

const (
	mountTimeout   = 30 * time.Second // for a program to mount
	unmountTimeout = time.Minute      // for it to write what it holds
	imageFD        = 3                // the image, in a program
)

// programs are programs of the system that write to images, children of this
// process in the namespaces of the container, in the order of their start:
// fuse2fs for each image, then fuse-overlayfs, which puts the layers together,
// since the kernel's overlay refuses fuse2fs as its upper layer.
//
// They end on SIGTERM, which they also get when this process dies, and write
// what they hold first. The descriptor of the image that fuse2fs inherits keeps
// the lock on it.
type programs struct {
	list  []*toolProcess
	flags int // the namespaces to join
}

type toolProcess struct {
	name string
	pid  int
	log  *os.File // what it wrote to standard error
	gone bool
	ws   syscall.WaitStatus
}

// start starts what b's plan needs, in the namespaces of the process pid.
func (ps *programs) start(b *builder, pid int, images []*Served) error {
	u := b.p.Upper()
	layered := u != nil && u.Kind == plan.ProgramLayer
	if !layered && !slices.ContainsFunc(images, func(img *Served) bool { return img.Writable }) {
		return nil // nothing that needs Linux 5.3
	}
	target, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(target)
	ps.flags = unix.CLONE_NEWNS
	if b.p.IDs.Mode != plan.HostIDs && !entry.Read().Unshared {
		ps.flags |= unix.CLONE_NEWUSER
	}
	for i, img := range images {
		if !img.Writable {
			continue
		}
		at := b.stage.at + "/" + itoa(i)
		argv := []string{"fuse2fs", "-f", "-s", "-o", fuse2fsOptions(b.p, img), "/proc/self/fd/" + itoa(imageFD), at}
		if err := ps.run(b.p, pid, target, argv, img.File, at, nil); err != nil {
			return err
		}
	}
	if !layered {
		return nil
	}
	options := "lowerdir=" + strings.Join(b.stage.lower, ":") + ",upperdir=" + b.stage.upper + ",workdir=" + b.stage.work
	if b.p.IDs.Mode != plan.SingleID {
		options += ",allow_other"
	}
	if b.p.IDs.Mode != plan.HostIDs {
		// The kernel lets nobody read access control lists of fuse2fs in a
		// user namespace, and fuse-overlayfs would pass that failure on.
		options += ",noacl"
	}
	prepare := func(s *script.Script) {
		image := b.stage.at + "/" + itoa(u.Image)
		// A link in the image must not lead the program out of it.
		const attr = unix.MOUNT_ATTR_NOSYMFOLLOW | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
		s.Call("restrict the image", unix.SYS_MOUNT_SETATTR, atCwd, s.Str(image), script.Int(0), s.Words([]uint64{attr, 0, 0, 0}), script.Int(mountAttrSize))
		s.Call("enter the layers", unix.SYS_CHDIR, s.Str(b.stage.at))
		for _, d := range []string{b.stage.upper, b.stage.work} {
			s.Optional(s.Call("create "+d, unix.SYS_MKDIRAT, atCwd, s.Str(d), script.Int(0o755)))
		}
	}
	return ps.run(b.p, pid, target, []string{"fuse-overlayfs", "-f", "-o", options, stageMerged}, nil, b.stage.at+"/"+stageMerged, prepare)
}

func fuse2fsOptions(p *plan.Plan, img *Served) string {
	// The kernel checks permissions, not the program, which would refuse what
	// a capability allows.
	o := "fakeroot,default_permissions,fsname=image,offset=" + itoa(int(img.Off))
	if p.IDs.Mode == plan.SingleID {
		// Other owners could not be shown, and their files not be changed.
		return o + ",uid=" + itoa(p.IDs.InsideUID) + ",gid=" + itoa(p.IDs.InsideGID)
	}
	return o + ",allow_other"
}

// run starts one program and waits for its mount on at.
func (ps *programs) run(p *plan.Plan, child, target int, argv []string, image *os.File, at string, prepare func(*script.Script)) error {
	path, err := findTool(argv[0])
	if err != nil {
		return err
	}
	logFD, err := unix.MemfdCreate(argv[0], unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	t := &toolProcess{name: argv[0], log: os.NewFile(uintptr(logFD), argv[0])}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	var errs [2]int
	if err := unix.Pipe2(errs[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(errs[0])
	files := []int{null, null, logFD}
	if image != nil {
		files = append(files, int(image.Fd()))
	}
	s, closeFiles, err := ps.script(p, target, files, &errs[1], prepare)
	defer closeFiles()
	if err != nil {
		return err
	}
	s.Exec([]string{path}, argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, "")
	if t.pid, err = s.Start(0, errs[1]); err != nil {
		return err
	}
	ps.list = append(ps.list, t)
	closeFiles()
	if err := s.ReadFailure(errs[0]); err != nil {
		return errors.New("cannot run " + path + " for the image: " + err.Error())
	}
	return t.await(child, at)
}

// script lists the steps of a program before it is executed. The files become
// its descriptors 0 and up; errs is moved out of their way.
func (ps *programs) script(p *plan.Plan, target int, files []int, errs *int, prepare func(*script.Script)) (*script.Script, func(), error) {
	var copies []int
	closeAll := func() {
		for _, fd := range copies {
			unix.Close(fd)
		}
		copies = nil
	}
	for i, fd := range append([]int{*errs, target}, files...) {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 16)
		if err != nil {
			return nil, closeAll, err
		}
		copies = append(copies, c)
		if i == 0 {
			unix.Close(fd)
			*errs = c
		}
	}
	s := new(script.Script)
	s.Call("leave the session", unix.SYS_SETSID)
	s.Call("unblock the signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), s.Words([]uint64{0}), script.Int(0), script.Int(8))
	s.Call("join the namespaces", unix.SYS_SETNS, script.Int(copies[1]), script.Int(ps.flags))
	if prepare != nil {
		prepare(s)
	}
	if p.IDs.Mode == plan.SingleID && p.IDs.InsideUID != 0 {
		// Only so does the right to mount outlast execve.
		const only = 1 << unix.CAP_SYS_ADMIN
		header := []uint64{unix.LINUX_CAPABILITY_VERSION_3}
		sets := []uint64{only | only<<32, only, 0} // effective, permitted, inheritable, then their high words
		s.Call("keep the right to mount", unix.SYS_CAPSET, s.Words(header), s.Words(sets))
		s.Call("pass on the right to mount", unix.SYS_PRCTL, script.Int(unix.PR_CAP_AMBIENT), script.Int(unix.PR_CAP_AMBIENT_RAISE), script.Int(unix.CAP_SYS_ADMIN), script.Int(0), script.Int(0))
	}
	for i := range files {
		s.Call("set a descriptor", unix.SYS_DUP3, script.Int(copies[i+2]), script.Int(i), script.Int(0))
	}
	s.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(len(files)), script.Uint(1<<32-1), script.Int(unix.CLOSE_RANGE_CLOEXEC))
	s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGTERM)))
	s.Want(s.Call("see the parent alive", unix.SYS_GETPPID), syscall.Getpid())
	return s, closeAll, nil
}

// await waits until the program has mounted on at, as the process child sees it.
func (t *toolProcess) await(child int, at string) error {
	for end := time.Now().Add(mountTimeout); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile("/proc/" + itoa(child) + "/mountinfo")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
			return ErrInterrupted // the child is gone
		}
		if err != nil {
			return err
		}
		for _, l := range strings.Split(string(text), "\n") {
			if strings.Contains(l, " "+at+" ") && strings.Contains(l, " - fuse") {
				return nil
			}
		}
		if t.ended() {
			return errors.New("cannot serve the image for writing: " + t.name + ": " + t.said())
		}
		if time.Now().After(end) {
			return errors.New("cannot serve the image for writing: " + t.name + " does not mount it: " + t.said())
		}
	}
}

func (t *toolProcess) ended() bool {
	if !t.gone {
		pid, err := syscall.Wait4(t.pid, &t.ws, syscall.WNOHANG, nil)
		t.gone = pid == t.pid || err == syscall.ECHILD
	}
	return t.gone
}

// said returns the last lines that the program wrote.
func (t *toolProcess) said() string {
	text, _ := io.ReadAll(io.NewSectionReader(t.log, 0, 4096))
	return strings.Join(strings.Fields(string(text)), " ")
}

// end has the programs write everything to the images and waits for them.
func (ps *programs) end(h Hooks) {
	if len(ps.list) == 0 {
		return
	}
	if err := ps.sync(); err != nil {
		debugf(h, err.Error())
	}
	for i := len(ps.list) - 1; i >= 0; i-- {
		t := ps.list[i]
		if !t.ended() {
			syscall.Kill(t.pid, syscall.SIGTERM)
		}
		for end := time.Now().Add(unmountTimeout); !t.ended(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				syscall.Kill(t.pid, syscall.SIGKILL)
				t.ws, t.gone = reap(t.pid), true
			}
		}
		// fuse-overlayfs takes the end by a signal for a failure.
		if t.ws.Signaled() || t.name == "fuse2fs" && t.ws.ExitStatus() != 0 {
			warn(h, t.name+" did not end well: the image may lack the last changes, check it with e2fsck")
		}
		debugf(h, t.name+": "+t.said())
		t.log.Close()
	}
	ps.list = nil
}

// sync writes what the kernel holds back to the images, from inside the
// namespaces of the programs.
func (ps *programs) sync() error {
	target, err := unix.PidfdOpen(ps.list[len(ps.list)-1].pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	s := new(script.Script)
	s.Call("join the namespaces", unix.SYS_SETNS, script.Int(target), script.Int(ps.flags))
	for _, name := range []string{"/" + stageMerged, "/0"} {
		root := s.Call("open the root", unix.SYS_OPENAT, atCwd, s.Str(name), script.Int(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC))
		s.SkipFail(root, 1)
		s.Call("write out the root", unix.SYS_SYNCFS, root.Arg())
	}
	s.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
	pid, err := s.Start(0, int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	err = s.ReadFailure(int(r.Fd()))
	reap(pid)
	return err
}

// findTool returns the path of a program of the system, never one of the
// caller's PATH.
func findTool(name string) (string, error) {
	for _, dir := range []string{"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/", "/usr/local/bin/"} {
		if unix.Access(dir+name, unix.X_OK) == nil {
			return dir + name, nil
		}
	}
	return "", &MissingToolError{Tool: name}
}

func readByte(fd int) bool {
	var b [1]byte
	for {
		n, err := syscall.Read(fd, b[:])
		if err != syscall.EINTR {
			return n == 1
		}
	}
}

package container

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/entry"
	"singularity/linux/script"
	"singularity/plan"
)

// fuseTimeout is what a program of the host gets to end by itself once its file
// system is gone.
const fuseTimeout = 5 * time.Second

// openFuse reserves a device for each FUSE file system that a program serves.
func (b *builder) openFuse(ready int) error {
	for range b.p.Fuse {
		d, err := b.openDevice(ready)
		if err != nil {
			return err
		}
		b.fuse = append(b.fuse, d)
	}
	return nil
}

// mountFuse makes the file systems that programs serve. The device of one that
// runs in the container stays open.
//
// Security: the options are fixed, none comes from the caller (SC-062). Where
// processes of several users can be, the kernel checks permissions, since a
// program need not.
func (b *builder) mountFuse() {
	ids := &b.p.IDs
	options := []string{"rootmode", "40000", "user_id", itoa(ids.InsideUID), "group_id", itoa(ids.InsideGID)}
	if ids.Mode != plan.SingleID && !b.helper {
		options = append(options, "allow_other", "", "default_permissions", "")
	}
	for i, d := range b.fuse {
		if !b.helper {
			b.openFuseDevice(d)
		}
		d.fsopen = b.s.Call("make a FUSE file system", unix.SYS_FSOPEN, b.s.Str("fuse"), script.Int(unix.FSOPEN_CLOEXEC))
		for k := 0; k < len(options); k += 2 {
			b.config(d.fsopen, options[k], options[k+1])
		}
		b.config(d.fsopen, "fd", itoa(d.fd))
		b.s.Call("create the FUSE file system", unix.SYS_FSCONFIG, d.fsopen.Arg(), script.Int(unix.FSCONFIG_CMD_CREATE), script.Int(0), script.Int(0), script.Int(0))
		d.mount = b.s.Call("mount the FUSE file system", unix.SYS_FSMOUNT, d.fsopen.Arg(), script.Int(unix.FSMOUNT_CLOEXEC),
			script.Uint(unix.MOUNT_ATTR_NODEV|b.nosuid()))
		if !b.p.Fuse[i].Host {
			b.keepOpen(d.fd)
		}
	}
}

// launches tells whether programs in the container serve file systems.
func (b *builder) launches() bool {
	for i := range b.p.Fuse {
		if !b.p.Fuse[i].Host {
			return true
		}
	}
	return false
}

// launchFuse starts the programs in the container, confined as the program of
// the container, which comes next.
func (b *builder) launchFuse() {
	env := b.p.Process.Env
	for i, d := range b.fuse {
		f := &b.p.Fuse[i]
		if f.Host {
			continue
		}
		argv := f.Argv(d.fd)
		label := "start " + strconv.Quote(argv[0]) + " in the container for " + f.Destination
		b.s.Launch(label, plan.Search(argv[0], env), argv, env, d.fd, f.Daemon)
	}
}

// fusePrograms are programs of the host that serve file systems: children of
// this process, but for those that went to the background.
type fusePrograms []*toolProcess

// fuseFD is the device in a program of the host.
const fuseFD = 3

// start starts the programs of the host, and closes the devices here.
func (fs *fusePrograms) start(b *builder, closeFD func(int)) error {
	for i, d := range b.fuse {
		if !b.helper { // these descriptors were made in the table that the child shared
			syscall.Close(b.s.Result(d.fsopen))
			syscall.Close(b.s.Result(d.mount))
		}
		if f := &b.p.Fuse[i]; f.Host {
			if err := fs.run(b, f, d.fd); err != nil {
				return err
			}
		}
		closeFD(d.fd)
	}
	return nil
}

// run starts one program. It has a session of its own, so that keys meant for
// the container do not end it.
func (fs *fusePrograms) run(b *builder, f *plan.FuseMount, device int) error {
	argv := f.Argv(fuseFD)
	refuse := func(why string) error {
		return errors.New("cannot mount " + f.Destination + " with the program " + strconv.Quote(argv[0]) + " of the host: " + why)
	}
	t, err := b.startOnHost(argv, device, !f.Daemon)
	if err != nil {
		if se := new(script.Error); errors.As(err, &se) && se.Exec {
			err = se.Errno
			if se.Errno == syscall.ENOENT {
				err = errors.New("executable file not found in $PATH")
			}
		}
		return refuse(err.Error())
	}
	if !f.Daemon {
		*fs = append(*fs, t)
		return nil
	}
	for begin := time.Now(); !t.ended(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > mountTimeout {
			syscall.Kill(t.pid, syscall.SIGKILL)
			reap(t.pid)
			return refuse("it does not go to the background; name the kind host if it shall not")
		}
	}
	if t.ws != 0 {
		return refuse("it did not go to the background, but ended with status " + itoa(t.ws.ExitStatus()))
	}
	return nil
}

// startOnHost starts a program of the caller's PATH, with the caller's rights,
// signals and variables, and the device as descriptor fuseFD. With bound it is
// asked to end when this process does.
func (b *builder) startOnHost(argv []string, device int, bound bool) (*toolProcess, error) {
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	var errs [2]int
	if err := unix.Pipe2(errs[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(errs[0])
	s := new(script.Script)
	// Copies are out of the way of the numbers that the program gets.
	var copies []int
	defer func() {
		for _, fd := range copies {
			unix.Close(fd)
		}
	}()
	files := []int{null, 2, 2, device}
	for _, fd := range append(files, errs[1]) {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 16)
		if err != nil {
			unix.Close(errs[1])
			return nil, err
		}
		copies = append(copies, c)
	}
	unix.Close(errs[1])
	errfd := copies[len(files)]
	s.Call("leave the session", unix.SYS_SETSID)
	s.Call("restore the blocked signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), s.Words([]uint64{b.mask(entry.Read())}), script.Int(0), script.Int(8))
	for i := range files {
		s.Call("set a descriptor", unix.SYS_DUP3, script.Int(copies[i]), script.Int(i), script.Int(0))
	}
	s.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Int(len(files)), script.Uint(1<<32-1), script.Int(unix.CLOSE_RANGE_CLOEXEC))
	if bound {
		s.Call("set the parent-death signal", unix.SYS_PRCTL, script.Int(unix.PR_SET_PDEATHSIG), script.Int(int(syscall.SIGTERM)))
		s.Want(s.Call("see the parent alive", unix.SYS_GETPPID), syscall.Getpid())
	}
	s.Exec(plan.Search(argv[0], os.Environ()), argv, os.Environ(), "")
	t := &toolProcess{name: argv[0]}
	if t.pid, err = s.Start(0, errfd); err != nil {
		return nil, err
	}
	unix.Close(errfd)
	copies = copies[:len(files)]
	if err := s.ReadFailure(errs[0]); err != nil {
		reap(t.pid)
		return nil, err
	}
	return t, nil
}

// end waits for the programs, which end with their file systems.
func (fs *fusePrograms) end() {
	for _, t := range *fs {
		for begin := time.Now(); !t.ended(); time.Sleep(time.Millisecond) {
			switch gone := time.Since(begin); {
			case gone > unmountTimeout:
				syscall.Kill(t.pid, syscall.SIGKILL)
			case gone > fuseTimeout:
				syscall.Kill(t.pid, syscall.SIGTERM)
			}
		}
	}
	*fs = nil
}

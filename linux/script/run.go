package script

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The runtime's own hooks around a fork: they block signals, and in the child
// put the handlers back to what the process was started with. Package syscall
// uses the same; the linker allows the reference.

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

const atCwd = ^uintptr(99) // AT_FDCWD, -100

// failure is what a child writes to the pipe when a step fails.
type failure struct {
	step, errno uint64
}

// Start clones the process, where it can without a copy of its memory, with
// flags (CLONE_NEW*, CLONE_FILES; SIGCHLD is added) and runs the script in the
// child. A failure of the child is sent to errfd, 16 bytes; see ReadFailure. The
// calling goroutine must be locked to its thread for as long as the child shall
// live, if the script sets a parent-death signal.
func (s *Script) Start(flags uintptr, errfd int) (pid int, err error) {
	for i := range s.steps {
		// Send refers to the results, which do not move any more now.
		if st := &s.steps[i]; st.nr == syscall.SYS_WRITE && st.a[1] == ^uintptr(0) {
			st.a[1] = uintptr(unsafe.Pointer(&s.res[0]))
		}
	}
	if s.classic != nil {
		s.classic.bound(len(s.steps))
	}
	p, e := uintptr(0), syscall.ENOSYS
	if !s.stays() {
		p, e = s.spawn(flags, uintptr(errfd))
	}
	if e == syscall.ENOSYS || e == syscall.EINVAL {
		return s.Fork(flags, errfd)
	}
	if e != 0 {
		return 0, &Error{Step: -1, Label: createLabel, Errno: e}
	}
	return int(p), nil
}

const createLabel = "create the container's process"

// Fork is Start with a copy of the memory, always: the child is alone in it.
func (s *Script) Fork(flags uintptr, errfd int) (pid int, err error) {
	p, e := fork(flags|uintptr(syscall.SIGCHLD), s.steps, s.res, s.exec, s.classic, uintptr(errfd))
	if e != 0 {
		return 0, &Error{Step: -1, Label: createLabel, Errno: e}
	}
	return int(p), nil
}

// stays tells whether a process of ours stays in the container.
//
// Security: that process must not share our memory, since a program that is root
// in its user namespace may trace it, and could write to this process then, which
// is outside.
func (s *Script) stays() bool {
	for i := range s.steps {
		if op := s.steps[i].op; op == OpInit || op == OpIdle {
			return true
		}
	}
	return false
}

// ReadFailure waits until the child has executed its program (nil) or failed.
// The parent's copy of the pipe's other end must be closed.
func (s *Script) ReadFailure(fd int) error {
	var f failure
	b := (*[unsafe.Sizeof(f)]byte)(unsafe.Pointer(&f))[:]
	for {
		n, err := syscall.Read(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n != len(b) {
			return nil
		}
		return s.fail(int(f.step), syscall.Errno(f.errno))
	}
}

// child is what a process that shares our memory needs.
type child struct {
	steps []step
	res   []uintptr
	exec  *execData
	old   *classic
	errfd uintptr
	mask  uint64 // blocked signals
	stack []byte
}

// childStack is room for run and what it calls, in bytes.
const childStack = 16 << 10

// spawn is fork without a copy of the page tables and of each page that either
// side writes to afterwards, which cost a tenth of a start. The child has a
// stack of its own and the default action for every signal that is caught here,
// since a handler of the runtime would run in the midst of the parent's data.
// Without Linux 5.5, where clone3 is filtered, and on processors for which no
// stub is written the error is ENOSYS or EINVAL, and nothing happened.
//
//go:norace
//go:noinline
func (s *Script) spawn(flags, errfd uintptr) (uintptr, syscall.Errno) {
	c := &child{steps: s.steps, res: s.res, exec: s.exec, old: s.classic, errfd: errfd, stack: make([]byte, childStack)}
	s.keep = append(s.keep, c)
	const block, size = 0, 8
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, block, 0, uintptr(unsafe.Pointer(&c.mask)), size, 0, 0); e != 0 {
		return 0, e
	}
	a := &cloneArgs{
		flags: uint64(flags) | syscall.CLONE_VM | cloneClearSighand, exitSignal: uint64(syscall.SIGCHLD),
		stack: uint64(uintptr(unsafe.Pointer(&c.stack[0]))), stackSize: childStack,
	}
	runtimeBeforeFork()
	pid, e := clone3(a, unsafe.Sizeof(*a), c)
	runtimeAfterFork()
	return pid, syscall.Errno(e)
}

// cloneArgs is struct clone_args of the kernel, in its first version.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64
}

const cloneClearSighand = 1 << 32

// runChild is the life of a child that shares our memory. The parent goes on
// meanwhile, so this and what it calls must not touch anything of the Go
// runtime: nosplit, for the stack is none that it knows, and the parent's thread
// may just be asked to give way, which a function that is not nosplit would do.
//
//go:norace
//go:nosplit
func runChild(c *child) {
	const setMask, size = 2, 8
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&c.mask)), 0, size, 0, 0)
	i, e := run(c.steps, c.res, c.exec, c.old)
	f := failure{uint64(i), uint64(e)}
	syscall.RawSyscall(syscall.SYS_WRITE, c.errfd, uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

//go:norace
//go:noinline
func fork(flags uintptr, steps []step, res []uintptr, x *execData, old *classic, errfd uintptr) (pid uintptr, err syscall.Errno) {
	runtimeBeforeFork()
	pid, _, err = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if err != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, err
	}
	runtimeAfterForkInChild()
	i, e := run(steps, res, x, old)
	f := failure{uint64(i), uint64(e)}
	if i >= 0 && steps[i].code > 0 {
		f.step = uint64(steps[i].code - 1)
	}
	syscall.RawSyscall(syscall.SYS_WRITE, errfd, uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// run makes the calls. It must not allocate, block on a lock or grow its
// stack, since in a child only this thread exists. It returns the failed step,
// or -1 at the end of a script without Exec.
//
//go:norace
//go:nosplit
func run(steps []step, res []uintptr, x *execData, old *classic) (int, syscall.Errno) {
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		var e syscall.Errno
		var r uintptr
		switch s.op {
		case OpExec:
			return i, execute(x)
		case OpIdle:
			reapAll(0, initStays)
		case OpInit, OpLeave:
			if e = split(s.op, s.a[0]); e == 0 {
				continue
			}
		case OpLaunch:
			e = launch(s.launch)
		case OpDrop:
		case OpEqual:
			if *s.mem[0] != uint64(s.a[0]) || *s.mem[1] != uint64(s.a[1]) {
				e = syscall.ESTALE
			}
		case OpStore:
			*s.mem[0] = uint64(res[s.a[0]])
		default:
			ours := false
			if old != nil {
				r, e, ours = old.step(s, res)
			}
			if !ours {
				r, e = call(s, res)
			}
			if e == 0 && s.want && r != s.expect {
				e = syscall.ESTALE
			}
			res[i] = r
		}
		switch {
		case e == 0:
			i += int(s.skipOK)
		case !s.ignore:
			return i, e
		default:
			i += int(s.skipNo)
		}
	}
	return -1, 0
}

// call makes the system call of a step. It is no part of run for the sake of the
// small stack.
//
//go:norace
//go:nosplit
//go:noinline
func call(s *step, res []uintptr) (r uintptr, e syscall.Errno) {
	a := s.a
	for k := range a {
		if s.ref&(1<<k) != 0 {
			a[k] = res[a[k]]
		}
	}
	if s.raise != nil {
		if e = setEffective(&s.raise[0]); e != 0 {
			return 0, e
		}
	}
	r, _, e = syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if s.raise != nil {
		for setEffective(&s.raise[1]) != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0) // never with them
		}
	}
	return r, e
}

// capHeader is struct __user_cap_header_struct: version 3, this thread.
var capHeader = [2]uint32{unix.LINUX_CAPABILITY_VERSION_3}

// setEffective sets the capabilities of this thread to the first three words of
// data.
//
//go:norace
//go:nosplit
func setEffective(data *[3]uint64) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(data)), 0)
	return e
}

// emptyPath is the path of execveat for the file of a descriptor itself.
var emptyPath [1]byte

// execute executes the program. It returns only if that fails.
//
//go:norace
//go:nosplit
func execute(x *execData) syscall.Errno {
	e := search(x)
	if x.otherwiseArgv != 0 && (e == syscall.ENOENT || e == syscall.ELIBACC || e == syscall.ENOEXEC) {
		_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, x.otherwise, uintptr(unsafe.Pointer(&emptyPath)), x.otherwiseArgv, x.envp, unix.AT_EMPTY_PATH, 0)
	}
	return e
}

// search tries the candidates as a shell's search does: a missing one is
// passed over, and the most telling error is kept.
//
//go:norace
//go:nosplit
func search(x *execData) syscall.Errno {
	result := syscall.ENOENT
	for k := 0; k < len(x.paths); k++ {
		_, _, e := syscall.RawSyscall(syscall.SYS_EXECVE, x.paths[k], x.argv, x.envp)
		switch e {
		case syscall.ENOENT:
			// A file that is there lacks its interpreter or loader.
			if _, _, e := syscall.RawSyscall6(syscall.SYS_FACCESSAT, atCwd, x.paths[k], 0, 0, 0, 0); e == 0 {
				return syscall.ELIBACC
			}
		case syscall.ENOTDIR:
		case syscall.ENOEXEC:
			if x.shellPath == 0 {
				return e
			}
			x.shell[1] = x.paths[k]
			_, _, e = syscall.RawSyscall(syscall.SYS_EXECVE, x.shellPath, uintptr(unsafe.Pointer(&x.shell[0])), x.envp)
			return e
		case syscall.EACCES:
			result = e
		default:
			return e
		}
	}
	return result
}

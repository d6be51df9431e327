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

const createLabel = "create the container's process"

// Fork clones the process with a copy of its memory and flags (CLONE_NEW*,
// CLONE_FILES; SIGCHLD is added) and runs the script in the child, which is alone in
// it. A failure of the child is sent to errfd, 16 bytes; see ReadFailure.
func (s *Script) Fork(flags uintptr, errfd int) (pid int, err error) {
	p, e := fork(flags|uintptr(syscall.SIGCHLD), s.steps, s.res, s.exec, s.classic, uintptr(errfd))
	if e != 0 {
		return 0, &Error{Step: -1, Label: createLabel, Errno: e}
	}
	return int(p), nil
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

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

// Foreign is added to the number of a step that was not in the listing of whoever
// asked.
const Foreign = 1 << 20

// Part is the steps of a script from From up to To.
type Part struct {
	*Script
	From, To int
	Foreign  int // what is added to the number of a step that fails
}

// Part is a stretch of the listing of whoever asked.
func (s *Script) Part(from, to int) Part { return Part{s, from, to, 0} }

// All is the whole of s, which is not the listing of whoever asked.
func (s *Script) All() Part { return Part{s, 0, len(s.Steps), Foreign} }

// Fork clones the process with a copy of its memory and flags (CLONE_NEW*,
// CLONE_FILES; SIGCHLD is added) and goes through the parts in the child, which is
// alone in it. A failure of the child is sent to errfd, 16 bytes; see ReadFailure.
//
//go:norace
//go:noinline
func Fork(flags uintptr, errfd int, parts ...Part) (pid int, err error) {
	for i := range parts {
		parts[i].link()
	}
	runtimeBeforeFork()
	p, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 || p != 0 {
		runtimeAfterFork()
		if e != 0 {
			return 0, e
		}
		return int(p), nil
	}
	runtimeAfterForkInChild()
	for k := 0; k < len(parts); k++ {
		if i, e := run(parts[k].Script, parts[k].From, parts[k].To); i >= 0 {
			f := failure{uint64(i + parts[k].Foreign), uint64(e)}
			syscall.RawSyscall(syscall.SYS_WRITE, uintptr(errfd), uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
			break
		}
	}
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
func run(s *Script, from, to int) (int, syscall.Errno) {
	for i := from; i < to; i++ {
		st := &s.Steps[i]
		var e syscall.Errno
		switch st.Op {
		case OpExec:
			return i, execute(s, s.Program)
		case OpIdle:
			reapAll(0, initStays)
		case OpInit, OpLeave:
			child := uintptr(0)
			if child, e = split(st.Op, uintptr(st.Args[0])); child != 0 {
				reapAll(child, uintptr(st.Args[0]))
			}
			if e == 0 {
				continue
			}
		case OpDrop:
		case OpEqual:
			if *word(s.at(Ref(st.Args[2]))) != st.Args[0] || *word(s.at(Ref(st.Args[3]))) != st.Args[1] {
				e = syscall.ESTALE
			}
		case OpStore:
			*word(s.at(Ref(st.Args[1]))) = uint64(s.res[st.Args[0]])
		default:
			s.fill(st)
			s.res[i], e = s.perform(st)
			if e == 0 && st.Want && uint64(s.res[i]) != st.Expect {
				e = syscall.ESTALE
			}
		}
		switch {
		case e == 0:
			i += int(st.SkipOK)
		case !st.Ignore:
			return i, e
		default:
			i += int(st.SkipNo)
		}
	}
	return -1, 0
}

// fill finds the arguments of a step. They are kept in the script, for the sake of
// the small stack.
//
//go:norace
//go:nosplit
//go:noinline
func (s *Script) fill(st *Step) {
	for k := range st.Args {
		switch bit := uint8(1) << k; {
		case st.Slots&bit != 0:
			s.args[k] = s.res[st.Args[k]]
		case st.Refs&bit != 0:
			s.args[k] = s.at(Ref(st.Args[k]))
		default:
			s.args[k] = uintptr(st.Args[k])
		}
	}
}

// call makes the system call of a step, with the capabilities that it raises.
//
//go:norace
//go:nosplit
//go:noinline
func call(s *Script, st *Step) (uintptr, syscall.Errno) {
	if st.raise != 0 {
		if e := raise(st.raise, s.Permitted); e != 0 {
			return 0, e
		}
	}
	r, _, e := syscall.RawSyscall6(uintptr(st.Nr), s.args[0], s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
	for st.raise != 0 && raise(0, s.Permitted) != 0 {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0) // never with them
	}
	return r, e
}

// emptyPath is the path of execveat for the file of a descriptor itself.
var emptyPath [1]byte

// execute executes the program. It returns only if that fails.
//
//go:norace
//go:nosplit
func execute(s *Script, x *Program) syscall.Errno {
	e := search(s, x)
	if x.Other != 0 && (e == syscall.ENOENT || e == syscall.ELIBACC || e == syscall.ENOEXEC) {
		_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(x.OtherFD), uintptr(unsafe.Pointer(&emptyPath)), s.at(x.Other), s.at(x.Envp), unix.AT_EMPTY_PATH, 0)
	}
	return e
}

// search tries the candidates as a shell's search does: a missing one is
// passed over, and the most telling error is kept.
//
//go:norace
//go:nosplit
func search(s *Script, x *Program) syscall.Errno {
	result := syscall.ENOENT
	for k := 0; k < len(x.Paths); k++ {
		path := s.at(x.Paths[k])
		_, _, e := syscall.RawSyscall(syscall.SYS_EXECVE, path, s.at(x.Argv), s.at(x.Envp))
		switch e {
		case syscall.ENOENT:
			// A file that is there lacks its interpreter or loader.
			if _, _, e := syscall.RawSyscall6(syscall.SYS_FACCESSAT, atCwd, path, 0, 0, 0, 0); e == 0 {
				return syscall.ELIBACC
			}
		case syscall.ENOTDIR:
		case syscall.ENOEXEC:
			if x.Shell == 0 {
				return e
			}
			shell := s.at(x.Shell)
			*word(shell + 8) = uint64(path)
			_, _, e = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(*word(shell)), shell, s.at(x.Envp))
			return e
		case syscall.EACCES:
			result = e
		default:
			return e
		}
	}
	return result
}

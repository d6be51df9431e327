//go:build !starter

package script

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launchData is what OpLaunch needs.
type launchData struct {
	exec *Program
	fd   uintptr // stays open in the program
	wait bool
	null Ref // the path of /dev/null
}

// Launch adds the start of another program, which keeps the descriptor fd and
// what has been applied to the process so far. It is in a session of its own,
// and what it says goes to standard error. With wait the step ends when the
// program has ended well, which one that goes to the background does soon; else
// when it has been executed, and process 1 is its parent.
func (s *Script) Launch(label string, paths, argv, env []string, fd int, wait bool) {
	s.launches = append(s.launches, &launchData{exec: s.program(paths, argv, env, ""), fd: uintptr(fd), wait: wait, null: Ref(s.Str("/dev/null").v)})
	s.add(label, OpLaunch, 0, Int(len(s.launches)-1))
}

// perform makes a step that is the start of a program, or a system call.
//
//go:norace
//go:nosplit
func (s *Script) perform(st *Step) (uintptr, syscall.Errno) {
	if st.Op == OpLaunch {
		return 0, launch(s, int(st.Args[0]))
	}
	if r, e, ours := s.old(st.Nr); ours {
		return r, e
	}
	return call(s, st)
}

// launch starts the program number n of s. It returns in the calling process alone.
//
//go:norace
//go:nosplit
func launch(s *Script, n int) syscall.Errno {
	l := s.launches[n]
	var ends [2]int32
	if _, _, e := syscall.RawSyscall(syscall.SYS_PIPE2, uintptr(unsafe.Pointer(&ends)), syscall.O_CLOEXEC, 0); e != 0 {
		return e
	}
	child, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e == 0 && child == 0 {
		if !l.wait {
			// The program becomes the child of process 1.
			child, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		}
		if e == 0 && child == 0 {
			if e = prepare(l, s.at(l.null)); e == 0 {
				e = execute(s, l.exec)
			}
		}
		failed := uint64(e)
		if e != 0 {
			syscall.RawSyscall(syscall.SYS_WRITE, uintptr(ends[1]), uintptr(unsafe.Pointer(&failed)), unsafe.Sizeof(failed))
		}
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(failed), 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(ends[1]), 0, 0)
	failed := uint64(e)
	if e == 0 {
		failed = awaitLaunch(child, uintptr(ends[0]))
	}
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(ends[0]), 0, 0)
	return syscall.Errno(failed)
}

// awaitLaunch waits until the program has been executed, or has failed to be,
// and until child has ended.
//
//go:norace
//go:nosplit
func awaitLaunch(child, from uintptr) uint64 {
	var failed uint64
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, from, uintptr(unsafe.Pointer(&failed)), unsafe.Sizeof(failed))
		if e == syscall.EINTR {
			continue
		}
		if e == 0 && n == unsafe.Sizeof(failed) {
			return failed
		}
		break
	}
	var status uint32
	for {
		_, _, e := syscall.RawSyscall6(syscall.SYS_WAIT4, child, uintptr(unsafe.Pointer(&status)), 0, 0, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		if e != 0 || status != 0 {
			return uint64(syscall.EIO)
		}
		return 0
	}
}

// prepare makes the process ready to execute the program of l. The stack is
// small: execute is not called from here.
//
//go:norace
//go:nosplit
func prepare(l *launchData, nullPath uintptr) syscall.Errno {
	const setFD = 2 // F_SETFD
	syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	if null, _, e := syscall.RawSyscall6(syscall.SYS_OPENAT, atCwd, nullPath, syscall.O_RDONLY, 0, 0, 0); e == 0 {
		syscall.RawSyscall(syscall.SYS_DUP3, null, 0, 0)
		if null > 2 {
			syscall.RawSyscall(syscall.SYS_CLOSE, null, 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_DUP3, 2, 1, 0)
	if _, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, l.fd, setFD, 0); e != 0 {
		return e
	}
	return 0
}

// Process 1 waits politeRounds times politePause for the others to end.
const politeRounds = 100

// childSignal is the mask of SIGCHLD alone.
var childSignal = uint64(1) << (syscall.SIGCHLD - 1)

var politePause = syscall.Timespec{Nsec: 100e6}

// endOthers asks, if how says so, all other processes to end and waits for that: programs that
// serve file systems write what they hold.
//
//go:norace
//go:nosplit
func endOthers(how uintptr) {
	if how&initPolite == 0 {
		return
	}
	syscall.RawSyscall6(syscall.SYS_KILL, ^uintptr(0), uintptr(syscall.SIGTERM), 0, 0, 0, 0)
	for range politeRounds {
		for {
			pid, _, e := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), 0, unix.WNOHANG|unix.WALL, 0, 0, 0)
			if e == syscall.ECHILD {
				return
			}
			if e != 0 || pid == 0 {
				break
			}
		}
		syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&childSignal)), 0, uintptr(unsafe.Pointer(&politePause)), 8, 0, 0)
	}
}

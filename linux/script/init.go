package script

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// split forks for the steps OpInit and OpLeave. It returns in the child, with an
// error, and for OpInit in the parent, with the child.
//
//go:norace
//go:nosplit
func split(op uint8, arg uintptr) (uintptr, syscall.Errno) {
	flags := uintptr(syscall.SIGCHLD)
	if op == OpLeave {
		flags |= syscall.CLONE_PARENT
	}
	child, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	switch {
	case e != 0:
		return 0, e
	case child == 0 || op == OpInit:
		return child, 0
	}
	id := uint64(child)
	syscall.RawSyscall(syscall.SYS_WRITE, arg, uintptr(unsafe.Pointer(&id)), unsafe.Sizeof(id))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// The name of process 1, as other programs of this kind call it.
var initName = [16]byte{'s', 'i', 'n', 'i', 't'}

// allSignals is the mask of them.
var allSignals = ^uint64(0)

const kernelSent = 0x80 // SI_KERNEL, of a signal that a terminal's key made

// sigInfo is siginfo_t: number, error, code.
type sigInfo struct {
	no, errno, code int32
	_               [116]byte
}

// Signals that ask for an end, bit n-1 for signal n.
const endSignals = 1<<(syscall.SIGHUP-1) | 1<<(syscall.SIGINT-1) | 1<<(syscall.SIGQUIT-1) | 1<<(syscall.SIGTERM-1)

// What process 1 reads into; its stack is small, and its memory is its own.
var (
	caught sigInfo
	status uint32
)

// reapAll is the life of process 1; child is 0 where there is none. All signals
// are blocked; it never returns.
//
//go:norace
//go:nosplit
func reapAll(child, how uintptr) {
	stay := how&initStays != 0
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&initName)), 0)
	wipeEnvironment()
	if !stay {
		// Security: /proc/1/exe is our program on the host. Root of the user
		// namespace must not get at it, keep it open and write to it when it
		// runs no more (SC-023). An instance, which others must be able to
		// join, runs from a copy instead.
		syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
	}
	// The descriptors of the start must not stay open here: the launcher
	// waits for their end, and a reader for that of a pipe.
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, 1<<32-1, 0)
	ending := false
	for {
		sig, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&caught)), 0, 8, 0, 0)
		if e != 0 {
			continue
		}
		switch {
		case sig == uintptr(syscall.SIGCHLD):
		case stay && endSignals&(1<<(sig-1)) != 0:
			ending = true
			syscall.RawSyscall(syscall.SYS_KILL, ^uintptr(0), sig, 0)
		case stay && child != 0:
			syscall.RawSyscall(syscall.SYS_KILL, -child, sig, 0)
		case !stay && caught.code != kernelSent:
			// What a terminal sends reaches its whole process group.
			syscall.RawSyscall(syscall.SYS_KILL, child, sig, 0)
		}
		reap(child, how, ending)
	}
}

// reap waits for every child that has ended.
//
//go:norace
//go:nosplit
func reap(child, how uintptr, ending bool) {
	for {
		pid, _, e := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), unix.WNOHANG|unix.WALL, 0, 0, 0)
		if e == syscall.ECHILD && ending {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if e != 0 || pid == 0 {
			return
		}
		if pid == child && how&initStays == 0 {
			code := status >> 8 & 0xff
			if n := status & 0x7f; n != 0 {
				code = 128 + n
			}
			endOthers(how)
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
		}
	}
}

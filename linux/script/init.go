package script

import (
	"syscall"
	"unsafe"
)

// split forks for the steps opInit and opLeave. It returns in the child, or
// with an error.
//
//go:norace
//go:nosplit
func split(op uint8, arg uintptr) syscall.Errno {
	flags := uintptr(syscall.SIGCHLD)
	if op == opLeave {
		flags |= syscall.CLONE_PARENT
	}
	child, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if e != 0 || child == 0 {
		return e
	}
	if op == opInit {
		reapAll(child, arg != 0)
	}
	id := uint64(child)
	syscall.RawSyscall(syscall.SYS_WRITE, arg, uintptr(unsafe.Pointer(&id)), unsafe.Sizeof(id))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// The name of process 1, as other programs of this kind call it.
var initName = [16]byte{'s', 'i', 'n', 'i', 't'}

// All signals, as a mask.
var allSignals = ^uint64(0)

const (
	prSetName     = 15
	waitAll       = 0x40000000 // __WALL
	sysCloseRange = 436
	kernelSent    = 0x80 // SI_KERNEL, of a signal that a terminal's key made
)

// sigInfo is siginfo_t: number, error, code.
type sigInfo struct {
	no, errno, code int32
	_               [116]byte
}

// reapAll is the life of process 1. All signals are blocked; it never returns.
//
//go:norace
//go:nosplit
func reapAll(child uintptr, group bool) {
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&initName)), 0)
	// The descriptors of the start must not stay open here: the launcher
	// waits for their end, and a reader for that of a pipe.
	syscall.RawSyscall(sysCloseRange, 3, 1<<32-1, 0)
	target := child
	if group {
		target = -child
	}
	for {
		var info sigInfo
		sig, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&info)), 0, 8, 0, 0)
		if e != 0 {
			continue
		}
		if sig != uintptr(syscall.SIGCHLD) {
			// What a terminal sends reaches its whole process group.
			if group || info.code != kernelSent {
				syscall.RawSyscall(syscall.SYS_KILL, target, sig, 0)
			}
			continue
		}
		for {
			var status uint32
			pid, _, e := syscall.RawSyscall6(syscall.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&status)), syscall.WNOHANG|waitAll, 0, 0, 0)
			if e != 0 || pid == 0 {
				break
			}
			if pid == child {
				code := status >> 8 & 0xff
				if n := status & 0x7f; n != 0 {
					code = 128 + n
				}
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(code), 0, 0)
			}
		}
	}
}

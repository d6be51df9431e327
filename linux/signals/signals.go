// Package signals makes the system calls about signals that package os/signal
// does not: reading blocked signals from a descriptor, and putting a signal's
// default action back for certain.
package signals

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Open returns a descriptor that signals of mask (bit n-1 for signal n) can be
// read from. Every thread must block them.
func Open(mask uint64) (int, error) {
	return unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{mask}}, unix.SFD_CLOEXEC)
}

// infoSize is the size of struct signalfd_siginfo.
const infoSize = 128

// Read waits for a signal. The second result tells that the kernel sent it, as
// it does for the keys of a terminal, and no process did.
func Read(fd int) (syscall.Signal, bool) {
	var b [infoSize]byte
	for {
		if n, err := unix.Read(fd, b[:]); err == nil && n == infoSize {
			code := int32(binary.NativeEndian.Uint32(b[8:]))
			return syscall.Signal(binary.NativeEndian.Uint32(b[:])), code > 0
		}
	}
}

// SetMask sets the blocked signals of the calling thread.
func SetMask(mask uint64) { sigprocmask(unix.SIG_SETMASK, mask) }

// Default gives sig its default action and unblocks it in the calling thread,
// which must be locked.
func Default(sig syscall.Signal) {
	var action [4]uint64 // struct kernel_sigaction: SIG_DFL, no flags
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	sigprocmask(unix.SIG_UNBLOCK, 1<<(sig-1))
}

func sigprocmask(how int, mask uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how), uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

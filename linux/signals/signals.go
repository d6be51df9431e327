// Package signals makes the system calls about signals that package os/signal
// does not: reading signals from descriptors, with who sent them, and putting a
// signal's default action back for certain.
//
// os/signal hands every signal it is asked for through several threads, which
// costs a start of a container a tenth of its time. A Source reads most signals
// from a signalfd, which wants them blocked in every thread. The Go runtime
// unblocks those of Unblocked in each thread that it starts, whatever the
// process was started with; were they left to the signalfd, one that came while
// nobody was reading would go to the runtime's handler instead and be lost. A
// handler of our own (signals_amd64.s) writes them to a pipe.
package signals

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Unblocked is the set of signals that the Go runtime never blocks, bit n-1 for
// signal n, as far as a program may catch them: HUP, INT, QUIT, TERM, STKFLT and
// CHLD.
const Unblocked = 1<<0 | 1<<1 | 1<<2 | 1<<14 | 1<<15 | 1<<16

// Source is where signals are read from.
type Source struct {
	poll []unix.PollFd // the pipe of the handler, the signalfd, a watched descriptor
}

// Open returns a source of the signals of mask (bit n-1 for signal n). Every
// thread must block them, but for those of Unblocked. What the process ignores
// of those stays ignored. A process opens one source and keeps it.
func Open(mask uint64) (*Source, error) {
	p := make([]int, 2)
	if err := unix.Pipe2(p, unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	fd, err := unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{mask &^ Unblocked}}, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err == nil {
		err = catch(mask&Unblocked, p[1])
	}
	if err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, err
	}
	return &Source{poll: []unix.PollFd{{Fd: int32(p[0]), Events: unix.POLLIN}, {Fd: int32(fd), Events: unix.POLLIN}}}, nil
}

// infoSize is the size of struct signalfd_siginfo and of siginfo_t, which begin
// alike.
const infoSize = 128

// Read waits for a signal. The second result tells that the kernel sent it, as
// it does for the keys of a terminal, and no process did.
func (s *Source) Read() (syscall.Signal, bool) {
	var b [infoSize]byte
	for {
		if len(s.poll) > 2 && s.poll[2].Revents != 0 {
			s.poll = s.poll[:2]
			return 0, true
		}
		for i := range s.poll[:2] {
			if n, err := unix.Read(int(s.poll[i].Fd), b[:]); err == nil && n == infoSize {
				code := int32(binary.NativeEndian.Uint32(b[8:]))
				return syscall.Signal(binary.NativeEndian.Uint32(b[:])), code > 0
			}
		}
		unix.Poll(s.poll, -1)
	}
}

// Watch lets Read return 0 once, when the other end of the connection fd is
// closed.
func (s *Source) Watch(fd int) {
	s.poll = append(s.poll[:2], unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP})
}

// SetMask sets the blocked signals of the calling thread.
func SetMask(mask uint64) { sigprocmask(unix.SIG_SETMASK, mask) }

// action is struct sigaction of the kernel.
type action struct{ handler, flags, restorer, mask uintptr }

func sigaction(sig int, set, old *action) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// Default gives sig its default action and unblocks it in the calling thread,
// which must be locked.
func Default(sig syscall.Signal) {
	sigaction(int(sig), &action{}, nil)
	sigprocmask(unix.SIG_UNBLOCK, 1<<(sig-1))
}

func sigprocmask(how int, mask uint64) {
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, uintptr(how), uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

//go:build !starter

package script

import (
	"syscall"
	"unsafe"
)

// Start clones the process, where it can without a copy of its memory, with
// flags (CLONE_NEW*, CLONE_FILES; SIGCHLD is added) and runs the script in the
// child. A failure of the child is sent to errfd, 16 bytes; see ReadFailure. The
// calling goroutine must be locked to its thread for as long as the child shall
// live, if the script sets a parent-death signal.
func (s *Script) Start(flags uintptr, errfd int) (pid int, err error) {
	for i := range s.Steps {
		// Send refers to the results, which do not move any more now.
		if st := &s.Steps[i]; st.Nr == syscall.SYS_WRITE && st.Args[1] == ^uint64(0) {
			st.Args[1] = uint64(uintptr(unsafe.Pointer(&s.res[0])))
		}
	}
	if s.classic != nil {
		s.classic.bound(len(s.Steps))
	}
	s.link()
	p, e := uintptr(0), syscall.ENOSYS
	if !s.stays() {
		p, e = s.spawn(flags, uintptr(errfd))
	}
	pid = int(p)
	if e == syscall.ENOSYS || e == syscall.EINVAL {
		pid, e = s.copied(flags, errfd)
	}
	if e != 0 {
		return 0, &Error{Step: -1, Label: "create the container's process", Errno: e}
	}
	return pid, nil
}

// copied makes a child with a copy of the memory.
func (s *Script) copied(flags uintptr, errfd int) (int, syscall.Errno) {
	pid, err := Fork(flags, errfd, s.Part(0, len(s.Steps)))
	e, _ := err.(syscall.Errno)
	return pid, e
}

// stays tells whether a process of ours stays in the container.
//
// Security: that process must not share our memory, since a program that is root
// in its user namespace may trace it, and could write to this process then, which
// is outside.
func (s *Script) stays() bool {
	for i := range s.Steps {
		if op := s.Steps[i].Op; op == OpInit || op == OpIdle {
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
	script *Script
	errfd  uintptr
	mask   uint64 // blocked signals
	stack  []byte
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
	c := &child{script: s, errfd: errfd, stack: make([]byte, childStack)}
	s.child = c
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
	i, e := run(c.script, 0, len(c.script.Steps))
	f := failure{uint64(i), uint64(e)}
	syscall.RawSyscall(syscall.SYS_WRITE, c.errfd, uintptr(unsafe.Pointer(&f)), unsafe.Sizeof(f))
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// Here runs the script in the calling thread. It returns the first failure, or
// nil if the script has no Exec.
func (s *Script) Here() error {
	if s.classic != nil {
		s.classic.bound(len(s.Steps))
	}
	s.link()
	i, e := run(s, 0, len(s.Steps))
	if i < 0 {
		return nil
	}
	return s.fail(i, e)
}

// Result is the result of step i, after Here, or as sent by Send.
func (s *Script) Result(i Slot) int { return int(s.res[i]) }

// Send adds a step that writes all results so far to descriptor fd.
func (s *Script) Send(label string, fd int) Slot {
	return s.Call(label, syscall.SYS_WRITE, Int(fd), Uint(^uint64(0)), Int(len(s.Steps)*8))
}

// Receive reads from fd what step sent of Send wrote, and makes it visible to
// Result. It returns false if the script ended before.
func (s *Script) Receive(fd int, sent Slot) bool {
	n := int(sent) * 8
	b := unsafe.Slice((*byte)(unsafe.Pointer(&s.res[0])), n)
	for got := 0; got < n; {
		k, err := syscall.Read(fd, b[got:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || k <= 0 {
			return false
		}
		got += k
	}
	return true
}

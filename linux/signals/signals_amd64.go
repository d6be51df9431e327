package signals

// pipe is the descriptor that the handler writes to.
var pipe int32

// handlerAddresses returns where the handler is and what the kernel returns to
// behind it.
func handlerAddresses() (handler, restorer uintptr)

// Flags of sigaction: with siginfo, restart system calls, on the thread's signal
// stack, with a restorer.
const actionFlags = 0x4 | 0x10000000 | 0x08000000 | 0x04000000

// ignored is SIG_IGN.
const ignored = 1

// catch lets the handler write the signals of mask to fd.
func catch(mask uint64, fd int) error {
	pipe = int32(fd)
	a := action{flags: actionFlags, mask: ^uintptr(0)}
	a.handler, a.restorer = handlerAddresses()
	for n := 1; n <= 64; n++ {
		if mask&(1<<(n-1)) == 0 {
			continue
		}
		var old action
		if err := sigaction(n, nil, &old); err != nil {
			return err
		}
		if old.handler == ignored {
			continue
		}
		if err := sigaction(n, &a, nil); err != nil {
			return err
		}
	}
	return nil
}

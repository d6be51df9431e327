package container

import (
	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// enterGroups puts the container's process into the control groups of the
// hooks. Everything that it uses from here on, and every process that it starts,
// is counted there.
//
// Security: the kernel moves the process before the write returns, and a write
// that does less than asked ends the start: nothing runs without its limits. The
// descriptors are closed with all others before the program starts (SC-033).
func (b *builder) enterGroups() {
	const self = "0\n"
	for _, f := range b.h.Procs {
		b.s.Want(b.s.Call("enter the control group "+f.Name(), unix.SYS_WRITE, script.Int(int(f.Fd())), b.s.Bytes([]byte(self)), script.Int(len(self))), len(self))
	}
}

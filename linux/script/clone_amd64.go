//go:build !race && !starter

package script

// clone3 makes the system call of that name with size bytes of a. The child
// calls runChild with c, on the stack that a names. Not in a program with the
// race detector: its hook in the call from assembler would work in the child with
// what belongs to the parent's thread.
//
//go:noescape
func clone3(a *cloneArgs, size uintptr, c *child) (pid, errno uintptr)

package script

// clone3 makes the system call of that name with size bytes of a. The child
// calls runChild with c, on the stack that a names.
//
//go:noescape
func clone3(a *cloneArgs, size uintptr, c *child) (pid, errno uintptr)

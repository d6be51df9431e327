//go:build (!amd64 || race) && !starter

package script

import "syscall"

func clone3(a *cloneArgs, size uintptr, c *child) (pid, errno uintptr) {
	return 0, uintptr(syscall.ENOSYS)
}

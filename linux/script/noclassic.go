//go:build starter

package script

import "syscall"

// classic does nothing in the setuid helper, which needs a kernel with the newer
// calls: what is not linked need not be read.
type classic struct{}

func (c *classic) bound(int) {}

//go:nosplit
func (c *classic) step(*step, []uintptr) (r uintptr, e syscall.Errno, ours bool) { return 0, 0, false }

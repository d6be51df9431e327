//go:build starter

package script

import "syscall"

// What the setuid helper does without need not be read: it has a kernel with the
// newer calls, starts no program beside the container's, and was started with an
// empty environment.

type beside struct{}

//go:nosplit
func (s *Script) perform(st *Step) (uintptr, syscall.Errno) { return call(s, st) }

//go:nosplit
func endOthers(uintptr) {}

//go:nosplit
func wipeEnvironment() {}

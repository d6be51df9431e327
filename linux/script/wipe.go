//go:build !starter

package script

import (
	"os"
	"strconv"
	"strings"
	"unsafe"
)

// environ is where the kernel laid this process's environment: from the first
// byte up to the second one.
var environ [2]uintptr

// findEnvironment fills in environ.
func findEnvironment() {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return
	}
	// Of the fields behind the name, which may hold anything, the 48th and the
	// 49th; the kernel shows 0 to those who may not know.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(f) < 49 {
		return
	}
	for i := range environ {
		n, err := strconv.ParseUint(f[47+i], 10, 64)
		if err != nil || n < uint64(environ[0]) {
			environ = [2]uintptr{}
			return
		}
		environ[i] = uintptr(n)
	}
}

// wipeEnvironment overwrites the environment in this process's own memory.
//
// Security (SC-057): process 1 is a copy of the launcher, and /proc/1/environ
// would show root in the container what the caller's environment holds, which
// --cleanenv keeps out.
//
//go:norace
//go:nosplit
func wipeEnvironment() {
	for at := environ[0]; at < environ[1]; at++ {
		**(**byte)(unsafe.Pointer(&at)) = 0
	}
}

// Program emulated is the only program of an image in the tests of builds for
// other architectures: as /bin/sh it says what machine it thinks it is on.
package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("built for " + runtime.GOARCH + ", runs on " + unix.ByteSliceToString(u.Machine[:]) + "\n")
}

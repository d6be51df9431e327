package action

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IsTerminal tells whether descriptor fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// terminalName returns the path of the terminal that a standard descriptor is,
// or "".
func terminalName() string {
	for fd := range 3 {
		if !IsTerminal(fd) {
			continue
		}
		if name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && strings.HasPrefix(name, "/dev/") {
			return name
		}
	}
	return ""
}

// hasTerminal tells whether this process has a controlling terminal, which it
// may have though no standard descriptor is one.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

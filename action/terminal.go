package action

import "golang.org/x/sys/unix"

// IsTerminal tells whether descriptor fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

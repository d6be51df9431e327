// Package syslog sends single lines to the system's log.
package syslog

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLine bounds a line, in bytes.
const maxLine = 2000

// Send writes a line, at the priority of an error of a user's program, where the
// system has a log. It never waits.
func Send(line string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, line)
	const userError = "<11>"
	text := userError + "singularity[" + strconv.Itoa(os.Getpid()) + "]: " + line[:min(len(line), maxLine)]
	unix.Sendto(fd, []byte(text), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: "/dev/log"})
}

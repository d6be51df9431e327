// Package lockfile locks files against other processes, with open file
// description locks (Linux 3.15).
//
// Such a lock belongs to the open file, not to the process: it ends when the last
// descriptor of that open file is closed, thus also when the process is killed,
// and closing another descriptor of the same file does not drop it, as happens
// with the older record locks. It is advisory: it holds off only those who ask.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned when somebody else holds a lock that excludes the wanted
// one.
var ErrLocked = errors.New("it is in use by another process")

// Exclusive locks the whole of f, which is open for writing, against every other
// lock. It does not wait.
func Exclusive(f *os.File) error { return lock(f, unix.F_WRLCK) }

// Shared locks the whole of f, which is open for reading, against exclusive
// locks. It does not wait.
func Shared(f *os.File) error { return lock(f, unix.F_RDLCK) }

func lock(f *os.File, kind int16) error {
	l := unix.Flock_t{Type: kind, Whence: io.SeekStart} // length 0: to the end, wherever that will be
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	if err == unix.EAGAIN || err == unix.EACCES {
		err = ErrLocked
	}
	if err != nil {
		return fmt.Errorf("cannot lock %q: %w", f.Name(), err)
	}
	return nil
}

// Package fsuser opens files with the rights of another user, for a program of
// root's that is told of files by users.
//
// The kernel judges access to files by ids of the thread alone (setfsuid(2)), so a
// thread of its own takes the ids of the user, opens the file, and ends.
package fsuser

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Open opens path for reading as the user uid with these groups could, the first of
// which is the user's own. It never waits for the other end of a pipe.
func Open(path string, uid int, groups []int) (f *os.File, err error) {
	if len(groups) == 0 {
		return nil, syscall.EINVAL
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, and its ids with it.
		runtime.LockOSThread()
		if err = become(uid, groups); err == nil {
			f, err = open(path)
		}
	}()
	<-done
	return f, err
}

func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// become takes the ids of files of a user, for this thread.
//
// Security: with the user id of files root loses the capabilities that pass over
// modes. What was set is read back.
func become(uid int, groups []int) error {
	if uid == os.Geteuid() && uid != 0 {
		return nil
	}
	if err := unix.Setgroups(groups); err != nil {
		return err
	}
	unix.SetfsgidRetGid(groups[0])
	unix.SetfsuidRetUid(uid)
	u, err := unix.SetfsuidRetUid(-1)
	if err != nil {
		return err
	}
	if g, err := unix.SetfsgidRetGid(-1); err != nil || g != groups[0] || u != uid {
		return fmt.Errorf("cannot take the rights of user %d: %d and group %d are in force (%v)", uid, u, g, err)
	}
	return nil
}

//go:build !starter

package priv

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
)

// Path is where the helper is installed.
func Path() string { return conf.Prefix + "/libexec/singularity/bin/" + Name }

// Installed tells whether the helper is there and can work.
func Installed() bool {
	var st unix.Stat_t
	return unix.Stat(Path(), &st) == nil && st.Uid == 0 && st.Mode&unix.S_ISUID != 0 && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Ask starts the helper with a request, whose descriptors are the caller's own of
// those numbers, and returns its answer. The standard descriptors are inherited.
func Ask(r *Request) (*Answer, error) {
	fd, pid, err := begin()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	err = send(fd, r)
	unix.Shutdown(fd, unix.SHUT_WR) // it waits for no more, also after an error
	return end(fd, pid, err)
}

// Keep starts the helper with a request that makes it a process which stays as
// long as the connection: its child, which the caller waits for.
func Keep(r *Request) (connection *os.File, pid int, err error) {
	fd, pid, err := begin()
	if err != nil {
		return nil, 0, err
	}
	err = send(fd, r)
	first := make([]byte, 1)
	n := 0
	for err == nil {
		if n, _, err = unix.Recvfrom(fd, first, unix.MSG_PEEK); err != unix.EINTR {
			break
		}
		err = nil
	}
	// An answer begins with the number of a process, of which there is none here;
	// whoever stays says words.
	if err == nil && n == 1 && first[0] != 0 {
		return os.NewFile(uintptr(fd), "the connection to the keeper"), pid, nil
	}
	defer unix.Close(fd)
	unix.Shutdown(fd, unix.SHUT_WR)
	a, err := end(fd, pid, err)
	if err == nil {
		err = errors.New(a.Refusal)
	}
	return nil, 0, err
}

// begin starts the helper and returns the socket for the request.
func begin() (fd, pid int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	files := []uintptr{0, 1, 2, uintptr(pair[1])}
	for fd := range 3 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			files[fd] = ^uintptr(0)
		}
	}
	pid, err = syscall.ForkExec(Path(), []string{Name}, &syscall.ProcAttr{Files: files, Env: []string{}})
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return -1, 0, errors.New("cannot start " + Path() + ": " + err.Error())
	}
	return pair[0], pid, nil
}

// end reads the answer; err is what went wrong before.
func end(fd, pid int, err error) (*Answer, error) {
	a, recvErr := answer(fd)
	var ws syscall.WaitStatus
	for {
		if _, e := syscall.Wait4(pid, &ws, 0, nil); e != syscall.EINTR {
			break
		}
	}
	if recvErr == nil {
		return a, nil
	}
	if ws.Signaled() {
		return nil, fmt.Errorf("%s was ended by signal %d", Name, ws.Signal())
	}
	return nil, errors.Join(err, recvErr)
}

func send(fd int, r *Request) error {
	b := r.Encode()
	if len(b) > maxRequest {
		return fmt.Errorf("the container needs a request of %d bytes, and the helper takes at most %d", len(b), maxRequest)
	}
	head := fmt.Sprintf("%016x", len(b))
	if err := unix.Sendmsg(fd, []byte(head), unix.UnixRights(r.FDs...), nil, unix.MSG_NOSIGNAL); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		b = b[n:]
	}
	return nil
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 1 << 16

func answer(fd int) (*Answer, error) {
	b, rights := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4))
	got, file := 0, 0
	for got < len(b) {
		n, nr, _, _, err := unix.Recvmsg(fd, b[got:], rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if fds, _ := parseRights(rights[:max(nr, 0)]); len(fds) == 1 {
			file = fds[0]
		}
		if n <= 0 || err != nil {
			break
		}
		got += n
	}
	c, a := &codec{data: b[:got], reading: true}, new(Answer)
	if c.values(a); c.bad || len(c.data) > 0 {
		return nil, errors.New(Name + " gave no answer")
	}
	a.FD = file
	return a, nil
}

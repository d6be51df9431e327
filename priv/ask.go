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
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	files := []uintptr{0, 1, 2, uintptr(pair[1])}
	for fd := range 3 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			files[fd] = ^uintptr(0)
		}
	}
	pid, err := syscall.ForkExec(Path(), []string{Name}, &syscall.ProcAttr{Files: files, Env: []string{}})
	unix.Close(pair[1])
	if err != nil {
		return nil, errors.New("cannot start " + Path() + ": " + err.Error())
	}
	err = send(pair[0], r)
	unix.Shutdown(pair[0], unix.SHUT_WR) // it waits for no more, also after an error
	a, recvErr := answer(pair[0])
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
	b := make([]byte, maxAnswer)
	got := 0
	for got < len(b) {
		n, err := unix.Read(fd, b[got:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		got += n
	}
	c, a := &codec{data: b[:got], reading: true}, new(Answer)
	if c.answer(a); c.bad || len(c.data) > 0 {
		return nil, errors.New(Name + " gave no answer")
	}
	return a, nil
}

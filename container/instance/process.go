package instance

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errGone says that the process of a record has ended.
var errGone = errors.New("the process has ended")

// endTime is how long an instance without its watcher may take to end, in
// milliseconds.
const endTime = 500

// Instance is a running instance.
type Instance struct {
	Record
	fd int // a pidfd of process 1
}

// FD returns the pidfd of process 1. It belongs to i.
func (i *Instance) FD() int { return i.fd }

// Close releases the process.
func (i *Instance) Close() { unix.Close(i.fd) }

// Signal sends sig to process 1.
func (i *Instance) Signal(sig syscall.Signal) error {
	return unix.PidfdSendSignal(i.fd, sig, nil, 0)
}

// Wait waits until process 1 has ended, at most that many milliseconds; -1 is
// without limit. It tells whether it has.
func (i *Instance) Wait(milliseconds int) bool {
	list := []unix.PollFd{{Fd: int32(i.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(list, milliseconds)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

// openProcess returns a pidfd of the process that r tells of.
//
// Security (SC-005, SC-009): a record is a file that its owner can edit. The
// process must belong to that user, be process 1 of a PID namespace, have begun
// when the record says and have the parent of the record; otherwise a forged
// record could make root, who acts for a user, signal or join something else.
func openProcess(r *Record, uid int) (int, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err == unix.ESRCH || err == unix.EINVAL {
		return -1, errGone
	}
	if err != nil {
		return -1, err
	}
	p, err := look(r.PID)
	if err == nil && p.start == r.Config.Start && p.parent != r.PPID {
		// Who watches it was killed, so the kernel is killing it as well.
		(&Instance{fd: fd}).Wait(endTime)
	}
	switch {
	case err != nil || (&Instance{fd: fd}).Wait(0):
		err = errGone
	case p.start != r.Config.Start:
		err = errGone // the number belongs to another process now
	case p.uid != uid:
		err = errors.New("cannot use the instance " + strconv.Quote(r.Name) + ": its process belongs to uid " + strconv.Itoa(p.uid))
	case !p.first || p.parent != r.PPID:
		err = errors.New("cannot use the instance " + strconv.Quote(r.Name) + ": process " + strconv.Itoa(r.PID) + " is not that of an instance")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// process is what /proc says of one.
type process struct {
	uid, parent int
	first       bool // process 1 of a PID namespace below ours
	start       uint64
}

func look(pid int) (*process, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	p := &process{uid: -1}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case len(f) == 0:
		case key == "Uid":
			p.uid, err = strconv.Atoi(f[0])
		case key == "PPid":
			p.parent, err = strconv.Atoi(f[0])
		case key == "NSpid":
			p.first = len(f) > 1 && f[len(f)-1] == "1"
		}
		if err != nil {
			return nil, err
		}
	}
	p.start, err = startTime(dir)
	return p, err
}

// StartTime returns when the process pid began, in clock ticks since the host
// did.
func StartTime(pid int) (uint64, error) { return startTime("/proc/" + strconv.Itoa(pid)) }

func startTime(dir string) (uint64, error) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything.
	i := strings.LastIndexByte(string(text), ')')
	f := strings.Fields(string(text[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, errors.New("cannot read " + dir + "/stat: too few fields")
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Package priv is what must be root: the setuid helper starter-suid, and the
// request that the unprivileged side makes of it.
//
// In: descriptor 3, a socket over which one request comes, with the descriptors
// that it means; and the administrator's files. Out: the process of a container,
// a child of whoever started the helper, and an answer over the socket. The
// helper runs for a few milliseconds and nothing of it stays: a mount that it
// made lives in the container's mount namespace.
//
// What is trusted: files that root alone can have written (conf.OpenOwned). What
// is not: everything else, the environment, the arguments, the descriptors, the
// limits and signals, and every bit of the request.
//
// The helper reads no path for the caller and no image. It takes the ids of the
// caller before it does what the request says, and the program starts with no
// privilege, and no way to get one (see checker).
//
// A verb is added so: a number in request.go, with a field of Request for what it
// needs (all numbers, texts and lists in it come from codec, which bounds them), and
// a row in verbs below, whose function does what the verb is for. It gets the
// helper: the administrator's configuration, the caller's ids, and the descriptors of
// the request by number. What it returns is the answer. The process is root there, with an empty
// environment and / as its directory, and is not dumpable; a program that it
// starts must be root's (conf.OpenOwned, then by descriptor), in a process of its
// own, with an environment that is a fixed list.
//
// Files: priv.go (Main, verbs), request.go (requests), check.go (the steps that are
// allowed), start.go (a container, users and groups), kernel.go (mounts by the
// kernel), join.go (containers that run), network.go (networks of the
// administrator), ask.go (the other side). The program that keeps networks is
// priv/keeper.
package priv

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/linux/entry"
)

// Name is the name of the program, and its only argument.
const Name = "starter-suid"

// socketFD is where the request comes from.
const socketFD = 3

// verbs are all that the helper does.
var verbs = [...]struct {
	needs func(*Request) any // the field that is part of the request
	run   func(*helper, *Request) (*Answer, error)
}{
	StartVerb - 1: {func(r *Request) any { return &r.Start }, (*helper).start},
	JoinVerb - 1:  {func(r *Request) any { return &r.Join }, (*helper).join},
	RootVerb - 1:  {func(r *Request) any { return &r.Join.Process }, (*helper).root},
	NetVerb - 1:   {func(r *Request) any { return &r.Nets }, (*helper).network},
}

// helper is what a verb has.
type helper struct {
	conf     *conf.Config
	uid, gid int
	groups   []int
	fds      map[int]int // what came with the request, by the number that it means it by
	top      int         // no such number is above
	key      []byte      // the volume key of the image that is looked at, if it has one
}

// Answer is what the helper says when it is done, and in it an error.
type Answer struct {
	PID     int    // of a process that it made
	Step    int    // one that was refused: its number, and 1
	Refusal string // empty if all is well
	// NoKernel tells that the request failed because the kernel does not mount
	// the image.
	NoKernel bool
	// FD is a descriptor that came with the answer, 0 for none. It is closed on
	// execve.
	FD  int
	fds []int // what is sent in the helper: one or none
}

func (a *Answer) Error() string { return a.Refusal }

// Main is the life of the helper. It returns the exit status.
func Main() int {
	a, err := serve()
	if refused, ok := err.(*Answer); ok {
		a = refused
	} else if err != nil {
		a = &Answer{Refusal: err.Error()}
	}
	c := &codec{}
	c.values(a)
	unix.Sendmsg(socketFD, c.data, unix.UnixRights(a.fds...), nil, unix.MSG_NOSIGNAL)
	if err != nil {
		return 255
	}
	return 0
}

func serve() (*Answer, error) {
	runtime.LockOSThread()
	h := &helper{uid: os.Getuid(), gid: os.Getgid()}
	err := h.secure()
	if err == nil {
		h.conf, err = conf.LoadOwned(conf.Path())
	}
	if err != nil {
		return nil, err
	}
	if !h.conf.AllowSetuid {
		return nil, errors.New("singularity.conf says: allow setuid = no")
	}
	r, err := h.receive()
	if err != nil {
		return nil, err
	}
	return verbs[r.Verb-1].run(h, r)
}

// secure takes from the process what it has of its caller.
func (h *helper) secure() (err error) {
	switch {
	case len(os.Args) != 1 || os.Args[0] != Name:
		return errors.New(Name + " is for singularity to start")
	case !entry.Scrubbed():
		return errors.New(Name + " was built without its entry point, or the kernel lacks close_range (Linux 5.9)")
	case os.Geteuid() != 0 || h.uid == 0 || os.Getegid() != h.gid:
		return errors.New(Name + " must be owned by root, have mode 4755, and be started by an ordinary user")
	}
	// Security (SC-017, SC-018): before anything is read. No way leads back.
	err = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if n, e := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || e != nil || n != 0 {
		return errors.New("the process can be dumped")
	}
	os.Clearenv()
	unix.CloseOnExec(socketFD)
	h.groups, err = os.Getgroups()
	return errors.Join(err, unix.Chdir("/"))
}

// headerSize is the size of what comes before a request: its length in hexadecimal
// digits. The descriptors come with it.
const headerSize = 16

// receive reads the request.
func (h *helper) receive() (*Request, error) {
	head, rights := make([]byte, headerSize), make([]byte, unix.CmsgSpace(4*maxFDs))
	n, nr, flags, _, err := unix.Recvmsg(socketFD, head, rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
	size, sizeErr := strconv.ParseUint(string(head), 16, 32)
	fds, rightsErr := parseRights(rights[:max(nr, 0)])
	if cmp.Or(err, sizeErr, rightsErr) != nil || n != headerSize || flags&unix.MSG_CTRUNC != 0 || size > maxRequest {
		return nil, errRequest
	}
	b := make([]byte, size)
	for got := 0; got < len(b); got += max(n, 0) {
		if n, err = unix.Read(socketFD, b[got:]); n == 0 || err != nil && err != unix.EINTR {
			return nil, errRequest
		}
	}
	r, err := Decode(b)
	if err != nil {
		return nil, err
	}
	return r, h.raise(r, fds)
}

func parseRights(b []byte) ([]int, error) {
	list, err := unix.ParseSocketControlMessage(b)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return unix.ParseUnixRights(&list[0])
}

// raise moves the descriptors above all numbers that the request uses.
func (h *helper) raise(r *Request, fds []int) error {
	if len(fds) != len(r.FDs) {
		return errRequest
	}
	h.fds = map[int]int{}
	h.top = slices.Max(append(r.FDs, socketFD))
	for i, want := range r.FDs {
		if want <= socketFD || want >= maxNumber || h.fds[want] != 0 {
			return errRequest
		}
		fd, err := h.keep(fds[i])
		if err != nil {
			return errors.New("cannot number the descriptors of the request: " + err.Error())
		}
		h.fds[want] = fd
		unix.Close(fds[i])
	}
	return nil
}

// stat is Stat_t of a file.
func stat(f *os.File) (*syscall.Stat_t, error) {
	st := new(syscall.Stat_t)
	return st, syscall.Fstat(int(f.Fd()), st)
}

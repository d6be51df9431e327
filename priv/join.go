package priv

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// Join asks for a process in a running container that the helper made. RootVerb
// takes Process alone and answers with the container's root directory, which lets
// the caller find the program.
type Join struct {
	Process int // a pidfd of process 1 of the container
	// Report is the descriptor that a failed step is reported on. The id of the
	// new process, a child of the caller's, is written to Left: the process of the
	// answer ends.
	Report, Left int
	Caps         uint64          // as in Start
	Steps        *script.Listing // none of them is privileged
}

func (c *codec) process(r *Request) {
	if c.reading {
		r.Join = &Join{Steps: new(script.Listing)}
	}
	num(c, &r.Join.Process)
}

func (c *codec) join(r *Request) {
	c.process(r)
	j := r.Join
	num(c, &j.Report)
	num(c, &j.Left)
	num(c, &j.Caps)
	c.listing(j.Steps)
}

// join makes a process in a container. It takes the caller's ids and gives up all
// that the caller was not granted between the change of namespaces and the first
// path that it walks there.
func (h *helper) join(r *Request) (*Answer, error) {
	j := r.Join
	if err := h.granted(j.Caps); err != nil {
		return nil, err
	}
	c := h.checker(j.Steps)
	if !c.numbers[j.Report] || !c.numbers[j.Left] {
		return nil, errRequest
	}
	drop, err := c.check()
	if err != nil {
		return nil, err
	}
	for i, s := range j.Steps.Steps[:drop] {
		if s.Raise != 0 || s.Op == script.OpCall && (s.Nr == unix.SYS_DUP3 || s.Nr == unix.SYS_CLOSE_RANGE) {
			return nil, refuse(i, "nobody needs it who joins a container")
		}
	}
	in, err := h.made(j.Process)
	if err != nil {
		return nil, err
	}
	numbers, err := h.place(in.spaces)
	if err != nil {
		return nil, err
	}
	p := &script.Script{}
	h.descriptors(p)
	permitted := h.become(p, j.Caps)
	return h.carryOut(p, j.Steps, permitted, drop, j.Report, func() {
		setCaps(p, capMounts|capChroot, permitted, 0)
		for i, n := range numbers {
			p.Call("join a namespace of the container", unix.SYS_SETNS, script.Int(n), script.Int(in.kinds[i]))
		}
		finish(p, j.Caps, permitted, h.uid, h.gid)
		p.Leave(j.Left)
	})
}

// root answers with the root directory of a container.
func (h *helper) root(r *Request) (*Answer, error) {
	in, err := h.made(r.Join.Process)
	if err != nil {
		return nil, err
	}
	return &Answer{file: in.root}, nil
}

// place moves files above all numbers of the request, where a script finds them: a
// number of the request must not become one of them before it is used.
func (h *helper) place(files []*os.File) (numbers []int, err error) {
	top := socketFD
	for n := range h.fds {
		top = max(top, n)
	}
	for _, f := range files {
		n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, top+1)
		if err != nil {
			return nil, err
		}
		h.fds[n] = n
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// running is a container that the helper made, as open files: nothing of it can
// be put in the place of another.
type running struct {
	root   *os.File
	spaces []*os.File // its namespaces, but those of the host
	kinds  []int      // of each: the flag of setns
}

var errForeign = errors.New("the process is none that began a container of the caller through this helper (or the helper was replaced since)")

// made looks at the container whose process 1 a pidfd is of.
//
// Security (SC-005, SC-009): a pidfd says which process, and only the kernel what
// that is: its program is this very file, which nobody but its own code stays in
// once it has made a container; all its ids are the caller's; it cannot gain
// anything; it is process 1 of a PID namespace, in a mount namespace of its own;
// and it and all its namespaces are of the host's user namespace, in which only
// root makes any. So it is a container of the caller, which is no more than the
// caller's after the join as well.
func (h *helper) made(number int) (*running, error) {
	pidfd, ok := h.fds[number]
	if !ok {
		return nil, errRequest
	}
	pid := field("/proc/self/fdinfo/"+strconv.Itoa(pidfd), "Pid:")
	if len(pid) != 1 || pid[0] == "-1" {
		return nil, errors.New("the process has ended, or is none")
	}
	dir := "/proc/" + pid[0]
	id := strconv.Itoa(h.uid)
	first := field(dir+"/status", "NSpid:")
	exe, err := os.Stat(dir + "/exe")
	self, err2 := os.Stat("/proc/self/exe")
	if err := errors.Join(err, err2); err != nil || !os.SameFile(exe, self) || len(first) < 2 || first[len(first)-1] != "1" ||
		!slices.Equal(field(dir+"/status", "Uid:"), []string{id, id, id, id}) || !slices.Equal(field(dir+"/status", "NoNewPrivs:"), []string{"1"}) {
		return nil, errForeign
	}
	in := new(running)
	for _, n := range []struct {
		name string
		flag int
	}{{"user", 0}, {"mnt", unix.CLONE_NEWNS}, {"pid", unix.CLONE_NEWPID}, {"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"cgroup", unix.CLONE_NEWCGROUP}} {
		f, same, err := space(dir, n.name)
		if err != nil {
			return nil, err
		}
		if same != (n.flag == 0) && (n.flag == 0 || n.flag == unix.CLONE_NEWNS || n.flag == unix.CLONE_NEWPID) {
			return nil, errForeign
		}
		if !same {
			in.spaces, in.kinds = append(in.spaces, f), append(in.kinds, n.flag)
		}
	}
	if in.root, err = os.OpenFile(dir+"/root", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	// What was looked at is of this process only if that is still there.
	if unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil {
		return nil, errors.New("the process has ended")
	}
	return in, nil
}

// space opens a namespace of a process, which must belong to the host's user
// namespace, and tells whether it is the helper's own.
func space(dir, name string) (f *os.File, same bool, err error) {
	if f, err = os.Open(dir + "/ns/" + name); err != nil {
		return nil, false, err
	}
	own, err := os.Stat("/proc/self/ns/" + name)
	if err != nil {
		return nil, false, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if same = os.SameFile(st, own); same {
		return f, true, nil
	}
	fd, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, false, err
	}
	owner := os.NewFile(uintptr(fd), "user")
	defer owner.Close()
	user, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return nil, false, err
	}
	if st, err = owner.Stat(); err == nil && !os.SameFile(st, user) {
		err = errForeign
	}
	return f, false, err
}

// field returns the words behind key in a file of /proc.
func field(file, key string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 1<<16))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

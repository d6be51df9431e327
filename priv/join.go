package priv

import (
	"cmp"
	"errors"
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
	Caps         uint64         // as in Start
	Steps        script.Listing // none of them is privileged
}

// join makes a process in a container. It takes the caller's ids and gives up all
// that the caller was not granted between the change of namespaces and the first
// path that it walks there.
func (h *helper) join(r *Request) (*Answer, error) {
	j := &r.Join
	c, err := h.checker(&j.Steps, j.Caps, j.Report, j.Left)
	if err != nil {
		return nil, err
	}
	c.joins = true
	drop, err := c.check()
	_, foreign := h.made(j.Process)
	process, keepErr := h.keep(h.fds[j.Process])
	if err := cmp.Or(err, foreign, keepErr); err != nil {
		return nil, err
	}
	h.fds[process] = process
	before, after := &script.Script{}, &script.Script{}
	number(before, 3, h.fds)
	permitted := h.become(before, j.Caps|capTrace)
	with(after, capMounts|capChroot|capTrace, permitted, "join the namespaces of the container", unix.SYS_SETNS, script.Int(process), script.Int(spaces))
	finish(after, j.Caps, permitted, h.uid, h.gid)
	after.Leave(j.Left)
	return carryOut(&j.Steps, permitted, drop, j.Report, before, after)
}

// What a join needs: process 1 cannot be traced, and to join the namespaces of a
// process the kernel (Linux 5.8) asks for the right to look at it.
const capTrace = 1 << unix.CAP_SYS_PTRACE

// spaces are the namespaces of a container. Those that it shares with the host are
// joined to no effect.
const spaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// root answers with the root directory of a container.
func (h *helper) root(r *Request) (*Answer, error) {
	root, err := h.made(r.Join.Process)
	return &Answer{fds: []int{root}}, err
}

// keep moves a descriptor above all numbers of the request, where a script finds
// it: a number of the request must not become one of them before it is used.
func (h *helper) keep(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, h.top+1)
}

var errForeign = errors.New("the process is none that began a container of the caller through this helper (or the helper was replaced since)")

// made opens the root directory of the container whose process 1 a pidfd is of.
//
// Security (SC-005, SC-009): a pidfd says which process, and only the kernel what
// that is: its program is this very file, which nobody but its own code stays in
// once it has made a container; all its ids are the caller's; it cannot gain
// anything; it is process 1 of a PID namespace, in a mount namespace of its own;
// and it is in the host's user namespace. There only root makes namespaces and
// moves a process into them, so all of its namespaces are of root's making. So it
// is a container of the caller, which is no more than the caller's after the join
// as well.
func (h *helper) made(number int) (root int, err error) {
	pidfd, ok := h.fds[number]
	if !ok {
		return -1, errRequest
	}
	pid := field("/proc/self/fdinfo/"+strconv.Itoa(pidfd), "Pid:")
	if len(pid) != 1 || pid[0] == "-1" {
		return -1, errors.New("the process has ended, or is none")
	}
	dir, id := "/proc/"+pid[0], strconv.Itoa(h.uid)
	first := field(dir+"/status", "NSpid:")
	same := func(name string) bool { return inode(dir+name) == inode("/proc/self"+name) }
	other := func(name string) bool { return !same(name) && inode(dir+name) != [2]uint64{} }
	if len(first) < 2 || first[len(first)-1] != "1" || !same("/exe") || !same("/ns/user") || !other("/ns/mnt") || !other("/ns/pid") ||
		!slices.Equal(field(dir+"/status", "Uid:"), []string{id, id, id, id}) || !slices.Equal(field(dir+"/status", "NoNewPrivs:"), []string{"1"}) {
		return -1, errForeign
	}
	root, err = unix.Open(dir+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	// What was looked at is of this process only if that is still there.
	if err == nil && unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil {
		err = errors.New("the process has ended")
	}
	return root, err
}

// inode is the device and number of a file, zero if it cannot be told.
func inode(path string) [2]uint64 {
	var st unix.Stat_t
	unix.Stat(path, &st)
	return [2]uint64{st.Dev, st.Ino}
}

// field returns the words behind key in a file of /proc.
func field(file, key string) []string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

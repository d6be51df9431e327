package cgroup

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/script"
)

// guardTime is how long a guard tries to remove the directory of a group in which
// a process lives on.
const guardTime = time.Minute

// A guard is a process that removes a group when the one that made it has been
// killed. It is a bare list of system calls, without a Go runtime, in a session
// of its own, and holds nothing but the directories and a pipe whose other end
// is the caller's.
type guard struct {
	script *script.Script // its memory
	pid    int
	end    *os.File
}

// watch starts the guard. It may be missing: the next start removes the group as
// well.
func (g *Group) watch() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	s := new(script.Script)
	keep := []int{int(r.Fd())}
	var kills []*os.File
	for i := range g.members {
		m := &g.members[i]
		keep = append(keep, int(m.parent.File().Fd()), int(m.dir.File().Fd())) // the latter has the lock
		if k, err := m.dir.OpenWrite("cgroup.kill"); err == nil {              // Linux 5.14
			kills, keep = append(kills, k), append(keep, int(k.Fd()))
		}
	}
	// Who looks for the caller by name finds that alone.
	s.Call("take a name", unix.SYS_PRCTL, script.Int(unix.PR_SET_NAME), s.Str("cgroup-guard"))
	s.Call("begin a session", unix.SYS_SETSID)
	s.Call("block all signals", unix.SYS_RT_SIGPROCMASK, script.Int(unix.SIG_SETMASK), s.Words([]uint64{^uint64(0)}), script.Int(0), script.Int(8))
	closeOthers(s, keep)
	s.Call("wait for the end of the caller", unix.SYS_READ, script.Int(int(r.Fd())), s.Bytes(make([]byte, 1)), script.Int(1))
	for _, k := range kills {
		s.Optional(s.Call("kill what is left in the group", unix.SYS_WRITE, script.Int(int(k.Fd())), s.Bytes([]byte("1")), script.Int(1)))
	}
	for i := range g.members {
		g.members[i].removal(s)
	}
	s.Call("end", unix.SYS_EXIT_GROUP, script.Int(0))
	pid, err := s.Start(0, -1)
	for _, k := range kills {
		k.Close()
	}
	if err != nil {
		w.Close()
		return
	}
	g.guard = &guard{script: s, pid: pid, end: w}
}

// removal adds attempts to remove the directory, with longer and longer pauses.
func (m *member) removal(s *script.Script) {
	var waits []time.Duration
	for wait, sum := time.Millisecond, time.Duration(0); sum < guardTime; sum += wait {
		waits = append(waits, wait)
		wait = min(2*wait, 2*time.Second)
	}
	for i, wait := range waits {
		gone := s.Call("remove the group", unix.SYS_UNLINKAT, script.Int(int(m.parent.File().Fd())), s.Str(m.name), script.Int(unix.AT_REMOVEDIR))
		s.SkipOK(gone, 2*(len(waits)-i)-1)
		t := []uint64{uint64(wait / time.Second), uint64(wait % time.Second)} // struct timespec
		s.Optional(s.Call("wait", unix.SYS_NANOSLEEP, s.Words(t), script.Int(0)))
	}
}

// closeOthers closes every descriptor that is not in keep.
func closeOthers(s *script.Script, keep []int) {
	slices.Sort(keep)
	from := uint64(0)
	for _, fd := range append(keep, -1) {
		last := uint64(uint32(fd)) - 1
		if fd < 0 {
			last = 1<<32 - 1
		}
		if last+1 > from {
			s.Call("close descriptors", unix.SYS_CLOSE_RANGE, script.Uint(from), script.Uint(last), script.Int(0))
		}
		from = last + 2
	}
}

// stop ends the guard, which has nothing left to do.
func (g *guard) stop() {
	syscall.Kill(g.pid, syscall.SIGKILL)
	for {
		if _, err := syscall.Wait4(g.pid, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
	g.end.Close()
}

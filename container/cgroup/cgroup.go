// Package cgroup puts a container under limits of resources: it makes a control
// group for it, writes the limits, reads them back, and removes the group.
//
// In go Limits, from flags (FromFlags) or from a TOML file (OpenTOML). Out comes
// a Group whose files the container's process writes "0" to before its program
// starts (Procs); later Stats tells what the processes in a group use.
//
// Where the group is made depends on who asks and on the host:
//
//   - root, cgroup v1, or v2 without systemd: /singularity/PID below the mount;
//   - root, cgroup v2 with systemd: singularity-PID.scope in system.slice;
//   - a user whose own group was delegated, as job schedulers do: a group in it,
//     or beside it if that is what was delegated;
//   - a user with a systemd of their own: singularity-PID.scope in user.slice.
//
// A group of the unified hierarchy that hands controllers on may have no process
// itself. In a scope the calling process moves to a group beside the container's;
// in a delegated group all its processes move to one called "singularity-callers".
//
// Trust: flags and files come from the caller and carry the caller's rights. They
// never name a file outside of a fixed set, nor a property of a systemd unit
// (limits.go). The tree itself is looked at before it is believed (linux/cgroupfs).
// A limit that cannot be applied, or reads back as another one, is an error. A
// user's limits bind the container, not the user, who owns the group: they are no
// boundary for an administrator.
//
// The caller holds a lock on the group. After a kill -9 of the caller the kernel
// kills the container's first process; a scope then ends by itself, and a group
// made directly is removed by a process that waits for nothing else (guard.go).
// Should that be killed as well, the empty directory stays until the next start
// removes it, which it does for every group whose lock is free and whose process
// is gone.
//
// Files: limits.go (the data, TOML), flags.go (flags), settings.go (what a limit
// is in v1 and v2), make.go (where the group is made), leave.go (out of the
// group of a job), systemd.go, guard.go, devices.go (device rules of v2), stats.go, format.go.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/cgroupfs"
)

// removeTime is how long Remove waits for killed processes to be gone.
const removeTime = 5 * time.Second

// A Group is a control group that this process made: one directory in the
// unified hierarchy, or one in each hierarchy of version 1.
type Group struct {
	path    string
	members []member
	held    []*cgroupfs.Dir // other directories that stay open
	guard   *guard          // nil for a scope of systemd, which ends by itself
}

// A member is the directory of a group in one hierarchy.
type member struct {
	parent      *cgroupfs.Dir
	name        string
	dir         *cgroupfs.Dir
	procs       *os.File
	controllers []string // v1: those of the hierarchy
}

// Procs returns the files that put a process into the group: one that writes
// "0\n" to each of them enters it, with all its threads. They are opened by the
// calling process, whose rights count, and are closed on execve.
func (g *Group) Procs() []*os.File {
	var out []*os.File
	for i := range g.members {
		out = append(out, g.members[i].procs)
	}
	return out
}

// Path returns the place of the group below the mount of its hierarchies, for
// Stats.
func (g *Group) Path() string { return g.path }

// add makes the directory name in parent a member, and takes parent over.
func (g *Group) add(parent *cgroupfs.Dir, name string, controllers ...string) error {
	g.held = append(g.held, parent)
	for range 16 {
		dir, made, err := parent.Mkdir(name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if !made {
			// A killed start had our process id. Its limits are not ours.
			free := dir.Lock(true)
			dir.Close()
			if !free {
				return fmt.Errorf("the group %s/%s is in use", parent.Name(), name)
			}
			if err := parent.Rmdir(name); err != nil {
				return err
			}
			continue
		}
		// Another start may take the directory for a forgotten one until the
		// lock is held.
		if !dir.Lock(false) || !parent.Same(name, dir) {
			dir.Close()
			continue
		}
		m := member{parent: parent, name: name, dir: dir, controllers: controllers}
		if slices.Contains(controllers, "cpuset") {
			err = inheritCpuset(parent, dir)
		}
		if err == nil {
			m.procs, err = dir.OpenWrite("cgroup.procs")
		}
		g.members = append(g.members, m)
		return err
	}
	return fmt.Errorf("the group %s/%s vanishes again and again", parent.Name(), name)
}

// inheritCpuset gives a new group of cgroup v1 what it needs before it may hold
// processes.
func inheritCpuset(parent, dir *cgroupfs.Dir) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := dir.Read(name)
		if err != nil || have != "" {
			return err
		}
		value, err := parent.Read(name)
		if err != nil {
			return err
		}
		if err := dir.Write(name, value); err != nil {
			return err
		}
	}
	return nil
}

// apply writes the settings and reads them back.
func (g *Group) apply(s *settings) error {
	for i := range s.list {
		st := &s.list[i]
		m := g.memberOf(st.controller)
		if m == nil {
			return fmt.Errorf("%s: the controller %q is not there", st.what, st.controller)
		}
		if err := m.set(st); err != nil {
			return fmt.Errorf("%s: %w", st.what, err)
		}
	}
	return nil
}

func (g *Group) memberOf(controller string) *member {
	for i := range g.members {
		if m := &g.members[i]; m.controllers == nil || slices.Contains(m.controllers, controller) {
			return m
		}
	}
	return nil
}

func (m *member) set(st *setting) error {
	for _, f := range st.files {
		if !m.dir.Has(f.name) {
			continue
		}
		if err := m.dir.Write(f.name, f.value); err != nil {
			return fmt.Errorf("cannot write %q: %w", f.value, err)
		}
		if f.check == nil {
			return nil
		}
		got, err := m.dir.Read(f.name)
		if err != nil {
			return err
		}
		if !f.check(got) {
			return fmt.Errorf("%s/%s holds %q after %q was written", m.dir.Name(), f.name, got, f.value)
		}
		return nil
	}
	return fmt.Errorf("the kernel has no file %s", st.files[len(st.files)-1].name)
}

// Remove kills what is left in the group and removes it.
func (g *Group) Remove() error {
	var err error
	for i := range g.members {
		m := &g.members[i]
		err = errors.Join(err, removeTree(m.parent, m.name, m.dir))
		if m.procs != nil {
			m.procs.Close()
		}
		m.dir.Close()
	}
	for _, d := range g.held {
		d.Close()
	}
	if g.guard != nil {
		g.guard.stop()
	}
	g.members, g.held, g.guard = nil, nil, nil
	return err
}

// removeTree removes the group name of parent, and what the container made in
// it.
func removeTree(parent *cgroupfs.Dir, name string, dir *cgroupfs.Dir) error {
	end := time.Now().Add(removeTime)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if err := killAll(dir); err != nil {
			return err
		}
		dir.WaitEmpty(time.Until(end))
		subs, _ := dir.Groups()
		for _, s := range subs {
			if sub, err := dir.Open(s); err == nil {
				removeTree(dir, s, sub)
				sub.Close()
			}
		}
		err := parent.Rmdir(name)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
		// A killed process holds its group until it is reaped, and version 1
		// tells nobody when that is.
		time.Sleep(wait)
	}
}

// killAll kills every process in dir; in the unified hierarchy, below it too.
func killAll(dir *cgroupfs.Dir) error {
	if dir.Has("cgroup.kill") { // Linux 5.14
		return dir.Write("cgroup.kill", "1")
	}
	text, err := dir.Read("cgroup.procs")
	if err != nil {
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	}
	for _, word := range strings.Fields(text) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return nil
}

// sweep removes groups of starts that were killed: those called prefix and a
// process id, whose lock is free, whose process is gone and that are empty.
//
// Nothing is killed: another program may use the same names without our lock.
func sweep(parent *cgroupfs.Dir, prefix string) {
	names, _ := parent.Groups()
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		pid, err := strconv.Atoi(rest)
		if !ok || err != nil || pid <= 0 || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		if d, err := parent.Open(name); err == nil {
			if d.Lock(true) {
				parent.Rmdir(name)
			}
			d.Close()
		}
	}
}

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/linux/cgroupfs"
)

// Names of groups.
const (
	rootName    = "singularity"         // root's groups are in it
	groupPrefix = "singularity-"        // before a process id, in a delegated group
	callersName = "singularity-callers" // takes the processes of a delegated group
	scopeLeaf   = "launcher"            // takes this process in a scope
	scopeGroup  = "container"
)

// usual are the controllers that Stats reads. They are used where they are.
var usual = []string{"cpu", "io", "memory", "pids"}

// usualV1 are those of cgroup v1.
var usualV1 = []string{"cpu", "cpuacct", "blkio", "memory", "pids"}

// MissingError says what this host or this login lacks for limits.
type MissingError struct {
	Missing []string
	Cure    string
}

func (e *MissingError) Error() string { return strings.Join(e.Missing, "; ") }

// New makes a group with the limits l, for a child of this process; systemd says
// whether the administrator wants it asked for groups. The notes name limits that
// this host does not have and that protect nobody.
//
// This process itself may be moved to another group.
func New(l *Limits, systemd bool) (*Group, []string, error) {
	h, err := cgroupfs.FindHost()
	if err != nil {
		return nil, nil, &MissingError{Missing: []string{err.Error()}, Cure: "mount the cgroup file system: mount -t cgroup2 cgroup2 /sys/fs/cgroup"}
	}
	g := new(Group)
	notes, err := g.make(h, l, systemd)
	if err != nil {
		g.Remove()
		return nil, nil, err
	}
	return g, notes, nil
}

func (g *Group) make(h *cgroupfs.Host, l *Limits, systemd bool) ([]string, error) {
	root := os.Geteuid() == 0
	if !h.V2 {
		return g.makeV1(h, l, root)
	}
	s := l.v2()
	if len(l.Devices) > 0 && !root {
		s.notes = append(s.notes, "the device limits are not applied: only root may set them")
	}
	base, name, err := g.base(h, &s, systemd, root)
	if err != nil {
		return nil, err
	}
	if err := enable(base, s.controllers(), usual); err != nil {
		base.Close()
		return nil, err
	}
	if err := g.add(base, name); err != nil {
		return nil, err
	}
	if name != scopeGroup {
		g.watch()
	}
	if g.path, err = relative(h, base.Name(), name); err != nil {
		return nil, err
	}
	if err := g.apply(&s); err != nil {
		return nil, err
	}
	if len(l.Devices) > 0 && root {
		if err := limitDevices(g.members[0].dir.File(), l.Devices); err != nil {
			return nil, fmt.Errorf("devices: %w", err)
		}
	}
	return s.notes, nil
}

// relative makes a path of the host one below the mount of the unified
// hierarchy.
func relative(h *cgroupfs.Host, dir, name string) (string, error) {
	rest, ok := strings.CutPrefix(dir, h.Point(cgroupfs.Unified))
	if !ok {
		return "", fmt.Errorf("the group %s lies outside of what is mounted", dir)
	}
	return path.Clean("/" + rest + "/" + name), nil
}

// base finds or makes the group of the unified hierarchy that the container's
// shall be in, and its name there.
func (g *Group) base(h *cgroupfs.Host, s *settings, systemd, root bool) (*cgroupfs.Dir, string, error) {
	pid := strconv.Itoa(os.Getpid())
	if root {
		if systemd && hasSystemd() {
			base, err := g.scope(h, true)
			return base, scopeGroup, err
		}
		base, err := rootBase(h, s)
		return base, pid, err
	}
	own, err := h.Own("self", cgroupfs.Unified)
	if err != nil {
		return nil, "", err
	}
	managed := strings.Contains(own, "/user@"+strconv.Itoa(os.Getuid())+".service/")
	bus := userBus()
	if !managed || !systemd || bus != nil {
		base, err := delegated(h, own, s)
		if base != nil || err != nil {
			return base, groupPrefix + pid, err
		}
	}
	switch {
	case !systemd:
		bus = errors.New("\"systemd cgroups\" is off in singularity.conf")
	case bus == nil:
		base, err := g.scope(h, false)
		return base, scopeGroup, err
	}
	return nil, "", &MissingError{
		Missing: []string{"the group " + own + " of this process was not delegated to user " + strconv.Itoa(os.Getuid()), "systemd cannot be asked: " + bus.Error()},
		Cure: "log in through ssh or a console, so that systemd runs for you (loginctl enable-linger USER keeps it), " +
			"or ask the administrator of the batch system to delegate the group of the job",
	}
}

// rootBase is /singularity, with the controllers handed down to it.
func rootBase(h *cgroupfs.Host, s *settings) (*cgroupfs.Dir, error) {
	top, err := h.Open(cgroupfs.Unified, "/")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	if err := enable(top, s.controllers(), usual); err != nil {
		return nil, err
	}
	base, _, err := top.Mkdir(rootName)
	if err == nil {
		sweep(base, "")
	}
	return base, err
}

// delegated finds the group of this user that the process is in: its own, or
// the one around it. It returns nil if there is none.
func delegated(h *cgroupfs.Host, own string, s *settings) (*cgroupfs.Dir, error) {
	around := path.Dir(own)
	for _, at := range []string{around, own} {
		if at == around && (own == "/" || strings.HasSuffix(around, ".slice") || strings.HasSuffix(around, ".service")) {
			continue // systemd's own, whoever owns the directory
		}
		d, err := h.Open(cgroupfs.Unified, at)
		if err != nil {
			return nil, err
		}
		if !d.Writable() {
			d.Close()
			continue
		}
		on, err := d.Read("cgroup.subtree_control")
		if err != nil {
			d.Close()
			return nil, err
		}
		// The group around one's own is used if it is ready, or if this
		// process came there by an earlier start.
		if at == around && len(missing(on, s.controllers())) > 0 && path.Base(own) != callersName {
			d.Close()
			continue
		}
		sweep(d, groupPrefix)
		sweep(d, leavePrefix)
		return d, nil
	}
	return nil, nil
}

// enable hands the controllers need, and those of some that there are, from dir
// to the groups in it.
func enable(dir *cgroupfs.Dir, need, some []string) error {
	have, err := dir.Read("cgroup.controllers")
	if err != nil {
		return err
	}
	if lack := missing(have, need); len(lack) > 0 {
		return &MissingError{
			Missing: []string{"the group " + dir.Name() + " has no controllers " + strings.Join(lack, ", ") + " (it has: " + have + ")"},
			Cure: "ask the administrator to delegate them: systemctl edit user@.service, with \"[Service]\" and \"Delegate=cpu cpuset io memory pids\", " +
				"or the like for the batch system",
		}
	}
	for _, c := range some {
		if len(missing(have, []string{c})) == 0 && !slices.Contains(need, c) {
			need = append(need, c)
		}
	}
	for range 16 {
		on, err := dir.Read("cgroup.subtree_control")
		if err != nil {
			return err
		}
		off := missing(on, need)
		if len(off) == 0 {
			return nil
		}
		err = dir.Write("cgroup.subtree_control", "+"+strings.Join(off, " +"))
		if errors.Is(err, unix.EBUSY) {
			// Processes of its own are in the way.
			err = vacate(dir, callersName)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the group %s does not hand its controllers on", dir.Name())
}

// vacate moves the processes of dir into its group name.
func vacate(dir *cgroupfs.Dir, name string) error {
	leaf, _, err := dir.Mkdir(name)
	if err != nil {
		return err
	}
	defer leaf.Close()
	text, err := dir.Read("cgroup.procs")
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(text) {
		err := leaf.Write("cgroup.procs", pid)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cannot move process %s: %w", pid, err)
		}
	}
	return nil
}

// makeV1 makes a group in each hierarchy of version 1.
func (g *Group) makeV1(h *cgroupfs.Host, l *Limits, root bool) ([]string, error) {
	if !root {
		return nil, &MissingError{
			Missing: []string{"this host has cgroup v1 only, which cannot be delegated to a user"},
			Cure:    "ask the administrator to boot with systemd.unified_cgroup_hierarchy=1",
		}
	}
	if len(l.Unified) > 0 {
		return nil, &MissingError{Missing: []string{"the table \"unified\" needs cgroup v2, and this host has v1"}, Cure: "use the other tables"}
	}
	s := l.v1()
	need := s.controllers()
	var lack []string
	for _, c := range need {
		if !h.Mounted(c) {
			lack = append(lack, c)
		}
	}
	if len(lack) > 0 {
		return nil, &MissingError{Missing: []string{"the controllers " + strings.Join(lack, ", ") + " are not mounted"}, Cure: "mount each: mount -t cgroup -o NAME cgroup /sys/fs/cgroup/NAME"}
	}
	points := make(map[string][]string) // the controllers of a hierarchy
	for _, c := range slices.Concat(need, usualV1) {
		if p := h.Point(c); p != "" && !slices.Contains(points[p], c) {
			points[p] = append(points[p], c)
		}
	}
	name := strconv.Itoa(os.Getpid())
	g.path = "/" + rootName + "/" + name
	for _, point := range sortedKeys(points) {
		base, err := baseV1(point, points[point])
		if err == nil {
			err = g.add(base, name, points[point]...)
		}
		if err != nil {
			return nil, err
		}
	}
	g.watch()
	return s.notes, g.apply(&s)
}

// baseV1 is /singularity in the hierarchy mounted at point.
func baseV1(point string, controllers []string) (*cgroupfs.Dir, error) {
	top, err := cgroupfs.OpenMount(point)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	base, _, err := top.Mkdir(rootName)
	if err != nil {
		return nil, err
	}
	if slices.Contains(controllers, "cpuset") {
		if err := inheritCpuset(top, base); err != nil {
			base.Close()
			return nil, err
		}
	}
	sweep(base, "")
	return base, nil
}

// scope moves this process to a new scope of systemd and returns the scope's
// group, with the process in a leaf of it.
func (g *Group) scope(h *cgroupfs.Host, system bool) (*cgroupfs.Dir, error) {
	name := groupPrefix + strconv.Itoa(os.Getpid()) + ".scope"
	own, err := h.Own("self", cgroupfs.Unified)
	if err != nil {
		return nil, err
	}
	if dir := path.Dir(own); path.Base(dir) == name && path.Base(own) == scopeLeaf {
		return h.Open(cgroupfs.Unified, dir) // of an earlier group of this process
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTime)
	defer cancel()
	if err := startScope(ctx, name, system); err != nil {
		return nil, err
	}
	// The job is done when systemd says so, which may be before the kernel
	// shows this process in its new group.
	for end := time.Now().Add(busTime); ; time.Sleep(time.Millisecond) {
		if own, err = h.Own("self", cgroupfs.Unified); err != nil {
			return nil, err
		}
		if path.Base(own) == name {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("systemd made %s, but this process is in %s", name, own)
		}
	}
	d, err := h.Open(cgroupfs.Unified, own)
	if err != nil {
		return nil, err
	}
	if err := vacate(d, scopeLeaf); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// missing returns those of want that are not in have, a list of words.
func missing(have string, want []string) []string {
	var out []string
	words := strings.Fields(have)
	for _, w := range want {
		if !slices.Contains(words, w) {
			out = append(out, w)
		}
	}
	return out
}

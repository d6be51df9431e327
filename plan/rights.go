package plan

import "errors"

// Rights are what the process may do once its program runs. Package container
// applies them and reads them back.
type Rights struct {
	// Caps is the final set: permitted, effective and bounding. Ambient puts it
	// into the inheritable and ambient sets too, without which it would be lost
	// when another user than root executes a program.
	Caps    Caps
	Ambient bool
	// Drop is what the kernel knows and Caps does not hold: it leaves the
	// bounding set.
	Drop Caps
	// NoNewPrivs keeps setuid programs and file capabilities without effect.
	NoNewPrivs bool
	// AllowSetuid mounts the root and the binds without nosuid.
	AllowSetuid bool
	// SetIDs changes to UID and GIDs, of which the first is the primary group.
	SetIDs bool
	UID    int
	GIDs   []int
	// LSM is AppArmor or SELinux if the program gets the profile or label Label.
	LSM, Label string
	// Seccomp is the absolute path of a profile on the host.
	Seccomp string
	// Landlock, if not nil, confines writing.
	Landlock *Landlock
}

// Landlock says where files may be written; reading and executing is allowed
// everywhere in the container. Paths are absolute and inside; one that does not
// exist there is passed over.
type Landlock struct {
	Write   []string // whole trees
	Devices []string // trees in which existing files may be written and controlled
}

// NewLandlock lets the trees be written to, and devices be used.
func NewLandlock(write []string) *Landlock {
	return &Landlock{Write: write, Devices: []string{"/dev"}}
}

// Supported is what a kernel can confine a process with.
type Supported struct {
	AppArmor, SELinux, Seccomp, Landlock bool
}

// RootCaps says which capabilities root has in a container by default.
const (
	RootCapsFull = "full"
	RootCapsFile = "file"
	RootCapsNone = "no"
)

// security reads --security, and refuses what only root may ask for. It comes
// first, so that nothing else that root alone may have is named instead.
func (m *maker) security() (err error) {
	s := &m.sec
	if *s, err = ParseSecurity(m.o.Security); err != nil {
		return err
	}
	if m.f.Host.UID == 0 {
		return nil
	}
	for _, c := range []struct {
		given bool
		name  string
	}{
		{m.o.KeepPrivs, "--keep-privs"}, {m.o.AllowSetuid, "--allow-setuid"}, {m.o.Boot, "--boot"},
		{s.UID >= 0, "--security uid"}, {len(s.GIDs) > 0, "--security gid"},
	} {
		if c.given {
			return errors.New("Could not configure " + c.name + ": " + c.name + " requires root privileges")
		}
	}
	return nil
}

// rights decides the rights of the process. The ids and the mounts are known.
func (m *maker) rights() error {
	s := &m.sec
	if m.o.NoSetgroups && !m.o.Fakeroot {
		m.note("--no-setgroups has no effect without --fakeroot")
	}
	ids := &m.p.IDs
	r := &Rights{NoNewPrivs: true, LSM: s.LSM, Label: s.Label}
	if s.UID >= 0 || len(s.GIDs) > 0 {
		if ids.Mode != HostIDs {
			return errors.New("cannot use --security uid: or gid: in a user namespace: other ids are not mapped there; leave out --userns")
		}
		r.SetIDs, r.UID, r.GIDs = true, max(s.UID, 0), s.GIDs
		if len(r.GIDs) == 0 {
			r.GIDs = []int{ids.GID}
		}
	}
	if ids.Mode == HostIDs && !m.o.NoPrivs && !r.SetIDs && (m.o.KeepPrivs || m.o.AllowSetuid) {
		r.NoNewPrivs = false
	}
	if m.o.AllowSetuid {
		if r.AllowSetuid = ids.Mode == HostIDs; !r.AllowSetuid {
			m.note("--allow-setuid has no effect in a user namespace")
		}
	}
	r.Caps = m.caps(r.SetIDs)
	r.Drop = m.f.Host.KnownCaps &^ r.Caps
	r.Ambient = r.Caps != 0 && (ids.InsideUID != 0 || r.UID != 0)
	m.p.Rights = r
	// The kernel takes a filter only from those who gain nothing by it.
	m.p.Process.GuardTerminal = m.o.Contain && m.f.Host.Terminal && (r.NoNewPrivs || r.Caps.Has("SYS_ADMIN"))
	return m.confine(r, s)
}

// caps decides the capabilities.
func (m *maker) caps(setIDs bool) Caps {
	o, h := m.o, &m.f.Host
	// What there is to give: in a user namespace of its own a process has all
	// capabilities, outside it has what the caller has.
	have := h.KnownCaps
	if m.p.IDs.Mode == HostIDs {
		have &= h.Caps
	}
	var set Caps
	word := "won't add capability that you do not have: "
	switch {
	case o.NoPrivs, setIDs:
	case m.p.IDs.Helper:
		word = "not authorized to add capability: "
	case m.p.IDs.Mode != HostIDs:
		if m.p.IDs.InsideUID == 0 {
			set = have
		}
	case o.KeepPrivs || m.f.Conf.RootCaps == RootCapsFull || m.f.Conf.RootCaps == "":
		set = have
	case m.f.Conf.RootCaps == RootCapsFile:
		set = m.parseCaps("add", h.FileCaps) & have
	}
	add, drop := m.parseCaps("add", o.AddCaps), m.parseCaps("drop", o.DropCaps)
	if add != allCaps {
		for _, name := range (add &^ have).Names() {
			m.note(word + name)
		}
	}
	return (set | add&have) &^ drop
}

func (m *maker) parseCaps(verb string, list []string) Caps {
	set, unknown := ParseCaps(list)
	for _, u := range unknown {
		m.note("won't " + verb + " unknown capability: " + u)
	}
	return set
}

// confine decides what confines the process beyond its capabilities.
//
// Security: what is asked for and cannot be had ends the start; a container
// that runs without it would be trusted for nothing.
func (m *maker) confine(r *Rights, s *Security) error {
	can := m.f.Host.Supported
	switch {
	case s.LSM == AppArmor && !can.AppArmor, s.LSM == SELinux && !can.SELinux:
		return errors.New(s.LSM + " requested, but is not enabled or supported on this system")
	case s.Seccomp != "" && !can.Seccomp:
		return errors.New("seccomp requested but not enabled, the kernel of this system has no support for it")
	case s.Landlock && !can.Landlock:
		return errors.New("landlock requested, but is not enabled or supported on this system")
	}
	if s.Seccomp != "" {
		r.Seccomp = m.absolute(s.Seccomp)
	}
	if s.Landlock {
		r.Landlock = m.landlock()
	}
	return nil
}

// landlock lists the places that are writable by design: the ones that the
// caller brought along for writing, and shared memory.
func (m *maker) landlock() *Landlock {
	l := NewLandlock([]string{"/dev/shm", "/dev/mqueue"})
	if m.p.Root.Writable || m.p.Upper() != nil {
		l.Write = append(l.Write, "/")
	}
	for i := range m.p.Mounts {
		b := &m.p.Mounts[i]
		switch b.Tag {
		case "home", "tmp", "cwd", "user", "scratch", "fusemount":
			if !b.ReadOnly {
				l.Write = append(l.Write, b.Destination)
			}
		}
	}
	return l
}

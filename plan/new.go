package plan

import (
	"errors"
	"strings"

	"singularity/host"
)

// PathKind is what a path leads to.
type PathKind int

// What a path can lead to.
const (
	Missing PathKind = iota
	Directory
	Other // a file, a device, a socket
)

// Facts are what New needs to know and may not find out itself.
type Facts struct {
	Host  HostFacts
	Image ImageFacts
	Conf  Settings
	// Env is the finished environment, and Shell, if not nil, the words to
	// put before the program; see package container/env.
	Env   []string
	Shell []string
	// Open opens an image that is wanted besides the root.
	Open func(ImageRef) (OpenImage, error)
}

// HostFacts are about the machine and the caller.
type HostFacts struct {
	UID, GID int
	Home     string // of the caller, "" if unknown
	Cwd      string // "" if it cannot be told
	// Path tells what a path of the host leads to.
	Path func(string) PathKind
	// UIDRanges and GIDRanges are the subordinate ids, for Fakeroot. Both or
	// none.
	UIDRanges, GIDRanges []Map
	// Mounts lists the mount points of the host.
	Mounts func() []string
	// Helper tells that the setuid helper makes the container. Caps are then
	// those that the administrator granted the caller.
	Helper bool
	// NoFUSE tells that the caller may not mount by FUSE.
	NoFUSE bool
	// NoOverlay tells that the kernel lacks overlays; nil if not known.
	NoOverlay func() bool
	// TTY is the path of the caller's terminal, "" for none.
	TTY string
	// Terminal tells that the caller has a controlling terminal.
	Terminal bool
	// Caps are the capabilities that the caller could pass on, KnownCaps those
	// that the kernel knows, FileCaps the names that the capability file grants
	// root.
	Caps, KnownCaps Caps
	FileCaps        []string
	// Supported is what the kernel can confine a process with. Only what
	// Options.Security asks for is looked at.
	Supported Supported
	// Drivers are the GPU drivers that were asked for, Edits what device files
	// of CDI ask for, or nil.
	Drivers host.Drivers
	Edits   *host.Edits
	// UserNet is the program of UserNets that this host has, Net what is known of
	// the container's network.
	UserNet string
	// NetRights are what the caller may have of the networks of the administrator.
	NetRights NetRights
	Net       NetFacts
	// Passwd and Group make the container's files from the image's; nil
	// leaves them alone.
	Passwd, Group func(image []byte) ([]byte, error)
	// PasswdKey and GroupKey stand for what these make; see File.Key.
	PasswdKey, GroupKey string
}

// ImageFacts are about the image.
type ImageFacts struct {
	Kind     RootKind
	Path     string // absolute
	Dev, Ino uint64 // of a directory
	// Path tells where a path leads inside the image, all links followed, and
	// what is there. What is missing is resolved as far as it exists.
	Resolve func(string) (string, PathKind)
	// Script tells whether the file there is a script for a shell.
	Script func(string) bool
	// Glibc returns the version of the GNU C library in the image, "" if it
	// has none; Library tells whether it has a library of that name. Both are
	// nil where nobody asks.
	Glibc   func() string
	Library func(name string) bool
	// Ext tells that the root partition is ext3, in a file of its own, and
	// NoWrite that the caller may not write to the image.
	Ext, NoWrite bool
	// Overlays are the overlay partitions of a SIF, in its order.
	Overlays []Partition
}

// Partition is an overlay partition of a SIF.
type Partition struct {
	ID  uint32
	Ext bool // ext3, else squashfs
}

// Settings are what the administrator's configuration says here.
type Settings struct {
	MountProc, MountSys, MountHome, MountTmp, MountDevpts, MountHostfs bool
	MountDev                                                           string   // yes, no or minimal
	BindPaths                                                          []string // "src[:dest]"
	ConfigResolv                                                       bool
	UserBinds, Fusemount                                               bool
	AllowPID, AllowIPC, AllowUTS, AllowUser                            bool
	// SessionSize bounds file systems in memory, in bytes; 0 for no bound.
	SessionSize int64
	RootCaps    string // RootCapsFull and so on; empty means full
	// TmpfsLimit bounds --writable-tmpfs, in bytes; 0 if no administrator did.
	TmpfsLimit int64
	Overlay    string // yes, no or try
	Underlay   string // yes, no or preferred
	// PrivateMounts and Ramfs are those of Plan.
	PrivateMounts, Ramfs bool
	TmpSandbox           bool
}

// maker collects the plan.
type maker struct {
	o     *Options
	f     *Facts
	p     *Plan
	sec   Security
	binds []Bind          // what the user asked for
	have  map[string]bool // destinations that are taken
	notes []string
	lost  int // files of the host that a writable image has no place for
}

// New decides what the container for verb is. The notes are warnings for the
// user.
func New(verb string, o *Options, args []string, f *Facts) (p *Plan, notes []string, err error) {
	m := &maker{o: o, f: f, p: new(Plan), have: map[string]bool{}}
	for _, step := range []func() error{m.security, m.parseBinds, m.ids, m.namespaces, m.contained, m.layers} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	home, err := m.mounts()
	if err != nil {
		return nil, nil, err
	}
	m.p.Home = home
	m.p.PrivateMounts, m.p.Ramfs = f.Conf.PrivateMounts, f.Conf.Ramfs
	m.p.Root.NoPoints = f.Conf.Overlay == "no"
	if err := m.rights(); err != nil {
		return nil, nil, err
	}
	m.process(verb, args, home)
	return m.p, m.notes, nil
}

// Running is what is known of a running container that is joined.
type Running struct {
	IDs  IDs
	Home string // inside
	// What confines the container.
	Caps       Caps
	LSM, Label string
	Seccomp    string
	Landlock   *Landlock
}

// Join decides how verb is done in a running container. Its mounts, namespaces
// and ids are there; what is left is the process.
//
// Security: a process that joins gets no more than both its caller and the
// container have.
func Join(verb string, o *Options, args []string, f *Facts, r *Running) (*Plan, []string, error) {
	m := &maker{o: o, f: f, p: &Plan{IDs: r.IDs, Root: Root{Kind: JoinedRoot}}}
	if o.Limits.Any() || o.ApplyCgroups != "" {
		m.note("Ignoring resource limits: the instance has its own")
	}
	for _, step := range []func() error{m.security, m.rights} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	have := m.p.Rights
	have.Caps &= r.Caps
	have.Drop = m.f.Host.KnownCaps &^ have.Caps
	have.Ambient = have.Ambient && have.Caps != 0
	if have.LSM == "" {
		have.LSM, have.Label = r.LSM, r.Label
	}
	if have.Seccomp == "" {
		have.Seccomp = r.Seccomp
	}
	if have.Landlock == nil { // else it allows less: a join brings no mounts along
		have.Landlock = r.Landlock
	}
	m.process(verb, args, r.Home)
	m.p.Process.Init = false
	return m.p, m.notes, nil
}

func (m *maker) parseBinds() (err error) {
	m.binds, err = m.o.Binds()
	return err
}

func (m *maker) ids() error {
	h := &m.f.Host
	ids := IDs{Mode: SingleID, UID: h.UID, GID: h.GID, InsideUID: h.UID, InsideGID: h.GID}
	switch {
	case m.o.Fakeroot && h.UID != 0:
		ids.InsideUID, ids.InsideGID = 0, 0
		if len(h.UIDRanges) > 0 && len(h.GIDRanges) > 0 {
			ids.Mode, ids.UIDMap, ids.GIDMap = Ranges, h.UIDRanges, h.GIDRanges
			ids.KeepGroups = m.o.NoSetgroups
		} else {
			ids.FakeOwners = true
		}
	case h.UID == 0 && !m.o.Userns:
		ids.Mode = HostIDs
	case h.Helper && !m.o.Userns:
		ids.Mode, ids.Helper = HostIDs, true
	}
	if ids.Mode != HostIDs && !m.f.Conf.AllowUser {
		return errors.New("User namespace required but not allowed by configuration.")
	}
	m.p.IDs = ids
	return nil
}

func (m *maker) note(s string) { m.notes = append(m.notes, s) }

// off tells whether a kind of mount is switched off by --no-mount.
func (m *maker) off(kind string) bool {
	for _, k := range m.o.NoMount {
		if k == kind {
			return true
		}
	}
	return false
}

// process plans the program.
func (m *maker) process(verb string, args []string, home string) {
	p := &m.p.Process
	p.Env, p.Umask = m.f.Env, -1
	if m.o.NoUmask {
		p.Umask = 0o022
	}
	p.Init = m.p.Namespaces.PID && !m.o.NoInit
	p.Shell = "/bin/sh"
	argv := args
	switch verb {
	case "shell":
		argv = append(m.shell(), args...)
	case "run", "test", "instance run", "instance start":
		argv = append([]string{m.script(verb)}, args...)
	}
	if strings.HasPrefix(verb, "instance ") {
		p.Stay = p.Init
		p.Idle = p.Init && argv[0] == ""
	}
	if m.o.Boot {
		argv, p.Init, p.Stay, p.Idle = []string{"/sbin/init"}, false, false, false
	}
	if m.f.Shell != nil {
		argv = append(append([]string(nil), m.f.Shell...), argv...)
	}
	p.Args, p.Paths = argv, Search(argv[0], p.Env)
	if !m.o.Boot {
		p.OwnShell = m.ownShell(argv)
	}
	first := m.o.Cwd
	if first == "" && !m.o.Contain {
		first = m.f.Host.Cwd
	}
	for _, d := range []string{first, home, "/"} {
		if d != "" {
			p.Dirs = append(p.Dirs, d)
		}
	}
}

// ownShell returns the arguments for a shell of ours if argv needs one and the
// image has none.
func (m *maker) ownShell(argv []string) []string {
	im := &m.f.Image
	if _, kind := im.Resolve("/bin/sh"); kind == Other || im.Script == nil {
		return nil
	}
	if argv[0] == "/bin/sh" {
		return append([]string{}, argv[1:]...)
	}
	for _, path := range m.p.Process.Paths {
		if !strings.HasPrefix(path, "/") {
			continue
		}
		if at, kind := im.Resolve(path); kind == Other {
			if im.Script(at) {
				return append([]string{path}, argv[1:]...)
			}
			return nil
		}
	}
	if argv[0] == "sh" {
		return append([]string{}, argv[1:]...)
	}
	return nil
}

func (m *maker) shell() []string {
	if m.o.Shell != "" {
		return []string{m.o.Shell}
	}
	if _, kind := m.f.Image.Resolve("/bin/bash"); kind == Other {
		return []string{"/bin/bash", "--norc"}
	}
	return []string{"/bin/sh"}
}

// script is the program of the verbs that run a script of the image; "" for an
// instance that only waits.
func (m *maker) script(verb string) string {
	list := []string{"/.singularity.d/runscript", "/singularity"}
	switch verb {
	case "test":
		list = []string{"/.singularity.d/test"}
	case "instance start":
		list = []string{"/.singularity.d/startscript", ""}
	}
	if m.o.App != "" {
		name := map[string]string{"test": "test", "instance start": "startscript"}[verb]
		if name == "" {
			name = "runscript"
		}
		list = append([]string{"/scif/apps/" + m.o.App + "/scif/" + name}, list...)
	}
	for _, s := range list {
		if s == "" {
			return ""
		}
		if _, kind := m.f.Image.Resolve(s); kind == Other {
			return s
		}
	}
	return "/bin/sh"
}

// Search lists where the program called name may be: itself if it names a
// path, else below each directory of the PATH in env.
func Search(name string, env []string) []string {
	if strings.Contains(name, "/") || name == "" {
		return []string{name}
	}
	var out []string
	for _, e := range env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			for _, d := range strings.Split(dirs, ":") {
				if d == "" {
					d = "."
				}
				out = append(out, d+"/"+name)
			}
		}
	}
	return out
}

package plan

import (
	"errors"
	"path"
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
	// Drivers are the GPU drivers that were asked for, Edits what device files
	// of CDI ask for, or nil.
	Drivers host.Drivers
	Edits   *host.Edits
	// Passwd and Group make the container's files from the image's; nil
	// leaves them alone.
	Passwd, Group func(image []byte) ([]byte, error)
}

// ImageFacts are about the image.
type ImageFacts struct {
	Kind     RootKind
	Path     string // absolute
	Dev, Ino uint64 // of a directory
	// Path tells where a path leads inside the image, all links followed, and
	// what is there. What is missing is resolved as far as it exists.
	Resolve func(string) (string, PathKind)
	// Glibc returns the version of the GNU C library in the image, "" if it
	// has none; Library tells whether it has a library of that name. Both are
	// nil where nobody asks.
	Glibc   func() string
	Library func(name string) bool
}

// Settings are what the administrator's configuration says here.
type Settings struct {
	MountProc, MountSys, MountDev, MountHome, MountTmp bool
	BindPaths                                          []string // "src[:dest]"
	ConfigResolv                                       bool
	UserBinds                                          bool
}

// maker collects the plan.
type maker struct {
	o     *Options
	f     *Facts
	p     *Plan
	have  map[string]bool // destinations that are taken
	notes []string
	lost  int // files of the host that a writable image has no place for
}

// New decides what the container for verb is. The notes are warnings for the
// user.
func New(verb string, o *Options, args []string, f *Facts) (p *Plan, notes []string, err error) {
	m := &maker{o: o, f: f, p: new(Plan), have: map[string]bool{}}
	if err := m.ids(); err != nil {
		return nil, nil, err
	}
	m.p.Root = Root{Kind: f.Image.Kind, Path: f.Image.Path, Dev: f.Image.Dev, Ino: f.Image.Ino, Writable: o.Writable}
	if o.Writable && f.Image.Kind == ServedRoot {
		return nil, nil, errors.New("no SIF writable overlay partition found in " + f.Image.Path)
	}
	home, err := m.mounts()
	if err != nil {
		return nil, nil, err
	}
	m.process(verb, args, home)
	return m.p, m.notes, nil
}

func (m *maker) ids() error {
	h := &m.f.Host
	ids := IDs{Mode: SingleID, UID: h.UID, GID: h.GID, InsideUID: h.UID, InsideGID: h.GID}
	switch {
	case m.o.Fakeroot && h.UID != 0:
		ids.InsideUID, ids.InsideGID = 0, 0
		if len(h.UIDRanges) > 0 && len(h.GIDRanges) > 0 {
			ids.Mode, ids.UIDMap, ids.GIDMap = Ranges, h.UIDRanges, h.GIDRanges
		} else {
			ids.FakeOwners = true
		}
	case h.UID == 0 && !m.o.Userns:
		ids.Mode = HostIDs
	}
	if m.o.KeepPrivs && h.UID != 0 {
		return errors.New("could not configure --keep-privs: it requires root privileges")
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

// mounts plans every mount, in the order of the specification, and returns the
// home directory inside.
func (m *maker) mounts() (string, error) {
	m.unknownMounts()
	c := &m.f.Conf
	if c.MountDev && !m.off("dev") {
		m.bind(Mount{Source: "/dev", Destination: "/dev", Devices: true, Optional: true, Tag: "kernel"})
	}
	if !m.off("bind-paths") {
		for _, b := range c.BindPaths {
			src, dst, ok := strings.Cut(b, ":")
			if !ok {
				dst = src
			}
			if m.f.Host.Path(src) != Missing && !m.off(dst) {
				m.bind(Mount{Source: src, Destination: dst, Optional: true, Tag: "binds"})
			}
		}
	}
	if c.MountProc && !m.off("proc") {
		m.bind(Mount{Source: "/proc", Destination: "/proc", Optional: true, Tag: "kernel"})
	}
	if c.MountSys && !m.off("sys") {
		m.bind(Mount{Source: "/sys", Destination: "/sys", Optional: true, Tag: "kernel"})
	}
	home, err := m.home()
	if err != nil {
		return "", err
	}
	if c.MountTmp && !m.off("tmp") {
		for _, d := range []string{"/tmp", "/var/tmp"} {
			if m.f.Host.Path(d) == Directory {
				m.bind(Mount{Source: d, Destination: d, Optional: true, Tag: "tmp"})
			}
		}
	}
	m.generated()
	if err := m.drivers(); err != nil {
		return "", err
	}
	if err := m.userBinds(); err != nil {
		return "", err
	}
	m.cwd()
	return home, nil
}

func (m *maker) unknownMounts() {
	for _, k := range m.o.NoMount {
		switch k {
		case "proc", "sys", "dev", "devpts", "home", "tmp", "hostfs", "cwd", "bind-paths":
		default:
			if !strings.HasPrefix(k, "/") {
				m.note("Ignoring unknown mount type '" + k + "'")
			}
		}
	}
}

// bind adds a mount and, where the image lacks its destination, a mount point.
// Of two mounts on one place the first is kept.
func (m *maker) bind(b Mount) {
	b.Destination = path.Clean(b.Destination)
	if b.Destination == "/" {
		m.note("Skipping mount " + b.Source + " [" + b.Tag + "]: / cannot be mounted over")
		return
	}
	resolved, kind := m.f.Image.Resolve(b.Destination)
	if resolved == "/" {
		return
	}
	if m.have[resolved] {
		if b.Tag == "user" {
			m.note("While bind mounting '" + b.Source + ":" + b.Destination + "': destination is already in the mount point list")
		}
		return
	}
	m.have[resolved] = true
	b.Destination = resolved
	if kind == Missing && !m.covered(resolved) {
		if m.o.Writable && m.f.Host.Path(b.Source) != Directory {
			m.note("Skipping mount " + b.Source + " [" + b.Tag + "]: " + resolved + " doesn't exist in container, and files are not created in a writable image")
			return
		}
		m.p.Files = append(m.p.Files, File{Path: resolved, Dir: m.f.Host.Path(b.Source) == Directory, Perm: 0o755})
	}
	m.p.Mounts = append(m.p.Mounts, b)
}

// covered tells whether an earlier mount hides where dst would be in the image.
func (m *maker) covered(dst string) bool {
	for i := range m.p.Mounts {
		if under(dst, m.p.Mounts[i].Destination) {
			return true
		}
	}
	return false
}

// under tells whether p is dir or lies below it.
func under(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// home plans the home directory and returns its place inside.
func (m *maker) home() (string, error) {
	src, dst := m.f.Host.Home, m.f.Host.Home
	if m.o.Fakeroot {
		dst = "/root"
	}
	if m.o.Home != "" {
		var ok bool
		src, dst, ok = strings.Cut(m.o.Home, ":")
		src = m.absolute(src)
		if !ok {
			dst = src
		}
		if !strings.HasPrefix(dst, "/") {
			return "", errors.New("home directory in the container must be an absolute path, not \"" + dst + "\"")
		}
		if m.f.Host.Path(src) == Missing {
			return "", errors.New("home source " + src + " doesn't exist")
		}
	}
	switch {
	case dst == "" || dst == "/":
		m.note("Not mounting a home directory: the caller's is " + quoteOr(dst, "not known"))
		return "/", nil
	case m.o.NoHome || m.off("home") || !m.f.Conf.MountHome && m.o.Home == "":
		return dst, nil
	case m.f.Host.Path(src) != Directory:
		m.note("Not mounting the home directory " + src + ": no such directory on this host")
		m.p.Files = append(m.p.Files, File{Path: dst, Dir: true, Perm: 0o755})
		return dst, nil
	}
	m.bind(Mount{Source: src, Destination: dst, Tag: "home"})
	return dst, nil
}

func quoteOr(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

// generated plans passwd, group and resolv.conf.
func (m *maker) generated() {
	for _, g := range []struct {
		path string
		load func([]byte) ([]byte, error)
	}{{"/etc/passwd", m.f.Host.Passwd}, {"/etc/group", m.f.Host.Group}} {
		if g.load == nil || m.off(g.path) {
			continue
		}
		if resolved, kind := m.f.Image.Resolve(g.path); kind == Other {
			m.p.Files = append(m.p.Files, File{Path: resolved, Perm: 0o644, Load: g.load})
		}
	}
	if m.f.Conf.ConfigResolv && !m.off("/etc/resolv.conf") && m.f.Host.Path("/etc/resolv.conf") == Other {
		m.bind(Mount{Source: "/etc/resolv.conf", Destination: "/etc/resolv.conf", Optional: true, Tag: "files"})
	}
}

func missingSource(src string) error { return errors.New("mount source " + src + " doesn't exist") }

func (m *maker) absolute(p string) string {
	if strings.HasPrefix(p, "/") {
		return path.Clean(p)
	}
	return path.Join("/", m.f.Host.Cwd, p)
}

func (m *maker) userBinds() error {
	binds, err := m.o.Binds()
	if err != nil {
		return err
	}
	for _, b := range binds {
		src, dst := m.absolute(b.Source), b.Dest
		if dst == "" {
			dst = src
		}
		switch {
		case !m.f.Conf.UserBinds:
			m.note("Ignoring " + src + " bind mount: user bind control disabled by system administrator")
			continue
		case b.ImageSource != "" || b.ID != 0:
			return errors.New("cannot bind from inside the image file " + src + ": image-src and id are not supported yet; bind a directory")
		case !strings.HasPrefix(dst, "/"):
			return errors.New("bind destination \"" + dst + "\" must be an absolute path")
		case m.f.Host.Path(src) == Missing:
			return missingSource(src)
		}
		m.bind(Mount{Source: src, Destination: dst, ReadOnly: b.ReadOnly, Devices: under(src, "/dev") && path.Clean(dst) == src, Tag: "user"})
	}
	return nil
}

// cwd plans the current directory, where nothing shows it already.
func (m *maker) cwd() {
	dir := m.f.Host.Cwd
	switch {
	case m.off("cwd"):
		return
	case dir == "":
		m.note("No current working directory set: skipping mount")
		return
	case !m.f.Conf.UserBinds:
		m.note("Not mounting current directory: user bind control is disabled by system administrator")
		return
	}
	switch dir {
	case "/", "/etc", "/bin", "/mnt", "/usr", "/var", "/opt", "/sbin", "/lib", "/lib64":
		return
	}
	for _, d := range []string{"/sys", "/proc", "/dev"} {
		if under(dir, d) {
			return
		}
	}
	for i := range m.p.Mounts {
		b := &m.p.Mounts[i]
		if b.Source == b.Destination && under(dir, b.Source) {
			return
		}
	}
	if resolved, _ := m.f.Image.Resolve(dir); resolved != dir {
		return // a link in the image leads elsewhere
	}
	m.bind(Mount{Source: dir, Destination: dir, Optional: true, Tag: "cwd"})
}

// process plans the program.
func (m *maker) process(verb string, args []string, home string) {
	p := &m.p.Process
	p.Env, p.Umask = m.f.Env, -1
	if m.o.NoUmask {
		p.Umask = 0o022
	}
	p.NoPrivileges = m.o.NoPrivs && m.p.IDs.Mode == HostIDs
	p.Shell = "/bin/sh"
	argv := args
	switch verb {
	case "shell":
		argv = append(m.shell(), args...)
	case "run", "test":
		argv = append([]string{m.script(verb)}, args...)
	}
	if m.f.Shell != nil {
		argv = append(append([]string(nil), m.f.Shell...), argv...)
	}
	p.Args, p.Paths = argv, Search(argv[0], p.Env)
	first := m.o.Cwd
	if first == "" {
		first = m.f.Host.Cwd
	}
	for _, d := range []string{first, home, "/"} {
		if d != "" {
			p.Dirs = append(p.Dirs, d)
		}
	}
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

// script is the program of the run and test verbs.
func (m *maker) script(verb string) string {
	list := []string{"/.singularity.d/runscript", "/singularity"}
	if verb == "test" {
		list = []string{"/.singularity.d/test"}
	}
	if m.o.App != "" {
		list = append([]string{"/scif/apps/" + m.o.App + "/scif/" + map[string]string{"run": "runscript", "test": "test"}[verb]}, list...)
	}
	for _, s := range list {
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

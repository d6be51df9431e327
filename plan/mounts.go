package plan

import (
	"errors"
	"path"
	"strings"
)

// mounts plans every mount, in the order of the specification, and returns the
// home directory inside.
func (m *maker) mounts() (string, error) {
	m.unknownMounts()
	c := &m.f.Conf
	m.dev()
	m.hostfs()
	m.bindPaths()
	if c.MountProc && !m.off("proc") {
		p := Mount{Source: "/proc", Destination: "/proc", Optional: true, Tag: "kernel"}
		if m.p.Namespaces.PID {
			p = Mount{Kind: Proc, Destination: "/proc", Optional: true, Tag: "kernel"}
		}
		m.bind(p)
	}
	if c.MountSys && !m.off("sys") {
		m.bind(Mount{Source: "/sys", Destination: "/sys", Optional: true, Tag: "kernel"})
		m.hidePower()
	}
	home, err := m.home()
	if err != nil {
		return "", err
	}
	m.tmp()
	if err := m.scratch(); err != nil {
		return "", err
	}
	m.generated()
	if err := m.drivers(); err != nil {
		return "", err
	}
	if err := m.userBinds(); err != nil {
		return "", err
	}
	if err := m.data(); err != nil {
		return "", err
	}
	m.cwd()
	if err := m.fuse(); err != nil {
		return "", err
	}
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

// powerMeters are where the kernel shows how much energy the processors use.
const powerMeters = "/sys/devices/virtual/powercap"

// hidePower keeps power meters from a container of root that is to be contained:
// they tell what other programs compute (SC-039). To others the kernel shows
// nothing there.
func (m *maker) hidePower() {
	if !m.o.Contain || m.p.IDs.Mode != HostIDs || m.f.Host.Path(powerMeters) != Directory {
		return
	}
	m.session("nopower", 0o755)
	m.bind(Mount{Kind: SessionDir, Source: "nopower", Destination: powerMeters, ReadOnly: true, Optional: true, Tag: "kernel"})
}

// bind adds a mount and, where the image lacks its destination, a mount point.
// Of two mounts on one place the first is kept.
func (m *maker) bind(b Mount) {
	b.Destination = path.Clean(b.Destination)
	if b.Destination == "/" {
		m.note("Skipping mount " + b.Source + " [" + b.Tag + "]: / cannot be mounted over")
		return
	}
	// Below an earlier mount the image says nothing.
	resolved, kind := b.Destination, Missing
	if !m.covered(resolved) {
		resolved, kind = m.f.Image.Resolve(b.Destination)
	}
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
		dir := b.Dir || b.Kind != ImageBind && (b.Kind != HostBind || m.f.Host.Path(b.Source) == Directory)
		switch {
		case m.noPoints():
			m.note("Skipping mount " + b.Source + " [" + b.Tag + "]: " + resolved + " doesn't exist in container, and the administrator lets nothing be added: 'enable overlay = no'")
			return
		case !m.p.Root.Writable || dir:
			m.p.Files = append(m.p.Files, File{Path: resolved, Dir: dir, Perm: 0o755})
		case b.Optional:
			m.note("Skipping mount " + b.Source + " [" + b.Tag + "]: " + resolved + " doesn't exist in container, and files are not created in a writable image")
			return
		default:
			// Package container refuses what has no destination.
			m.note("By using --writable, only directories are created as mount points: " + resolved + " must be in the image")
		}
	}
	m.sessionPoint(&b)
	m.p.Mounts = append(m.p.Mounts, b)
}

// noPoints tells whether the administrator keeps mount points from being made: by
// an overlay, which a directory needs, or by showing more than the image has.
func (m *maker) noPoints() bool {
	r := &m.p.Root
	return m.f.Conf.Overlay == "no" && (m.f.Conf.Underlay == "no" || r.Kind == DirRoot) && !r.Writable
}

// sessionPoint makes the mount point of b in the session, if the last mount
// above it is of the session.
func (m *maker) sessionPoint(b *Mount) {
	for i := len(m.p.Mounts) - 1; i >= 0; i-- {
		above := &m.p.Mounts[i]
		if !under(b.Destination, above.Destination) {
			continue
		}
		if above.Kind == SessionDir && b.Destination != above.Destination {
			name := above.Source + b.Destination[len(above.Destination):]
			m.session(path.Dir(name), 0o755)
			m.sessionEntry(Entry{Path: name, Perm: 0o755, File: b.Kind == HostBind && !b.Dir && m.f.Host.Path(b.Source) != Directory})
		}
		return
	}
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
	case m.o.Home != "" && !m.f.Conf.UserBinds:
		return "", errors.New("cannot use --home: user bind control is disabled by the system administrator")
	case m.o.Contain && m.o.Home == "":
		m.private("home", dst, 0o700, "home")
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

// generated plans passwd, group, resolv.conf, hostname and hosts.
func (m *maker) generated() {
	for _, g := range []struct {
		path string
		load func([]byte) ([]byte, error)
		key  string
	}{{"/etc/passwd", m.f.Host.Passwd, m.f.Host.PasswdKey}, {"/etc/group", m.f.Host.Group, m.f.Host.GroupKey}} {
		if g.load == nil || m.off(g.path) {
			continue
		}
		if resolved, kind := m.f.Image.Resolve(g.path); kind == Other {
			m.p.Files = append(m.p.Files, File{Path: resolved, Perm: 0o644, Load: g.load, Key: g.key})
		}
	}
	m.hostFiles()
	switch text, own := m.resolver(); {
	case m.off("/etc/resolv.conf"):
	case own:
		m.generate("/etc/resolv.conf", text)
	case m.f.Conf.ConfigResolv && m.f.Host.Path("/etc/resolv.conf") == Other:
		m.bind(Mount{Source: "/etc/resolv.conf", Destination: "/etc/resolv.conf", Optional: true, Tag: "files"})
	}
}

func (m *maker) absolute(p string) string {
	if strings.HasPrefix(p, "/") {
		return path.Clean(p)
	}
	return path.Join("/", m.f.Host.Cwd, p)
}

func missingSource(src string) error { return errors.New("mount source " + src + " doesn't exist") }

func (m *maker) userBinds() error {
	for _, b := range m.binds {
		src, dst := m.absolute(b.Source), b.Dest
		if dst == "" {
			dst = src
		}
		switch {
		case !m.f.Conf.UserBinds:
			m.note("Ignoring " + src + " bind mount: user bind control disabled by system administrator")
			continue
		case src == "/dev" && path.Clean(dst) == src && m.wantsHostDev():
			continue // it is there already
		case m.minimalDev() && under(dst, "/dev") && path.Clean(dst) != src:
			m.note("Skipping " + src + " bind mount: source and destination must be identical when binding to /dev")
			continue
		case !strings.HasPrefix(dst, "/"):
			return errors.New("bind destination \"" + dst + "\" must be an absolute path")
		case m.f.Host.Path(src) == Missing:
			return missingSource(src)
		case b.ImageSource != "" || b.ID != 0:
			if err := m.imageBind(src, dst, &b); err != nil {
				return err
			}
			continue
		}
		m.bind(Mount{Source: src, Destination: dst, ReadOnly: b.ReadOnly, Devices: under(src, "/dev") && path.Clean(dst) == src, Tag: "user"})
	}
	return nil
}

// cwd plans the current directory, where nothing shows it already.
func (m *maker) cwd() {
	dir := m.f.Host.Cwd
	switch {
	case m.off("cwd") || m.o.Contain:
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

// bindPaths plans the binds of the configuration.
func (m *maker) bindPaths() {
	if m.off("bind-paths") {
		return
	}
	for _, b := range m.f.Conf.BindPaths {
		src, dst, ok := strings.Cut(b, ":")
		if !ok {
			dst = src
		}
		switch {
		case m.o.Contain && src != "/etc/localtime" && src != "/etc/hosts", dst == "/etc/hosts" && m.ownHosts():
		case m.f.Host.Path(src) != Missing && !m.off(dst):
			m.bind(Mount{Source: src, Destination: dst, Optional: true, Tag: "binds"})
		}
	}
}

// hostfs plans what is mounted directly below the root of the host.
func (m *maker) hostfs() {
	if !m.f.Conf.MountHostfs || m.off("hostfs") || m.f.Host.Mounts == nil {
		return
	}
	for _, p := range m.f.Host.Mounts() {
		switch p {
		case "/", "/proc", "/sys", "/dev", "/run", "/boot", "/var":
			continue
		}
		if strings.LastIndexByte(p, '/') == 0 {
			m.bind(Mount{Source: p, Destination: p, Optional: true, Tag: "hostfs"})
		}
	}
}

// tmp plans the directories for temporary files.
func (m *maker) tmp() {
	if !m.f.Conf.MountTmp || m.off("tmp") {
		return
	}
	for _, d := range []struct{ path, private string }{{"/tmp", "tmp"}, {"/var/tmp", "var_tmp"}} {
		switch {
		case m.o.Contain:
			m.private(d.private, d.path, 0o1777, "tmp")
		case m.f.Host.Path(d.path) == Directory:
			m.bind(Mount{Source: d.path, Destination: d.path, Optional: true, Tag: "tmp"})
		}
	}
}

// scratch plans the empty directories that the user asked for.
func (m *maker) scratch() error {
	for _, dst := range m.o.Scratch {
		if !m.f.Conf.UserBinds {
			m.note("Ignoring scratch directory " + dst + ": user bind control disabled by system administrator")
			continue
		}
		dst = path.Clean("/" + dst)
		if dst == "/" {
			return errors.New("cannot make / a scratch directory")
		}
		m.private("scratch"+dst, dst, 0o700, "scratch")
	}
	return nil
}

// private mounts a directory of the container's own on dst: below the directory
// of --workdir if there is one, else in the session.
func (m *maker) private(name, dst string, perm uint32, tag string) {
	if m.o.WorkDir == "" {
		m.session(name, perm)
		m.bind(Mount{Kind: SessionDir, Source: name, Destination: dst, Tag: tag})
		return
	}
	at := m.absolute(m.o.WorkDir)
	for i := range len(name) {
		if name[i] == '/' {
			m.p.HostDirs = append(m.p.HostDirs, HostDir{Path: at + "/" + name[:i], Perm: 0o755})
		}
	}
	m.p.HostDirs = append(m.p.HostDirs, HostDir{Path: at + "/" + name, Perm: perm})
	m.bind(Mount{Source: at + "/" + name, Destination: dst, Tag: tag, Dir: true})
}

// session adds a directory to the session, with what leads there.
func (m *maker) session(name string, perm uint32) {
	s := &m.p.Session
	s.Size = m.f.Conf.SessionSize
	for i := range len(name) {
		if name[i] == '/' {
			m.sessionEntry(Entry{Path: name[:i], Perm: 0o755})
		}
	}
	m.sessionEntry(Entry{Path: name, Perm: perm})
}

func (m *maker) sessionEntry(e Entry) {
	for _, old := range m.p.Session.Entries {
		if old.Path == e.Path {
			return
		}
	}
	m.p.Session.Entries = append(m.p.Session.Entries, e)
}

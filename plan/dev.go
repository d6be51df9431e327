package plan

import "path"

// minimalDevices are the device nodes of a minimal /dev.
var minimalDevices = [...]string{"null", "zero", "random", "urandom", "tty"}

// devLinks are the links of a minimal /dev.
var devLinks = [...][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}}

// minimalDev tells whether the container gets a /dev of its own.
func (m *maker) minimalDev() bool {
	if m.f.Conf.MountDev == "no" || m.off("dev") {
		return false
	}
	return (m.o.Contain || m.f.Conf.MountDev == "minimal") && !m.wantsHostDev()
}

// wantsHostDev tells whether the user binds the host's whole /dev.
func (m *maker) wantsHostDev() bool {
	if !m.f.Conf.UserBinds {
		return false
	}
	for _, b := range m.binds {
		if path.Clean(b.Source) == "/dev" && (b.Dest == "" || path.Clean(b.Dest) == "/dev") {
			return true
		}
	}
	return false
}

// dev plans /dev.
func (m *maker) dev() {
	switch {
	case m.f.Conf.MountDev == "no" || m.off("dev"):
		return
	case !m.minimalDev():
		m.bind(Mount{Source: "/dev", Destination: "/dev", Devices: true, Optional: true, Tag: "kernel"})
		return
	}
	m.session("dev", 0o755)
	m.bind(Mount{Kind: SessionDir, Source: "dev", Destination: "/dev", Devices: true, Tag: "dev"})
	for _, d := range minimalDevices {
		m.device("/dev/"+d, "/dev/"+d)
	}
	for _, l := range devLinks {
		m.sessionEntry(Entry{Path: "dev/" + l[0], Link: l[1]})
	}
	m.devDir("shm", Mount{Kind: Tmpfs})
	if m.p.Namespaces.IPC {
		m.devDir("mqueue", Mount{Kind: Mqueue})
	}
	if m.f.Conf.MountDevpts && !m.off("devpts") {
		m.devDir("pts", Mount{Kind: Devpts})
		m.sessionEntry(Entry{Path: "dev/ptmx", Link: "pts/ptmx"})
	}
	if m.f.Host.TTY != "" {
		m.device(m.f.Host.TTY, "/dev/console")
		m.p.Process.Console = "/dev/console"
	}
}

// device shows a device of the host in the minimal /dev.
func (m *maker) device(src, dst string) {
	if m.f.Host.Path(src) != Other {
		return
	}
	m.bind(Mount{Source: src, Destination: dst, Devices: true, Tag: "dev"})
}

func (m *maker) devDir(name string, b Mount) {
	b.Destination, b.Tag = "/dev/"+name, "dev"
	m.bind(b)
}

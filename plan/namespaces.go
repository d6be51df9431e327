package plan

import (
	"errors"
	"path"
	"strconv"
	"strings"
)

// namespaces plans the namespaces and the host name.
func (m *maker) namespaces() error {
	c, o := &m.f.Conf, m.o
	n := Namespaces{PID: o.PID && c.AllowPID, IPC: o.IPC && c.AllowIPC, UTS: o.UTS && c.AllowUTS}
	m.p.Namespaces = n
	if o.Hostname != "" {
		if !validHostname(o.Hostname) {
			return errors.New("cannot use " + strconv.Quote(o.Hostname) + " as host name: letters, digits, dashes and dots are wanted, at most 64 of them")
		}
		m.p.Hostname = o.Hostname
		if !n.UTS {
			m.note("Container hostname cannot be set.")
			m.p.Hostname = ""
		}
	}
	return m.network()
}

// network plans the network namespace.
func (m *maker) network() error {
	o := m.o
	root := m.f.Host.UID == 0 && m.p.IDs.Mode == HostIDs
	none := len(o.Network) == 1 && o.Network[0] == "none"
	switch {
	case len(o.NetworkArgs) > 0 && (none || !o.Net || o.Fakeroot && !root):
		return errors.New("--network-args has arguments for networks: it needs --net and another --network than none, which --fakeroot has not")
	case o.NetnsPath != "" && (o.Net || len(o.Network) > 0):
		return errors.New("cannot join existing --netns-path and create a new network namespace with --net/-n")
	case o.NetnsPath != "" && !root:
		return errors.New("you are not permitted to join network namespaces in singularity.conf")
	case o.NetnsPath != "":
		m.p.NetnsPath = m.absolute(o.NetnsPath)
	case !o.Net && !none:
		if len(o.Network) > 0 {
			m.note("Ignoring --network: it needs --net")
		}
	case none:
		m.p.Namespaces.Net = true
	case o.Fakeroot && !root, o.Boot && len(o.Network) == 0:
		m.note("Only --network=none is there: the container gets a loopback device and nothing else")
		m.p.Namespaces.Net = true
	case !root:
		return errors.New("network requires root or --fakeroot, non-root users can only use --network=none unless permitted by the administrator")
	default:
		return errors.New("cannot set up the network " + strconv.Quote(strings.Join(networks(o), ",")) + ": only --network=none is there")
	}
	return nil
}

func networks(o *Options) []string {
	if len(o.Network) == 0 {
		return []string{"bridge"}
	}
	return o.Network
}

// contained checks what belongs to --contain.
func (m *maker) contained() error {
	o := m.o
	switch {
	case o.WorkDir == "":
	case !o.Contain && len(o.Scratch) == 0:
		m.note("Ignoring --workdir: it needs --contain or --scratch")
		o.WorkDir = ""
	case m.f.Host.Path(m.absolute(o.WorkDir)) != Directory:
		return errors.New("cannot use " + strconv.Quote(o.WorkDir) + " as --workdir: no such directory on this host")
	}
	return nil
}

// ownHosts tells whether the container gets a hosts file of its own.
func (m *maker) ownHosts() bool { return m.o.Contain && m.p.Namespaces.Net }

// hostFiles plans hostname, hosts and resolv.conf where the host's do not hold.
func (m *maker) hostFiles() {
	name := m.p.Hostname
	if name != "" {
		m.generate("/etc/hostname", name+"\n")
	}
	if m.ownHosts() {
		text := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
		if name != "" {
			text += "127.0.1.1 " + name + "\n"
		}
		m.generate("/etc/hosts", text)
	}
	if len(m.o.DNS) > 0 && !m.off("/etc/resolv.conf") {
		var b strings.Builder
		for _, s := range m.o.DNS {
			if !validAddress(strings.TrimSpace(s)) {
				m.note("Ignoring name server " + strconv.Quote(s) + ": it is not an address")
				continue
			}
			b.WriteString("nameserver " + strings.TrimSpace(s) + "\n")
		}
		m.generate("/etc/resolv.conf", b.String())
	}
}

// generate plans a file with a text of our own.
func (m *maker) generate(name, text string) {
	at, _ := m.f.Image.Resolve(name)
	m.p.Files = append(m.p.Files, File{Path: path.Clean(at), Perm: 0o644, Load: func([]byte) ([]byte, error) { return []byte(text), nil }, Key: "text:" + text})
}

// validHostname follows RFC 1123, with the kernel's limit of length.
func validHostname(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return true
}

// validAddress tells whether s can be the address of a name server: it keeps
// whatever else a file of name servers could mean out of that file.
func validAddress(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '.' && c != ':' && c != '%' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return strings.ContainsAny(s, ".:")
}

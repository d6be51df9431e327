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

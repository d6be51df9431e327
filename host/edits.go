package host

import (
	"errors"
	"strings"
)

// Edits are what a device of the Container Device Interface adds to a
// container. They carry the caller's rights only.
type Edits struct {
	Env    []string // NAME=value, literal
	Mounts []EditMount
	Nodes  []EditNode
	// Libraries are those among the mounts, under the names that programs ask
	// for.
	Libraries []Library
}

// EditMount is a path of the host that appears in the container.
type EditMount struct {
	Source, Destination string // absolute
	ReadOnly            bool
}

// EditNode is a device node of the host that appears in the container.
type EditNode struct{ Source, Destination string } // absolute

// ErrEdits says that an encoding of Edits is broken.
var ErrEdits = errors.New("the description of devices is damaged")

// Encode returns e as text: records of a kind and its fields, a zero byte
// behind each.
func (e *Edits) Encode() []byte {
	var b []byte
	put := func(fields ...string) {
		for _, f := range fields {
			b = append(append(b, f...), 0)
		}
	}
	for _, v := range e.Env {
		put("env", v)
	}
	for _, m := range e.Mounts {
		mode := "rw"
		if m.ReadOnly {
			mode = "ro"
		}
		put("mount", m.Source, m.Destination, mode)
	}
	for _, n := range e.Nodes {
		put("node", n.Source, n.Destination)
	}
	for _, l := range e.Libraries {
		put("library", l.Name, l.Path, l.Glibc)
	}
	return b
}

// DecodeEdits reads what Encode wrote. Whoever wrote it has the rights of the
// caller, so only its form is checked.
func DecodeEdits(b []byte) (*Edits, error) {
	e := new(Edits)
	if len(b) == 0 {
		return e, nil
	}
	if b[len(b)-1] != 0 {
		return nil, ErrEdits
	}
	f := strings.Split(string(b[:len(b)-1]), "\x00")
	for len(f) > 0 {
		n := map[string]int{"env": 2, "mount": 4, "node": 3, "library": 4}[f[0]]
		if n == 0 || len(f) < n {
			return nil, ErrEdits
		}
		if !e.record(f[:n]) {
			return nil, ErrEdits
		}
		f = f[n:]
	}
	return e, nil
}

func (e *Edits) record(f []string) bool {
	absolute := strings.HasPrefix(f[1], "/")
	switch f[0] {
	case "env":
		e.Env = append(e.Env, f[1])
		name, _, ok := strings.Cut(f[1], "=")
		return ok && name != ""
	case "mount":
		e.Mounts = append(e.Mounts, EditMount{f[1], f[2], f[3] == "ro"})
		return absolute && strings.HasPrefix(f[2], "/") && (f[3] == "ro" || f[3] == "rw")
	case "node":
		e.Nodes = append(e.Nodes, EditNode{f[1], f[2]})
		return absolute && strings.HasPrefix(f[2], "/")
	}
	e.Libraries = append(e.Libraries, Library{Name: f[1], Path: f[2], Glibc: f[3]})
	return f[1] != "" && !strings.Contains(f[1], "/") && strings.HasPrefix(f[2], "/")
}

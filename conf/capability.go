package conf

import (
	"errors"
	"io"
	"os"

	"singularity/conf/jsonread"
)

// maxCapability bounds capability.json, in bytes, and maxGranted one list in it.
const (
	maxCapability = 1 << 20
	maxGranted    = 128
)

// CapabilityPath returns the path of the installed capability.json.
func CapabilityPath() string { return Dir() + "/capability.json" }

// Capabilities is what capability.json holds: names of capabilities by the names
// of users and groups.
type Capabilities struct {
	Users  map[string][]string `json:"users,omitempty"`
	Groups map[string][]string `json:"groups,omitempty"`
}

// LoadCapabilities reads the file, which open opens: OpenSite or OpenOwned. No
// file grants nothing.
func LoadCapabilities(file string, open func(string) (*os.File, error)) (*Capabilities, error) {
	f, err := open(file)
	if errors.Is(err, os.ErrNotExist) {
		return &Capabilities{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := ReadCapabilities(f)
	if err != nil {
		return nil, errors.New("cannot read " + file + ": " + err.Error())
	}
	return c, nil
}

// ReadCapabilities reads {"users": {NAME: [CAP...]}, "groups": {...}}.
func ReadCapabilities(f io.Reader) (*Capabilities, error) {
	text, err := ReadAll(f, maxCapability)
	if err != nil {
		return nil, err
	}
	r := jsonread.New(string(text))
	lists := func(m *map[string][]string) {
		if r.Null() {
			return
		}
		*m = map[string][]string{}
		r.Object(func(name string) { (*m)[name] = r.Strings(maxGranted) })
	}
	c := &Capabilities{}
	r.Object(func(member string) {
		switch member {
		case "users":
			lists(&c.Users)
		case "groups":
			lists(&c.Groups)
		default:
			// Security: a rule that is misread in silence does not hold.
			r.Fail("unknown member \"" + member + "\"")
		}
	})
	if err := r.End(); err != nil {
		return nil, err
	}
	return c, nil
}

// Granted returns what the file grants to a user and to groups, as it is written
// there.
func (c *Capabilities) Granted(user string, groups ...string) []string {
	caps := append([]string(nil), c.Users[user]...)
	for _, g := range groups {
		caps = append(caps, c.Groups[g]...)
	}
	return caps
}

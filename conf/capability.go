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

// GrantedCaps returns the capabilities that file grants to a user and to groups,
// as they are written there. No file grants nothing.
func GrantedCaps(file, user string, groups ...string) ([]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCapability+1))
	if err == nil && len(text) > maxCapability {
		err = errors.New("larger than 1 MiB")
	}
	if err != nil {
		return nil, errors.New("cannot read " + file + ": " + err.Error())
	}
	caps, err := parseCapability(string(text), user, groups)
	if err != nil {
		return nil, errors.New("cannot read " + file + ": " + err.Error())
	}
	return caps, nil
}

// parseCapability reads {"users": {NAME: [CAP...]}, "groups": {...}}.
func parseCapability(text, user string, groups []string) (caps []string, err error) {
	r := jsonread.New(text)
	grants := func(names ...string) {
		if r.Null() {
			return
		}
		r.Object(func(name string) {
			list := r.Strings(maxGranted)
			for _, n := range names {
				if n == name {
					caps = append(caps, list...)
				}
			}
		})
	}
	r.Object(func(member string) {
		switch member {
		case "users":
			grants(user)
		case "groups":
			grants(groups...)
		default:
			// Security: a rule that is misread in silence does not hold.
			r.Fail("unknown member \"" + member + "\"")
		}
	})
	return caps, r.End()
}

package plan

import (
	"errors"
	"strconv"
	"strings"
)

// Security is what the words of --security ask for.
type Security struct {
	UID      int    // -1: not given
	GIDs     []int  // the first is the primary group
	LSM      string // AppArmor, SELinux or empty
	Label    string // the profile or label
	Seccomp  string // a file
	Landlock bool
}

// The security modules that can give the program a label.
const (
	AppArmor = "apparmor"
	SELinux  = "selinux"
)

const (
	maxID    = 1<<32 - 2 // the kernel keeps the last one for "none"
	maxGIDs  = 1024
	maxLabel = 4000 // bytes; the kernel takes one page
)

// ParseSecurity reads the words of --security. One that is given twice must
// say the same twice: which of two confinements is meant cannot be guessed.
func ParseSecurity(words []string) (s Security, err error) {
	s.UID = -1
	seen := map[string]string{}
	for _, w := range joinCategories(words) {
		kind, value, _ := strings.Cut(w, ":")
		if old, ok := seen[kind]; ok {
			if old != value {
				return s, errors.New("--security " + kind + " is given twice, with " + strconv.Quote(old) + " and " + strconv.Quote(value))
			}
			continue
		}
		seen[kind] = value
		if err := s.set(kind, value); err != nil {
			return s, errors.New("cannot use --security " + strconv.Quote(w) + ": " + err.Error())
		}
	}
	if seen[SELinux] != "" && seen[AppArmor] != "" {
		return s, errors.New("you can't specify both an apparmor profile and a selinux label")
	}
	return s, nil
}

// joinCategories puts the categories of an SELinux label together again, which
// the list of options parted at their comma: "selinux:u:r:t:s0:c1", "c2".
func joinCategories(words []string) []string {
	var out []string
	for _, w := range words {
		n := len(out) - 1
		if n >= 0 && strings.HasPrefix(out[n], SELinux+":") && !strings.Contains(w, ":") && len(w) > 1 && w[0] == 'c' && w[1] >= '0' && w[1] <= '9' {
			out[n] += "," + w
			continue
		}
		out = append(out, w)
	}
	return out
}

func (s *Security) set(kind, value string) (err error) {
	if value == "" && kind != "landlock" {
		switch kind {
		case "uid", "gid", "seccomp", AppArmor, SELinux:
			return errors.New("it needs a value, " + kind + ":VALUE")
		}
	}
	switch kind {
	case "uid":
		s.UID, err = parseID(value)
	case "gid":
		s.GIDs, err = parseIDs(value)
	case AppArmor, SELinux:
		if len(value) > maxLabel || strings.ContainsAny(value, "\x00\n") {
			return errors.New("it is no label")
		}
		s.LSM, s.Label = kind, value
	case "seccomp":
		s.Seccomp = value
	case "landlock":
		if value != "" {
			return errors.New("landlock takes no value")
		}
		s.Landlock = true
	default:
		return errors.New("known are uid:N, gid:N[:N...], apparmor:PROFILE, selinux:LABEL, seccomp:FILE and landlock")
	}
	return err
}

func parseIDs(list string) ([]int, error) {
	var out []int
	for w := range strings.SplitSeq(list, ":") {
		id, err := parseID(w)
		if err != nil {
			return nil, err
		}
		if out = append(out, id); len(out) > maxGIDs {
			return nil, errors.New("more than " + strconv.Itoa(maxGIDs) + " groups")
		}
	}
	return out, nil
}

func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxID {
		return 0, errors.New(strconv.Quote(s) + " is no user or group id")
	}
	return int(n), nil
}

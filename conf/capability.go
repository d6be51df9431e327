//go:build !starter

package conf

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
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
	c, r := &Capabilities{}, &jsonLists{text: string(text)}
	r.list("{", "}", func(member string) {
		m, ok := map[string]*map[string][]string{"users": &c.Users, "groups": &c.Groups}[member]
		if !ok || *m != nil {
			// Security: a rule that is misread in silence does not hold.
			r.fail("unknown member " + strconv.Quote(member))
			return
		}
		*m = map[string][]string{}
		r.list("{", "}", func(name string) {
			if _, twice := (*m)[name]; twice {
				r.fail("member " + strconv.Quote(name) + " occurs twice")
			}
			(*m)[name] = nil
			r.list("[", "]", func(word string) {
				if (*m)[name] = append((*m)[name], word); len((*m)[name]) > maxGranted {
					r.fail("more than " + strconv.Itoa(maxGranted) + " elements")
				}
			})
		})
	})
	if !utf8.Valid(text) || r.token() != "" {
		r.fail("text goes on behind the end, or is not UTF-8")
	}
	return c, r.err
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

// CapNames lists the capabilities of Linux 6.18 in the order of their numbers.
const CapNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE " +
	"NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT " +
	"SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG " +
	"WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// CapNumber returns the number of a capability, or -1: in any case, with or
// without CAP_.
func CapNumber(name string) int {
	return slices.Index(strings.Fields(CapNames), strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
}

// jsonLists reads the one shape of JSON (RFC 8259) that capability.json has: objects
// and arrays of strings, or null. Package conf/jsonread reads all of it, which
// a program that judges for the setuid helper has no use for. The first error is kept.
type jsonLists struct {
	text string
	at   int
	err  error
}

func (r *jsonLists) fail(reason string) {
	if r.err == nil {
		r.err = &SyntaxError{1 + strings.Count(r.text[:r.at], "\n"), reason}
	}
}

// list reads what stands between two marks: element is called with each string, and
// reads the value of a member of an object.
func (r *jsonLists) list(begin, end string, element func(word string)) {
	t := r.token()
	if t == "null" {
		return
	}
	if t != begin {
		r.fail("expected " + begin)
	}
	for t = r.token(); t != end && r.err == nil; {
		word, err := strconv.Unquote(t)
		if err != nil || t[0] != '"' || end == "}" && r.token() != ":" {
			r.fail("expected a string")
			return
		}
		element(word)
		mark := r.token()
		if t = mark; mark == "," {
			t = r.token()
		}
		if mark != "," && mark != end || mark == "," && t == end {
			r.fail("expected a comma or " + end)
		}
	}
}

// token takes a mark, a string with its quotes or a null; it is empty at the end.
func (r *jsonLists) token() string {
	rest := strings.TrimLeft(r.text[r.at:], " \t\r\n")
	n := min(1, len(rest))
	switch {
	case strings.HasPrefix(rest, "null"):
		n = len("null")
	case strings.HasPrefix(rest, `"`):
		for ; n < len(rest) && rest[n] != '"'; n++ {
			if rest[n] < ' ' {
				r.fail("control character in a string")
			}
			if rest[n] == '\\' {
				if n++; n < len(rest) && !strings.Contains(`"\bfnrtu`, rest[n:n+1]) {
					r.fail("unknown escape")
				}
			}
		}
		n = min(n+1, len(rest))
	}
	r.at = len(r.text) - len(rest) + n
	return rest[:n]
}

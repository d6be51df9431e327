package plan

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"singularity/host"
)

// MaxUserFile is how large the passwd and group files of an image may be, in
// bytes.
const MaxUserFile = 1 << 20

// maxGroups is the kernel's limit of groups of a process.
const maxGroups = 65536

// Errors of Passwd and Group.
var (
	ErrInput = errors.New("it cannot stand in a user database")
	ErrLimit = errors.New("too large")
)

// Passwd returns the image's /etc/passwd with a line for u. The line replaces
// the one that the image has for this uid, whose shell it keeps, since the
// host's may not exist inside; otherwise it is added at the end, or before a
// line with the same name and another uid, so that looking up the name finds
// the caller. All other lines stay. Without a file in the image (nil) there is
// none.
//
// A field of u with a separator or a control byte is ErrInput, a file of more
// than MaxUserFile bytes is ErrLimit.
func Passwd(image []byte, u host.User) ([]byte, error) {
	if image == nil {
		return nil, nil
	}
	if len(image) > MaxUserFile {
		return nil, tooLarge("/etc/passwd", len(image))
	}
	if err := checkName("user name", u.Name); err != nil {
		return nil, err
	}
	if err := errors.Join(checkID(u.UID), checkID(u.GID)); err != nil {
		return nil, err
	}
	for _, f := range []struct{ what, value string }{{"full name (gecos)", u.Gecos}, {"home directory", u.Home}, {"shell", u.Shell}} {
		if err := checkField(f.what, f.value); err != nil {
			return nil, err
		}
	}
	uid, shell := strconv.Itoa(u.UID), u.Shell
	lines := splitLines(image)
	old, at := -1, len(lines) // the line of the uid; where the new one goes
	for i, line := range lines {
		f := strings.SplitN(string(line), ":", 8)
		if old < 0 && len(f) >= 3 && f[2] == uid {
			old, at = i, min(at, i)
			if len(f) == 7 && f[6] != "" && checkField("shell", f[6]) == nil {
				shell = f[6]
			}
		}
		if f[0] == u.Name {
			at = min(at, i)
		}
	}
	entry := strings.Join([]string{u.Name, "x", uid, strconv.Itoa(u.GID), u.Gecos, u.Home, shell}, ":")
	out := make([]byte, 0, len(image)+len(entry)+2)
	for i := 0; i <= len(lines); i++ {
		if i == at {
			out = append(append(out, entry...), '\n')
		}
		if i < len(lines) && i != old {
			out = append(append(out, lines[i]...), '\n')
		}
	}
	return out, nil
}

// Group returns the image's /etc/group with a line "name:x:gid:user" at the end
// for each group whose id the image does not list. Groups without a name are
// left out. Without a file in the image (nil) there is none. Errors are those of
// Passwd.
func Group(image []byte, u host.User, groups []host.Group) ([]byte, error) {
	if image == nil {
		return nil, nil
	}
	if len(image) > MaxUserFile {
		return nil, tooLarge("/etc/group", len(image))
	}
	if len(groups) > maxGroups {
		return nil, tooLarge("the list of groups", len(groups))
	}
	if err := checkName("user name", u.Name); err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	lines := splitLines(image)
	out := make([]byte, 0, len(image)+64)
	for _, line := range lines {
		if f := bytes.SplitN(line, []byte(":"), 4); len(f) >= 3 {
			listed[string(f[2])] = true
		}
		out = append(append(out, line...), '\n')
	}
	for _, g := range groups {
		gid := strconv.Itoa(g.GID)
		if g.Name == "" || listed[gid] {
			continue
		}
		if err := checkName("group name", g.Name); err != nil {
			return nil, err
		}
		if err := checkID(g.GID); err != nil {
			return nil, err
		}
		listed[gid] = true
		out = append(out, g.Name+":x:"+gid+":"+u.Name+"\n"...)
	}
	return out, nil
}

// splitLines splits at newlines; the last line may lack one.
func splitLines(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

// checkField refuses what would end a field or a line.
//
// Security: HOME, the full name and the rest come from the caller or a
// directory service; a newline in one of them would add a user of their choice.
func checkField(what, s string) error {
	for i := range len(s) {
		if c := s[i]; c == ':' || c < 0x20 || c == 0x7f {
			return badField(what, s)
		}
	}
	return nil
}

// checkName is checkField for names: they are not empty, do not look like
// comments or the directives of old databases, and do not split a list of
// members.
func checkName(what, s string) error {
	if s == "" || strings.ContainsAny(s[:1], "+-#") || strings.Contains(s, ",") {
		return badField(what, s)
	}
	return checkField(what, s)
}

func badField(what, s string) error {
	return &fieldError{"cannot use the " + what + " " + strconv.Quote(s) + " in the container: " + ErrInput.Error(), ErrInput}
}

func checkID(id int) error {
	if id < 0 || int64(id) >= 1<<32-1 {
		return &fieldError{"cannot use the id " + strconv.Itoa(id) + " in the container: " + ErrInput.Error(), ErrInput}
	}
	return nil
}

func tooLarge(what string, n int) error {
	return &fieldError{"cannot use " + what + " of " + strconv.Itoa(n) + " bytes or entries: " + ErrLimit.Error(), ErrLimit}
}

// fieldError is a text that wraps a sentinel.
type fieldError struct {
	text string
	kind error
}

func (e *fieldError) Error() string { return e.text }
func (e *fieldError) Unwrap() error { return e.kind }

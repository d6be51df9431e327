package host

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Range is a range of ids that a user may map into a user namespace.
type Range struct {
	Start, Count uint32
}

// usualCount is the size of the range that systems give to each user.
const usualCount = 65536

// maxRanges bounds the ranges of a user: an id map of the kernel has at most
// 340 lines, nobody needs as many.
const maxRanges = 16

// ErrNoRange is wrapped by every NoRangeError.
var ErrNoRange = errors.New("no mapping entry found")

// NoRangeError says that a user owns no subordinate ids.
type NoRangeError struct {
	File     string // the file that has no entry, /etc/subuid or /etc/subgid
	User     string
	Disabled bool // an entry exists and the administrator switched it off
}

func (e *NoRangeError) Error() string {
	if e.Disabled {
		return "the mapping entry in " + e.File + " for " + e.User + " is disabled"
	}
	return "no mapping entry found in " + e.File + " for " + e.User
}

// Is tells that e is an ErrNoRange.
func (e *NoRangeError) Is(target error) bool { return target == ErrNoRange }

// SubIDs returns the subordinate user and group ids of u, the preferred range
// first: one of 65536 ids, else the largest. Any count is returned. The ranges
// of a list do not overlap and leave out the user's own id, so that all of
// them may be mapped next to it. The error is a *NoRangeError if one of the two
// files and the name service have no range.
func SubIDs(u User) (uids, gids []Range, err error) { return system().subIDs(u) }

func (d *database) subIDs(u User) (uids, gids []Range, err error) {
	if uids, err = d.ranges(d.subuid, u, u.UID); err != nil {
		return nil, nil, err
	}
	if gids, err = d.ranges(d.subgid, u, u.GID, "-g"); err != nil {
		return nil, nil, err
	}
	return uids, gids, nil
}

// ranges reads one file, or asks getsubids if it has nothing for the user. own
// is the id that a range must not contain.
func (d *database) ranges(file string, u User, own int, flags ...string) ([]Range, error) {
	b, err := readFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	list, disabled := parseSubIDs(b, u.Name, strconv.Itoa(u.UID))
	if len(list) == 0 && !disabled && u.Name != "" && u.Name[0] != '-' { // a name is no option
		if b, err = d.ask("getsubids", append(flags, u.Name)...); err == nil {
			list = parseReply(b)
		}
	}
	if list = chooseRanges(list, own); len(list) > 0 {
		return list, nil
	}
	name := u.Name
	if name == "" {
		name = strconv.Itoa(u.UID)
	}
	return nil, &NoRangeError{File: file, User: name, Disabled: disabled}
}

// parseSubIDs reads lines "name:start:count", where the name may be a uid. A
// name after "!" is an entry that is switched off.
func parseSubIDs(b []byte, name, uid string) (list []Range, disabled bool) {
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) != 3 || f[0] == "" {
			continue
		}
		who, off := strings.CutPrefix(f[0], "!")
		if who != name && who != uid || who == "" {
			continue
		}
		if off {
			disabled = true
			continue
		}
		list = appendRange(list, f[1], f[2])
	}
	return list, disabled && len(list) == 0
}

// parseReply reads what getsubids prints: lines "0: name start count".
func parseReply(b []byte) []Range {
	var list []Range
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) >= 4 {
			list = appendRange(list, f[len(f)-2], f[len(f)-1])
		}
	}
	return list
}

// appendRange adds a range if both numbers are valid: no id beyond 2^32-2, as
// the last one means "no id".
func appendRange(list []Range, start, count string) []Range {
	s, err1 := strconv.ParseUint(start, 10, 32)
	n, err2 := strconv.ParseUint(count, 10, 32)
	if err1 != nil || err2 != nil || n == 0 || s+n > 1<<32-1 {
		return list
	}
	return append(list, Range{Start: uint32(s), Count: uint32(n)})
}

// chooseRanges puts the preferred range first and leaves out those that the
// kernel would refuse in one map: they overlap an earlier one or hold own.
func chooseRanges(list []Range, own int) []Range {
	slices.SortStableFunc(list, func(a, b Range) int {
		if usual := a.Count == usualCount; usual != (b.Count == usualCount) {
			if usual {
				return -1
			}
			return 1
		}
		switch {
		case a.Count > b.Count:
			return -1
		case a.Count < b.Count:
			return 1
		}
		return 0
	})
	var out []Range
	for _, r := range list {
		clash := uint64(own) >= uint64(r.Start) && uint64(own) < uint64(r.Start)+uint64(r.Count)
		for _, o := range out {
			clash = clash || uint64(r.Start) < uint64(o.Start)+uint64(o.Count) && uint64(o.Start) < uint64(r.Start)+uint64(r.Count)
		}
		if !clash && len(out) < maxRanges {
			out = append(out, r)
		}
	}
	return out
}

// Tool is what is known of newuidmap or newgidmap.
type Tool struct {
	Path      string // absolute, in a directory of the system
	RootOwned bool   // and no one else may write to it
	SetUID    bool
	FileCaps  bool // it has file capabilities, which do as well as setuid
	NoSUID    bool // its file system ignores both
}

// IDMapTools returns the two programs that write id maps with ranges. The error
// is a *MissingToolError.
func IDMapTools() (uid, gid Tool, err error) {
	if uid, err = idMapTool("newuidmap"); err != nil {
		return uid, gid, err
	}
	gid, err = idMapTool("newgidmap")
	return uid, gid, err
}

func idMapTool(name string) (Tool, error) {
	path, err := findTool(name)
	if err != nil {
		return Tool{}, err
	}
	return inspectTool(path)
}

func inspectTool(path string) (Tool, error) {
	t := Tool{Path: path}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return t, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	t.RootOwned = st.Uid == 0 && st.Mode&0o022 == 0
	t.SetUID = st.Uid == 0 && st.Mode&syscall.S_ISUID != 0
	var buf [64]byte
	if n, err := syscall.Getxattr(path, "security.capability", buf[:]); err == nil && n > 0 {
		t.FileCaps = true
	}
	const stNoSUID = 2
	var fs syscall.Statfs_t
	if syscall.Statfs(path, &fs) == nil {
		t.NoSUID = fs.Flags&stNoSUID != 0
	}
	return t, nil
}

// Works tells if the program can write maps for an ordinary user.
func (t *Tool) Works() bool { return t.RootOwned && (t.SetUID || t.FileCaps) && !t.NoSUID }

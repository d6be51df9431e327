package host

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// User is an entry of the user database.
type User struct {
	Name     string // "" if the user has no entry
	UID, GID int
	Gecos    string // full name and more
	Home     string
	Shell    string
}

// Group is an entry of the group database without its members.
type Group struct {
	Name string // "" if the group has no entry
	GID  int
}

const (
	maxFileSize  = 16 << 20 // bytes of passwd, group, subuid, subgid
	maxReplySize = 1 << 20  // bytes that getent or getsubids may print
	askTimeout   = 3 * time.Second
	maxAskKeys   = 256   // groups asked from getent at once
	overflowID   = 65534 // what the kernel shows for ids that are not mapped
)

// ErrTooLarge says that a file of the system is larger than anybody needs.
var ErrTooLarge = errors.New("the file is too large")

// UnknownUserError says that a uid is neither in /etc/passwd nor known to the
// name service.
type UnknownUserError struct {
	UID   int
	Cause error // why the name service did not answer, or nil if it does not know
}

func (e *UnknownUserError) Error() string {
	s := "cannot find user " + strconv.Itoa(e.UID) + " in /etc/passwd or the name service"
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *UnknownUserError) Unwrap() error { return e.Cause }

// database says where to look. Tests look elsewhere.
type database struct {
	passwd, group, subuid, subgid string
	// ask runs a program of the system and returns what it prints.
	ask func(program string, args ...string) ([]byte, error)
}

func system() *database {
	return &database{passwd: "/etc/passwd", group: "/etc/group", subuid: "/etc/subuid", subgid: "/etc/subgid", ask: ask}
}

// CurrentUser returns the entry of the user that this process runs as.
func CurrentUser() (User, error) { return LookupUser(os.Getuid(), os.Getgid()) }

// LookupUser returns the entry of uid. The group is gid, the one that the
// process has, whatever the entry says. With an error, which is an
// *UnknownUserError, the ids of the result are still set.
func LookupUser(uid, gid int) (User, error) { return system().user(uid, gid) }

func (d *database) user(uid, gid int) (User, error) {
	if b, err := readFile(d.passwd); err == nil {
		if u, ok := findUser(b, uid); ok {
			u.GID = gid
			return u, nil
		}
	}
	b, err := d.ask("getent", "passwd", strconv.Itoa(uid))
	if u, ok := findUser(b, uid); ok && err == nil {
		u.GID = gid
		return u, nil
	}
	if isExit(err) {
		err = nil // it answered: no such user
	}
	return User{UID: uid, GID: gid}, &UnknownUserError{UID: uid, Cause: err}
}

// findUser returns the first line of a passwd file that has uid.
func findUser(b []byte, uid int) (User, bool) {
	want := []byte(":" + strconv.Itoa(uid) + ":")
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, want) { // cheap, before the line is split
			continue
		}
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) == 7 && f[0] != "" && f[2] == string(want[1:len(want)-1]) {
			return User{Name: f[0], UID: uid, Gecos: f[4], Home: f[5], Shell: f[6]}, true
		}
	}
	return User{}, false
}

// Groups returns the groups with the given ids, in ascending order. A group
// that neither /etc/group nor the name service knows has no name.
func Groups(gids []int) []Group { return system().groups(slices.Clone(gids)) }

func (d *database) groups(gids []int) []Group {
	slices.Sort(gids)
	gids = slices.Compact(gids)
	list := make([]Group, len(gids))
	for i, gid := range gids {
		list[i].GID = gid
	}
	if b, err := readFile(d.group); err == nil {
		nameGroups(list, b)
	}
	var keys []string
	for _, g := range list {
		// In a user namespace, groups that are not mapped all look like the
		// overflow group: nobody can tell their names.
		if g.Name == "" && g.GID != overflowID && len(keys) < maxAskKeys {
			keys = append(keys, strconv.Itoa(g.GID))
		}
	}
	if len(keys) > 0 {
		// An exit status tells that one of the keys is unknown; the others
		// are printed all the same.
		if b, err := d.ask("getent", append([]string{"group"}, keys...)...); err == nil || isExit(err) {
			nameGroups(list, b)
		}
	}
	return list
}

// GroupsOf returns the groups that u is in, as the name service knows them; the
// group of u comes with them.
func GroupsOf(u User) ([]int, error) {
	b, err := ask("id", "-G", "--", u.Name)
	if err != nil {
		return nil, err
	}
	var gids []int
	for _, word := range strings.Fields(string(b)) {
		gid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		gids = append(gids, gid)
	}
	return gids, nil
}

// LookupGroup returns the number of the group called name.
func LookupGroup(name string) (gid int, ok bool) { return system().groupNamed(name) }

func (d *database) groupNamed(name string) (int, bool) {
	if name == "" || name[0] == '-' || strings.ContainsAny(name, ":\n") {
		return 0, false
	}
	if b, err := readFile(d.group); err == nil {
		if gid, ok := findGroup(b, name); ok {
			return gid, true
		}
	}
	b, err := d.ask("getent", "group", name)
	if err != nil {
		return 0, false
	}
	return findGroup(b, name)
}

// findGroup returns the number in the first line of a group file that has the
// name.
func findGroup(b []byte, name string) (int, bool) {
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) == 4 && f[0] == name {
			gid, err := strconv.Atoi(f[2])
			return gid, err == nil && gid >= 0
		}
	}
	return 0, false
}

// nameGroups gives the groups that have no name yet the one they have in b, a
// group file. The list is sorted.
func nameGroups(list []Group, b []byte) {
	for line := range bytes.Lines(b) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		_, rest, _ = bytes.Cut(rest, []byte(":"))
		id, _, ok := bytes.Cut(rest, []byte(":"))
		gid, err := strconv.Atoi(string(id))
		if !ok || err != nil || len(name) == 0 {
			continue
		}
		i, found := slices.BinarySearchFunc(list, gid, func(g Group, gid int) int { return g.GID - gid })
		if found && list[i].Name == "" {
			list[i].Name = string(name)
		}
	}
}

// readFile reads a file of the system with a limit. It makes the system calls
// itself: opening the first file through package os sets up its poller, which
// takes longer than reading /etc/passwd.
func readFile(path string) ([]byte, error) {
	fail := func(op string, err error) ([]byte, error) { return nil, &os.PathError{Op: op, Path: path, Err: err} }
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return fail("stat", err)
	}
	if st.Size > maxFileSize {
		return fail("read", ErrTooLarge)
	}
	b := make([]byte, 0, st.Size+512)
	for {
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return fail("read", err)
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+n]; len(b) > maxFileSize {
			return fail("read", ErrTooLarge)
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
}

// toolDirs are where programs of the system are looked for.
//
// Security: never in PATH, which the caller controls.
var toolDirs = [...]string{"/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/", "/usr/local/bin/", "/run/wrappers/bin/", "/run/current-system/sw/bin/"}

// MissingToolError says that a program of the system is not installed.
type MissingToolError struct{ Tool string }

func (e *MissingToolError) Error() string {
	return "cannot find the program " + e.Tool + " in the directories of the system"
}

// findTool returns the path of a program of the system.
func findTool(name string) (string, error) {
	for _, dir := range toolDirs {
		if info, err := os.Stat(dir + name); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	return "", &MissingToolError{Tool: name}
}

// ask runs a program of the system with nothing of the caller's environment
// and returns what it prints, also if it exits with a status.
func ask(program string, args ...string) ([]byte, error) {
	path, err := findTool(program)
	if err != nil {
		return nil, err
	}
	return askPath(path, askTimeout, args...)
}

func askPath(path string, timeout time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = timeout / 4 // for children that keep the pipe open
	out := &limited{}
	cmd.Stdout = out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = errors.New(path + " did not answer within " + timeout.String())
	}
	return out.b, err
}

// limited keeps what is written to it up to maxReplySize.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > maxReplySize {
		return 0, ErrTooLarge
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// isExit tells if a program ran and ended by itself with a status other than 0.
func isExit(err error) bool {
	e, ok := errors.AsType[*exec.ExitError](err)
	return ok && e.Exited()
}

package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SubIDChange is what an administrator does with the subordinate ids of a user.
type SubIDChange int

// The changes. Disable keeps the entry with a mark that no program takes for a
// user.
const (
	AddSubIDs SubIDChange = iota
	RemoveSubIDs
	EnableSubIDs
	DisableSubIDs
)

// firstBlock is the highest block of 65536 ids that is given away: the one
// above holds the id that means "none".
const firstBlock = 4294836224

// lockTimeout is how long another program may hold the files.
const lockTimeout = 15 * time.Second

// ErrUnchanged says that a change found things as they should be.
var ErrUnchanged = errors.New("nothing to change")

// ChangeSubIDs changes the entries of u in /etc/subuid and /etc/subgid. Added
// ids are the same block in both files. Either both files change or none: each
// is replaced at once, with its mode and owner, while the lock of the shadow
// tools is held. The error is ErrUnchanged if all was so before, and a
// *NoRangeError if there is no entry to change.
func ChangeSubIDs(c SubIDChange, u User) error { return changeSubIDs("/etc", c, u, lockTimeout) }

func changeSubIDs(dir string, c SubIDChange, u User, timeout time.Duration) (err error) {
	var files [2]subIDFile
	names := [2]string{"subuid", "subgid"}
	unlock, err := lockAccounts(dir, timeout, names[:]...)
	if err != nil {
		return err
	}
	defer unlock()
	for i, n := range names {
		if files[i], err = openSubIDs(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	if err := changeEntries(files[:], c, u); err != nil {
		return err
	}
	for i := range files {
		if err := files[i].write(); err != nil {
			if i > 0 { // the first one must not stay alone
				files[0].lines = files[0].before
				err = errors.Join(err, files[0].write())
			}
			return err
		}
	}
	return nil
}

// subIDFile is one of the two files, by lines.
type subIDFile struct {
	path          string // without links
	info          *syscall.Stat_t
	label         []byte // of SELinux, nil for none
	lines, before []string
}

func openSubIDs(path string) (subIDFile, error) {
	f := subIDFile{path: path}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		f.path = real
	}
	b, err := readFile(f.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return f, nil
	case err != nil:
		return f, err
	}
	f.info = new(syscall.Stat_t)
	if err := syscall.Stat(f.path, f.info); err != nil {
		return f, &os.PathError{Op: "stat", Path: f.path, Err: err}
	}
	label := make([]byte, 256)
	if n, err := syscall.Getxattr(f.path, "security.selinux", label); err == nil {
		f.label = label[:n]
	}
	for line := range bytes.Lines(b) {
		f.lines = append(f.lines, strings.TrimSuffix(string(line), "\n"))
	}
	f.before = append([]string(nil), f.lines...)
	return f, nil
}

// owner returns whose entry a line is, and whether it is disabled.
func subIDOwner(line string) (owner string, off bool) {
	owner, _, ok := strings.Cut(strings.TrimSpace(line), ":")
	if !ok {
		return "", false
	}
	owner, off = strings.CutPrefix(owner, "!")
	return owner, off
}

func (u *User) owns(owner string) bool {
	return owner != "" && (owner == u.Name || owner == strconv.Itoa(u.UID))
}

func changeEntries(files []subIDFile, c SubIDChange, u User) error {
	if c == AddSubIDs {
		return addEntries(files, u)
	}
	changed := false
	for i := range files {
		f := &files[i]
		found := false
		var keep []string
		for _, line := range f.lines {
			owner, off := subIDOwner(line)
			if !u.owns(owner) {
				keep = append(keep, line)
				continue
			}
			found = true
			switch {
			case c == RemoveSubIDs:
				changed = true
				continue
			case c == EnableSubIDs && off:
				line, changed = strings.Replace(line, "!", "", 1), true
			case c == DisableSubIDs && !off:
				line, changed = "!"+strings.TrimSpace(line), true
			}
			keep = append(keep, line)
		}
		if !found {
			return &NoRangeError{File: f.path, User: u.Name}
		}
		f.lines = keep
	}
	if !changed {
		return ErrUnchanged
	}
	return nil
}

// addEntries gives u the highest block that is free in both files.
func addEntries(files []subIDFile, u User) error {
	var taken []Range
	have := 0
	for i := range files {
		found := false
		for _, line := range files[i].lines {
			owner, off := subIDOwner(line)
			f := strings.Split(strings.TrimSpace(line), ":")
			if owner == "" || len(f) != 3 {
				continue
			}
			taken = appendRange(taken, f[1], f[2])
			if u.owns(owner) {
				if off {
					return &NoRangeError{File: files[i].path, User: u.Name, Disabled: true}
				}
				found = true
			}
		}
		if found {
			have++
		}
	}
	if have == len(files) {
		return ErrUnchanged
	}
	block, ok := freeBlock(taken)
	if !ok {
		return errors.New("cannot add ids: no block of 65536 is free")
	}
	line := strconv.Itoa(u.UID) + ":" + strconv.FormatUint(uint64(block), 10) + ":" + strconv.Itoa(usualCount)
	for i := range files {
		owned := false
		for _, l := range files[i].lines {
			owner, _ := subIDOwner(l)
			owned = owned || u.owns(owner)
		}
		if !owned {
			files[i].lines = append(files[i].lines, line)
		}
	}
	return nil
}

// freeBlock returns the highest block that no range touches.
func freeBlock(taken []Range) (uint32, bool) {
	for start := int64(firstBlock); start > 0; start -= usualCount {
		free := true
		for _, r := range taken {
			if int64(r.Start) < start+usualCount && start < int64(r.Start)+int64(r.Count) {
				free = false
				break
			}
		}
		if free {
			return uint32(start), true
		}
	}
	return 0, false
}

// write replaces the file by its lines.
func (f *subIDFile) write() (err error) {
	dir := filepath.Dir(f.path)
	w, err := os.CreateTemp(dir, "."+filepath.Base(f.path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		w.Close()
		if err != nil {
			os.Remove(w.Name())
		}
	}()
	mode, uid, gid := uint32(0o644), 0, 0
	if f.info != nil {
		mode, uid, gid = f.info.Mode&0o7777, int(f.info.Uid), int(f.info.Gid)
	}
	text := strings.Join(f.lines, "\n")
	if text != "" {
		text += "\n"
	}
	if _, err = w.WriteString(text); err != nil {
		return err
	}
	if f.info != nil || os.Geteuid() == 0 {
		if err = w.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err = syscall.Fchmod(int(w.Fd()), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: w.Name(), Err: err}
	}
	if f.label != nil {
		if err = unix.Fsetxattr(int(w.Fd()), "security.selinux", f.label, 0); err != nil {
			return &os.PathError{Op: "label", Path: w.Name(), Err: err}
		}
	}
	if err = w.Sync(); err != nil {
		return err
	}
	if err = os.Rename(w.Name(), f.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockAccounts takes the locks that useradd and its relatives take: a record
// lock on .pwd.lock, and a file NAME.lock with a process id for each name.
func lockAccounts(dir string, timeout time.Duration, names ...string) (unlock func(), err error) {
	lock, err := os.OpenFile(filepath.Join(dir, ".pwd.lock"), os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	var made []string
	release := func() {
		for _, p := range made {
			os.Remove(p)
		}
		lock.Close()
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	end := time.Now().Add(timeout)
	for {
		err = unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("cannot lock %s: another program holds it", lock.Name())
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, n := range names {
		path := filepath.Join(dir, n+".lock")
		for {
			if err = lockFile(path); err == nil {
				made = append(made, path)
				break
			}
			if !errors.Is(err, os.ErrExist) || time.Now().After(end) {
				return nil, err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return release, nil
}

// lockFile makes the file path with the id of this process in it, in one step.
// One that a dead process left is removed.
func lockFile(path string) error {
	mine := strings.TrimSuffix(path, ".lock") + "." + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(mine, []byte(strconv.Itoa(os.Getpid())+"\x00"), 0o600); err != nil {
		return err
	}
	defer os.Remove(mine)
	err := os.Link(mine, path)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	b, rerr := readFile(path)
	pid, perr := strconv.Atoi(strings.TrimSpace(strings.TrimRight(string(b), "\x00")))
	if rerr != nil || perr != nil || pid <= 0 {
		return fmt.Errorf("cannot lock %s: it is held: %w", path, os.ErrExist)
	}
	if syscall.Kill(pid, 0) == nil {
		return fmt.Errorf("cannot lock %s: process %d holds it: %w", path, pid, os.ErrExist)
	}
	os.Remove(path)
	return os.Link(mine, path)
}

// LookupName returns the entry of the user with that name, or with that number
// if it is one. The group is that of the entry.
func LookupName(name string) (User, error) { return system().named(name) }

func (d *database) named(name string) (User, error) {
	if uid, err := strconv.Atoi(name); err == nil && uid >= 0 {
		return d.user(uid, uid)
	}
	if name == "" || name[0] == '-' || strings.ContainsAny(name, ":\n") {
		return User{}, fmt.Errorf("user name %q is not valid", name)
	}
	if b, err := readFile(d.passwd); err == nil {
		if u, ok := findName(b, name); ok {
			return u, nil
		}
	}
	b, err := d.ask("getent", "passwd", name)
	if u, ok := findName(b, name); ok && err == nil {
		return u, nil
	}
	return User{}, fmt.Errorf("cannot find user %q in /etc/passwd or the name service", name)
}

// findName returns the first line of a passwd file that has the name.
func findName(b []byte, name string) (User, bool) {
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) != 7 || f[0] != name {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil && uid >= 0 {
			return User{Name: name, UID: uid, GID: gid, Gecos: f[4], Home: f[5], Shell: f[6]}, true
		}
	}
	return User{}, false
}

package lockfile

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Beat is how often an owner says that it is still there; one that has been
// silent for Silence is gone.
const (
	Beat    = 15 * time.Second
	Silence = 2 * time.Minute
)

// ownerName is the extended attribute of a file in which its owner leaves word.
// Unlike a file beside it, it needs no right on the directory, cannot be left
// behind and does not go along when the file is renamed over.
const ownerName = "user.singularity.owner"

// Owner is the holder of an exclusive lock.
type Owner struct {
	Host  string
	boot  string // tells one run of one kernel from every other
	PID   int
	User  string
	Since time.Time
	seen  time.Time
	ino   uint64 // of the file; a copy of it has another
}

// HeldError says that somebody holds a file. Owner is nil if nobody left word:
// the holders only read, or the file system keeps no attributes.
type HeldError struct {
	Path    string
	Owner   *Owner
	Readers []int // processes of this host that have the file open, if found
}

func (e *HeldError) Error() string {
	text := "cannot use " + e.Path + ": "
	switch {
	case e.Owner != nil:
		o := e.Owner
		return text + "it is in use for writing by process " + strconv.Itoa(o.PID) + " of user " + o.User + " on host " + o.Host +
			" since " + o.Since.Format(time.RFC3339)
	case len(e.Readers) > 0:
		var list []string
		for _, p := range e.Readers {
			list = append(list, strconv.Itoa(p))
		}
		return text + "it is in use by process " + strings.Join(list, ", ")
	}
	return text + "it is in use by another process"
}

// Unwrap returns ErrLocked.
func (e *HeldError) Unwrap() error { return ErrLocked }

// Lease is the exclusive use of a file or directory. Its lock lasts as long as
// any copy of the descriptor, in whatever process.
type Lease struct {
	f    *os.File
	text string // what was left in the file last, "" if it keeps no attributes
	self Owner
}

// Own takes the file or directory f, called path, for a process of user alone,
// and leaves word of that in it. A file must be open for writing.
//
// Where the lock reaches, it decides: whoever held it before is gone, whatever
// was left in the file. But not every network file system carries locks to
// other hosts, so an owner on another host that was heard of lately holds the
// file too.
func Own(f *os.File, path, user string) (*Lease, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		err = lockDir(f)
	} else {
		err = Exclusive(f)
	}
	if err != nil {
		return nil, held(f, path, err)
	}
	l := &Lease{f: f, self: Owner{PID: os.Getpid(), User: clean(user), Since: time.Now(), boot: bootID(), ino: inode(f)}}
	l.self.Host, _ = os.Hostname()
	l.self.Host = clean(l.self.Host)
	if err := free(f, path); err != nil {
		return nil, err
	}
	l.write()
	return l, nil
}

// Share takes the file f, called path, for reading: against owners only. A file
// system without locks is no obstacle.
func Share(f *os.File, path string) error {
	err := Shared(f)
	if errors.Is(err, ErrLocked) {
		return held(f, path, err)
	}
	return free(f, path)
}

// lockDir locks a directory, which cannot be open for writing.
func lockDir(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

func held(f *os.File, path string, err error) error {
	if !errors.Is(err, ErrLocked) {
		return err
	}
	e := &HeldError{Path: path}
	if o := readOwner(f); o != nil && o.ino == inode(f) && (o.boot != bootID() || unix.Kill(o.PID, 0) != unix.ESRCH) {
		e.Owner = o
	} else {
		e.Readers = openBy(f)
	}
	return e
}

// Change takes the file f, called path, for a short change: against owners and
// readers, without leaving word.
func Change(f *os.File, path string) error {
	if err := Exclusive(f); err != nil {
		return held(f, path, err)
	}
	return free(f, path)
}

// free checks that no owner on another host holds f, which is locked here.
func free(f *os.File, path string) error {
	if o := readOwner(f); o != nil && o.ino == inode(f) && o.boot != bootID() && time.Since(o.seen) < Silence {
		return &HeldError{Path: path, Owner: o}
	}
	return nil
}

// Renew says that the owner is still there. It fails if another one has taken
// the file meanwhile, because this one was silent for too long.
func (l *Lease) Renew() error {
	if l.text == "" {
		return nil
	}
	if now := readText(l.f); now != l.text {
		return errors.New("another container has taken it over: this one was silent for too long")
	}
	l.write()
	return nil
}

// Release takes the word out of the file. The lock ends with the last copy of
// the descriptor.
func (l *Lease) Release() {
	if l.text != "" && readText(l.f) == l.text {
		unix.Fremovexattr(int(l.f.Fd()), ownerName)
	}
}

func (l *Lease) write() {
	o := &l.self
	text := strings.Join([]string{o.Host, o.boot, strconv.Itoa(o.PID), o.User, strconv.FormatInt(o.Since.Unix(), 10),
		strconv.FormatInt(time.Now().UnixNano(), 10), strconv.FormatUint(o.ino, 10)}, "\n")
	l.text = ""
	if unix.Fsetxattr(int(l.f.Fd()), ownerName, []byte(text), 0) == nil {
		l.text = text
	}
}

func readText(f *os.File) string {
	b := make([]byte, 1024)
	n, err := unix.Fgetxattr(int(f.Fd()), ownerName, b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// readOwner returns whoever left word in f, nil for nobody.
func readOwner(f *os.File) *Owner { return parseOwner(readText(f)) }

func parseOwner(text string) *Owner {
	w := strings.Split(text, "\n")
	if len(w) != 7 {
		return nil
	}
	o := &Owner{Host: clean(w[0]), boot: w[1], User: clean(w[3])}
	var numbers [4]int64
	for i, k := range []int{2, 4, 5, 6} {
		n, err := strconv.ParseInt(w[k], 10, 64)
		if err != nil || n < 0 {
			return nil
		}
		numbers[i] = n
	}
	if numbers[0] == 0 || numbers[0] > 1<<31-1 {
		return nil
	}
	o.PID, o.Since, o.seen, o.ino = int(numbers[0]), time.Unix(numbers[1], 0), time.Unix(0, numbers[2]), uint64(numbers[3])
	return o
}

// clean makes a word of somebody else fit for a message.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	if s == "" {
		return "unknown"
	}
	return s[:min(len(s), 255)]
}

func inode(f *os.File) uint64 {
	var st unix.Stat_t
	unix.Fstat(int(f.Fd()), &st)
	return st.Ino &^ (1 << 63)
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}

// openBy lists the processes of this host, as far as one may look, that have the
// file of f open.
func openBy(f *os.File) []int {
	var want, st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &want) != nil {
		return nil
	}
	var list []int
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fds, _ := os.ReadDir("/proc/" + d.Name() + "/fd")
		for _, fd := range fds {
			if unix.Stat("/proc/"+d.Name()+"/fd/"+fd.Name(), &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
				list = append(list, pid)
				break
			}
		}
	}
	return list
}

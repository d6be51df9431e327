// Package instance keeps the records of running instances: containers that go
// on in the background and can be joined by their names.
//
// A record is a small JSON file below the user's configuration directory, under
// the name of the host, so that hosts with a common home directory do not mix.
// Its fields are those that other programs read there; what only we need is in
// its field "config".
//
// Trust: a record may have been edited by its owner, or be left over from
// another start of the host. So nothing in it is believed: Open takes the
// process by a pidfd, looks at what the kernel says of that process, and only
// then returns it; who joins or signals uses that descriptor and no number, and
// the kernel checks the rights once more. No path in a record is opened but the
// logs, by their owner.
//
// Files: instance.go (records and names), process.go (the process), json.go
// (the file format).
package instance

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"syscall"
)

// Record is what a file tells of an instance.
type Record struct {
	PID        int // of process 1 of the instance, on the host
	PPID       int // of the process that watches it
	Name       string
	User       string
	Image      string
	Config     Config
	UserNS     bool
	Cgroup     string
	IP         string
	LogErrPath string
	LogOutPath string
}

// Config is what a program that joins needs to know.
type Config struct {
	Start      uint64 // when process 1 began, in clock ticks since the host did
	Home       string // inside
	Fakeroot   bool
	Ranges     bool // subordinate ids are mapped
	FakeOwners bool
	KeepGroups bool // the supplementary groups of the caller
	Init       bool // process 1 is ours
	// What confines the instance confines who joins it.
	Caps       uint64 // capabilities, bit n for number n
	LSM, Label string
	Seccomp    string // path of the profile
	// Landlock tells that writing is confined to the trees Write.
	Landlock bool
	Write    []string
}

// Errors of this package. ErrNone and ErrExists are wrapped with the name.
var (
	ErrNone   = errors.New("no instance found")
	ErrExists = errors.New("the instance already exists")
)

// ValidName tells whether an instance may have the name: it becomes a file name.
func ValidName(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > 200 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '.' && c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// Store is where the records of one user are.
type Store struct {
	dir  string // of the records
	logs string
	uid  int
	user string
}

// Open returns the store of a user below the configuration directory.
func Open(config string, uid int, user string) (*Store, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	at := filepath.Join(filepath.Base(host), filepath.Base(user))
	return &Store{dir: filepath.Join(config, "instances", "sing", at), logs: filepath.Join(config, "instances", "logs", at), uid: uid, user: user}, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name, name+".json") }

// LogPaths returns where the logs of an instance are: output, then errors.
func (s *Store) LogPaths(name string) (out, errs string) {
	at := filepath.Join(s.logs, name)
	return at + ".out", at + ".err"
}

// Logs makes the log files of an instance, or opens them to append, and returns
// them: output, then errors.
func (s *Store) Logs(name string) (out, errs *os.File, err error) {
	defer syscall.Umask(syscall.Umask(0o022)) // a umask of 0777 would shut us out too
	if err := os.MkdirAll(s.logs, 0o700); err != nil {
		return nil, nil, err
	}
	outPath, errPath := s.LogPaths(name)
	open := func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
	}
	if out, err = open(outPath); err != nil {
		return nil, nil, err
	}
	if errs, err = open(errPath); err != nil {
		out.Close()
		return nil, nil, err
	}
	return out, errs, nil
}

// Add writes the record of a new instance. It fails with ErrExists if one of
// that name runs.
func (s *Store) Add(r *Record) error {
	if !ValidName(r.Name) {
		return errors.New(r.Name + " is not a valid instance name")
	}
	dir := filepath.Dir(s.path(r.Name))
	defer syscall.Umask(syscall.Umask(0o022))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp := filepath.Join(dir, "."+strconv.Itoa(os.Getpid()))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	_, err = f.Write(encode(r))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// A link, other than a rename, never replaces the record of another start.
	for range 2 {
		if err = os.Link(temp, s.path(r.Name)); !errors.Is(err, os.ErrExist) {
			return err
		}
		if _, err := s.Get(r.Name); err == nil {
			return ErrExists
		}
	}
	return err
}

// Remove deletes the record of an instance if it is that of process pid.
func (s *Store) Remove(name string, pid int) {
	if r, err := s.read(name); err == nil && r.PID == pid {
		s.delete(name)
	}
}

func (s *Store) delete(name string) {
	os.Remove(s.path(name))
	os.Remove(filepath.Dir(s.path(name)))
}

// Get returns a running instance. A record without one is deleted.
func (s *Store) Get(name string) (*Instance, error) {
	if !ValidName(name) {
		return nil, ErrNone
	}
	r, err := s.read(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	p, err := openProcess(r, s.uid)
	if errors.Is(err, errGone) {
		s.delete(name)
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	return &Instance{Record: *r, fd: p}, nil
}

// List returns the running instances whose names match the pattern, in the
// order of their names. An empty pattern matches all.
func (s *Store) List(pattern string) ([]*Instance, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []*Instance
	for _, n := range names {
		if ok, err := filepath.Match(pattern, n.Name()); err != nil {
			return nil, errors.New("cannot use the pattern " + strconv.Quote(pattern) + ": " + err.Error())
		} else if pattern != "" && !ok {
			continue
		}
		if i, err := s.Get(n.Name()); err == nil {
			out = append(out, i)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// maxRecord bounds a record file, in bytes.
const maxRecord = 64 << 10

func (s *Store) read(name string) (*Record, error) {
	f, err := os.OpenFile(s.path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Security: a record of somebody else could name any process.
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if int(st.Uid) != s.uid || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, errors.New("cannot use " + strconv.Quote(f.Name()) + ": it is not a file of uid " + strconv.Itoa(s.uid))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, err
	}
	r, err := decode(b)
	if err != nil {
		return nil, errors.New("cannot read " + strconv.Quote(f.Name()) + ": " + err.Error())
	}
	if r.Name != name {
		return nil, errors.New("cannot use " + strconv.Quote(f.Name()) + ": it is the record of " + strconv.Quote(r.Name))
	}
	return r, nil
}

package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

// Read returns the content of the file at path; an empty one if there is none.
func Read(path string) (*File, error) { return read(path) }

// Join adds the endpoints of the installation's file to the user's. A system
// endpoint that the user logged in to has an entry in both, with the token in
// the user's.
func (f *File) Join(system *File) error {
	for name, e := range system.Remotes {
		mine := f.Remotes[name]
		if mine != nil && !mine.System {
			return &ClashError{Name: name}
		}
		copied := *e
		copied.System = true
		if mine != nil {
			copied.Token = mine.Token // where a log-in to a system remote is kept
		}
		f.set(name, &copied)
	}
	for name, e := range f.Remotes {
		if e.System && system.Remotes[name] == nil {
			delete(f.Remotes, name) // the installation has it no longer
		}
	}
	for name, e := range f.Remotes {
		if e.System && e.Exclusive {
			f.Active = name
		}
	}
	if f.Remotes[f.Active] == nil {
		f.Active = system.Active
	}
	if f.Remotes[f.Active] == nil {
		f.Active = ""
	}
	return nil
}

// ClashError says that user and installation have different endpoints of a name.
type ClashError struct{ Name string }

func (e *ClashError) Error() string {
	return fmt.Sprintf("a remote %q is in the user's file and in that of the installation", e.Name)
}

func (f *File) set(name string, e *Endpoint) {
	if f.Remotes == nil {
		f.Remotes = map[string]*Endpoint{}
	}
	f.Remotes[name] = e
}

// Add adds the endpoint e.
func (f *File) Add(name string, e *Endpoint) error {
	if err := checkName(name); err != nil {
		return err
	}
	if f.Remotes[name] != nil {
		return fmt.Errorf("there is a remote %q already", name)
	}
	f.set(name, e)
	return nil
}

// Put adds the endpoint e or takes it in place of the one of that name.
func (f *File) Put(name string, e *Endpoint) { f.set(name, e) }

func checkName(name string) error {
	if name == "" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == ':' }) {
		return fmt.Errorf("cannot name a remote %q: want up to 128 characters without blanks, slashes and colons", name)
	}
	return nil
}

// Change reads the file at path, lets edit change it and replaces it whole by one
// of that mode. While it does so, other calls of Change for a file in that
// directory wait. The directory is made if it is missing.
func Change(path string, mode fs.FileMode, edit func(*File) error) error {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to // keep the link that somebody made
	}
	dir := filepath.Dir(path)
	dirMode := fs.FileMode(0o700)
	if mode&0o004 != 0 {
		dirMode = 0o755
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some network file systems have no locks: there, the last change counts.
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err == nil {
		defer syscall.Flock(int(d.Fd()), syscall.LOCK_UN)
	}
	f, err := read(path)
	if err != nil {
		return err
	}
	if err := edit(f); err != nil {
		return err
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	return replace(d, path, text, mode)
}

func replace(dir *os.File, path string, text []byte, mode fs.FileMode) (err error) {
	t, err := os.CreateTemp(dir.Name(), ".remote.yaml-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(t.Name())
			err = fmt.Errorf("cannot write %q: %w", path, err)
		}
	}()
	_, err = t.Write(text)
	if err = errors.Join(err, t.Chmod(mode), t.Sync(), t.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return err
	}
	return dir.Sync()
}

// Package keyring reads and changes the files that keep OpenPGP keys.
//
// A ring is a file in a directory. The user's are private to them; the
// administrator's global one may be read by all and holds public keys. Nothing is
// followed by name twice: the directory is opened, and the files through it.
package keyring

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"singularity/conf"
	"singularity/pgp"
)

// File is a file of keys. Reading one that is not there gives no keys.
type File struct {
	Dir, Name string
	Global    bool             // the administrator's
	Warn      func(msg string) // told of keys that cannot be used; may be nil
}

// Path returns the path of the ring.
func (k File) Path() string { return filepath.Join(k.Dir, k.Name) }

func (k File) warn(msg string) {
	if k.Warn != nil {
		k.Warn(msg)
	}
}

// Public and Secret return the user's own rings in the directory dir.
func Public(dir string, warn func(string)) File {
	return File{Dir: dir, Name: "pgp-public", Warn: warn}
}
func Secret(dir string, warn func(string)) File {
	return File{Dir: dir, Name: "pgp-secret", Warn: warn}
}

// SiteDir is the directory of the administrator's files.
func SiteDir() string { return conf.Dir() }

// Global returns the administrator's ring in the directory dir, usually SiteDir,
// which holds public keys only.
func Global(dir string, warn func(string)) File {
	return File{Dir: dir, Name: "global-pgp-public", Global: true, Warn: warn}
}

// openDir opens the directory of the ring and tightens its mode.
//
// Security: keys are trust. A directory that somebody else owns, or a file
// that is a link to one, could make us trust or overwrite what is not ours.
func (k File) openDir() (*os.File, error) {
	d, err := os.OpenFile(k.Dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil || k.Global {
		return d, err
	}
	if err := k.own(d, 0o700); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// own makes sure that f is ours and nobody else's to read.
func (k File) own(f *os.File, want fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%q belongs to uid %d, not to you", f.Name(), st.Uid)
	}
	if mode := fs.FileMode(st.Mode & 0o777); mode != want && mode&0o077 != 0 {
		k.warn(fmt.Sprintf("mode of %s was %04o, set to %04o", f.Name(), mode, want))
		return f.Chmod(want)
	}
	return nil
}

// openAt opens the file name in d without following a link.
func (k File) openAt(d *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(k.Dir, name)
	fd, err := unix.Openat(int(d.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(k.mode()))
	if err == unix.ELOOP {
		return nil, fmt.Errorf("%q is a symbolic link", path)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (k File) mode() fs.FileMode {
	if k.Global {
		return 0o644
	}
	return 0o600
}

// Read returns the ring. Keys in it that cannot be used become warnings.
func (k File) Read() (*pgp.Ring, error) {
	data, err := k.Raw()
	if err != nil {
		return nil, err
	}
	return k.parse(data)
}

// Raw returns the ring as it is in the file.
func (k File) Raw() (pgp.RawRing, error) {
	d, err := k.openDir()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use keyring: %w", err)
	}
	defer d.Close()
	return k.rawIn(d)
}

func (k File) rawIn(d *os.File) (pgp.RawRing, error) {
	f, err := k.openAt(d, k.Name, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use keyring: %w", err)
	}
	defer f.Close()
	if err := k.check(f); err != nil {
		return nil, fmt.Errorf("cannot use keyring: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, pgp.MaxRingSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read keyring: %w", err)
	}
	return data, nil
}

func (k File) parse(data pgp.RawRing) (*pgp.Ring, error) {
	r, err := pgp.ParseRing(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read keyring %q: %w", k.Path(), err)
	}
	k.warnOf(r.Problems())
	return r, nil
}

// maxWarnings bounds the warnings about one ring.
const maxWarnings = 10

func (k File) warnOf(list []pgp.Problem) {
	for i, p := range list {
		if i == maxWarnings {
			k.warn(fmt.Sprintf("%s: %d more entries of the keyring are not usable", k.Path(), len(list)-i))
			return
		}
		k.warn(k.Path() + ": " + p.Error())
	}
}

// check refuses a ring file that others may have written.
func (k File) check(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%q is not a regular file", f.Name())
	}
	if !k.Global {
		return k.own(f, 0o600)
	}
	// An installation of one's own has its owner's ring for the global one.
	if (st.Uid != 0 && int(st.Uid) != os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("%q must belong to root and be writable by nobody else", f.Name())
	}
	return nil
}

// Change lets edit alter the ring. The new ring replaces the old one at once
// and only when it is on disk, so that a crash leaves one or the other; a
// lock keeps others from changing it meanwhile.
func (k File) Change(edit func(*pgp.Ring) error) error {
	if !k.Global {
		if err := os.MkdirAll(k.Dir, 0o700); err != nil {
			return fmt.Errorf("cannot make the directory of the keyring: %w", err)
		}
	}
	d, err := k.openDir()
	if err != nil {
		return fmt.Errorf("cannot change keyring: %w", err)
	}
	defer d.Close()
	lock, err := k.openAt(d, "."+k.Name+".lock", unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return fmt.Errorf("cannot lock keyring: %w", err)
	}
	defer lock.Close() // drops the lock
	for {
		err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("cannot lock keyring %q: %w", k.Path(), err)
		}
	}
	data, err := k.rawIn(d)
	if err != nil {
		return err
	}
	r, err := k.parse(data)
	if err != nil {
		return err
	}
	if err := edit(r); err != nil {
		return err
	}
	if err := k.replace(d, r.Bytes()); err != nil {
		return fmt.Errorf("cannot write keyring %q: %w", k.Path(), err)
	}
	return nil
}

// replace makes data the content of the ring in d. The caller has the lock.
func (k File) replace(d *os.File, data []byte) error {
	temp := "." + k.Name + ".new"
	// A process that was killed may have left one.
	if err := unix.Unlinkat(int(d.Fd()), temp, 0); err != nil && err != unix.ENOENT {
		return err
	}
	f, err := k.openAt(d, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(k.mode()), f.Sync(), f.Close())
	if err == nil {
		err = unix.Renameat(int(d.Fd()), temp, int(d.Fd()), k.Name)
	}
	if err != nil {
		unix.Unlinkat(int(d.Fd()), temp, 0)
		return err
	}
	return d.Sync()
}

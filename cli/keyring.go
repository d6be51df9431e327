package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/conf"
	"singularity/pgp"
)

// keyring is a file of keys. Reading one that is not there gives no keys.
type keyring struct {
	dir, name string
	global    bool
	log       *action.Log
}

func (k keyring) path() string { return filepath.Join(k.dir, k.name) }

// localKeyring is the user's own ring of public or secret keys.
func localKeyring(log *action.Log, secret bool) (keyring, error) {
	dir, err := keyringDir(os.Getenv)
	name := "pgp-public"
	if secret {
		name = "pgp-secret"
	}
	return keyring{dir: dir, name: name, log: log}, err
}

// globalKeyring is the administrator's ring, which holds public keys only.
func globalKeyring(log *action.Log) keyring {
	return keyring{dir: conf.Prefix + "/etc/singularity", name: "global-pgp-public", global: true, log: log}
}

// keyringDir returns the directory of the user's rings.
func keyringDir(getenv func(string) string) (string, error) {
	if dir := getenv("SINGULARITY_SYPGPDIR"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := action.ConfigDir(getenv)
	return filepath.Join(dir, "sypgp"), err
}

// openDir opens the directory of the ring and tightens its mode.
//
// Security: keys are trust. A directory that somebody else owns, or a file
// that is a link to one, could make us trust or overwrite what is not ours.
func (k keyring) openDir() (*os.File, error) {
	d, err := os.OpenFile(k.dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil || k.global {
		return d, err
	}
	if err := k.own(d, 0o700); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// own makes sure that f is ours and nobody else's to read.
func (k keyring) own(f *os.File, want fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%q belongs to uid %d, not to you", f.Name(), st.Uid)
	}
	if mode := fs.FileMode(st.Mode & 0o777); mode != want && mode&0o077 != 0 {
		k.log.Warning(fmt.Sprintf("mode of %s was %04o, set to %04o", f.Name(), mode, want))
		return f.Chmod(want)
	}
	return nil
}

// openAt opens the file name in d without following a link.
func (k keyring) openAt(d *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(k.dir, name)
	fd, err := unix.Openat(int(d.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(k.mode()))
	if err == unix.ELOOP {
		return nil, fmt.Errorf("%q is a symbolic link", path)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (k keyring) mode() fs.FileMode {
	if k.global {
		return 0o644
	}
	return 0o600
}

// read returns the ring. Keys in it that cannot be used become warnings.
func (k keyring) read() (*pgp.Ring, error) {
	d, err := k.openDir()
	if errors.Is(err, fs.ErrNotExist) {
		return pgp.ParseRing(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use keyring: %w", err)
	}
	defer d.Close()
	return k.readIn(d)
}

func (k keyring) readIn(d *os.File) (*pgp.Ring, error) {
	f, err := k.openAt(d, k.name, unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return pgp.ParseRing(nil)
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
	r, err := pgp.ParseRing(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read keyring %q: %w", k.path(), err)
	}
	for _, p := range r.Problems() {
		k.log.Warning(k.path() + ": " + p.Error())
	}
	return r, nil
}

// check refuses a ring file that others may have written.
func (k keyring) check(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%q is not a regular file", f.Name())
	}
	if !k.global {
		return k.own(f, 0o600)
	}
	// An installation of one's own has its owner's ring for the global one.
	if (st.Uid != 0 && int(st.Uid) != os.Geteuid()) || st.Mode&0o022 != 0 {
		return fmt.Errorf("%q must belong to root and be writable by nobody else", f.Name())
	}
	return nil
}

// change lets edit alter the ring. The new ring replaces the old one at once
// and only when it is on disk, so that a crash leaves one or the other; a
// lock keeps others from changing it meanwhile.
func (k keyring) change(edit func(*pgp.Ring) error) error {
	if !k.global {
		if err := os.MkdirAll(k.dir, 0o700); err != nil {
			return fmt.Errorf("cannot make the directory of the keyring: %w", err)
		}
	}
	d, err := k.openDir()
	if err != nil {
		return k.explain(fmt.Errorf("cannot change keyring: %w", err))
	}
	defer d.Close()
	lock, err := k.openAt(d, "."+k.name+".lock", unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return k.explain(fmt.Errorf("cannot lock keyring: %w", err))
	}
	defer lock.Close() // drops the lock
	for {
		err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("cannot lock keyring %q: %w", k.path(), err)
		}
	}
	r, err := k.readIn(d)
	if err != nil {
		return err
	}
	if err := edit(r); err != nil {
		return err
	}
	if err := k.replace(d, r.Bytes()); err != nil {
		return k.explain(fmt.Errorf("cannot write keyring %q: %w", k.path(), err))
	}
	return nil
}

func (k keyring) explain(err error) error {
	if k.global && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist)) {
		return action.Fatal(err, "the global keyring belongs to the administrator of this installation")
	}
	return err
}

// replace makes data the content of the ring in d. The caller has the lock.
func (k keyring) replace(d *os.File, data []byte) error {
	temp := "." + k.name + ".new"
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
		err = unix.Renameat(int(d.Fd()), temp, int(d.Fd()), k.name)
	}
	if err != nil {
		unix.Unlinkat(int(d.Fd()), temp, 0)
		return err
	}
	return d.Sync()
}

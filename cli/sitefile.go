package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/conf"
)

// readSiteFile returns the text of a file of the administrator, and instead if
// there is none.
func readSiteFile(path, instead string) (string, error) {
	f, err := conf.OpenSite(path)
	if errors.Is(err, os.ErrNotExist) {
		return instead, nil
	}
	if err != nil {
		return "", action.OwnerHint(fmt.Errorf("cannot read %q: %w", path, cause(err)))
	}
	defer f.Close()
	const most = 1 << 20
	text, err := conf.ReadAll(f, most)
	if err != nil {
		return "", fmt.Errorf("cannot read %q: %w", path, err)
	}
	return string(text), nil
}

// cause takes a path off an error that names it again.
func cause(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}

// changeSiteFile replaces a file of the administrator by what edit makes of its
// text: at once, with mode 0644, while no other call of ours changes a file of
// that directory. A file that is changed in nothing is left alone.
func changeSiteFile(verb, path, instead string, edit func(old string) (string, error)) error {
	return inSiteDir(verb, path, func(dir *os.File) error {
		old, err := readSiteFile(path, instead)
		if err != nil {
			return err
		}
		text, err := edit(old)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(path); err == nil && text == old {
			return nil
		}
		return writeSiteFile(path, text, dir)
	})
}

// inSiteDir calls do with the directory of the file at path, which the caller may
// change, while no other call of ours changes a file there.
func inSiteDir(verb, path string, do func(dir *os.File) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("cannot change %q: %w", path, cause(err))
	}
	defer dir.Close()
	if err := mayChange(verb, path, dir); err != nil {
		return err
	}
	if err := lockDir(dir); err != nil {
		return fmt.Errorf("cannot lock %q: %w", dir.Name(), err)
	}
	return do(dir)
}

func writeSiteFile(path, text string, dir *os.File) error {
	if err := replaceFile(path, text, dir); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, cause(err))
	}
	return nil
}

// mayChange tells why the caller may not change the file at path, in dir.
//
// Security: a link is never followed, so that root does not write where somebody
// else says; and what others could change already is not made better by it.
func mayChange(verb, path string, dir *os.File) error {
	if unix.Faccessat(int(dir.Fd()), ".", unix.W_OK, unix.AT_EACCESS) != nil {
		return action.Fatal(fmt.Errorf("%q command requires root privileges: uid %d may not write to %s", "singularity "+verb, os.Geteuid(), dir.Name()), "run it with sudo")
	}
	if err := conf.CheckSite(path); err != nil {
		return action.OwnerHint(err)
	}
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return fmt.Errorf("cannot change %q: it is not a regular file", path)
	}
	return nil
}

// lockDir waits until no other call holds the directory.
func lockDir(dir *os.File) error {
	for {
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// replaceFile puts a new file in the place of path, in dir. After a crash there is
// the old one or the new one, whole.
func replaceFile(path, text string, dir *os.File) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = dir.Sync()
	}
	return err
}

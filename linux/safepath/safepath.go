// Package safepath opens paths inside a directory whose content somebody else
// wrote, such as the root file system of an image.
//
// A directory and a path go in; an open file comes out that lies below that
// directory, whatever its symbolic links say: an absolute link starts at the
// directory again, ".." stops at it, and the kernel's magic links of /proc are
// not followed. The kernel does the walk (openat2, Linux 5.6); an older one, or
// one whose filter forbids the call, gets the same walk name by name.
//
// It never changes anything but by Mkdir and by O_CREAT in Open, and never
// looks at the host's root. Paths may be of any form; names come from a person,
// links from the image.
package safepath

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLinks = 40 // as many symbolic links in one path as the kernel follows
	maxTries = 64 // of a walk that a rename elsewhere disturbed
)

// Open opens name below root with the flags and the mode of open(2), following
// symbolic links inside root only. O_CLOEXEC is added.
func Open(root *os.File, name string, flags int, mode uint32) (*os.File, error) {
	rel := clean(name)
	fd, err := OpenFD(int(root.Fd()), rel, flags, mode)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(root.Name(), rel)), nil
}

// OpenFD is Open with descriptors, for a relative name whose dots are resolved after
// links are, as the kernel does it.
func OpenFD(root int, rel string, flags int, mode uint32) (int, error) {
	fd, err := openat2(root, rel, flags|unix.O_CLOEXEC, mode)
	if err == unix.ENOSYS || err == unix.EPERM {
		return walk(root, rel, flags|unix.O_CLOEXEC, mode)
	}
	return fd, err
}

// Mkdir makes the directory name below root and every parent that is missing,
// with mode perm whatever the umask, and opens it. Existing directories, also
// through links, stay as they are.
func Mkdir(root *os.File, name string, perm uint32) (*os.File, error) {
	at, err := Open(root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	done := ""
	for _, part := range strings.Split(clean(name), "/") {
		if err != nil {
			return nil, err
		}
		done = path.Join(done, part)
		var next *os.File
		next, err = Open(root, done, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			next, err = mkdir(at, part, perm)
		}
		at.Close()
		at = next
	}
	return at, err
}

// mkdir makes one directory in the open directory dir.
func mkdir(dir *os.File, name string, perm uint32) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &fs.PathError{Op: "mkdir", Path: path.Join(dir.Name(), name), Err: err}
	}
	if err := unix.Mkdirat(int(dir.Fd()), name, perm); err != nil {
		return fail(err) // EEXIST: a link that leads nowhere
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	if err := unix.Fchmod(fd, perm); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

// clean makes name relative to the root; "." is the root itself. Dots are
// resolved as text, before links are.
func clean(name string) string {
	return path.Clean("./" + strings.TrimLeft(path.Clean("/"+name), "/"))
}

func openat2(root int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for range maxTries {
		fd, err := unix.Openat2(root, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// walk is openat2 for kernels without it. It holds the directory it has
// reached by descriptor and takes one name at a time without following it.
func walk(root int, name string, flags int, mode uint32) (int, error) {
	w := walker{root: root}
	defer w.close()
	if err := w.reset(); err != nil {
		return -1, err
	}
	rest := strings.Split(name, "/")
	for links := 0; ; {
		part := rest[0]
		rest = rest[1:]
		last := len(rest) == 0
		if part == "" || part == "." || part == ".." {
			w.dots(part)
			if last {
				return unix.Openat(w.top(), ".", flags&^(unix.O_CREAT|unix.O_EXCL), 0)
			}
			continue
		}
		target, isLink, err := readlink(w.top(), part)
		if err != nil && !(last && err == unix.ENOENT) {
			return -1, err
		}
		follow := isLink && !(last && flags&(unix.O_NOFOLLOW|unix.O_EXCL) != 0)
		switch {
		case follow:
			if links++; links > maxLinks {
				return -1, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				if err := w.reset(); err != nil {
					return -1, err
				}
			}
			rest = append(strings.Split(target, "/"), rest...)
		case last:
			return unix.Openat(w.top(), part, flags|unix.O_NOFOLLOW, mode)
		default:
			if err := w.enter(part); err != nil {
				return -1, err
			}
		}
	}
}

// walker is the stack of directories from the root to where a walk is.
type walker struct {
	root int
	open []int
}

func (w *walker) top() int { return w.open[len(w.open)-1] }

func (w *walker) close() {
	for _, fd := range w.open {
		unix.Close(fd)
	}
	w.open = nil
}

func (w *walker) reset() error {
	w.close()
	fd, err := unix.Openat(w.root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		w.open = []int{fd}
	}
	return err
}

// dots moves up for "..", never above the root.
func (w *walker) dots(part string) {
	if part == ".." && len(w.open) > 1 {
		unix.Close(w.top())
		w.open = w.open[:len(w.open)-1]
	}
}

func (w *walker) enter(name string) error {
	fd, err := unix.Openat(w.top(), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		w.open = append(w.open, fd)
	}
	return err
}

// readlink returns the target of name if it is a symbolic link.
func readlink(dir int, name string) (string, bool, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	switch err {
	case nil:
		return string(b[:n]), true, nil
	case unix.EINVAL:
		return "", false, nil
	}
	return "", false, err
}

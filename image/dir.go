package image

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/safepath"
)

// maxDirNames bounds the names that ReadDir returns.
const maxDirNames = 1 << 16

// Dir is the tree of a sandbox: a directory of the host.
type Dir struct {
	root int // descriptor of the directory
}

// OpenDir opens the directory called path as a tree.
func OpenDir(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{root: fd}, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return unix.Close(d.root) }

// ReadFile returns the content of a regular file of at most limit bytes.
func (d *Dir) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := d.open(path, unix.S_IFREG)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("cannot read %q: it is larger than %d bytes", path, limit)
	}
	return data, nil
}

// ReadDir returns the names in a directory, sorted.
func (d *Dir) ReadDir(path string) ([]string, error) {
	f, err := d.open(path, unix.S_IFDIR)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxDirNames + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(names) > maxDirNames {
		return nil, fmt.Errorf("cannot list %q: more than %d names", path, maxDirNames)
	}
	slices.Sort(names)
	return names, nil
}

// Stat tells what path is, after following links.
func (d *Dir) Stat(path string) (Stat, error) {
	fd, err := d.resolve(path)
	if err != nil {
		return Stat{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Stat{}, err
	}
	return Stat{Mode: fileMode(st.Mode), UID: st.Uid, GID: st.Gid, Size: st.Size}, nil
}

// open opens path for reading if its type is kind, one of unix.S_IF*.
//
// Security: the type is checked on a descriptor that cannot be read from, so
// that a device or a pipe in the image is never opened; the way through /proc
// reopens the very file that was checked.
func (d *Dir) open(path string, kind uint32) (*os.File, error) {
	fd, err := d.resolve(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != kind {
		what := "a regular file"
		if kind == unix.S_IFDIR {
			what = "a directory"
		}
		return nil, fmt.Errorf("cannot read %q: it is not %s", path, what)
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		if cause, ok := errors.AsType[*fs.PathError](err); ok {
			cause.Path = path
		}
		return nil, err
	}
	return f, nil
}

// resolve returns a descriptor of path that only names it.
//
// Security: the kernel resolves links and dots as if the sandbox were the root,
// even while somebody renames directories in it.
func (d *Dir) resolve(path string) (int, error) {
	rel := cmp.Or(strings.TrimLeft(path, "/"), ".")
	fd, err := safepath.OpenFD(d.root, rel, unix.O_PATH, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

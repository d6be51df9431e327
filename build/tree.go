package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the directories within each other that are walked; each
// holds a descriptor.
const maxDepth = 500

// walkTree calls visit for everything below root, directories before their
// content, in the order of names. dir is the open directory that holds name;
// at is the path from root. An error of visit ends the walk; fs.SkipDir for a
// directory leaves its content out.
//
// Security: no link is followed, so the walk stays in the tree even if somebody
// changes it meanwhile.
func walkTree(root *os.File, visit func(dir *os.File, name, at string, st *unix.Stat_t) error) error {
	return walkDir(root, "", 0, visit)
}

func walkDir(dir *os.File, at string, depth int, visit func(*os.File, string, string, *unix.Stat_t) error) error {
	if depth > maxDepth {
		return fmt.Errorf("cannot read %q: more than %d directories within each other", at, maxDepth)
	}
	names, err := sortedNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "stat", Path: path.Join(at, name), Err: err}
		}
		err := visit(dir, name, path.Join(at, name), &st)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || err != nil {
			if errors.Is(err, fs.SkipDir) {
				continue
			}
			if err != nil {
				return err
			}
			continue
		}
		sub, err := openAt(dir, name, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = walkDir(sub, path.Join(at, name), depth+1, visit)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// sortedNames returns the names in an open directory.
func sortedNames(dir *os.File) ([]string, error) {
	list, err := openAt(dir, ".", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	names, err := list.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// openAt opens name in dir for reading, never through a link and without
// waiting for the other end of a FIFO.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

// readLinkAt returns the target of the link name in dir.
func readLinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	return string(buf[:max(n, 0)]), err
}

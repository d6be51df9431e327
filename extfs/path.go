package extfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Errors of path resolution. A name that does not exist is fs.ErrNotExist.
var (
	ErrNotDir = errors.New("not a directory")
	ErrLoop   = errors.New("too many symbolic links")
)

const (
	maxLinks    = 40        // symbolic links on one way, as in the kernel
	maxPathSize = 1 << 16   // bytes of a path before links
	maxScan     = 256 << 20 // bytes of directories that one Walk looks through
	maxDepth    = 1024      // directories below each other that Tree enters
	maxHeld     = 4 << 20   // names that Tree holds at a time
)

// Walk finds the file at path, which begins at the root of the image with or
// without a slash. Symbolic links and ".." are resolved inside the image, at
// most 40 links; the last one only if followLast is set or a slash follows it.
func (f *FS) Walk(path string, followLast bool) (*Inode, error) {
	in, err := f.walk(path, followLast)
	if err != nil {
		return nil, fmt.Errorf("cannot find %q in the image: %w", path, err)
	}
	return in, nil
}

func (f *FS) walk(path string, followLast bool) (*Inode, error) {
	if len(path) > maxPathSize {
		return nil, ErrLimit
	}
	root, err := f.Inode(rootInode)
	if err != nil {
		return nil, err
	}
	way, links, scanned := []*Inode{root}, 0, int64(0) // the directories from the root down
	for rest := path; rest != ""; {
		name, after, slash := strings.Cut(rest, "/")
		rest = after
		switch name {
		case "", ".":
			continue
		case "..":
			// Security: the parent is the one we came from, not what the
			// directory claims.
			way = way[:max(1, len(way)-1)]
			continue
		}
		// Security: links of thousands of names through a huge directory that
		// contains itself would keep us busy for hours.
		dir := way[len(way)-1]
		if scanned += dir.Size; scanned > maxScan {
			return nil, ErrLimit
		}
		in, err := f.child(dir, name)
		if err != nil {
			return nil, err
		}
		if in.IsSymlink() && (slash || followLast) {
			if links++; links > maxLinks {
				return nil, ErrLoop
			}
			target, err := f.Readlink(in)
			if err != nil {
				return nil, err
			}
			if target[0] == '/' {
				way = way[:1]
			}
			if slash {
				target += "/" + rest
			}
			rest = target
			continue
		}
		if slash && !in.IsDir() {
			return nil, ErrNotDir
		}
		way = append(way, in)
	}
	return way[len(way)-1], nil
}

// child returns the inode of a name in a directory.
func (f *FS) child(dir *Inode, name string) (*Inode, error) {
	n, ok, err := f.Lookup(dir, name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fs.ErrNotExist
	}
	return f.Inode(n)
}

// ReadFile returns the content of the regular file at path; links are
// followed. More than limit bytes is ErrLimit.
func (f *FS) ReadFile(path string, limit int64) ([]byte, error) {
	in, err := f.Walk(path, true)
	if err != nil {
		return nil, err
	}
	if !in.IsRegular() {
		return nil, fmt.Errorf("cannot read %q in the image: not a regular file", path)
	}
	if in.Size > limit {
		return nil, fmt.Errorf("cannot read %q in the image: %w: %d bytes, at most %d are read", path, ErrLimit, in.Size, limit)
	}
	b := make([]byte, in.Size)
	if len(b) == 0 {
		return b, nil
	}
	if _, err := f.ReadAt(in, b, 0); err != nil {
		return nil, fmt.Errorf("cannot read %q in the image: %w", path, err)
	}
	return b, nil
}

// Tree calls visit for each file below the root, directories before what is in
// them, in stored order; path has no leading slash and the root is ".". It
// stops at the first error. A directory that has two names, which a loop would
// need, is ErrCorrupt.
func (f *FS) Tree(visit func(path string, in *Inode) error) error {
	root, err := f.Inode(rootInode)
	if err != nil {
		return err
	}
	if err := visit(".", root); err != nil {
		return err
	}
	t := tree{f: f, visit: visit, seen: map[uint32]bool{rootInode: true}}
	return t.dir("", root, 1)
}

// tree is the state of one call of Tree.
type tree struct {
	f     *FS
	visit func(string, *Inode) error
	seen  map[uint32]bool // directories
	size  uint64          // bytes of all of them
	held  int             // names of the directories that are being visited
}

func (t *tree) dir(prefix string, dir *Inode, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d directories below each other", ErrLimit, maxDepth)
	}
	// Security: directories that share blocks could hold billions of names.
	if t.size += uint64(dir.Size); t.size > t.f.sb.Blocks*uint64(t.f.sb.BlockSize) {
		return corrupt("the directories hold more bytes than the image")
	}
	list, err := t.f.ReadDir(dir)
	if err != nil {
		return err
	}
	if t.held += len(list); t.held > maxHeld {
		return fmt.Errorf("%w: more than %d names on one way", ErrLimit, maxHeld)
	}
	defer func() { t.held -= len(list) }()
	for _, e := range list {
		in, err := t.f.Inode(e.Inode)
		if err != nil {
			return err
		}
		if err := t.visit(prefix+e.Name, in); err != nil {
			return err
		}
		if !in.IsDir() {
			continue
		}
		if t.seen[in.Number] {
			return corrupt("directory inode %d has two names", in.Number)
		}
		t.seen[in.Number] = true
		if err := t.dir(prefix+e.Name+"/", in, depth+1); err != nil {
			return err
		}
	}
	return nil
}

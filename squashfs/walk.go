package squashfs

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
)

const (
	maxPath  = 4096 // bytes of a path, as PATH_MAX
	maxLinks = 40   // symbolic links followed in one walk
)

// Walk finds the inode of a path inside the image. Links are resolved as if the
// image were the root directory, at most 40 of them, so ".." and absolute
// targets never leave it; followLast says whether a link at the end is
// followed too. A name that is missing gives an error that wraps
// fs.ErrNotExist, a component that is no directory syscall.ENOTDIR, too many
// links syscall.ELOOP.
func (r *Reader) Walk(path string, followLast bool) (*Inode, error) {
	refuse := func(err error) (*Inode, error) {
		return nil, fmt.Errorf("cannot find %q in the image: %w", path[:min(len(path), maxPath)], err)
	}
	if len(path) > maxPath {
		return refuse(syscall.ENAMETOOLONG)
	}
	stack := []uint64{r.Root()} // the directories from the root to here
	in, err := r.Inode(r.Root())
	if err != nil {
		return nil, err
	}
	rest, links := path, 0
	for {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return in, nil
		}
		name := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			name, rest = rest[:i], rest[i:]
		} else {
			rest = ""
		}
		if !in.IsDir() {
			return refuse(syscall.ENOTDIR)
		}
		if name == "." || name == ".." {
			if name == ".." && len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			if in, err = r.Inode(stack[len(stack)-1]); err != nil {
				return nil, err
			}
			continue
		}
		ref, ok, err := r.Lookup(stack[len(stack)-1], name)
		if err != nil {
			return nil, err
		}
		if !ok {
			return refuse(fs.ErrNotExist)
		}
		if in, err = r.Inode(ref); err != nil {
			return nil, err
		}
		switch {
		case in.IsDir():
			stack = append(stack, ref)
		case in.IsSymlink() && (followLast || rest != ""):
			target, err := r.Readlink(in)
			if err != nil {
				return nil, err
			}
			if links++; links > maxLinks || len(target)+len(rest) > maxPath {
				return refuse(syscall.ELOOP)
			}
			if target[0] == '/' {
				stack = stack[:1]
			}
			rest = target + rest
			if in, err = r.Inode(stack[len(stack)-1]); err != nil {
				return nil, err
			}
		}
	}
}

// ReadFile returns the content of a regular file, with links followed inside
// the image. A file of more than limit bytes is an error.
func (r *Reader) ReadFile(path string, limit int64) ([]byte, error) {
	in, err := r.Walk(path, true)
	if err != nil {
		return nil, err
	}
	if !in.IsRegular() {
		return nil, fmt.Errorf("cannot read %q in the image: not a regular file", path)
	}
	if in.Size > limit {
		return nil, fmt.Errorf("cannot read %q in the image: it has %d bytes, at most %d are allowed", path, in.Size, limit)
	}
	b := make([]byte, in.Size)
	if n, err := r.ReadAt(in, b, 0); err != nil && !(err == io.EOF && n == len(b)) {
		return nil, err
	}
	return b, nil
}

// Each calls fn for every file below the root, directories before what is in
// them, in the order of names. The root itself has the path "". An error of fn
// ends the walk; fs.SkipDir for a directory leaves its content out.
//
// Security: a directory that is reached twice is ErrCorrupt, because a cycle
// would keep the walk going for ever; so is a path over 4096 bytes.
func (r *Reader) Each(fn func(path string, in *Inode) error) error {
	return r.each("", r.Root(), fn, map[uint64]struct{}{})
}

func (r *Reader) each(path string, ref uint64, fn func(string, *Inode) error, seen map[uint64]struct{}) error {
	in, err := r.Inode(ref)
	if err != nil {
		return err
	}
	if !in.IsDir() {
		return fn(path, in)
	}
	if _, twice := seen[ref]; twice {
		return corrupt("directory %q is in the tree twice", path)
	}
	seen[ref] = struct{}{}
	if err := fn(path, in); err != nil {
		if err == fs.SkipDir {
			return nil
		}
		return err
	}
	d, err := r.ReadDir(ref)
	if err != nil {
		return err
	}
	for i := range d {
		sub := d[i].Name
		if path != "" {
			sub = path + "/" + sub
		}
		if len(sub) > maxPath {
			return corrupt("path %q... has over %d bytes", sub[:64], maxPath)
		}
		if err := r.each(sub, d[i].Ref, fn, seen); err != nil {
			return err
		}
	}
	return nil
}

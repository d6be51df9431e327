package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/linux/safepath"
)

// maxGlob bounds the names that a pattern may stand for.
const maxGlob = 1 << 20

// globTree returns the paths below root that a pattern stands for, in order.
// Links are followed inside root only.
func globTree(root *os.File, pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	found := []string{"/"}
	for _, part := range strings.Split(path.Clean("/"+pattern), "/") {
		if part == "" {
			continue
		}
		var next []string
		for _, dir := range found {
			names, err := matching(root, dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, names...)
			if len(next) > maxGlob {
				return nil, fmt.Errorf("the pattern stands for more than %d names", maxGlob)
			}
		}
		found = next
	}
	return found, nil
}

// matching returns the names in a directory that match a pattern without
// slashes, each as a path.
func matching(root *os.File, dir, pattern string) ([]string, error) {
	f, err := safepath.Open(root, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, nil // what is no directory has no names
	}
	defer f.Close()
	if !strings.ContainsAny(pattern, `*?[\`) {
		var st unix.Stat_t
		if unix.Fstatat(int(f.Fd()), pattern, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return nil, nil
		}
		return []string{path.Join(dir, pattern)}, nil
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list []string
	for _, n := range names {
		if ok, _ := path.Match(pattern, n); ok {
			list = append(list, path.Join(dir, n))
		}
	}
	return list, nil
}

// copyStage copies src, a path in another stage, to dest. If src is a link what
// it leads to is copied, inside that stage; links below stay links. Owners,
// times and extended attributes are kept.
func (c *copier) copyStage(stage *os.File, src, dest string) error {
	f, err := safepath.Open(stage, src, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	f.Close()
	name := src
	for range 40 { // as many links as the kernel follows
		target, ok := readLink(stage, name)
		if !ok {
			break
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		name = path.Clean("/" + target)
	}
	dir, err := safepath.Open(stage, path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	base := path.Base(name)
	if name == "/" {
		base = "."
	}
	return c.stageEntry(dir, base, dest, "", 0)
}

// stageEntry copies name in the open directory dir.
func (c *copier) stageEntry(dir *os.File, name, dest, at string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories within each other", maxDepth)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: at, Err: err}
	}
	n := statNode(at, &st)
	owner := fmt.Sprintf("%d:%d", n.uid, n.gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := openAt(dir, name, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := readXattrs(f, &n); err != nil {
			return err
		}
		fmt.Fprint(c.tree, owner, n.xattrs)
		return c.content(f, dest, at, st.Mode&0o7777, func(out *os.File) error { return n.apply(out) })
	case unix.S_IFDIR:
		f, err := openAt(dir, name, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer f.Close()
		return c.stageDir(f, n, dest, depth)
	case unix.S_IFLNK:
		target, err := readLinkAt(dir, name)
		if err != nil {
			return err
		}
		c.note(at, st.Mode, owner+" "+target)
		if c.root == nil {
			return nil
		}
		return c.link(target, dest, n)
	case unix.S_IFIFO:
		c.note(at, st.Mode, owner)
		if c.root == nil {
			return nil
		}
		return c.fifo(dest, st.Mode)
	}
	return nil // devices and sockets are no part of an image
}

// stageDir copies what is in a directory.
func (c *copier) stageDir(f *os.File, n node, dest string, depth int) error {
	if err := readXattrs(f, &n); err != nil {
		return err
	}
	c.note(n.path, n.mode, fmt.Sprintf("%d:%d %v", n.uid, n.gid, n.xattrs))
	var made *os.File
	if c.root != nil {
		was, err := safepath.Open(c.root, dest, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err == nil {
			was.Close()
		} else if made, err = safepath.Mkdir(c.root, dest, 0o700); err != nil {
			return err
		} else {
			defer made.Close()
		}
	}
	names, err := sortedNames(f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.stageEntry(f, name, path.Join(dest, name), path.Join(n.path, name), depth+1); err != nil {
			return err
		}
	}
	if made == nil {
		return nil // a directory of the image keeps what it is
	}
	own, err := openAt(made, ".", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := n.apply(own); err != nil {
		return err
	}
	return unix.Fchmod(int(own.Fd()), n.mode&0o7777)
}

// link makes a symbolic link in place of what is at dest.
func (c *copier) link(target, dest string, n node) error {
	dir, err := safepath.Mkdir(c.root, path.Dir(dest), 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(dest)
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("%q is a directory in the image, and a symbolic link in the stage", dest)
	}
	if err := unlink(dir, name); err != nil {
		return err
	}
	if err := unix.Symlinkat(target, int(dir.Fd()), name); err != nil {
		return err
	}
	if err := ownerOnly(unix.Fchownat(int(dir.Fd()), name, int(n.uid), int(n.gid), unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), name, n.times(), unix.AT_SYMLINK_NOFOLLOW)
}

// ownerOnly passes over that a namespace does not know an owner.
func ownerOnly(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// apply gives an open file the owner, extended attributes and time of n.
// Linux drops setuid bits on a change of owner: the mode comes afterwards.
func (n *node) apply(f *os.File) error {
	fd := int(f.Fd())
	if err := ownerOnly(unix.Fchown(fd, int(n.uid), int(n.gid))); err != nil {
		return err
	}
	for name, value := range n.xattrs {
		err := unix.Fsetxattr(fd, name, value, 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), n.times(), 0)
}

// treeDigest is the digest of everything below root but the times.
func treeDigest(ctx context.Context, root *os.File) (string, error) {
	h := sha256.New()
	buf := make([]byte, copyChunk)
	err := walkTree(root, func(dir *os.File, name, at string, st *unix.Stat_t) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := statNode(at, st)
		fmt.Fprintf(h, "%q %o %d:%d %d ", at, n.mode, n.uid, n.gid, n.rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := readLinkAt(dir, name)
			fmt.Fprintf(h, "%q", target)
			return err
		case unix.S_IFREG, unix.S_IFDIR:
			f, err := openAt(dir, name, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := readXattrs(f, &n); err != nil {
				return err
			}
			fmt.Fprintf(h, "%v ", n.xattrs)
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				each := sha256.New()
				if _, err := io.CopyBuffer(each, readerUntil{ctx, f}, buf); err != nil {
					return err
				}
				h.Write(each.Sum(nil))
			}
		}
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// Package image opens images of any kind, tells what they are and reads the
// files in them.
//
// In goes a path of the host, out comes an Image: its kind by content, never by
// name, its root partition, and for a SIF the container structure. Tree reads
// files of the root whatever its kind.
//
// An image is written by somebody else: its links point where they like, its
// files may be of any size and kind. Every path is resolved inside the image,
// nothing but regular files and directories is opened, and no more is read than
// the caller allows. Nothing here runs or mounts an image.
//
// Files: image.go (kinds), tree.go (files of an image), dir.go (sandboxes),
// resolve.go (paths that a container will have).
package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/squashfs"
)

// Tree is the file tree of an image, whatever its kind. Paths begin at the root
// of the image, with or without a slash; symbolic links are followed inside the
// image only. An error about a path that is not there satisfies fs.ErrNotExist.
//
// Security: an image is written by somebody else. A Tree opens nothing but
// regular files and directories, and reads no more than its caller allows.
type Tree interface {
	// ReadFile returns the content of a regular file of at most limit bytes.
	ReadFile(path string, limit int64) ([]byte, error)
	// ReadDir returns the names in a directory, sorted.
	ReadDir(path string) ([]string, error)
	// Stat tells what path is, after following links.
	Stat(path string) (Stat, error)
}

// Stat is what a Tree knows of a file.
type Stat struct {
	Mode     fs.FileMode // type and permissions
	UID, GID uint32
	Size     int64 // bytes
}

// ErrEncrypted says that the files of an image cannot be read without its key.
var ErrEncrypted = errors.New("the root partition is encrypted")

// treeCacheSize is room for the few blocks that metadata takes, in bytes.
const treeCacheSize = 1 << 20

// Tree returns the file tree of the image. It is of use until Close.
func (im *Image) Tree() (Tree, error) {
	part := io.NewSectionReader(im.File, im.Off, im.Size)
	switch im.Format {
	case FormatNone:
		return &Dir{root: im.File}, nil
	case FormatSquashfs:
		r, err := squashfs.Open(part, im.Size, squashfs.ReaderOptions{CacheSize: treeCacheSize})
		if err != nil {
			return nil, err
		}
		return SquashfsTree{r}, nil
	case FormatExt:
		f, err := extfs.Open(part, im.Size)
		if err != nil {
			return nil, err
		}
		return ExtTree{f}, nil
	}
	return nil, ErrEncrypted
}

// SquashfsTree is the tree of a squashfs image.
type SquashfsTree struct{ Reader *squashfs.Reader }

// ReadFile returns the content of a regular file of at most limit bytes.
func (t SquashfsTree) ReadFile(path string, limit int64) ([]byte, error) {
	return t.Reader.ReadFile(path, limit)
}

// ReadDir returns the names in a directory, sorted.
func (t SquashfsTree) ReadDir(path string) ([]string, error) {
	in, err := t.Reader.Walk(path, true)
	if err != nil {
		return nil, err
	}
	if !in.IsDir() {
		return nil, fmt.Errorf("cannot list %q: it is not a directory", path)
	}
	list, err := t.Reader.ReadDir(in.Ref)
	if err != nil {
		return nil, err
	}
	return sortedNames(list, func(e squashfs.Dirent) string { return e.Name }), nil
}

// Stat tells what path is, after following links.
func (t SquashfsTree) Stat(path string) (Stat, error) {
	in, err := t.Reader.Walk(path, true)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Mode: fileMode(in.Mode), UID: in.UID, GID: in.GID, Size: in.Size}, nil
}

// ExtTree is the tree of an ext2, ext3 or ext4 image.
type ExtTree struct{ FS *extfs.FS }

// ReadFile returns the content of a regular file of at most limit bytes.
func (t ExtTree) ReadFile(path string, limit int64) ([]byte, error) {
	return t.FS.ReadFile(path, limit)
}

// ReadDir returns the names in a directory, sorted.
func (t ExtTree) ReadDir(path string) ([]string, error) {
	in, err := t.FS.Walk(path, true)
	if err != nil {
		return nil, err
	}
	if !in.IsDir() {
		return nil, fmt.Errorf("cannot list %q: it is not a directory", path)
	}
	list, err := t.FS.ReadDir(in)
	if err != nil {
		return nil, err
	}
	return sortedNames(list, func(e extfs.Dirent) string { return e.Name }), nil
}

// Stat tells what path is, after following links.
func (t ExtTree) Stat(path string) (Stat, error) {
	in, err := t.FS.Walk(path, true)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Mode: fileMode(in.Mode), UID: in.UID, GID: in.GID, Size: in.Size}, nil
}

// sortedNames returns the names of list, without those of the directory itself
// and its parent.
func sortedNames[E any](list []E, name func(E) string) []string {
	names := make([]string, 0, len(list))
	for _, e := range list {
		if n := name(e); n != "." && n != ".." {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// fileMode turns the mode of stat(2) into that of package fs.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m |= fs.ModeDir
	case unix.S_IFLNK:
		m |= fs.ModeSymlink
	case unix.S_IFIFO:
		m |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		m |= fs.ModeSocket
	case unix.S_IFCHR:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		m |= fs.ModeDevice
	}
	if mode&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

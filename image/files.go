package image

import (
	"io"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/linux/safepath"
	"singularity/squashfs"
)

// Files is the tree of an open image, with the links in it visible.
type Files interface {
	Tree
	Linker
}

// Files opens the file tree of im. For a partition, fsys is the reader below it
// (*squashfs.Reader or *extfs.FS), which a FUSE server can serve.
func (im *Image) Files() (files Files, fsys any, err error) {
	if im.Kind == Sandbox {
		fd, err := unix.FcntlInt(im.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, nil, err
		}
		return &Dir{root: fd}, nil, nil
	}
	if im.Format.Encrypted() && im.Plain != nil {
		return OpenFiles(FormatSquashfs, im.Plain)
	}
	r, err := im.Section()
	if err != nil {
		return nil, nil, err
	}
	return OpenFiles(im.Format, r)
}

// OpenFiles opens the file tree of a partition that holds format.
func OpenFiles(format Format, r *io.SectionReader) (files Files, fsys any, err error) {
	switch format {
	case FormatSquashfs:
		s, err := squashfs.Open(r, r.Size(), squashfs.ReaderOptions{})
		if err != nil {
			return nil, nil, err
		}
		return squashTree{s}, s, nil
	case FormatExt:
		e, err := extfs.Open(r, r.Size())
		if err != nil {
			return nil, nil, err
		}
		return extTree{e}, e, nil
	case FormatEncrypted, FormatGocryptfs:
		return nil, nil, ErrLocked
	}
	return nil, nil, ErrFormat
}

// Lstat tells what p is, without following a link at its end.
func (d *Dir) Lstat(p string) (fs.FileMode, string, error) {
	fd, err := safepath.OpenFD(d.root, "."+p, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, "", err
	}
	mode := fileMode(st.Mode)
	if mode&fs.ModeSymlink == 0 {
		return mode, "", nil
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return 0, "", err
	}
	return mode, string(b[:n]), nil
}

// fileMode turns the mode of stat(2) into that of package fs: type and
// permissions only.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	}
	return mode
}

type squashTree struct{ r *squashfs.Reader }

func (t squashTree) ReadFile(p string, limit int64) ([]byte, error) { return t.r.ReadFile(p, limit) }

func (t squashTree) ReadDir(p string) ([]string, error) {
	in, err := t.r.Walk(p, true)
	if err != nil {
		return nil, err
	}
	list, err := t.r.ReadDir(in.Ref)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names, nil
}

func (t squashTree) Stat(p string) (Stat, error) {
	in, err := t.r.Walk(p, true)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Mode: fileMode(in.Mode), UID: in.UID, GID: in.GID, Size: in.Size}, nil
}

func (t squashTree) Lstat(p string) (fs.FileMode, string, error) {
	in, err := t.r.Walk(p, false)
	if err != nil {
		return 0, "", err
	}
	if !in.IsSymlink() {
		return fileMode(in.Mode), "", nil
	}
	target, err := t.r.Readlink(in)
	return fileMode(in.Mode), target, err
}

type extTree struct{ f *extfs.FS }

func (t extTree) ReadFile(p string, limit int64) ([]byte, error) { return t.f.ReadFile(p, limit) }

func (t extTree) ReadDir(p string) ([]string, error) {
	in, err := t.f.Walk(p, true)
	if err != nil {
		return nil, err
	}
	list, err := t.f.ReadDir(in)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list {
		if n := list[i].Name; n != "." && n != ".." && path.Clean(n) == n {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (t extTree) Stat(p string) (Stat, error) {
	in, err := t.f.Walk(p, true)
	if err != nil {
		return Stat{}, err
	}
	return Stat{Mode: fileMode(in.Mode), UID: in.UID, GID: in.GID, Size: in.Size}, nil
}

func (t extTree) Lstat(p string) (fs.FileMode, string, error) {
	in, err := t.f.Walk(p, false)
	if err != nil {
		return 0, "", err
	}
	if !in.IsSymlink() {
		return fileMode(in.Mode), "", nil
	}
	target, err := t.f.Readlink(in)
	return fileMode(in.Mode), target, err
}

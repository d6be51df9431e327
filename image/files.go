package image

import (
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"singularity/extfs"
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
		return &Dir{root: im.File}, nil, nil
	}
	return OpenFiles(im.Format, io.NewSectionReader(im.File, im.Off, im.Size))
}

// OpenFiles opens the file tree of a partition that holds format.
func OpenFiles(format Format, r *io.SectionReader) (files Files, fsys any, err error) {
	switch format {
	case FormatSquashfs:
		s, err := squashfs.Open(r, r.Size(), squashfs.ReaderOptions{})
		if err != nil {
			return nil, nil, err
		}
		return SquashfsTree{s}, s, nil
	case FormatExt:
		e, err := extfs.Open(r, r.Size())
		if err != nil {
			return nil, nil, err
		}
		return ExtTree{e}, e, nil
	case FormatEncrypted:
		return nil, nil, ErrEncrypted
	}
	return nil, nil, ErrFormat
}

// Lstat tells what p is, without following a link at its end.
func (d *Dir) Lstat(p string) (fs.FileMode, string, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(d.root.Fd()), "."+p, how)
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

// Lstat tells what p is, without following a link at its end.
func (t SquashfsTree) Lstat(p string) (fs.FileMode, string, error) {
	in, err := t.Reader.Walk(p, false)
	if err != nil {
		return 0, "", err
	}
	if !in.IsSymlink() {
		return fileMode(in.Mode), "", nil
	}
	target, err := t.Reader.Readlink(in)
	return fileMode(in.Mode), target, err
}

// Lstat tells what p is, without following a link at its end.
func (t ExtTree) Lstat(p string) (fs.FileMode, string, error) {
	in, err := t.FS.Walk(p, false)
	if err != nil {
		return 0, "", err
	}
	if !in.IsSymlink() {
		return fileMode(in.Mode), "", nil
	}
	target, err := t.FS.Readlink(in)
	return fileMode(in.Mode), target, err
}

package fusefs

import (
	"syscall"

	"singularity/squashfs"
)

// Squashfs returns the tree of a squashfs image. Its numbers are inode
// references.
func Squashfs(r *squashfs.Reader) FS { return squash{r} }

type squash struct{ r *squashfs.Reader }

func (s squash) Root() uint64 { return s.r.Root() }

func (s squash) Attr(id uint64, a *Attr) error {
	var in squashfs.Inode
	if err := s.r.Stat(id, &in); err != nil {
		return err
	}
	*a = Attr{
		Ino: uint64(in.Number), Size: in.Size, ModTime: in.ModTime, Mode: in.Mode,
		Nlink: in.Nlink, UID: in.UID, GID: in.GID, Rdev: in.Rdev,
	}
	return nil
}

func (s squash) Lookup(dir uint64, name string) (uint64, bool, error) { return s.r.Lookup(dir, name) }

func (s squash) ReadDir(dir uint64, from int, emit func(Dirent) bool) error {
	d, err := s.r.ReadDir(dir)
	if err != nil {
		return err
	}
	for i := from; i < len(d); i++ {
		if e := &d[i]; !emit(Dirent{e.Name, e.Ref, uint64(e.Number), e.Mode}) {
			break
		}
	}
	return nil
}

func (s squash) Readlink(id uint64) (string, error) {
	in, err := s.r.Inode(id)
	if err != nil {
		return "", err
	}
	if !in.IsSymlink() {
		return "", syscall.EINVAL
	}
	return s.r.Readlink(in)
}

func (s squash) Read(id uint64, off int64, n int, d *Data, wait bool) (bool, error) {
	f, err := s.r.File(id)
	if err != nil {
		return false, err
	}
	old := len(d.blocks)
	var ok bool
	d.blocks, ok, err = f.Blocks(d.blocks, off, n, wait)
	for i := range d.blocks[old:] {
		d.Append(d.blocks[old+i].Data)
	}
	return ok, err
}

func (s squash) Xattrs(id uint64) ([]Xattr, error) {
	in, err := s.r.Inode(id)
	if err != nil {
		return nil, err
	}
	list, err := s.r.Xattrs(in)
	out := make([]Xattr, len(list))
	for i, x := range list {
		out[i] = Xattr{Name: x.Name, Value: x.Value}
	}
	return out, err
}

func (s squash) Stat() Stat {
	sb := s.r.Superblock()
	return Stat{BlockSize: sb.BlockSize, Size: int64(sb.BytesUsed), Files: uint64(sb.Inodes), HasXattrs: s.r.HasXattrs()}
}

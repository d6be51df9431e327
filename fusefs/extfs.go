package fusefs

import (
	"errors"
	"io"
	"syscall"

	"singularity/extfs"
)

// Ext returns the tree of an ext2, ext3 or ext4 image. Its numbers are inode
// numbers.
func Ext(f *extfs.FS) FS { return ext{f} }

type ext struct{ f *extfs.FS }

func (e ext) Root() uint64 { return uint64(e.f.Root()) }

func (e ext) inode(id uint64) (*extfs.Inode, error) {
	if id > 1<<32-1 {
		return nil, syscall.ESTALE
	}
	return e.f.Inode(uint32(id))
}

func (e ext) Attr(id uint64, a *Attr) error {
	in, err := e.inode(id)
	if err != nil {
		return err
	}
	*a = extAttr(id, in)
	return nil
}

func (e ext) Lookup(dir uint64, name string) (uint64, bool, error) {
	in, err := e.inode(dir)
	if err != nil {
		return 0, false, err
	}
	n, ok, err := e.f.Lookup(in, name)
	return uint64(n), ok, extErr(err)
}

func (e ext) ReadDir(dir uint64, from int, emit func(Dirent) bool) error {
	in, err := e.inode(dir)
	if err != nil {
		return err
	}
	return extErr(e.f.ReadDirFrom(in, from, func(d extfs.Dirent) bool {
		n := uint64(d.Inode)
		return emit(Dirent{d.Name, n, n, d.Type})
	}))
}

func (e ext) Readlink(id uint64) (string, error) {
	in, err := e.inode(id)
	if err != nil {
		return "", err
	}
	return e.f.Readlink(in)
}

// Read always copies, so it is for the workers only.
func (e ext) Read(id uint64, off int64, n int, d *Data, wait bool) (bool, error) {
	if !wait {
		return false, nil
	}
	in, err := e.inode(id)
	if err != nil {
		return false, err
	}
	p := d.Buffer(n)
	k, err := e.f.ReadAt(in, p, off)
	if err == io.EOF {
		err = nil
	}
	d.Append(p[:k])
	return true, err
}

func (e ext) Xattrs(id uint64) ([]Xattr, error) {
	in, err := e.inode(id)
	if err != nil {
		return nil, err
	}
	list, err := e.f.Xattrs(in)
	out := make([]Xattr, len(list))
	for i, x := range list {
		out[i] = Xattr{Name: x.Name, Value: x.Value}
	}
	return out, err
}

func extErr(err error) error {
	if errors.Is(err, extfs.ErrNotDir) {
		return syscall.ENOTDIR
	}
	return err
}

func (e ext) Stat() Stat {
	sb := e.f.Superblock()
	return Stat{BlockSize: uint32(sb.BlockSize), Size: sb.BlockSize * int64(sb.Blocks), Files: uint64(sb.Inodes), HasXattrs: true}
}

func extAttr(id uint64, in *extfs.Inode) Attr {
	return Attr{
		Ino: id, Size: in.Size, ModTime: in.ModTime.Sec, Nanos: in.ModTime.Nsec, Mode: in.Mode,
		Nlink: in.Nlink, UID: in.UID, GID: in.GID, Rdev: in.Rdev,
	}
}

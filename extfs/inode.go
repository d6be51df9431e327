package extfs

import (
	"fmt"
)

// The file type bits of Inode.Mode, as in stat(2).
const (
	ModeType    = 0o170000
	ModeFIFO    = 0o010000
	ModeChar    = 0o020000
	ModeDir     = 0o040000
	ModeBlock   = 0o060000
	ModeRegular = 0o100000
	ModeSymlink = 0o120000
	ModeSocket  = 0o140000
)

// Flags of an inode.
const (
	flagCompressed = 0x4
	flagEncrypted  = 0x800
	flagHugeFile   = 0x40000
	flagExtents    = 0x80000
	flagEAInode    = 0x200000
	flagInlineData = 0x10000000
	flagCasefold   = 0x40000000
)

const (
	maxLinkSize   = 4096 // bytes of a link target, as in the kernel
	inodeDataSize = 60   // bytes of an inode for extents, block map or content
)

// Timestamp is a point in time: seconds since 1970 and nanoseconds.
type Timestamp struct {
	Sec  int64
	Nsec uint32
}

// Inode is a file of any type. It is never changed after Inode returned it.
type Inode struct {
	Number     uint32
	Mode       uint32 // file type (ModeType) and permissions, as in stat(2)
	UID, GID   uint32
	Nlink      uint32
	Rdev       uint32 // of a device: the kernel's 32-bit form, as in FUSE and squashfs
	Size       int64  // bytes
	Blocks     uint64 // space in use, in units of 512 bytes
	Generation uint32
	ModTime    Timestamp
	AccessTime Timestamp
	ChangeTime Timestamp

	flags  uint32
	acl    uint64 // block of extended attributes, 0 if none
	data   [inodeDataSize]byte
	xattrs []byte // extended attributes inside the inode, after their magic
}

// IsDir tells if in is a directory.
func (in *Inode) IsDir() bool { return in.Mode&ModeType == ModeDir }

// IsRegular tells if in is a regular file.
func (in *Inode) IsRegular() bool { return in.Mode&ModeType == ModeRegular }

// IsSymlink tells if in is a symbolic link.
func (in *Inode) IsSymlink() bool { return in.Mode&ModeType == ModeSymlink }

// Inode reads inode n. Reserved inodes but the root, and those not in use, are
// an error: no directory of a sound image names them.
func (f *FS) Inode(n uint32) (*Inode, error) {
	if n != rootInode && n < f.sb.firstInode {
		return nil, corrupt("inode %d is reserved", n)
	}
	in, err := f.readInode(n)
	if err != nil {
		return nil, err
	}
	if in.flags&flagEAInode != 0 {
		return nil, corrupt("inode %d holds an extended attribute, not a file", n)
	}
	return in, nil
}

// readInode reads inode n, whatever its use.
func (f *FS) readInode(n uint32) (*Inode, error) {
	if n == 0 || n > f.sb.Inodes {
		return nil, corrupt("inode %d is not one of the %d inodes", n, f.sb.Inodes)
	}
	table, err := f.inodeTable((n - 1) / f.sb.inodesPerGroup)
	if err != nil {
		return nil, err
	}
	off := int64((n-1)%f.sb.inodesPerGroup) * f.sb.InodeSize
	if table >= f.sb.Blocks {
		return nil, corrupt("the table of inode %d begins at block %d of %d", n, table, f.sb.Blocks)
	}
	b, err := f.block(table + uint64(off/f.sb.BlockSize))
	if err != nil {
		return nil, err
	}
	in := &Inode{Number: n}
	if err := f.parseInode(in, b[off%f.sb.BlockSize:][:f.sb.InodeSize]); err != nil {
		return nil, fmt.Errorf("inode %d: %w", n, err)
	}
	return in, nil
}

// parseInode fills in from the bytes of an inode.
func (f *FS) parseInode(in *Inode, b []byte) error {
	u16 := func(off int) uint32 { return uint32(le.Uint16(b[off:])) }
	u32 := func(off int) uint32 { return le.Uint32(b[off:]) }
	in.Mode, in.Nlink = u16(0), u16(0x1a)
	in.UID, in.GID = u16(2)|u16(0x78)<<16, u16(0x18)|u16(0x7a)<<16
	in.flags, in.Generation = u32(0x20), u32(0x64)
	in.acl = uint64(u32(0x68)) | uint64(u16(0x76))<<32
	copy(in.data[:], b[0x28:])
	if in.Nlink == 0 || in.Mode == 0 {
		return corrupt("it is not in use")
	}
	if in.flags&(flagCompressed|flagEncrypted|flagCasefold) != 0 {
		return fmt.Errorf("%w: flags %#x", ErrUnsupported, in.flags)
	}

	size := uint64(u32(4))
	switch in.Mode & ModeType {
	case ModeRegular:
		size |= uint64(u32(0x6c)) << 32
	case ModeDir:
		if f.sb.incompat&incompatLargeDir != 0 {
			size |= uint64(u32(0x6c)) << 32
		}
	case ModeChar, ModeBlock:
		in.Rdev = le.Uint32(in.data[0:]) & 0xffff // the old form, which equals the new one
		if in.Rdev == 0 {
			in.Rdev = le.Uint32(in.data[4:])
		}
	case ModeFIFO, ModeSocket, ModeSymlink:
	default:
		return corrupt("mode %#o is no file type", in.Mode)
	}
	if size > uint64(f.sb.BlockSize)<<32 {
		return corrupt("the size is %d bytes", size)
	}
	in.Size = int64(size)

	in.Blocks = uint64(u32(0x1c)) | uint64(u16(0x74))<<32
	if in.flags&flagHugeFile != 0 {
		in.Blocks *= uint64(f.sb.BlockSize / 512)
	}
	return in.parseExtra(b)
}

// parseExtra reads the times and what lies behind the first 128 bytes: the
// upper parts of the times and extended attributes.
func (in *Inode) parseExtra(b []byte) error {
	in.AccessTime.Sec, in.ChangeTime.Sec, in.ModTime.Sec = seconds(b[8:]), seconds(b[0xc:]), seconds(b[0x10:])
	if len(b) <= minInodeSize {
		return nil
	}
	extra := int(le.Uint16(b[0x80:]))
	if extra%4 != 0 || minInodeSize+extra > len(b) {
		return corrupt("it has %d extra bytes in %d", extra, len(b)-minInodeSize)
	}
	for i, t := range []*Timestamp{&in.ChangeTime, &in.ModTime, &in.AccessTime} {
		if off := 0x84 + 4*i; off+4 <= minInodeSize+extra {
			t.extend(le.Uint32(b[off:]))
		}
	}
	rest := b[minInodeSize+extra:]
	if len(rest) > 4 && le.Uint32(rest) == xattrMagic {
		in.xattrs = append([]byte(nil), rest[4:]...) // a copy, so that the block can be forgotten
	}
	return nil
}

// seconds reads the lower 32 bits of a time, which are signed.
func seconds(b []byte) int64 { return int64(int32(le.Uint32(b))) }

// extend adds the upper two bits of the seconds and the nanoseconds.
func (t *Timestamp) extend(v uint32) {
	t.Sec += int64(v&3) << 32
	if nsec := v >> 2; nsec < 1e9 {
		t.Nsec = nsec
	}
}

// Readlink returns the target of a symbolic link.
func (f *FS) Readlink(in *Inode) (string, error) {
	if !in.IsSymlink() {
		return "", fmt.Errorf("inode %d is not a symbolic link", in.Number)
	}
	if in.Size <= 0 || in.Size > maxLinkSize {
		return "", corrupt("inode %d: a link target of %d bytes", in.Number, in.Size)
	}
	b := make([]byte, in.Size)
	if in.Size < inodeDataSize && in.flags&(flagExtents|flagInlineData) == 0 {
		copy(b, in.data[:])
	} else if _, err := f.readContent(in, b, 0); err != nil {
		return "", err
	}
	if s := cString(b); len(s) == len(b) {
		return s, nil
	}
	return "", corrupt("inode %d: a NUL in its link target", in.Number)
}

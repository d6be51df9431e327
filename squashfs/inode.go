package squashfs

// Bits of Inode.Mode, as in stat(2).
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFIFO    = 0o010000
)

// typeModes gives the file type bits of each basic inode type.
var typeModes = [...]uint32{
	typeDir: ModeDir, typeFile: ModeRegular, typeSymlink: ModeSymlink, typeBlock: ModeBlock,
	typeChar: ModeChar, typeFIFO: ModeFIFO, typeSocket: ModeSocket,
}

// Inode is what stat tells about a file, and where the rest of it lies.
type Inode struct {
	Ref     uint64 // inode reference: the file's name in calls of Reader
	Number  uint32
	Mode    uint32 // type (ModeType) and permission bits
	UID     uint32
	GID     uint32
	Nlink   uint32
	Rdev    uint32 // of devices, as the kernel encodes it in 32 bits
	ModTime int64  // seconds since the epoch
	Size    int64  // bytes of a file, of a link's target, of a directory's listing

	xattr   uint32 // index in the xattr table, noXattr for none
	start   uint64 // data of a file, or listing of a directory in its table
	offset  uint32 // of a directory's listing in its block, or of a tail in its fragment
	frag    uint32
	tailPos int64 // where the block list or the link target begins
	tailOff int
}

// IsDir reports whether the inode is a directory.
func (in *Inode) IsDir() bool { return in.Mode&ModeType == ModeDir }

// IsRegular reports whether the inode is a regular file.
func (in *Inode) IsRegular() bool { return in.Mode&ModeType == ModeRegular }

// IsSymlink reports whether the inode is a symbolic link.
func (in *Inode) IsSymlink() bool { return in.Mode&ModeType == ModeSymlink }

// inodeSizes is the length of the fixed part behind the 16 common bytes.
var inodeSizes = [...]int{
	typeDir: 16, typeFile: 16, typeSymlink: 8, typeBlock: 8, typeChar: 8, typeFIFO: 4, typeSocket: 4,
	typeDir + typeExtended: 24, typeFile + typeExtended: 40, typeSymlink + typeExtended: 8,
	typeBlock + typeExtended: 12, typeChar + typeExtended: 12, typeFIFO + typeExtended: 8, typeSocket + typeExtended: 8,
}

// maxFileSize keeps every sum of offsets far from the end of int64.
const maxFileSize = 1 << 60

// Inode reads the inode at ref.
func (r *Reader) Inode(ref uint64) (*Inode, error) {
	in := new(Inode)
	if err := r.Stat(ref, in); err != nil {
		return nil, err
	}
	return in, nil
}

// Stat is Inode into memory of the caller.
func (r *Reader) Stat(ref uint64, in *Inode) error {
	pos, off := ref>>16, int(ref&0xffff)
	if pos >= r.sb.DirTable-r.sb.InodeTable || off >= MetadataSize {
		return corrupt("inode reference %#x lies outside the inode table", ref)
	}
	c, err := r.at(int64(r.sb.InodeTable+pos), off)
	if err != nil {
		return err
	}
	var buf [40]byte
	h, err := c.take(16, buf[:])
	if err != nil {
		return err
	}
	kind := int(le.Uint16(h))
	if kind == 0 || kind >= len(inodeSizes) {
		return corrupt("inode at %#x has type %d", ref, kind)
	}
	basic := kind
	if kind > typeExtended {
		basic -= typeExtended
	}
	*in = Inode{
		Ref: ref, Number: le.Uint32(h[12:]), Mode: typeModes[basic] | uint32(le.Uint16(h[2:]))&0o7777,
		ModTime: int64(le.Uint32(h[8:])), Nlink: 1, frag: noFragment, xattr: noXattr,
	}
	uid, gid := le.Uint16(h[4:]), le.Uint16(h[6:])
	if in.Number == 0 || in.Number > r.sb.Inodes {
		return corrupt("inode at %#x has number %d of %d", ref, in.Number, r.sb.Inodes)
	}
	b, err := c.take(inodeSizes[kind], buf[:])
	if err != nil {
		return err
	}
	in.decode(kind, b)
	in.tailPos, in.tailOff = c.pos, c.off
	if kind == typeSymlink+typeExtended {
		err = r.linkXattr(c, in)
	}
	if err != nil {
		return err
	}
	if in.Size < 0 || in.Size > maxFileSize {
		return corrupt("inode at %#x claims %d bytes", ref, in.Size)
	}
	if basic == typeSymlink && (in.Size == 0 || in.Size > maxLinkSize) {
		return corrupt("link at %#x has a target of %d bytes", ref, in.Size)
	}
	if in.UID, err = r.id(uid); err == nil {
		in.GID, err = r.id(gid)
	}
	return err
}

// decode reads the fixed part of an inode of the given type.
func (in *Inode) decode(kind int, b []byte) {
	switch kind {
	case typeDir:
		in.start, in.Nlink, in.Size, in.offset = uint64(le.Uint32(b)), le.Uint32(b[4:]), int64(le.Uint16(b[8:])), uint32(le.Uint16(b[10:]))
	case typeDir + typeExtended:
		in.Nlink, in.Size, in.start, in.offset = le.Uint32(b), int64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:])), uint32(le.Uint16(b[18:]))
		in.xattr = le.Uint32(b[20:])
	case typeFile:
		in.start, in.frag, in.offset, in.Size = uint64(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:]), int64(le.Uint32(b[12:]))
	case typeFile + typeExtended:
		in.start, in.Size, in.Nlink = le.Uint64(b), int64(le.Uint64(b[8:])), le.Uint32(b[24:])
		in.frag, in.offset, in.xattr = le.Uint32(b[28:]), le.Uint32(b[32:]), le.Uint32(b[36:])
	case typeSymlink, typeSymlink + typeExtended:
		in.Nlink, in.Size = le.Uint32(b), int64(le.Uint32(b[4:]))
	case typeBlock, typeChar, typeBlock + typeExtended, typeChar + typeExtended:
		in.Nlink, in.Rdev = le.Uint32(b), le.Uint32(b[4:])
		if kind > typeExtended {
			in.xattr = le.Uint32(b[8:])
		}
	default:
		in.Nlink = le.Uint32(b)
		if kind > typeExtended {
			in.xattr = le.Uint32(b[4:])
		}
	}
}

// linkXattr reads the xattr index of an extended link, which lies behind the
// target.
func (r *Reader) linkXattr(c cursor, in *Inode) error {
	if in.Size > maxLinkSize {
		return nil // refused by the caller
	}
	if err := c.skip(in.Size); err != nil {
		return err
	}
	var b [4]byte
	err := c.read(b[:])
	in.xattr = le.Uint32(b[:])
	return err
}

// id returns the user or group id at index i of the id table.
func (r *Reader) id(i uint16) (uint32, error) {
	var b [4]byte
	if err := r.entry(&r.ids, uint64(i), b[:]); err != nil {
		return 0, err
	}
	return le.Uint32(b[:]), nil
}

// Readlink returns the target of a symbolic link as it is stored.
func (r *Reader) Readlink(in *Inode) (string, error) {
	if !in.IsSymlink() {
		return "", corrupt("inode at %#x is not a link", in.Ref)
	}
	c, err := r.at(in.tailPos, in.tailOff)
	if err != nil {
		return "", err
	}
	b := make([]byte, in.Size) // at most maxLinkSize, see Stat
	if err := c.read(b); err != nil {
		return "", err
	}
	for _, x := range b {
		if x == 0 {
			return "", corrupt("link at %#x has a zero byte in its target", in.Ref)
		}
	}
	return string(b), nil
}

// Export returns the reference of the inode with the given number. Images may
// lack the table for that.
func (r *Reader) Export(number uint32) (uint64, error) {
	if r.sb.ExportTable == noTable {
		return 0, corrupt("the image has no export table")
	}
	var b [8]byte
	if err := r.entry(&r.export, uint64(number)-1, b[:]); err != nil {
		return 0, err
	}
	return le.Uint64(b[:]), nil
}

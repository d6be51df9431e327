package extfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors that callers act on. Every error about the bytes of an image wraps one
// of them.
var (
	ErrNotExt        = errors.New("not an ext2, ext3 or ext4 image")
	ErrCorrupt       = errors.New("the ext file system is damaged")
	ErrUnsupported   = errors.New("the ext file system uses a feature that is not supported")
	ErrLimit         = errors.New("a limit for ext images is exceeded")
	ErrNeedsRecovery = errors.New("the journal of the ext file system was not written back, recent changes are missing")
	ErrNotClean      = errors.New("the ext file system was not unmounted cleanly or has known errors")
)

// Features of the superblock that matter to a reader.
const (
	compatSparseSuper2 = 0x200

	incompatCompression = 0x1
	incompatFiletype    = 0x2
	incompatRecover     = 0x4
	incompatJournalDev  = 0x8
	incompatMetaBG      = 0x10
	incompatExtents     = 0x40
	incompat64bit       = 0x80
	incompatMMP         = 0x100
	incompatFlexBG      = 0x200
	incompatEAInode     = 0x400
	incompatDirData     = 0x1000
	incompatCsumSeed    = 0x2000
	incompatLargeDir    = 0x4000
	incompatInlineData  = 0x8000
	incompatEncrypt     = 0x10000
	incompatCasefold    = 0x20000

	incompatKnown = incompatFiletype | incompatRecover | incompatMetaBG | incompatExtents | incompat64bit | incompatMMP |
		incompatFlexBG | incompatEAInode | incompatCsumSeed | incompatLargeDir | incompatInlineData

	roSparseSuper = 0x1
)

// refused names the features that change what the bytes mean.
var refused = []struct {
	bit  uint32
	name string
}{
	{incompatCompression, "compression"}, {incompatJournalDev, "journal_dev"}, {incompatDirData, "dirdata"},
	{incompatEncrypt, "encrypt"}, {incompatCasefold, "casefold"},
}

const (
	superOff     = 1024 // offset and size of the superblock
	superSize    = 1024
	superMagic   = 0xef53
	rootInode    = 2
	stateValid   = 1
	stateErrors  = 2
	minInodeSize = 128
)

var le = binary.LittleEndian

// Superblock holds the facts about the whole file system.
type Superblock struct {
	BlockSize  int64  // bytes of a block
	Blocks     uint64 // blocks of the file system
	FreeBlocks uint64 // blocks that hold nothing
	Inodes     uint32 // inodes of the file system, numbered from 1
	FreeInodes uint32 // inodes that are not in use
	InodeSize  int64  // bytes of an inode
	UUID       [16]byte
	Label      string // volume name, at most 16 bytes

	compat, incompat, roCompat uint32
	state                      uint16
	firstData                  uint64 // first block of group 0
	firstInode                 uint32 // first inode that is not reserved
	blocksPerGroup             uint32
	inodesPerGroup             uint32
	descSize                   int64
	firstMetaBG                uint32
	backupGroups               [2]uint32
}

// FS is an open file system.
type FS struct {
	r     io.ReaderAt
	sb    Superblock
	cache blockCache
	names nameCache
	pages pageCache
}

// Open reads the superblock of the image in r, which holds size bytes.
// It returns ErrNotExt if there is none.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	if size < superOff+superSize {
		return nil, ErrNotExt
	}
	b := make([]byte, superSize)
	if err := readFull(r, b, superOff); err != nil {
		return nil, fmt.Errorf("cannot read the ext superblock: %w", err)
	}
	sb, err := parseSuperblock(b, size)
	if err != nil {
		return nil, err
	}
	f := &FS{r: r, sb: *sb}
	f.cache.init(sb.BlockSize)
	root, err := f.Inode(rootInode)
	if err != nil {
		return nil, err
	}
	if !root.IsDir() {
		return nil, corrupt("the root inode has mode %#o, want a directory", root.Mode)
	}
	return f, nil
}

// Superblock returns the facts about the whole file system.
func (f *FS) Superblock() Superblock { return f.sb }

// Root returns the inode number of the root directory, which is 2.
func (f *FS) Root() uint32 { return rootInode }

// Warnings returns what a person should know about the image although it can
// be read: ErrNeedsRecovery, ErrNotClean.
func (f *FS) Warnings() []error {
	var w []error
	if f.sb.incompat&incompatRecover != 0 {
		w = append(w, ErrNeedsRecovery)
	}
	if f.sb.state&stateValid == 0 || f.sb.state&stateErrors != 0 {
		w = append(w, ErrNotClean)
	}
	return w
}

// corrupt makes an error that wraps ErrCorrupt.
func corrupt(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, a...))
}

// readFull fills b from off. A short read means that the image shrank.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// parseSuperblock reads the 1024 bytes of the superblock of an image of size
// bytes and checks everything that later arithmetic relies on.
func parseSuperblock(b []byte, size int64) (*Superblock, error) {
	if le.Uint16(b[0x38:]) != superMagic {
		return nil, ErrNotExt
	}
	u32 := func(off int) uint32 { return le.Uint32(b[off:]) }
	s := &Superblock{
		Inodes: u32(0), Blocks: uint64(u32(4)), FreeBlocks: uint64(u32(0xc)), FreeInodes: u32(0x10), firstData: uint64(u32(0x14)),
		blocksPerGroup: u32(0x20), inodesPerGroup: u32(0x28), state: le.Uint16(b[0x3a:]),
		InodeSize: minInodeSize, firstInode: 11, descSize: 32,
	}
	switch rev := u32(0x4c); rev {
	case 0: // fixed inode size, no features
	case 1:
		s.firstInode, s.InodeSize = u32(0x54), int64(le.Uint16(b[0x58:]))
		s.compat, s.incompat, s.roCompat = u32(0x5c), u32(0x60), u32(0x64)
	default:
		return nil, fmt.Errorf("%w: revision %d, want 0 or 1", ErrUnsupported, rev)
	}
	if err := s.checkFeatures(); err != nil {
		return nil, err
	}
	s.firstMetaBG, s.backupGroups = u32(0x104), [2]uint32{u32(0x24c), u32(0x250)}
	s.UUID, s.Label = [16]byte(b[0x68:0x78]), cString(b[0x78:0x88])
	if s.incompat&incompat64bit != 0 {
		s.Blocks |= uint64(u32(0x150)) << 32
		s.FreeBlocks |= uint64(u32(0x158)) << 32
		s.descSize = int64(le.Uint16(b[0xfe:]))
	}
	if log := u32(0x18); log > 6 {
		return nil, corrupt("the block size is 1024 << %d, want at most 65536", log)
	}
	s.BlockSize = 1024 << u32(0x18)
	return s, s.check(size)
}

// checkFeatures refuses what would make the rest of the bytes mean something
// else. Unknown features of the read-only class need no check: they say that a
// reader is safe.
func (s *Superblock) checkFeatures() error {
	for _, r := range refused {
		if s.incompat&r.bit != 0 {
			return fmt.Errorf("%w: %s", ErrUnsupported, r.name)
		}
	}
	if rest := s.incompat &^ incompatKnown; rest != 0 {
		return fmt.Errorf("%w: unknown bits %#x", ErrUnsupported, rest)
	}
	return nil
}

// check compares the numbers with each other and with the size of the image.
func (s *Superblock) check(size int64) error {
	bs := s.BlockSize
	pow2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case s.Blocks > uint64(size)/uint64(bs):
		return corrupt("it claims %d blocks of %d bytes, the image holds %d bytes", s.Blocks, bs, size)
	case s.firstData > 1 || s.firstData >= s.Blocks:
		return corrupt("the first data block is %d of %d", s.firstData, s.Blocks)
	case !pow2(s.InodeSize) || s.InodeSize < minInodeSize || s.InodeSize > bs:
		return corrupt("the inode size is %d", s.InodeSize)
	case !pow2(s.descSize) || s.descSize < 32 || s.descSize > 1024 || (s.incompat&incompat64bit != 0 && s.descSize < 64):
		return corrupt("the group descriptor size is %d", s.descSize)
	case s.blocksPerGroup == 0:
		return corrupt("it has no blocks per group")
	case s.inodesPerGroup == 0 || int64(s.inodesPerGroup) > 8*bs:
		return corrupt("it has %d inodes per group", s.inodesPerGroup)
	case s.Inodes < rootInode || uint64(s.Inodes) > s.groups()*uint64(s.inodesPerGroup):
		return corrupt("it claims %d inodes in %d groups of %d", s.Inodes, s.groups(), s.inodesPerGroup)
	}
	return nil
}

// groups returns the number of block groups.
func (s *Superblock) groups() uint64 {
	n := uint64(s.blocksPerGroup)
	return (s.Blocks - s.firstData + n - 1) / n
}

// inodeTable returns the first block of the inode table of a group.
func (f *FS) inodeTable(group uint32) (uint64, error) {
	s := &f.sb
	perBlock := uint32(s.BlockSize / s.descSize)
	b, err := f.block(s.descBlock(group/perBlock, perBlock))
	if err != nil {
		return 0, err
	}
	d := b[int64(group%perBlock)*s.descSize:][:s.descSize]
	table := uint64(le.Uint32(d[8:]))
	if s.descSize >= 64 {
		table |= uint64(le.Uint32(d[0x28:])) << 32
	}
	return table, nil
}

// descBlock returns the block that holds the nth block of group descriptors.
// They follow the superblock, unless meta_bg puts each block of them into the
// first of the groups that it describes.
func (s *Superblock) descBlock(n, perBlock uint32) uint64 {
	if s.incompat&incompatMetaBG == 0 || n < s.firstMetaBG {
		return uint64(superOff/s.BlockSize) + 1 + uint64(n)
	}
	group := uint64(n) * uint64(perBlock)
	block := s.firstData + group*uint64(s.blocksPerGroup)
	if s.hasSuper(group) {
		block++
	}
	if n == 0 && s.BlockSize == 1024 && s.firstData == 0 { // bigalloc: the superblock is in block 1
		block++
	}
	return block
}

// hasSuper tells if a group begins with a copy of the superblock.
func (s *Superblock) hasSuper(group uint64) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return group == uint64(s.backupGroups[0]) || group == uint64(s.backupGroups[1])
	case group == 1 || s.roCompat&roSparseSuper == 0:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// cString returns b up to its first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

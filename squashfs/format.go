package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Compression is the compressor number of the superblock.
type Compression uint16

// The compressors of squashfs 4.0. None is not a number of the format: an
// image without compression names gzip and stores every block.
const (
	Gzip Compression = 1
	LZMA Compression = 2
	LZO  Compression = 3
	XZ   Compression = 4
	LZ4  Compression = 5
	Zstd Compression = 6
)

var compressionNames = map[Compression]string{Gzip: "gzip", LZMA: "lzma", LZO: "lzo", XZ: "xz", LZ4: "lz4", Zstd: "zstd"}

func (c Compression) String() string {
	if s, ok := compressionNames[c]; ok {
		return s
	}
	return fmt.Sprintf("unknown (%d)", uint16(c))
}

// Sizes and limits of the format, in bytes.
const (
	SuperblockSize   = 96
	MetadataSize     = 8192    // uncompressed bytes of a metadata block
	MinBlockSize     = 4096    // smallest data block
	MaxBlockSize     = 1 << 20 // largest data block
	DefaultBlockSize = 128 << 10
	maxNameSize      = 256
	maxLinkSize      = 65535
)

const (
	superMagic  = 0x73717368 // "hsqs"
	noTable     = ^uint64(0) // a table that is absent
	noFragment  = ^uint32(0) // a file without a fragment
	noXattr     = ^uint32(0) // an inode without extended attributes
	blockStored = 1 << 24    // bit of a data block size: not compressed
	metaStored  = 1 << 15    // bit of a metadata block header: not compressed
)

// Flags of the superblock.
const (
	flagUncompressedInodes    = 0x0001
	flagUncompressedData      = 0x0002
	flagUncompressedFragments = 0x0008
	flagNoFragments           = 0x0010
	flagAlwaysFragments       = 0x0020
	flagDuplicates            = 0x0040
	flagExportable            = 0x0080
	flagUncompressedXattrs    = 0x0100
	flagNoXattrs              = 0x0200
	flagCompressorOptions     = 0x0400
	flagUncompressedIDs       = 0x0800
)

// Inode types. A basic type plus 7 is its extended form.
const (
	typeDir = iota + 1
	typeFile
	typeSymlink
	typeBlock
	typeChar
	typeFIFO
	typeSocket
	typeExtended = 7
)

// ErrNotSquashfs says that the bytes do not begin with a squashfs superblock.
var ErrNotSquashfs = errors.New("not a squashfs image")

// Xattr is an extended attribute. The format knows the name spaces user.,
// trusted. and security. only.
type Xattr struct {
	Name  string // "user.comment"
	Value []byte
}

// Superblock is the first 96 bytes of an image, little-endian, in the order of
// the fields.
type Superblock struct {
	Inodes      uint32
	ModTime     uint32 // seconds since the epoch
	BlockSize   uint32
	Fragments   uint32
	Compression Compression
	BlockLog    uint16
	Flags       uint16
	IDs         uint16
	Root        uint64 // inode reference of the root directory
	BytesUsed   uint64
	IDTable     uint64
	XattrTable  uint64
	InodeTable  uint64
	DirTable    uint64
	FragTable   uint64
	ExportTable uint64
}

var le = binary.LittleEndian

// append adds the 96 bytes of s to b.
func (s *Superblock) append(b []byte) []byte {
	b = le.AppendUint32(b, superMagic)
	for _, v := range []uint32{s.Inodes, s.ModTime, s.BlockSize, s.Fragments} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{uint16(s.Compression), s.BlockLog, s.Flags, s.IDs, 4, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint64{s.Root, s.BytesUsed, s.IDTable, s.XattrTable, s.InodeTable, s.DirTable, s.FragTable, s.ExportTable} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// ParseSuperblock reads the first 96 bytes of an image of size bytes and checks
// them: version 4.0, a sane block size that matches its logarithm, a known
// compressor, and every table inside the bytes that are in use.
func ParseSuperblock(b []byte, size int64) (*Superblock, error) {
	if len(b) < SuperblockSize || le.Uint32(b) != superMagic {
		return nil, ErrNotSquashfs
	}
	s := &Superblock{
		Inodes: le.Uint32(b[4:]), ModTime: le.Uint32(b[8:]), BlockSize: le.Uint32(b[12:]), Fragments: le.Uint32(b[16:]),
		Compression: Compression(le.Uint16(b[20:])), BlockLog: le.Uint16(b[22:]), Flags: le.Uint16(b[24:]), IDs: le.Uint16(b[26:]),
		Root: le.Uint64(b[32:]), BytesUsed: le.Uint64(b[40:]), IDTable: le.Uint64(b[48:]), XattrTable: le.Uint64(b[56:]),
		InodeTable: le.Uint64(b[64:]), DirTable: le.Uint64(b[72:]), FragTable: le.Uint64(b[80:]), ExportTable: le.Uint64(b[88:]),
	}
	if major, minor := le.Uint16(b[28:]), le.Uint16(b[30:]); major != 4 || minor != 0 {
		return nil, fmt.Errorf("squashfs version %d.%d, want 4.0", major, minor)
	}
	if s.BlockSize < MinBlockSize || s.BlockSize > MaxBlockSize || s.BlockLog > 20 || s.BlockSize != 1<<s.BlockLog {
		return nil, fmt.Errorf("squashfs block size %d with logarithm %d is not valid", s.BlockSize, s.BlockLog)
	}
	if _, ok := compressionNames[s.Compression]; !ok {
		return nil, fmt.Errorf("squashfs compressor %d is not known", s.Compression)
	}
	if size < 0 || s.BytesUsed < SuperblockSize || s.BytesUsed > uint64(size) {
		return nil, fmt.Errorf("squashfs claims %d bytes, the image holds %d", s.BytesUsed, size)
	}
	for _, t := range []struct {
		name     string
		off      uint64
		optional bool
	}{
		{"id", s.IDTable, false}, {"inode", s.InodeTable, false}, {"directory", s.DirTable, false},
		{"fragment", s.FragTable, true}, {"export", s.ExportTable, true}, {"xattr", s.XattrTable, true},
	} {
		if t.optional && t.off == noTable {
			continue
		}
		if t.off < SuperblockSize || t.off >= s.BytesUsed {
			return nil, fmt.Errorf("squashfs %s table at %d lies outside the %d bytes in use", t.name, t.off, s.BytesUsed)
		}
	}
	if s.InodeTable > s.DirTable {
		return nil, fmt.Errorf("squashfs inode table at %d lies behind the directory table at %d", s.InodeTable, s.DirTable)
	}
	return s, nil
}

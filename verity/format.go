package verity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	BlockSize  = 4096
	DigestSize = 32
	MaxSalt    = 256

	perBlock       = BlockSize / DigestSize
	superblockSize = 512
	// maxBlocks bounds the data to 1 PiB.
	maxBlocks = 1 << 38
	maxLevels = 6
)

// Digest is a SHA-256 digest.
type Digest = [DigestSize]byte

// Superblock says how a tree was made. Nothing in it is authenticated: a Reader
// takes salt and size from its caller and uses the superblock for nothing.
type Superblock struct {
	UUID   [16]byte
	Blocks int64 // of data
	Salt   []byte
}

// ErrFormat is wrapped by the errors of ParseSuperblock.
var ErrFormat = errors.New("no hash tree of a known form")

// ParseSuperblock reads the first bytes of a hash area, at least 512.
func ParseSuperblock(b []byte) (Superblock, error) {
	le := binary.LittleEndian
	wrong := func(what string) (Superblock, error) {
		return Superblock{}, fmt.Errorf("%w: %s", ErrFormat, what)
	}
	if len(b) < superblockSize {
		return wrong("it is cut short")
	}
	switch {
	case string(b[:8]) != "verity\x00\x00":
		return wrong("it does not begin with \"verity\"")
	case le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1:
		return wrong(fmt.Sprintf("version %d, hash type %d", le.Uint32(b[8:]), le.Uint32(b[12:])))
	case string(bytes.TrimRight(b[32:64], "\x00")) != "sha256":
		return wrong(fmt.Sprintf("algorithm %q", bytes.TrimRight(b[32:64], "\x00")))
	case le.Uint32(b[64:]) != BlockSize || le.Uint32(b[68:]) != BlockSize:
		return wrong(fmt.Sprintf("blocks of %d and %d bytes", le.Uint32(b[64:]), le.Uint32(b[68:])))
	case le.Uint64(b[72:]) == 0 || le.Uint64(b[72:]) > maxBlocks:
		return wrong(fmt.Sprintf("%d blocks", le.Uint64(b[72:])))
	case le.Uint16(b[80:]) > MaxSalt:
		return wrong(fmt.Sprintf("a salt of %d bytes", le.Uint16(b[80:])))
	}
	s := Superblock{Blocks: int64(le.Uint64(b[72:])), Salt: bytes.Clone(b[88 : 88+le.Uint16(b[80:])])}
	copy(s.UUID[:], b[16:])
	return s, nil
}

// block returns the superblock as it lies on the disk.
func (s *Superblock) block() []byte {
	le := binary.LittleEndian
	b := make([]byte, BlockSize)
	copy(b, "verity")
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[16:], s.UUID[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], BlockSize)
	le.PutUint32(b[68:], BlockSize)
	le.PutUint64(b[72:], uint64(s.Blocks))
	le.PutUint16(b[80:], uint16(len(s.Salt)))
	copy(b[88:], s.Salt)
	return b
}

// shape says where the levels of a tree lie.
type shape struct {
	blocks int64 // of data
	levels int   // 0 for a single block of data
	// count is the number of hash blocks of each level, the leaves first, and
	// start the offset of its first one in the hash area.
	count, start [maxLevels]int64
	size         int64 // of the hash area
}

// shapeOf returns the shape of the tree over size bytes.
func shapeOf(size int64) (shape, error) {
	s := shape{blocks: (size-1)/BlockSize + 1}
	if size <= 0 || s.blocks > maxBlocks {
		return s, fmt.Errorf("a tree over %d bytes cannot be made", size)
	}
	for n := s.blocks; n > 1; s.levels++ {
		n = (n + perBlock - 1) / perBlock
		s.count[s.levels] = n
	}
	s.size = BlockSize
	for l := s.levels - 1; l >= 0; l-- {
		s.start[l] = s.size
		s.size += s.count[l] * BlockSize
	}
	return s, nil
}

// TreeSize returns the size of the hash area over size bytes of data, 1 byte to
// 1 PiB.
func TreeSize(size int64) (int64, error) {
	s, err := shapeOf(size)
	return s.size, err
}

package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"io"
)

const (
	binarySize    = 4096 // of a header, before the JSON text
	minHeaderSize = 16 << 10
	maxHeaderSize = 4 << 20

	magicFirst  = "LUKS\xba\xbe"
	magicSecond = "SKUL\xba\xbe"
)

// The places of the binary fields. Numbers are big-endian.
const (
	offMagic     = 0
	offVersion   = 6
	offSize      = 8
	offSequence  = 16
	offLabel     = 24
	offAlgorithm = 72
	offSalt      = 104
	offUUID      = 168
	offOwnOff    = 256
	offChecksum  = 448

	labelSize     = 48
	algorithmSize = 32
	saltSize      = 64
	uuidSize      = 40
	checksumSize  = 64
)

var be = binary.BigEndian

// header is one sound copy.
type header struct {
	size     int64 // of one copy
	sequence uint64
	label    string
	uuid     string
	json     []byte
}

// readHeader returns the newer of the two copies, or the one that is sound.
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	first, firstErr := readCopy(r, size, 0, magicFirst)
	if firstErr == nil {
		second, err := readCopy(r, size, first.size, magicSecond)
		if err == nil && second.size == first.size && second.sequence > first.sequence {
			return second, nil
		}
		return first, nil
	}
	// Where the second copy lies is known only from the first one, so the
	// legal places are tried.
	for off := int64(minHeaderSize); off <= maxHeaderSize; off *= 2 {
		if h, err := readCopy(r, size, off, magicSecond); err == nil && h.size == off {
			return h, nil
		}
	}
	return nil, firstErr
}

// readCopy reads the copy at off.
func readCopy(r io.ReaderAt, size, off int64, magic string) (*header, error) {
	if off+binarySize > size {
		return nil, ErrNotLUKS
	}
	fixed := make([]byte, binarySize)
	if err := readFull(r, fixed, off); err != nil {
		return nil, err
	}
	if string(fixed[offMagic:offVersion]) != magic {
		return nil, ErrNotLUKS
	}
	if v := be.Uint16(fixed[offVersion:]); v != 2 {
		return nil, refuse("version %d, only 2 is supported", v)
	}
	h := &header{sequence: be.Uint64(fixed[offSequence:]), label: text(fixed, offLabel, labelSize), uuid: text(fixed, offUUID, uuidSize)}
	n := be.Uint64(fixed[offSize:])
	if n < minHeaderSize || n > maxHeaderSize || n&(n-1) != 0 {
		return nil, refuse("a size of %d bytes", n)
	}
	h.size = int64(n)
	if 2*h.size > size {
		return nil, refuse("two copies of %d bytes in a container of %d", n, size)
	}
	if own := be.Uint64(fixed[offOwnOff:]); own != uint64(off) {
		return nil, refuse("the copy at %d says that it lies at %d", off, own)
	}
	all := make([]byte, h.size)
	copy(all, fixed)
	if err := readFull(r, all[binarySize:], off+binarySize); err != nil {
		return nil, err
	}
	if err := checkSum(all); err != nil {
		return nil, err
	}
	h.json = all[binarySize:]
	return h, nil
}

func checkSum(all []byte) error {
	sum := hashNamed(text(all, offAlgorithm, algorithmSize))
	if sum == nil {
		return refuse("checksum algorithm %q", text(all, offAlgorithm, algorithmSize))
	}
	stored := bytes.Clone(all[offChecksum : offChecksum+checksumSize])
	clear(all[offChecksum : offChecksum+checksumSize])
	h := sum()
	h.Write(all)
	if !bytes.Equal(h.Sum(nil), stored[:h.Size()]) {
		return refuse("the checksum does not match")
	}
	return nil
}

// hashNamed returns one of the hashes that are accepted anywhere in a header,
// or nil.
func hashNamed(name string) func() hash.Hash {
	switch name {
	case "sha256":
		return sha256.New
	case "sha512":
		return sha512.New
	}
	return nil
}

// text returns the field of n bytes at off up to its first NUL.
func text(b []byte, off, n int) string {
	s, _, _ := bytes.Cut(b[off:off+n], []byte{0})
	return string(s)
}

// encodeHeader returns a copy of the header that lies at off.
func encodeHeader(off, size int64, json []byte, uuid string, salt []byte) []byte {
	b := make([]byte, size)
	copy(b[offMagic:], magicFirst)
	if off != 0 {
		copy(b[offMagic:], magicSecond)
	}
	be.PutUint16(b[offVersion:], 2)
	be.PutUint64(b[offSize:], uint64(size))
	be.PutUint64(b[offSequence:], 1)
	copy(b[offAlgorithm:], "sha256")
	copy(b[offSalt:offSalt+saltSize], salt)
	copy(b[offUUID:offUUID+uuidSize-1], uuid)
	be.PutUint64(b[offOwnOff:], uint64(off))
	copy(b[binarySize:], json)
	sum := sha256.Sum256(b)
	copy(b[offChecksum:], sum[:])
	return b
}

// readFull fills p from r at off.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

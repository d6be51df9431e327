package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"sync"

	"github.com/ulikunitz/xz/lzma"

	"singularity/squashfs/inflate"
	"singularity/squashfs/lz4"
	"singularity/squashfs/zstd"
)

// decompressor unpacks a whole block from src to dst and returns its length. A
// block that does not fit dst is an error. It may be called by several
// goroutines.
type decompressor func(dst, src []byte) (int, error)

// maxDictionary bounds the memory of one LZMA decoder, in bytes. A
// dictionary larger than a block is of no use to a writer.
const maxDictionary = 2 * MaxBlockSize

func newDecompressor(c Compression, blockSize int) (decompressor, error) {
	switch c {
	case Gzip:
		pool := sync.Pool{New: func() any { return new(inflate.Decoder) }}
		return func(dst, src []byte) (int, error) {
			d := pool.Get().(*inflate.Decoder)
			defer pool.Put(d)
			return d.Zlib(dst, src)
		}, nil
	case LZ4:
		return lz4.Decode, nil
	case Zstd:
		pool := sync.Pool{New: func() any { return new(zstd.Decoder) }}
		return func(dst, src []byte) (int, error) {
			d := pool.Get().(*zstd.Decoder)
			defer pool.Put(d)
			return d.Decode(dst, src)
		}, nil
	case XZ:
		return unxz, nil
	case LZMA:
		return unlzma, nil
	case LZO:
		return unlzo, nil
	}
	return nil, fmt.Errorf("squashfs compressor %v is not supported", c)
}

// readFull fills dst from r and makes sure that r ends with it, or earlier.
func readFull(r io.Reader, dst []byte) (int, error) {
	n, err := io.ReadFull(r, dst)
	switch err {
	case nil:
		var one [1]byte
		if k, err := r.Read(one[:]); k != 0 || err != io.EOF {
			return n, errors.New("block is larger than its destination")
		}
	case io.EOF, io.ErrUnexpectedEOF:
		err = nil
	}
	return n, err
}

// unlzma unpacks a block in the classic LZMA format with its 13-byte header.
func unlzma(dst, src []byte) (int, error) {
	r, err := lzma.ReaderConfig{DictCap: maxDictionary}.NewReader(bytes.NewReader(src))
	if err != nil {
		return 0, err
	}
	return readFull(r, dst)
}

const xzHeaderSize = 12

var xzMagic = [6]byte{0xfd, '7', 'z', 'X', 'Z', 0}

// unxz unpacks a block in the xz format: one stream with one block. It reads
// the container itself, so that the dictionary is bounded before any memory is
// taken for it.
func unxz(dst, src []byte) (int, error) {
	if len(src) < xzHeaderSize+8 || !bytes.Equal(src[:6], xzMagic[:]) || src[6] != 0 {
		return 0, errors.New("no xz stream header")
	}
	check := src[7]
	size := (int(src[xzHeaderSize]) + 1) * 4
	body := src[xzHeaderSize:]
	if src[xzHeaderSize] == 0 || size > len(body) {
		return 0, errors.New("no xz block")
	}
	if crc32.ChecksumIEEE(body[:size-4]) != le.Uint32(body[size-4:]) {
		return 0, errors.New("xz block header checksum does not match")
	}
	dict, err := xzDictionary(body[1 : size-4])
	if err != nil {
		return 0, err
	}
	in := bytes.NewReader(body[size:])
	r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(in)
	if err != nil {
		return 0, err
	}
	n, err := readFull(r, dst)
	if err != nil {
		return n, err
	}
	rest := body[len(body)-in.Len():]
	rest = rest[min(len(rest), (4-(len(body)-len(rest))&3)&3):] // blocks are padded to four bytes
	return n, xzCheck(check, rest, dst[:n])
}

// xzDictionary reads the dictionary size from a block header behind its size
// byte.
func xzDictionary(h []byte) (int, error) {
	flags := h[0]
	h = h[1:]
	if flags&3 != 0 {
		return 0, errors.New("xz branch filters are not supported")
	}
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&bit != 0 {
			_, k := binary.Uvarint(h)
			if k <= 0 {
				return 0, errors.New("bad xz block header")
			}
			h = h[k:]
		}
	}
	const lzma2 = 0x21
	if len(h) < 3 || h[0] != lzma2 || h[1] != 1 || h[2] > 40 {
		return 0, errors.New("xz filter is not LZMA2")
	}
	dict := int64(2|h[2]&1) << (h[2]/2 + 11)
	if dict > maxDictionary {
		return 0, fmt.Errorf("xz dictionary of %d bytes is over the limit of %d", dict, maxDictionary)
	}
	return int(dict), nil
}

// xzCheck compares the integrity check of a block. A kind that is not known is
// left alone, as the format says.
func xzCheck(kind byte, sum, data []byte) error {
	ok := true
	switch kind {
	case 1:
		ok = len(sum) >= 4 && le.Uint32(sum) == crc32.ChecksumIEEE(data)
	case 4:
		ok = len(sum) >= 8 && le.Uint64(sum) == crc64.Checksum(data, crc64.MakeTable(crc64.ECMA))
	}
	if !ok {
		return errors.New("xz checksum does not match")
	}
	return nil
}

package squashfs

import (
	"encoding/binary"
	"fmt"
	"hash/adler32"

	"singularity/squashfs/deflate"
	"singularity/squashfs/zstd"
)

// Levels that stand for "the default" where the caller names none.
const (
	defaultGzipLevel = 6
	defaultZstdLevel = 3
	formatGzipLevel  = 9  // what an image without compressor options means
	formatZstdLevel  = 15 // the same for zstd
	fastZstdLevel    = 5  // levels up to it are one: that of package zstd
	maxZstdLevel     = 22
	maxLZ4Level      = 9
)

// Encoder compresses one block at a time. It keeps its tables between blocks,
// so one encoder serves one goroutine. The result depends on src and the
// settings alone, never on the blocks before.
type Encoder interface {
	// Encode writes the compressed form of src over dst, whose capacity is at
	// least len(src), and reports ok == false if it would not be smaller.
	Encode(dst, src []byte) (out []byte, ok bool, err error)
}

// encSettings are the checked compression settings of a writer.
type encSettings struct {
	kind      Compression
	level     int
	blockSize int
	store     bool
	digest    func([]byte) [DigestSize]byte
	other     func(c Compression, level, blockSize int) (Encoder, error)
}

// newEncSettings fills in defaults and refuses levels that the compressor does not have.
func newEncSettings(o *WriterOptions) (encSettings, error) {
	s := encSettings{kind: o.Compression, level: o.Level, blockSize: o.BlockSize, store: o.NoCompress, digest: o.Digest, other: o.NewEncoder}
	if s.kind == 0 || s.store {
		s.kind = Gzip
	}
	lowest, highest := 1, 0
	switch s.kind {
	case Gzip:
		highest = 9
		if s.level == 0 {
			s.level = defaultGzipLevel
		}
	case Zstd:
		highest = maxZstdLevel
		if s.level == 0 {
			s.level = defaultZstdLevel
		}
	case LZ4:
		lowest, highest = 0, maxLZ4Level
	case XZ:
		lowest = 0
	default:
		return s, fmt.Errorf("cannot write squashfs with compressor %v", s.kind)
	}
	if !s.own() && s.other == nil {
		return s, fmt.Errorf("cannot write squashfs with compressor %v: the program does not bring it", s.kind)
	}
	if s.level < lowest || s.level > highest {
		return s, fmt.Errorf("cannot use level %d with %v: want %d to %d", s.level, s.kind, lowest, highest)
	}
	return s, nil
}

// own tells whether the compressor is one of ours.
func (s encSettings) own() bool {
	return s.kind == Gzip || s.kind == Zstd && s.level <= fastZstdLevel
}

// options returns the compressor options of the image, empty where the format
// takes its defaults. lz4 has no defaults: its options always stand.
func (s encSettings) options() []byte {
	le := binary.LittleEndian
	switch {
	case s.store:
		return nil
	case s.kind == Gzip && s.level != formatGzipLevel:
		b := le.AppendUint32(nil, uint32(s.level))
		b = le.AppendUint16(b, 15)   // window size, as a logarithm
		return le.AppendUint16(b, 0) // strategies: the default one
	case s.kind == Zstd && s.level != formatZstdLevel:
		return le.AppendUint32(nil, uint32(s.level))
	case s.kind == LZ4:
		b := le.AppendUint32(nil, 1) // the lz4 block format, "legacy"
		hc := uint32(0)
		if s.level > 0 {
			hc = 1
		}
		return le.AppendUint32(b, hc)
	}
	return nil // xz: the dictionary is one block, the format's default
}

func (s encSettings) newEncoder() (Encoder, error) {
	if s.store {
		return storeEncoder{}, nil
	}
	if !s.own() {
		return s.other(s.kind, s.level, s.blockSize)
	}
	if s.kind == Zstd {
		return &zstdEncoder{zstd.NewEncoder()}, nil
	}
	e, err := deflate.New(s.level)
	return &gzipEncoder{e}, err
}

type storeEncoder struct{}

func (storeEncoder) Encode(dst, _ []byte) ([]byte, bool, error) { return dst[:0], false, nil }

// gzipEncoder makes the zlib stream (RFC 1950) that the format calls gzip.
type gzipEncoder struct{ deflate *deflate.Encoder }

func (e *gzipEncoder) Encode(dst, src []byte) ([]byte, bool, error) {
	out, ok := e.deflate.Encode(append(dst[:0], 0x78, 0x9c), src, len(src)-7)
	return binary.BigEndian.AppendUint32(out, adler32.Checksum(src)), ok, nil
}

// zstdEncoder makes one zstd frame of each block.
type zstdEncoder struct{ zstd *zstd.Encoder }

func (e *zstdEncoder) Encode(dst, src []byte) ([]byte, bool, error) {
	out, ok := e.zstd.Encode(dst[:0], src, len(src)-1)
	return out, ok, nil
}

package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"singularity/squashfs/deflate"
)

// Levels that stand for "the default" where the caller names none.
const (
	defaultGzipLevel = 6
	defaultZstdLevel = 3
	formatGzipLevel  = 9  // what an image without compressor options means
	formatZstdLevel  = 15 // the same for zstd
	maxZstdLevel     = 22
	maxLZ4Level      = 9
)

// encoder compresses one block at a time. It keeps its tables between blocks,
// so one encoder serves one goroutine. The result depends on src and the
// settings alone, never on the blocks before.
type encoder interface {
	// encode writes the compressed form of src over dst, whose capacity is at
	// least len(src), and reports ok == false if it would not be smaller.
	encode(dst, src []byte) (out []byte, ok bool, err error)
}

// encSettings are the checked compression settings of a writer.
type encSettings struct {
	kind      Compression
	level     int
	blockSize int
	store     bool
}

// newEncSettings fills in defaults and refuses levels that the compressor does not have.
func newEncSettings(o *WriterOptions) (encSettings, error) {
	s := encSettings{kind: o.Compression, level: o.Level, blockSize: o.BlockSize, store: o.NoCompress}
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
	if s.level < lowest || s.level > highest {
		return s, fmt.Errorf("cannot use level %d with %v: want %d to %d", s.level, s.kind, lowest, highest)
	}
	return s, nil
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

func (s encSettings) newEncoder() (encoder, error) {
	if s.store {
		return storeEncoder{}, nil
	}
	switch s.kind {
	case Zstd:
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(s.level)), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(max(s.blockSize, MetadataSize)), zstd.WithLowerEncoderMem(true))
		return zstdEncoder{e}, err
	case LZ4:
		if s.level > 0 {
			return &lz4Encoder{block: (&lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + s.level))}).CompressBlock}, nil
		}
		return &lz4Encoder{block: new(lz4.Compressor).CompressBlock}, nil
	case XZ:
		c := xz.WriterConfig{DictCap: max(s.blockSize, MetadataSize), CheckSum: xz.CRC32}
		return &xzEncoder{c}, c.Verify()
	}
	e, err := deflate.New(s.level)
	return gzipEncoder{e}, err
}

type storeEncoder struct{}

func (storeEncoder) encode(dst, _ []byte) ([]byte, bool, error) { return dst[:0], false, nil }

// errEncFull ends a compression early, as soon as its result is as large as
// its input.
var errEncFull = errors.New("compressed block is not smaller")

// encLimit is a writer into a fixed buffer. It remembers that it was full: not
// every compressor passes the error of its output on.
type encLimit struct {
	b    []byte
	max  int
	full bool
}

func (l *encLimit) Write(p []byte) (int, error) {
	if l.full = l.full || len(l.b)+len(p) > l.max; l.full {
		return 0, errEncFull
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// gzipEncoder makes the zlib stream (RFC 1950) that the format calls gzip.
type gzipEncoder struct{ *deflate.Encoder }

func (e gzipEncoder) encode(dst, src []byte) ([]byte, bool, error) {
	out, ok := e.Encode(append(dst[:0], 0x78, 0x9c), src, len(src)-7)
	return binary.BigEndian.AppendUint32(out, adler32.Checksum(src)), ok, nil
}

type zstdEncoder struct{ *zstd.Encoder }

func (e zstdEncoder) encode(dst, src []byte) ([]byte, bool, error) {
	out := e.EncodeAll(src, dst[:0])
	return out, len(out) < len(src), nil
}

type lz4Encoder struct {
	block func(src, dst []byte) (int, error)
}

func (e *lz4Encoder) encode(dst, src []byte) ([]byte, bool, error) {
	n, err := e.block(src, dst[:len(src)])
	if errors.Is(err, lz4.ErrInvalidSourceShortBuffer) {
		n, err = 0, nil
	}
	return dst[:n], n > 0 && n < len(src), err
}

type xzEncoder struct{ xz.WriterConfig }

func (e *xzEncoder) encode(dst, src []byte) ([]byte, bool, error) {
	out := encLimit{b: dst[:0], max: len(src) - 1}
	w, err := e.NewWriter(&out)
	if err == nil {
		_, err = w.Write(src)
	}
	if err == nil {
		err = w.Close()
	}
	if out.full {
		return out.b, false, nil
	}
	return out.b, err == nil, err
}

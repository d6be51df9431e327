// Package compress makes the compressors of squashfs images besides those that
// are our own: the slow levels of zstd, lz4 and xz, from the libraries of others. It is apart from package squashfs
// so that a program that only reads images does not link, and at each start
// initialise, what only writing needs.
package compress

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// metadataSize is the size of a metadata block, the smallest window.
const metadataSize = 8192

// Encoder is squashfs.Encoder.
type Encoder interface {
	Encode(dst, src []byte) (out []byte, ok bool, err error)
}

// New returns an encoder for the compressor called zstd, lz4 or xz at a level
// that package squashfs has checked, for blocks of at most blockSize bytes.
func New(name string, level, blockSize int) (Encoder, error) {
	switch name {
	case "zstd":
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(max(blockSize, metadataSize)), zstd.WithLowerEncoderMem(true))
		return zstdEncoder{e}, err
	case "lz4":
		if level > 0 {
			return &lz4Encoder{block: (&lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + level))}).CompressBlock}, nil
		}
		return &lz4Encoder{block: new(lz4.Compressor).CompressBlock}, nil
	case "xz":
		c := xz.WriterConfig{DictCap: max(blockSize, metadataSize), CheckSum: xz.CRC32}
		return &xzEncoder{c}, c.Verify()
	}
	return nil, fmt.Errorf("no compressor %q", name)
}

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

type zstdEncoder struct{ zstd *zstd.Encoder }

func (e zstdEncoder) Encode(dst, src []byte) ([]byte, bool, error) {
	out := e.zstd.EncodeAll(src, dst[:0])
	return out, len(out) < len(src), nil
}

type lz4Encoder struct {
	block func(src, dst []byte) (int, error)
}

func (e *lz4Encoder) Encode(dst, src []byte) ([]byte, bool, error) {
	n, err := e.block(src, dst[:len(src)])
	if errors.Is(err, lz4.ErrInvalidSourceShortBuffer) {
		n, err = 0, nil
	}
	return dst[:n], n > 0 && n < len(src), err
}

type xzEncoder struct{ config xz.WriterConfig }

func (e *xzEncoder) Encode(dst, src []byte) ([]byte, bool, error) {
	out := encLimit{b: dst[:0], max: len(src) - 1}
	w, err := e.config.NewWriter(&out)
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

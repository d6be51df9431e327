package unpack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	magicSize     = 6
	chunkSize     = 256 << 10 // bytes on their way from a layer to the reader of its archive
	chunks        = 4         // such pieces at a time
	skipSize      = 32 << 10  // bytes read at once where most are skipped
	maxZstdWindow = 64 << 20  // what the decoder may hold of a layer
)

// Compression names what the first bytes of a layer or archive tell: "gzip",
// "zstd", "bzip2", "xz" or "" for none.
func Compression(magic []byte) string {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return "gzip"
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) > 3 && magic[0]&0xf0 == 0x50 && bytes.HasPrefix(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		return "zstd"
	case bytes.HasPrefix(magic, []byte("BZh")):
		return "bzip2"
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return "xz"
	}
	return ""
}

// Decompress reads r, which may be compressed by gzip or zstd; the second
// result is false for what is not compressed. Security: limits bound how much
// comes out.
func Decompress(r io.Reader, limits Limits) (io.ReadCloser, bool, error) {
	in := &countedReader{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	magic, err := br.Peek(magicSize)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	out := &boundedReader{in: in, limits: limits, close: func() {}}
	switch kind := Compression(magic); kind {
	case "":
		return io.NopCloser(br), false, nil
	case "gzip":
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, false, err
		}
		out.r = z
	case "zstd":
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, false, err
		}
		out.r, out.close = z, z.Close
	default:
		return nil, false, fmt.Errorf("cannot read what is compressed by %s: only gzip and zstd are known", kind)
	}
	return out, true, nil
}

// countedReader counts the bytes that a decompressor takes. Its goroutines may
// read ahead, so the count is a little too high, never too low for long.
type countedReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// boundedReader ends a stream from which too much comes out.
type boundedReader struct {
	r      io.Reader
	close  func()
	in     *countedReader
	limits Limits
	n      int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	switch l := &b.limits; {
	case b.n > l.Size:
		return 0, fmt.Errorf("more than %d bytes come out of it: %w", l.Size, ErrLimit)
	case b.n > l.FreeSize && b.n/l.Ratio > b.in.n.Load():
		return 0, fmt.Errorf("%d bytes come out of %d, more than %d for each: %w", b.n, b.in.n.Load(), l.Ratio, ErrLimit)
	}
	return n, err
}

func (b *boundedReader) Close() error {
	b.close()
	return nil
}

// openHeaders opens a layer to read its headers; what is between them is
// skipped where that is possible.
func openHeaders(ctx context.Context, l *Layer, limits Limits) (io.ReadCloser, error) {
	stored, err := l.Open()
	if err != nil {
		return nil, err
	}
	if ra, ok := stored.(io.ReaderAt); ok && l.Size >= 0 {
		var magic [magicSize]byte
		n, err := ra.ReadAt(magic[:], 0)
		if err != nil && err != io.EOF {
			return nil, errors.Join(err, stored.Close())
		}
		if Compression(magic[:n]) == "" {
			return &skipReader{ctx: ctx, r: ra, size: l.Size, Closer: stored}, nil
		}
	}
	plain, _, err := Decompress(contextReader{ctx, stored}, limits)
	if err != nil {
		return nil, errors.Join(err, stored.Close())
	}
	return &bothClosed{bufio.NewReaderSize(plain, chunkSize), plain, stored}, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// bothClosed reads from Reader and closes what is below it.
type bothClosed struct {
	io.Reader
	upper, lower io.Closer
}

func (b *bothClosed) Close() error { return errors.Join(b.upper.Close(), b.lower.Close()) }

// skipReader reads a few bytes here and there: archive/tar seeks over contents.
type skipReader struct {
	io.Closer
	ctx    context.Context
	r      io.ReaderAt
	size   int64
	pos    int64
	buf    []byte // of the bytes from bufOff on
	bufOff int64
}

func (s *skipReader) Read(b []byte) (int, error) {
	if s.pos >= s.size {
		return 0, io.EOF
	}
	if s.pos < s.bufOff || s.pos >= s.bufOff+int64(len(s.buf)) {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.buf[s.pos-s.bufOff:])
	s.pos += int64(n)
	return n, nil
}

func (s *skipReader) fill() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.buf == nil {
		s.buf = make([]byte, skipSize)
	}
	n, err := s.r.ReadAt(s.buf[:min(skipSize, s.size-s.pos)], s.pos)
	if n == 0 {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	s.buf, s.bufOff = s.buf[:n], s.pos
	return nil
}

func (s *skipReader) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += s.pos
	case io.SeekEnd:
		off += s.size
	}
	if off < 0 {
		return 0, errors.New("cannot seek before the beginning")
	}
	s.pos = off
	return off, nil
}

// verifiedReader reads the archive of a layer from its first to its last byte
// and takes its digests. A goroutine does that work, while the one that reads
// does its own.
type verifiedReader struct {
	l      *Layer
	cancel context.CancelFunc
	full   chan piece
	empty  chan []byte
	piece  piece // being read
	buf    []byte
	stored *storedReader
	diffID hash.Hash
	plain  io.ReadCloser
}

// piece is some bytes and what came behind them.
type piece struct {
	b   []byte
	err error
}

// storedReader takes the digest of the bytes as they are stored.
type storedReader struct {
	r   io.Reader
	sum hash.Hash // nil if it is not wanted
	n   int64
}

func (s *storedReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.n += int64(n)
	if s.sum != nil {
		s.sum.Write(b[:n])
	}
	return n, err
}

// openVerified opens a layer to read all of it.
func openVerified(ctx context.Context, l *Layer, limits Limits) (*verifiedReader, error) {
	in, err := l.Open()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	v := &verifiedReader{l: l, cancel: cancel, diffID: sha256.New(), stored: &storedReader{r: contextReader{ctx, in}},
		full: make(chan piece), empty: make(chan []byte, chunks)}
	if l.Digest != "" && l.Digest != l.DiffID {
		v.stored.sum = sha256.New()
	}
	plain, packed, err := Decompress(v.stored, limits)
	if err == nil && packed && l.Digest == l.DiffID {
		plain.Close()
		err = fmt.Errorf("it is compressed, and its digest is said to be that of its archive: %w", ErrDigest)
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, in.Close())
	}
	v.plain = &bothClosed{plain, plain, in}
	for range chunks {
		v.empty <- make([]byte, chunkSize)
	}
	go v.produce(ctx)
	return v, nil
}

// produce reads the layer to its end.
func (v *verifiedReader) produce(ctx context.Context) {
	defer close(v.full)
	for {
		var b []byte
		select {
		case b = <-v.empty:
		case <-ctx.Done():
			return
		}
		n, err := io.ReadFull(v.plain, b)
		if err == io.ErrUnexpectedEOF && n > 0 {
			// Of the buffer, not of the layer; that is told by the next read.
			err = nil
		}
		v.diffID.Write(b[:n])
		if err == io.EOF {
			// What follows the last compressed frame belongs to the digest.
			if _, rest := io.Copy(io.Discard, v.stored); rest != nil {
				err = rest
			}
		}
		select {
		case v.full <- piece{b[:n], err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (v *verifiedReader) Read(b []byte) (int, error) {
	for len(v.buf) == 0 {
		if v.piece.err != nil {
			return 0, v.piece.err
		}
		if v.piece.b != nil {
			v.empty <- v.piece.b[:chunkSize]
		}
		p, ok := <-v.full
		if !ok {
			return 0, context.Canceled
		}
		v.piece, v.buf = p, p.b
	}
	n := copy(b, v.buf)
	v.buf = v.buf[n:]
	return n, nil
}

// Verify reads what is left and compares the digests.
func (v *verifiedReader) Verify() error {
	if _, err := io.Copy(io.Discard, v); err != nil {
		return err
	}
	if v.l.Size >= 0 && v.stored.n != v.l.Size {
		return fmt.Errorf("it has %d bytes, not %d: %w", v.stored.n, v.l.Size, ErrDigest)
	}
	diffID := fmt.Sprintf("sha256:%x", v.diffID.Sum(nil))
	stored := diffID
	if v.stored.sum != nil {
		stored = fmt.Sprintf("sha256:%x", v.stored.sum.Sum(nil))
	}
	if v.l.Digest != "" && stored != v.l.Digest {
		return fmt.Errorf("its digest is %s, not %s: %w", stored, v.l.Digest, ErrDigest)
	}
	if diffID != v.l.DiffID {
		return fmt.Errorf("the digest of its archive is %s, not %s as the configuration of the image says: %w", diffID, v.l.DiffID, ErrDigest)
	}
	return nil
}

// Close ends the goroutine and closes the layer.
func (v *verifiedReader) Close() error {
	v.cancel()
	for range v.full { // until the goroutine has ended
	}
	return v.plain.Close()
}

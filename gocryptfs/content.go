package gocryptfs

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

const (
	headerSize   = 18
	fileVersion  = 2
	idSize       = 16
	plainBlock   = 4096
	overhead     = ivSize + tagSize
	cipherBlock  = plainBlock + overhead
	chunkBlocks  = 33 // a usual squashfs block, with the edges that it begins and ends in
	maxPlainSize = math.MaxInt64 / 2
)

var chunks = sync.Pool{New: func() any { return new([chunkBlocks * cipherBlock]byte) }}

// File is the plain content of an encrypted file. Any number of goroutines may
// read at a time.
type File struct {
	r    io.ReaderAt
	size int64 // plain
	id   [idSize]byte
	aead cipher.AEAD
}

// File opens the encrypted file of size bytes in r.
func (k *Keys) File(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, aead: k.content}
	if size == 0 {
		return f, nil
	}
	var err error
	if f.size, err = plainSize(size); err != nil {
		return nil, err
	}
	var head [headerSize]byte
	if err := readFull(r, head[:], 0); err != nil {
		return nil, err
	}
	if v := binary.BigEndian.Uint16(head[:]); v != fileVersion {
		return nil, fmt.Errorf("%w: a file of version %d", ErrContent, v)
	}
	copy(f.id[:], head[2:])
	return f, nil
}

// plainSize returns how much is in an encrypted file of size bytes.
func plainSize(size int64) (int64, error) {
	body := size - headerSize
	rest := body % cipherBlock
	if body <= 0 || body > maxPlainSize || rest > 0 && rest <= overhead {
		return 0, fmt.Errorf("%w: no file has %d bytes", ErrContent, size)
	}
	n := body / cipherBlock * plainBlock
	if rest > 0 {
		n += rest - overhead
	}
	return n, nil
}

// Size returns the bytes of the plain content.
func (f *File) Size() int64 { return f.size }

// ReadAt reads like any io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("cannot read before the file")
	}
	if off >= f.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > f.size-off {
		p, end = p[:f.size-off], io.EOF
	}
	n := 0
	for n < len(p) {
		k, err := f.readSome(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, end
}

// readSome reads the beginning of p, by way of a chunk. All of it is in the file.
func (f *File) readSome(p []byte, off int64) (int, error) {
	first := off / plainBlock
	skip := int(off % plainBlock)
	blocks := min((skip+len(p)+plainBlock-1)/plainBlock, chunkBlocks)
	begin := first * plainBlock
	plain := min(int64(blocks)*plainBlock, f.size-begin)
	chunk := chunks.Get().(*[chunkBlocks * cipherBlock]byte)
	defer chunks.Put(chunk)
	in := chunk[:plain+int64(blocks)*overhead]
	if err := readFull(f.r, in, headerSize+first*cipherBlock); err != nil {
		return 0, err
	}
	done := 0
	for i := range blocks {
		b := in[i*cipherBlock : min((i+1)*cipherBlock, len(in))]
		text, err := openBlock(f.aead, b[ivSize:ivSize], b, blockData(uint64(first)+uint64(i), f.id[:]))
		if err != nil {
			return done, fmt.Errorf("block %d: %w", first+int64(i), err)
		}
		done += copy(p[done:], text[skip:])
		skip = 0
	}
	return done, nil
}

// blockData is what is authenticated with a block.
func blockData(number uint64, id []byte) []byte {
	b := make([]byte, 8, 8+idSize)
	binary.BigEndian.PutUint64(b, number)
	return append(b, id...)
}

// openBlock appends the plain bytes of a block to dst, which may lie over the
// ciphertext.
//
// Security: the format takes a block of zeros for a hole, which needs no key to
// forge; here the tag is wrong.
func openBlock(aead cipher.AEAD, dst, b, data []byte) ([]byte, error) {
	if len(b) <= overhead {
		return nil, ErrContent
	}
	plain, err := aead.Open(dst, b[:ivSize], b[ivSize:], data)
	if err != nil {
		return nil, ErrContent
	}
	return plain, nil
}

// readFull fills p; a file that has become shorter is an error.
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

// Package zstd decompresses one whole Zstandard buffer into another, and
// compresses buffers fast.
//
// To a Decoder goes a complete compressed buffer of one or more frames and a
// destination that is large enough for the result; out comes the number of bytes
// written. There is no streaming, no window buffer, no goroutine, and no work
// before main: earlier output is read straight from the destination. Blocks of a
// squashfs image are exactly such buffers. An Encoder makes one frame of a
// buffer of at most 1 MiB, or says that it would be larger than a limit.
//
// The Decoder's input is hostile: every size is checked against what is left of the
// buffers, every code table for completeness, every offset against the window
// and the bytes already written, every bit stream for its exact end. Wrong
// input gives ErrCorrupt, output that does not fit gives ErrTooLarge; nothing
// panics and nothing is written outside the destination, though bytes behind
// the result may be scribbled on. A frame that needs a dictionary is refused
// with ErrDictionary. A frame's content checksum and content size are verified
// when it has them.
//
// A frame consists of blocks; a compressed block consists of literals, usually
// Huffman coded, and sequences that each copy some literals and then some
// earlier output:
//
//	frame     magic | header | block... | checksum (optional)
//	block     last, kind, size (3 bytes) | content
//	content   literals header | code | streams | sequence count | tables | bits
//
// Format: RFC 8878. Files: zstd.go has frames and blocks, literals.go and
// huffman.go the literals, fse.go the tables of the other code, sequence.go
// reads sequences, execute.go carries them out, xxhash.go is the checksum.
// encode.go writes frames and blocks, match.go finds sequences, encode_literals.go,
// encode_fse.go and encode_sequence.go write what the files of like name read.
package zstd

import (
	"encoding/binary"
	"errors"
)

// Errors of the decoder.
var (
	ErrCorrupt    = errors.New("corrupt zstd data")
	ErrTooLarge   = errors.New("zstd data is larger than its destination")
	ErrChecksum   = errors.New("zstd checksum does not match")
	ErrDictionary = errors.New("zstd data needs a dictionary")
)

var le = binary.LittleEndian

const (
	frameMagic     = 0xfd2fb528
	skippableMagic = 0x184d2a50 // the low four bits are free
	maxBlockSize   = 128 << 10
)

// Decoder holds the tables and literals of one decompression. The zero value
// is ready; it may be used again, but not by two goroutines at once. It is
// about 160 KiB.
type Decoder struct {
	src, dst []byte
	in, out  int // next byte of src, next byte of dst

	start    int    // where the frame's output starts in dst
	window   uint64 // how far back a match may reach
	maxBlock int    // the largest content of a block, packed or not

	huffman    huffmanTable
	haveCodes  bool // huffman was set in this frame
	lits       []byte
	literals   [maxBlockSize + margin]byte
	kinds      [3]fseTable // literal lengths, offsets, match lengths
	repeats    [3]uint32   // offsets of the latest matches
	batch      [batchSize]sequence
	small      [1 << maxWeightsLog]fseCell // of the code for Huffman weights
	next, prob [maxSymbols]int16
}

// Decode decompresses all frames in src to dst and returns the number of bytes
// written. Skippable frames are passed over.
func (d *Decoder) Decode(dst, src []byte) (int, error) {
	d.src, d.dst, d.in, d.out = src, dst, 0, 0
	err := d.frames()
	d.src, d.dst, d.lits = nil, nil, nil
	return d.out, err
}

func (d *Decoder) frames() error {
	if len(d.src) == 0 {
		return ErrCorrupt
	}
	for d.in < len(d.src) {
		head, ok := d.take(4)
		if !ok {
			return ErrCorrupt
		}
		switch magic := le.Uint32(head); {
		case magic == frameMagic:
			if err := d.frame(); err != nil {
				return err
			}
		case magic&^15 == skippableMagic:
			if head, ok = d.take(4); !ok {
				return ErrCorrupt
			}
			if _, ok = d.take(uint64(le.Uint32(head))); !ok {
				return ErrCorrupt
			}
		default:
			return ErrCorrupt
		}
	}
	return nil
}

// take passes over n bytes of src.
func (d *Decoder) take(n uint64) ([]byte, bool) {
	if n > uint64(len(d.src)-d.in) {
		return nil, false
	}
	b := d.src[d.in:][:n]
	d.in += int(n)
	return b, true
}

// number takes a little-endian number of n bytes, at most 8.
func (d *Decoder) number(n uint) (uint64, bool) {
	b, ok := d.take(uint64(n))
	v := uint64(0)
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v, ok
}

// frame decodes a frame behind its magic number: RFC 8878, 3.1.1.
func (d *Decoder) frame() error {
	flags, ok := d.number(1)
	if !ok || flags&8 != 0 { // the reserved bit
		return ErrCorrupt
	}
	single, sums := flags&0x20 != 0, flags&4 != 0
	if !single {
		w, ok := d.number(1)
		if !ok {
			return ErrCorrupt
		}
		base := uint64(1) << (10 + w>>3)
		d.window = base + base/8*(w&7)
	}
	dictionary, ok := d.number([4]uint{0, 1, 2, 4}[flags&3])
	if !ok {
		return ErrCorrupt
	}
	if dictionary != 0 {
		return ErrDictionary
	}
	width := [4]uint{0, 2, 4, 8}[flags>>6]
	if single && width == 0 {
		width = 1
	}
	size, ok := d.number(width)
	if !ok {
		return ErrCorrupt
	}
	if width == 2 {
		size += 256
	}
	if single {
		d.window = size
	}
	if width != 0 && size > uint64(len(d.dst)-d.out) {
		return ErrTooLarge
	}
	d.start = d.out
	d.maxBlock = int(min(d.window, maxBlockSize))
	d.haveCodes = false
	for i := range d.kinds {
		d.kinds[i].valid = false
	}
	d.repeats = [3]uint32{1, 4, 8}
	if err := d.blocks(); err != nil {
		return err
	}
	if width != 0 && size != uint64(d.out-d.start) {
		return ErrCorrupt
	}
	if sums {
		sum, ok := d.number(4)
		if !ok {
			return ErrCorrupt
		}
		if uint32(sum) != uint32(xxh64(d.dst[d.start:d.out])) {
			return ErrChecksum
		}
	}
	return nil
}

// blocks decodes the blocks of a frame up to the last one: RFC 8878, 3.1.1.2.
func (d *Decoder) blocks() error {
	for {
		h, ok := d.number(3)
		if !ok {
			return ErrCorrupt
		}
		size := int(h >> 3)
		if size > d.maxBlock {
			return ErrCorrupt
		}
		var err error
		switch h >> 1 & 3 {
		case 0:
			err = d.raw(size)
		case 1:
			err = d.run(size)
		case 2:
			if size > len(d.src)-d.in {
				return ErrCorrupt
			}
			err = d.compressed(d.in + size)
		default:
			err = ErrCorrupt
		}
		if err != nil || h&1 != 0 {
			return err
		}
	}
}

func (d *Decoder) raw(size int) error {
	b, ok := d.take(uint64(size))
	if !ok {
		return ErrCorrupt
	}
	if size > len(d.dst)-d.out {
		return ErrTooLarge
	}
	d.out += copy(d.dst[d.out:], b)
	return nil
}

// run decodes a block that is one byte, repeated.
func (d *Decoder) run(size int) error {
	c, ok := d.number(1)
	if !ok {
		return ErrCorrupt
	}
	if size > len(d.dst)-d.out {
		return ErrTooLarge
	}
	fill(d.dst[d.out:][:size], byte(c))
	d.out += size
	return nil
}

func fill(b []byte, c byte) {
	if c == 0 {
		clear(b)
		return
	}
	for i := range b {
		b[i] = c
	}
}

// compressed decodes a block whose content ends at end: RFC 8878, 3.1.1.3.
func (d *Decoder) compressed(end int) error {
	if err := d.readLiterals(end); err != nil {
		return err
	}
	count, err := d.sequenceHeader(end)
	if err != nil {
		return err
	}
	start := d.out
	if count == 0 {
		if d.in != end {
			return ErrCorrupt
		}
	} else if err := d.sequences(count, end); err != nil {
		return err
	}
	// What the sequences leave of the literals ends the block.
	if len(d.lits) > len(d.dst)-d.out {
		return ErrTooLarge
	}
	d.out += copy(d.dst[d.out:], d.lits)
	if d.out-start > d.maxBlock {
		return ErrCorrupt
	}
	d.in = end
	return nil
}

// load returns the 64 bits of src that end at bit pos, highest first: the top
// bits are those that a stream at pos reads next. It may show bits before the
// stream's start, so the caller compares positions. It needs pos > 56.
//
// Streams are read backwards, from their last bit to their first one. Headers
// before the first stream of a frame take at least 11 bytes, so there are
// always eight bytes to load.
func load(src []byte, pos int) uint64 {
	p := (pos + 7) >> 3
	return le.Uint64(src[p-8:]) << (uint(-pos) & 7)
}

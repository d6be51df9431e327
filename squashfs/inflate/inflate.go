// Package inflate decompresses one whole zlib or deflate buffer into another.
//
// In goes a complete compressed buffer and a destination that is large enough
// for the result; out comes the number of bytes written. There is no
// streaming, no window and no allocation: earlier output is read straight from
// the destination, which is what makes the package three to six times as fast
// as compress/flate. Blocks of a squashfs image are exactly such buffers.
//
// The input is hostile: every code table is checked for completeness, every
// distance against the bytes already written, every copy against the end of
// the destination. Wrong input gives ErrCorrupt, output that does not fit gives
// ErrTooLarge; nothing panics and nothing is written outside the destination,
// though bytes behind the result may be scribbled on.
//
// A zlib buffer's Adler-32 sum is always checked. It costs about four percent
// of the time, and without it most flipped bits in literals would pass as data.
//
// Formats: RFC 1950 (zlib) and RFC 1951 (deflate). Files: inflate.go has the
// blocks and the careful loop, fast.go the loop that runs far from both ends,
// table.go the code tables, adler.go the checksum.
package inflate

import (
	"encoding/binary"
	"errors"
)

// Errors of the decoder.
var (
	ErrCorrupt  = errors.New("corrupt deflate data")
	ErrTooLarge = errors.New("deflate data is larger than its destination")
	ErrChecksum = errors.New("zlib checksum does not match")
)

var le = binary.LittleEndian

// Decoder holds the code tables of one decompression. The zero value is ready;
// it may be used again, but not by two goroutines at once. It is about 20 KiB.
type Decoder struct {
	lit   [1<<litBits + litExtra]uint32
	dist  [1<<distBits + distExtra]uint32
	lens  [maxLit + maxDist + 8]uint8
	fixed bool // the tables hold the fixed codes

	src, dst []byte
	in, out  int    // next byte of src, next byte of dst
	hold     uint64 // bits taken from src and not yet used, lowest first
	bits     uint   // how many of them are valid
	over     int    // bytes of zeros that were invented behind the end of src
}

// Zlib decompresses the zlib buffer src to dst and checks its checksum. It
// returns the number of bytes written. Bytes behind the checksum are ignored.
func (d *Decoder) Zlib(dst, src []byte) (int, error) {
	// RFC 1950: method 8, a window of at most 32 KiB, a header divisible by
	// 31, and no preset dictionary.
	if len(src) < 6 || src[0]&0x0f != 8 || src[0]>>4 > 7 || (uint(src[0])<<8|uint(src[1]))%31 != 0 || src[1]&0x20 != 0 {
		return 0, ErrCorrupt
	}
	n, used, err := d.Inflate(dst, src[2:])
	if err != nil {
		return n, err
	}
	sum := src[2+used:]
	if len(sum) < 4 {
		return n, ErrCorrupt
	}
	if binary.BigEndian.Uint32(sum) != adler32(dst[:n]) {
		return n, ErrChecksum
	}
	return n, nil
}

// Inflate decompresses the raw deflate stream at the start of src to dst. It
// returns the bytes written and the bytes of src that the stream takes.
func (d *Decoder) Inflate(dst, src []byte) (n, used int, err error) {
	d.src, d.dst = src, dst
	d.in, d.out, d.hold, d.bits, d.over = 0, 0, 0, 0, 0
	err = d.run()
	n = d.out
	// Whole bytes that were taken ahead go back; invented ones never count.
	used = d.in - (int(d.bits/8) - d.over)
	d.src, d.dst = nil, nil
	return n, used, err
}

func (d *Decoder) run() error {
	for {
		d.fill()
		final := d.hold & 1
		kind := d.hold >> 1 & 3
		d.drop(3)
		var err error
		switch kind {
		case 0:
			err = d.stored()
		case 1:
			d.fixedTables()
			err = d.compressed()
		case 2:
			if err = d.dynamicTables(); err == nil {
				err = d.compressed()
			}
		default:
			err = ErrCorrupt
		}
		if err != nil {
			return err
		}
		if d.over > int(d.bits/8) {
			return ErrCorrupt // the stream ended before its last code
		}
		if final == 1 {
			return nil
		}
	}
}

func (d *Decoder) compressed() error {
	done, err := d.fast()
	if done || err != nil {
		return err
	}
	return d.careful()
}

// fill tops the bit buffer up to at least 57 bits, with zeros behind the end.
func (d *Decoder) fill() {
	for d.bits <= 56 {
		if d.in < len(d.src) {
			d.hold |= uint64(d.src[d.in]) << d.bits
			d.in++
		} else {
			d.over++
		}
		d.bits += 8
	}
}

func (d *Decoder) drop(n uint) {
	d.hold >>= n
	d.bits -= n
}

// stored copies an uncompressed block.
func (d *Decoder) stored() error {
	d.drop(d.bits & 7)
	back := int(d.bits / 8)
	if d.over > back {
		return ErrCorrupt
	}
	d.in -= back - d.over
	d.hold, d.bits, d.over = 0, 0, 0
	if len(d.src)-d.in < 4 {
		return ErrCorrupt
	}
	n := int(le.Uint16(d.src[d.in:]))
	if n != int(^le.Uint16(d.src[d.in+2:])) {
		return ErrCorrupt
	}
	d.in += 4
	if len(d.src)-d.in < n {
		return ErrCorrupt
	}
	if len(d.dst)-d.out < n {
		return ErrTooLarge
	}
	copy(d.dst[d.out:], d.src[d.in:d.in+n])
	d.in += n
	d.out += n
	return nil
}

// careful decodes symbols one at a time up to the end of the block, checking
// both ends at each step.
func (d *Decoder) careful() error {
	for {
		d.fill()
		if d.over > 8 {
			return ErrCorrupt // nothing but invented bits is left
		}
		e := d.lit[d.hold&(1<<litBits-1)]
		if e&(flagLiteral|flagSub|flagOther) == flagSub|flagOther {
			d.drop(litBits)
			e = d.lit[(e>>16&subMask+uint32(d.hold)&(1<<(e>>8&31)-1))&(1<<(litBits+1)-1)]
		}
		if e&flagLiteral != 0 {
			if d.out >= len(d.dst) {
				return ErrTooLarge
			}
			d.drop(uint(e & 63))
			d.dst[d.out] = byte(e >> 16)
			d.out++
			continue
		}
		if e&flagOther != 0 {
			if e&flagBad != 0 {
				return ErrCorrupt
			}
			d.drop(uint(e & 63))
			return nil // end of block
		}
		n := int(e>>16&0x1ff) + int(d.hold&(1<<(e&63)-1)>>(e>>8&31))
		d.drop(uint(e & 63))
		if err := d.match(n); err != nil {
			return err
		}
	}
}

// match decodes a distance and copies n bytes from there.
func (d *Decoder) match(n int) error {
	d.fill()
	e := d.dist[d.hold&(1<<distBits-1)]
	if e&flagOther != 0 {
		if e&flagSub == 0 {
			return ErrCorrupt
		}
		d.drop(distBits)
		e = d.dist[(e>>16&subMask+uint32(d.hold)&(1<<(e>>8&31)-1))%uint32(len(d.dist))]
		if e&flagOther != 0 {
			return ErrCorrupt
		}
	}
	back := int(e>>16) + int(d.hold&(1<<(e&63)-1)>>(e>>8&31))
	d.drop(uint(e & 63))
	if back > d.out {
		return ErrCorrupt
	}
	if n > len(d.dst)-d.out {
		return ErrTooLarge
	}
	from := d.dst[d.out-back:]
	to := d.dst[d.out : d.out+n]
	for i := range to {
		to[i] = from[i]
	}
	d.out += n
	return nil
}

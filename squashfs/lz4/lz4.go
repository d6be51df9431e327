// Package lz4 decompresses one whole LZ4 block into another buffer.
//
// In goes a complete compressed block, without the header and trailer of the
// LZ4 frame format, and a destination that is large enough for the result; out
// comes the number of bytes written. There is no state, no window and no
// allocation: earlier output is read straight from the destination. Blocks of a
// squashfs image are exactly such buffers.
//
// The input is hostile: every length and distance is checked against what is
// left of the input, of the destination, and against the bytes already written.
// Wrong input gives ErrCorrupt, output that does not fit gives ErrTooLarge;
// nothing panics and nothing is written outside the destination, though bytes
// behind the result may be scribbled on. The format has no checksum.
//
// A block consists of sequences, each of which copies some literals and then
// some earlier output; the last one has literals only:
//
//	token (4 bits literal length, 4 bits match length - 4)
//	more literal length | literals | distance (2 bytes) | more match length
//
// Format: LZ4 block format description, 2022-07-31.
package lz4

import (
	"encoding/binary"
	"errors"
)

// Errors of the decoder.
var (
	ErrCorrupt  = errors.New("corrupt lz4 data")
	ErrTooLarge = errors.New("lz4 data is larger than its destination")
)

const minMatch = 4

// Decode decompresses the block src to dst and returns the number of bytes
// written.
//
// Far from the ends of both buffers, copies go in steps of 16 bytes and write
// up to 15 bytes behind their end, where the next one goes on.
func Decode(dst, src []byte) (int, error) {
	// Capacities equal to lengths take fewer registers.
	dst, src = dst[:len(dst):len(dst)], src[:len(src):len(src)]
	in, out := 0, 0
	for in < len(src) {
		token := int(src[in])
		in++
		lits := token >> 4
		if lits < 15 && in <= len(src)-18 && out <= len(dst)-48 {
			// The usual case: few literals, then a match.
			*(*[16]byte)(dst[out : out+16]) = *(*[16]byte)(src[in : in+16])
			in += lits
			out += lits
			off := int(binary.LittleEndian.Uint16(src[in : in+2]))
			if off >= 16 && off <= out && token&15 < 15 {
				from := out - off
				*(*[16]byte)(dst[out : out+16]) = *(*[16]byte)(dst[from : from+16])
				*(*[2]byte)(dst[out+16 : out+18]) = *(*[2]byte)(dst[from+16 : from+18])
				in += 2
				out += token&15 + minMatch
				continue
			}
		} else {
			if lits == 15 {
				n, next, ok := length(src, in)
				if !ok {
					return out, ErrCorrupt
				}
				lits, in = lits+n, next
			}
			if lits > len(src)-in {
				return out, ErrCorrupt
			}
			if lits > len(dst)-out {
				return out, ErrTooLarge
			}
			copy(dst[out:], src[in:in+lits])
			in += lits
			out += lits
			if in == len(src) {
				if token&15 != 0 {
					return out, ErrCorrupt // a match is announced
				}
				return out, nil
			}
		}
		if len(src)-in < 2 {
			return out, ErrCorrupt
		}
		off := int(binary.LittleEndian.Uint16(src[in : in+2]))
		in += 2
		if off == 0 || off > out {
			return out, ErrCorrupt
		}
		size := token&15 + minMatch
		if token&15 == 15 {
			n, next, ok := length(src, in)
			if !ok {
				return out, ErrCorrupt
			}
			size, in = size+n, next
		}
		if size > len(dst)-out {
			return out, ErrTooLarge
		}
		match(dst, out, off, size)
		out += size
	}
	return out, ErrCorrupt // no last literals
}

// length reads what is added to a length of 15: bytes up to one that is not
// 255. It returns their sum and the offset behind them.
//
// The sum cannot overflow: it is at most 255 times the length of src, and more
// than that is refused here.
func length(src []byte, in int) (sum, next int, ok bool) {
	for in < len(src) {
		b := src[in]
		in++
		sum += int(b)
		if b != 255 {
			return sum, in, true
		}
		if sum > 1<<30 {
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// match fills dst[out:][:size] with what is off bytes before.
func match(dst []byte, out, off, size int) {
	end := out + size
	from := out - off
	if end > len(dst)-16 || off >= 16 && size > 256 {
		// Each copy doubles what can be copied without overlap.
		for out < end {
			out += copy(dst[out:end], dst[from:out])
		}
		return
	}
	if off >= 16 {
		for out < end {
			*(*[16]byte)(dst[out : out+16]) = *(*[16]byte)(dst[from : from+16])
			out += 16
			from += 16
		}
		return
	}
	if off < 8 {
		for i := range 8 {
			dst[out+i] = dst[from+i]
		}
		out += 8
		// A multiple of the period that is no less than a step.
		from = out - [8]int{8, 8, 8, 9, 8, 10, 12, 14}[off]
	}
	for out < end {
		*(*[8]byte)(dst[out : out+8]) = *(*[8]byte)(dst[from : from+8])
		out += 8
		from += 8
	}
}

package squashfs

import "errors"

var errLZO = errors.New("corrupt lzo data")

// lzo is the state of one LZO1X decompression.
type lzo struct {
	src, dst []byte
	in, out  int
}

// unlzo unpacks an LZO1X block. The stream is a row of instructions: a copy
// from earlier output, or a run of literals, each followed by up to three more
// literals whose number sits in the low bits of the instruction. What an
// instruction below 16 means depends on the literals just before it.
func unlzo(dst, src []byte) (int, error) {
	z := &lzo{src: src, dst: dst}
	// state is the number of literals that the last instruction copied: 0 to 3,
	// or 4 for a run.
	state := 0
	if len(src) > 0 && src[0] > 17 {
		n := int(src[0]) - 17
		z.in = 1
		if !z.literals(n) {
			return 0, errLZO
		}
		state = min(n, 4)
	}
	for {
		t, ok := z.byte()
		if !ok {
			return 0, errLZO
		}
		var n, back, after int
		switch {
		case t >= 64: // short copies nearby
			h, ok := z.byte()
			if !ok {
				return 0, errLZO
			}
			after = t & 3
			back = h<<3 + t>>2&7 + 1
			if n = t>>5 + 1; t < 128 {
				n = 3 + t>>5&1
			}
		case t >= 16: // longer copies, up to 16 KiB or 48 KiB away
			mask, far := 31, 1
			if t < 32 {
				mask, far = 7, 16384+(t&8)<<11
			}
			var d int
			if n, d, ok = z.long(t&mask, mask); !ok {
				return 0, errLZO
			}
			n += 2
			after = d & 3
			back = far + d>>2
			if t < 32 && back == 16384 {
				if n != 3 {
					return 0, errLZO
				}
				return z.out, nil // the end mark
			}
		case state == 0: // a run of literals
			if n, ok = z.length(t, 15); !ok || !z.literals(n+3) {
				return 0, errLZO
			}
			state = 4
			continue
		default: // the shortest copies
			h, ok := z.byte()
			if !ok {
				return 0, errLZO
			}
			after = t & 3
			n, back = 2, h<<2+t>>2+1
			if state == 4 {
				n, back = 3, back+2048
			}
		}
		if !z.copy(n, back) || !z.literals(after) {
			return 0, errLZO
		}
		state = after
	}
}

func (z *lzo) byte() (int, bool) {
	if z.in >= len(z.src) {
		return 0, false
	}
	z.in++
	return int(z.src[z.in-1]), true
}

// length extends a length field: zero means the field's maximum plus 255 for
// each zero byte that follows plus the first byte that is not zero.
func (z *lzo) length(n, most int) (int, bool) {
	if n != 0 {
		return n, true
	}
	n = most
	for {
		b, ok := z.byte()
		if !ok {
			return 0, false
		}
		if b != 0 {
			return n + b, true
		}
		n += 255 // bounded by the length of src
	}
}

// long reads a length and the two bytes of a distance.
func (z *lzo) long(n, most int) (length, distance int, ok bool) {
	if length, ok = z.length(n, most); !ok || len(z.src)-z.in < 2 {
		return 0, 0, false
	}
	distance = int(le.Uint16(z.src[z.in:]))
	z.in += 2
	return length, distance, true
}

func (z *lzo) literals(n int) bool {
	if n > len(z.src)-z.in || n > len(z.dst)-z.out {
		return false
	}
	copy(z.dst[z.out:], z.src[z.in:z.in+n])
	z.in += n
	z.out += n
	return true
}

func (z *lzo) copy(n, back int) bool {
	if back > z.out || n > len(z.dst)-z.out {
		return false
	}
	to := z.dst[z.out : z.out+n]
	from := z.dst[z.out-back:]
	if back >= n {
		copy(to, from[:n])
	} else {
		for i := range to {
			to[i] = from[i]
		}
	}
	z.out += n
	return true
}

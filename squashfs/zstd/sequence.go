package zstd

import "math/bits"

// sequence copies lits literals, then match bytes from off bytes back.
type sequence struct{ lits, match, off uint32 }

// batchSize is how many sequences are read before they are carried out. Both
// steps are loops of their own because each needs most of the registers.
const batchSize = 256

// reader is the state of reading sequences.
type reader struct {
	stream
	state [3]uint // of the tables
	left  int     // sequences not yet read
}

// sequenceHeader reads the number of sequences and, if there are any, their
// tables: RFC 8878, 3.1.1.3.2.1.
func (d *Decoder) sequenceHeader(end int) (int, error) {
	if d.in >= end {
		return 0, ErrCorrupt
	}
	count := int(d.src[d.in])
	width := 1
	switch {
	case count == 255:
		width = 3
	case count >= 128:
		width = 2
	}
	if width > end-d.in {
		return 0, ErrCorrupt
	}
	b := d.src[d.in:][:width]
	d.in += width
	switch width {
	case 2:
		count = (count-128)<<8 + int(b[1])
	case 3:
		count = int(le.Uint16(b[1:])) + 0x7f00
	}
	if count == 0 {
		return 0, nil
	}
	if d.in >= end {
		return 0, ErrCorrupt
	}
	kinds := d.src[d.in]
	d.in++
	if kinds&3 != 0 { // reserved
		return 0, ErrCorrupt
	}
	for i := range d.kinds {
		if err := d.readTable(i, int(kinds>>(6-2*i)&3), end); err != nil {
			return 0, err
		}
	}
	return count, nil
}

// sequences reads count sequences from the stream that ends at end, and
// carries them out.
func (d *Decoder) sequences(count, end int) error {
	r := reader{left: count}
	if !r.open(d.src, d.in, end) {
		return ErrCorrupt
	}
	for i := range d.kinds {
		v, ok := r.read(d.src, d.kinds[i].log)
		if !ok {
			return ErrCorrupt
		}
		r.state[i] = v
	}
	limit := d.out + d.maxBlock
	for r.left > 0 {
		batch := d.batch[:min(batchSize, r.left)]
		if !d.readSequences(&r, batch) {
			return ErrCorrupt
		}
		if err := d.execute(batch); err != nil {
			return err
		}
		if d.out > limit {
			return ErrCorrupt
		}
	}
	if r.pos != r.start {
		return ErrCorrupt
	}
	return nil
}

// masks[n] has the n lowest bits set.
var masks = [32]uint64{
	0, 0x1, 0x3, 0x7, 0xf, 0x1f, 0x3f, 0x7f, 0xff,
	0x1ff, 0x3ff, 0x7ff, 0xfff, 0x1fff, 0x3fff, 0x7fff, 0xffff,
	0x1ffff, 0x3ffff, 0x7ffff, 0xfffff, 0x1fffff, 0x3fffff, 0x7fffff, 0xffffff,
	0x1ffffff, 0x3ffffff, 0x7ffffff, 0xfffffff, 0x1fffffff, 0x3fffffff, 0x7fffffff,
}

// readSequences fills batch: RFC 8878, 3.1.1.3.2.2. Each sequence is, in the
// order of the stream, the bits added to its offset, match length and literal
// length, then, but for the last one, the bits added to the states of literal
// length, match length and offset.
func (d *Decoder) readSequences(r *reader, batch []sequence) bool {
	lits, offs, matches := &d.kinds[litLength].cells, &d.kinds[offset].cells, &d.kinds[matchLength].cells
	src, pos, start := d.src, r.pos, r.start
	ls, os, ms := r.state[litLength], r.state[offset], r.state[matchLength]
	r0, r1, r2 := d.repeats[0], d.repeats[1], d.repeats[2]
	window := uint32(min(d.window, 1<<32-1))
	r.left -= len(batch)
	for i := range batch {
		lc, oc, mc := lits[ls&(1<<maxTableLog-1)], offs[os&(1<<maxTableLog-1)], matches[ms&(1<<maxTableLog-1)]
		if pos < start {
			return false
		}
		// The bits taken are rotated to the bottom, so that their places
		// at the top are free.
		h := load(src, pos)
		sum := lc + oc + mc
		extra := uint(sum >> 8 & 0xff)
		both := extra + uint(sum&0xff)

		h = bits.RotateLeft64(h, int(oc>>8&63))
		off := uint32(oc>>32) + uint32(h&masks[oc>>8&31])
		if extra > 56 {
			pos -= int(oc >> 8 & 63)
			both -= uint(oc >> 8 & 63)
			extra -= uint(oc >> 8 & 63)
			if pos < start {
				return false
			}
			h = load(src, pos)
		}
		h = bits.RotateLeft64(h, int(mc>>8&63))
		match := uint32(mc>>32) + uint32(h&masks[mc>>8&31])
		h = bits.RotateLeft64(h, int(lc>>8&63))
		lit := uint32(lc>>32) + uint32(h&masks[lc>>8&31])

		if both > 56 {
			pos -= int(extra)
			both -= extra
			if pos < start {
				return false
			}
			h = load(src, pos)
		}
		if i == len(batch)-1 && r.left == 0 {
			pos -= int(both - uint(sum&0xff)) // no next state
		} else {
			pos -= int(both)
			h = bits.RotateLeft64(h, int(lc&63))
			ls = uint(lc>>16&0xffff) + uint(h&masks[lc&31])
			h = bits.RotateLeft64(h, int(mc&63))
			ms = uint(mc>>16&0xffff) + uint(h&masks[mc&31])
			h = bits.RotateLeft64(h, int(oc&63))
			os = uint(oc>>16&0xffff) + uint(h&masks[oc&31])
		}

		if off > 3 {
			off -= 3
			r0, r1, r2 = off, r0, r1
		} else {
			// One of the latest offsets. Without literals the latest one
			// would only make the last match longer, so the numbers mean
			// the ones behind it, and one less than it.
			if lit == 0 {
				off++
			}
			switch off {
			case 1:
				off = r0
			case 2:
				off = r1
				r0, r1 = off, r0
			case 3:
				off = r2
				r0, r1, r2 = off, r0, r1
			default:
				off = r0 - 1
				r0, r1, r2 = off, r0, r1
			}
		}
		if off-1 >= window { // zero, too
			return false
		}
		batch[i] = sequence{lit, match, off}
	}
	r.pos = pos
	r.state = [3]uint{ls, os, ms}
	d.repeats = [3]uint32{r0, r1, r2}
	return true
}

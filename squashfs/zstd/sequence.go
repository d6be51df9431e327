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
	for n := 0; n < len(batch); {
		n += d.readFast(r, batch[n:], r.left-n)
		if n < len(batch) {
			if !d.readOne(r, &batch[n], n+1 == r.left) {
				return false
			}
			n++
		}
	}
	r.left -= len(batch)
	return d.resolve(batch)
}

// readFast reads sequences up to one that takes more than 56 bits, or that is
// the last one of left. It returns how many it read.
func (d *Decoder) readFast(r *reader, batch []sequence, left int) int {
	if left <= len(batch) {
		batch = batch[:left-1]
	}
	lits, offs, matches := &d.kinds[litLength].cells, &d.kinds[offset].cells, &d.kinds[matchLength].cells
	ls, os, ms := r.state[litLength], r.state[offset], r.state[matchLength]
	// at is the bit of buf that is the lowest of the 8 bits below the next 56
	// ones.
	buf := d.src[r.start/8-8:]
	at := r.pos - r.start + 7
	n := 0
	for n < len(batch) {
		lc, oc, mc := lits[ls&(1<<maxTableLog-1)], offs[os&(1<<maxTableLog-1)], matches[ms&(1<<maxTableLog-1)]
		sum := lc + oc + mc
		taken := int(sum>>8&0xff + sum&0xff)
		i := at >> 3
		if taken > 56 || i < 0 || i > len(buf)-8 {
			break
		}
		h := le.Uint64(buf[i:])

		// The bits taken are rotated to the bottom, so that their places
		// at the top are free.
		turn := ^at&7 + int(oc>>8&31)
		base := uint32(oc >> 32) // a power of two
		s := &batch[n]
		s.off = base + uint32(bits.RotateLeft64(h, turn))&(base-1)
		match, lit := uint32(mc>>32), uint32(lc>>32)
		if (mc|lc)&0xff00 != 0 { // few lengths are long enough
			turn += int(mc >> 8 & 31)
			match += uint32(bits.RotateLeft64(h, turn) & masks[mc>>8&31])
			turn += int(lc >> 8 & 31)
			lit += uint32(bits.RotateLeft64(h, turn) & masks[lc>>8&31])
		}
		s.match, s.lits = match, lit
		turn += int(lc & 31)
		ls = uint(lc>>16&0xffff) + uint(bits.RotateLeft64(h, turn)&masks[lc&31])
		turn += int(mc & 31)
		ms = uint(mc>>16&0xffff) + uint(bits.RotateLeft64(h, turn)&masks[mc&31])
		turn += int(oc & 31)
		os = uint(oc>>16&0xffff) + uint(bits.RotateLeft64(h, turn)&masks[oc&31])
		at -= taken

		n++
	}
	r.pos = at - 7 + r.start
	r.state = [3]uint{ls, os, ms}
	return n
}

// readOne reads any sequence.
func (d *Decoder) readOne(r *reader, s *sequence, last bool) bool {
	lc := d.kinds[litLength].cells[r.state[litLength]]
	oc := d.kinds[offset].cells[r.state[offset]]
	mc := d.kinds[matchLength].cells[r.state[matchLength]]
	high, ok1 := r.read(d.src, oc.extraBits()/2)
	low, ok2 := r.read(d.src, oc.extraBits()-oc.extraBits()/2)
	match, ok3 := r.read(d.src, mc.extraBits())
	lits, ok4 := r.read(d.src, lc.extraBits())
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return false
	}
	off := high<<(oc.extraBits()-oc.extraBits()/2) | low
	*s = sequence{lc.value() + uint32(lits), mc.value() + uint32(match), oc.value() + uint32(off)}
	if last {
		return true
	}
	ls, ok1 := r.read(d.src, lc.stateBits())
	ms, ok2 := r.read(d.src, mc.stateBits())
	os, ok3 := r.read(d.src, oc.stateBits())
	r.state = [3]uint{litLength: lc.nextState() + ls, offset: oc.nextState() + os, matchLength: mc.nextState() + ms}
	return ok1 && ok2 && ok3
}

// resolve makes distances of the offset numbers in batch: RFC 8878, 3.1.1.5.
func (d *Decoder) resolve(batch []sequence) bool {
	r0, r1, r2 := d.repeats[0], d.repeats[1], d.repeats[2]
	last := uint32(min(d.window, 1<<32-1))
	for i := range batch {
		s := &batch[i]
		// Up to three, the number means one of the latest offsets. Without
		// literals the latest one would only make the last match longer, so
		// the numbers mean the ones behind it, and one less than it. Which
		// it is cannot be foreseen, so there are no branches here.
		number := s.off
		if s.lits == 0 {
			number++
		}
		if s.off > 3 {
			number = s.off
		}
		off := s.off - 3
		if number == 1 {
			off = r0
		}
		if number == 2 {
			off = r1
		}
		if number == 3 {
			off = r2
		}
		if number == 4 && s.off == 3 {
			off = r0 - 1
		}
		if number > 2 {
			r2 = r1
		}
		if number > 1 {
			r1 = r0
		}
		r0 = off
		if off-1 >= last { // zero, too
			return false
		}
		s.off = off
	}
	d.repeats = [3]uint32{r0, r1, r2}
	return true
}

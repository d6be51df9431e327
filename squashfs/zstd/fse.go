package zstd

import "math/bits"

const (
	maxWeightsLog = 6 // of the table for Huffman weights
	maxTableLog   = 9
	maxSymbols    = 53 // of match lengths, the largest alphabet
)

// fseCell is a state of an FSE decoder. From its low bits on it holds:
//
//	 8 bits  how many bits the next state takes
//	 8 bits  how many bits are added to the value
//	16 bits  the next state, before its bits are added
//	32 bits  the value, before its bits are added
//
// Three cells can be added to add up their bit counts.
type fseCell uint64

func (c fseCell) stateBits() uint { return uint(c & 0xff) }
func (c fseCell) nextState() uint { return uint(c >> 16 & 0xffff) }
func (c fseCell) extraBits() uint { return uint(c >> 8 & 0xff) }
func (c fseCell) value() uint32   { return uint32(c >> 32) }

// fseTable is a decoder of one of the three numbers of a sequence.
type fseTable struct {
	cells [1 << maxTableLog]fseCell
	log   uint
	valid bool // it was set in this frame
}

// Kinds of numbers in a sequence, in the order of their tables.
const (
	litLength = iota
	offset
	matchLength
)

// alphabet is what RFC 8878, 3.1.1.3.2.1 says about a kind of number.
type alphabet struct {
	log, maxLog uint    // of the predefined table, of any table
	base        uint32  // value of the first symbol
	extra       []uint8 // bits added to each symbol's value
	predefined  []int16 // probabilities
}

var alphabets = [3]alphabet{
	litLength: {6, 9, 0,
		[]uint8{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		[]int16{4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1},
	},
	offset: {5, 8, 1,
		[]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
		[]int16{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1},
	},
	matchLength: {6, 9, 3,
		[]uint8{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		[]int16{1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1},
	},
}

// readTable reads one of a block's three tables in the way kind says.
func (d *Decoder) readTable(number, kind, end int) error {
	t, a := &d.kinds[number], &alphabets[number]
	switch kind {
	case kindRaw:
		copy(d.prob[:], a.predefined)
		t.log = a.log
		d.buildFSE(t.cells[:1<<t.log], int(t.log), len(a.predefined), a)
	case kindRun:
		if d.in >= end || int(d.src[d.in]) >= len(a.extra) {
			return ErrCorrupt
		}
		t.log = 0
		t.cells[0] = a.value(int(d.src[d.in]))
		d.in++
	case kindPacked:
		log, symbols, err := d.readProbabilities(end, int(a.maxLog), len(a.extra))
		if err != nil {
			return err
		}
		t.log = uint(log)
		d.buildFSE(t.cells[:1<<log], log, symbols, a)
	default:
		if !t.valid {
			return ErrCorrupt
		}
	}
	t.valid = true
	return nil
}

// value is the part of a cell that depends on the symbol alone.
func (a *alphabet) value(symbol int) fseCell {
	v := a.base
	for _, extra := range a.extra[:symbol] {
		v += 1 << extra
	}
	return fseCell(v)<<32 | fseCell(a.extra[symbol])<<8
}

// readProbabilities reads the probabilities of at most limit symbols to d.prob:
// RFC 8878, 4.1.1. It returns the log of their sum and how many there are.
func (d *Decoder) readProbabilities(end, maxLog, limit int) (log, symbols int, err error) {
	src := d.src[:end]
	at := d.in * 8 // the next bit
	// peek shows 16 bits, zeros behind the end.
	peek := func() uint32 {
		v := uint32(0)
		for i, c := range src[min(at>>3, end):min(at>>3+3, end)] {
			v |= uint32(c) << (8 * i)
		}
		return v >> (at & 7)
	}
	log = int(peek()&15) + 5
	at += 4
	if log > maxLog {
		return 0, 0, ErrCorrupt
	}
	for left := 1 << log; left > 0; {
		if symbols >= limit {
			return 0, 0, ErrCorrupt
		}
		// A number up to left+1. As those do not fill all values of its
		// bits, some low ones do without the highest bit.
		width := bits.Len(uint(left + 1))
		short := 1<<width - 1 - (left + 1)
		v := int(peek()) & (1<<width - 1)
		if low := v & (1<<(width-1) - 1); low < short {
			v = low
			at += width - 1
		} else {
			if v >= 1<<(width-1) {
				v -= short
			}
			at += width
		}
		p := v - 1 // -1 takes one cell, too
		d.prob[symbols] = int16(p)
		symbols++
		left -= max(p, -p)
		// Behind a zero, groups of two bits count more zeros.
		for again := p == 0; again; {
			n := int(peek() & 3)
			at += 2
			if symbols+n > limit {
				return 0, 0, ErrCorrupt
			}
			clear(d.prob[symbols:][:n])
			symbols += n
			again = n == 3
		}
	}
	d.in = (at + 7) / 8
	if d.in > end {
		return 0, 0, ErrCorrupt
	}
	return log, symbols, nil
}

// buildFSE fills cells for the probabilities in d.prob: RFC 8878, 4.1.1. With
// no alphabet, values are the symbols themselves.
func (d *Decoder) buildFSE(cells []fseCell, log, symbols int, a *alphabet) {
	var value [maxSymbols]fseCell
	base := uint32(0)
	if a != nil {
		base = a.base
	}
	high := len(cells)
	for i, p := range d.prob[:symbols] {
		value[i] = fseCell(base) << 32
		if a != nil {
			value[i] |= fseCell(a.extra[i]) << 8
			base += 1 << a.extra[i]
		} else {
			base++
		}
		d.next[i] = p
		if p < 0 { // less than one cell: it gets one at the end
			high--
			cells[high] = fseCell(i)
			d.next[i] = 1
		}
	}
	step, mask := len(cells)>>1+len(cells)>>3+3, len(cells)-1
	at := 0
	for i, p := range d.prob[:symbols] {
		for ; p > 0; p-- {
			cells[at&mask] = fseCell(i)
			at = (at + step) & mask
			for at >= high {
				at = (at + step) & mask
			}
		}
	}
	for i, c := range cells {
		symbol := uint(c) % maxSymbols
		x := uint(d.next[symbol])
		d.next[symbol]++
		n := uint(log+1) - uint(bits.Len(x))
		cells[i] = value[symbol] | fseCell(x<<n-uint(len(cells)))<<16 | fseCell(n)
	}
}

package zstd

import "math/bits"

const (
	countsLog = 6 // all alphabets have fewer symbols
	logShift  = 7 // fraction bits of logarithms
)

// fseEncoder is an FSE code for writing. A state is a number from 1<<log up to
// twice that; the reader's state is the same less 1<<log.
type fseEncoder struct {
	log     uint
	states  [1 << maxTableLog]uint16 // the next state, by symbol and the high bits of the present one
	symbols [1 << countsLog]fseSymbol
	first   [1 << countsLog]uint16 // a state of the last symbol, which is written first
	prob    [1 << countsLog]int16
}

// fseSymbol is how a symbol changes the state.
type fseSymbol struct {
	bits  uint32 // added to the state, gives the number of bits to write << 16
	place int32  // added to the high bits of the state, gives the place in states
}

// build makes the code of probabilities that sum up to 1<<log, -1 counting as 1.
func (f *fseEncoder) build(prob []int16, log uint) {
	f.log = log
	size := 1 << log
	mask := size - 1
	var cells [1 << maxTableLog]uint8
	var next [1 << countsLog]int // where in states the next cell of a symbol goes
	high, total := size, 0
	for s, p := range prob {
		f.prob[s] = p
		next[s] = total
		n := int(max(p, -p))
		sym := &f.symbols[s]
		if n > 0 {
			width := log
			if n > 1 {
				width = log - highBit(uint32(n-1))
			}
			sym.bits = uint32(width)<<16 - uint32(n<<width)
			sym.place = int32(total - n)
		}
		if p < 0 {
			high--
			cells[high] = uint8(s)
		}
		total += n
	}
	clear(f.prob[len(prob):])
	step, at := size>>1+size>>3+3, 0
	for s, p := range prob {
		for ; p > 0; p-- {
			cells[at] = uint8(s)
			for at = (at + step) & mask; at >= high; {
				at = (at + step) & mask
			}
		}
	}
	for i, s := range cells[:size] {
		f.states[next[s]] = uint16(size + i)
		next[s]++
	}
	for s := range prob {
		// The first cell of a symbol takes the most bits, at least one: a reader
		// that looks for the end of the stream finds it there.
		if p := f.prob[s]; p != 0 {
			f.first[s] = f.states[int(f.symbols[s].place)+int(max(p, -p))]
		}
	}
}

// one makes the code of a single symbol, which takes no bits.
func (f *fseEncoder) one(symbol int) {
	f.log = 0
	f.states[0] = 1
	f.symbols[symbol] = fseSymbol{bits: 0, place: -1}
	f.first[symbol] = 1
}

// step returns the state before symbol s, and the n bits that lead from it to
// the given state.
func (f *fseEncoder) step(state, s uint32) (before uint32, v uint64, n uint) {
	sym := f.symbols[s&(1<<countsLog-1)]
	n = uint((state+sym.bits)>>16) & 15
	before = uint32(f.states[(int32(state>>n)+sym.place)&(1<<maxTableLog-1)])
	return before, uint64(state & (1<<n - 1)), n
}

// finish writes the state that the reader begins with.
func (f *fseEncoder) finish(w *bitWriter, state uint32) {
	w.add(uint64(state)&(1<<f.log-1), f.log)
}

// tableLog chooses the size of a table for total symbols out of distinct ones.
func tableLog(total uint32, distinct int, limit uint) uint {
	log := min(limit, uint(max(bits.Len32(total-1)-2, 5)))
	for 1<<log < 2*distinct && log < limit {
		log++
	}
	return log
}

// scale makes probabilities with the sum 1<<log of counts, none of which is the
// total: every symbol that occurs gets at least 1.
func scale(prob []int16, counts []uint32, total uint32, log uint) {
	left := 1 << log
	for s, n := range counts {
		prob[s] = 0
		if n > 0 {
			prob[s] = int16(max(1, (uint64(n)<<log+uint64(total)/2)/uint64(total)))
			left -= int(prob[s])
		}
	}
	for left != 0 {
		top := 0
		for s, p := range prob {
			if p > prob[top] {
				top = s
			}
		}
		change := max(left, -1)
		prob[top] += int16(change)
		left -= change
	}
}

// cost is about how many bits counted symbols take, fixed point; a symbol that
// the code does not have makes it huge.
func (f *fseEncoder) cost(e *Encoder, counts []uint32) uint64 {
	sum := uint64(0)
	for s, n := range counts {
		if n == 0 {
			continue
		}
		p := f.prob[s]
		if p == 0 {
			return 1 << 60
		}
		sum += uint64(n) * uint64(uint16(f.log)<<logShift-e.log[max(p, -p)])
	}
	return sum
}

// writeProbabilities writes the description of a code to out and returns its
// size: RFC 8878, 4.1.1. It is at most 128 bytes.
func (f *fseEncoder) writeProbabilities(out []byte) int {
	w := bitWriter{out: out}
	w.add(uint64(f.log-5), 4)
	left := 1 << f.log
	for s := 0; left > 0; s++ {
		p := int(f.prob[s])
		// A number up to left+1; some low ones do without the highest bit.
		width := uint(bits.Len(uint(left + 1)))
		short := 1<<width - 1 - (left + 1)
		switch v := p + 1; {
		case v < short:
			w.add(uint64(v), width-1)
		case v >= 1<<(width-1):
			w.add(uint64(v+short), width)
		default:
			w.add(uint64(v), width)
		}
		left -= max(p, -p)
		if p == 0 { // groups of two bits count more zeros
			zeros := 0
			for f.prob[s+1+zeros] == 0 {
				zeros++
			}
			s += zeros
			for ; zeros >= 3; zeros -= 3 {
				w.add(3, 2)
				w.flush()
			}
			w.add(uint64(zeros), 2)
		}
		w.flush()
	}
	if w.count > 0 {
		w.n++
	}
	return w.n
}

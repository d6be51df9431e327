package zstd

import "math/bits"

const (
	huffmanLog = 11 // the longest code, in bits
	margin     = 32 // bytes behind literals that wide copies may read
)

// huffmanTable finds the symbol whose code begins the next huffmanLog bits. A
// cell has the length of the code in its low byte and the symbol in the high
// one.
type huffmanTable [1 << huffmanLog]uint16

// stream is a bit stream that is read backwards.
type stream struct {
	pos   int // the bit behind the next one to read; bit 0 is the lowest of src[0]
	start int // the bit the stream begins at
}

// open sets s to the stream in src[at:end]. The highest bit that is set marks
// the end of the stream.
func (s *stream) open(src []byte, at, end int) bool {
	if at < 8 || at >= end || src[end-1] == 0 {
		return false
	}
	s.pos = end*8 - 8 + bits.Len8(src[end-1]) - 1
	s.start = at * 8
	return true
}

// readCodes reads the description of a Huffman code, which ends before end,
// and builds its table: RFC 8878, 4.2.1.
func (d *Decoder) readCodes(end int) error {
	var weights [256]uint8
	n, err := d.readWeights(&weights, end)
	if err != nil {
		return err
	}
	// Weights are powers of two that add up to one; the last one, which is
	// not stored, is what is missing.
	var rank [huffmanLog + 2]int
	total := uint32(0)
	for _, w := range weights[:n] {
		if w > huffmanLog {
			return ErrCorrupt
		}
		rank[w]++
		total += 1 << w >> 1
	}
	if total == 0 {
		return ErrCorrupt
	}
	log := bits.Len32(total)
	rest := uint32(1)<<log - total
	if log > huffmanLog || rest&(rest-1) != 0 {
		return ErrCorrupt
	}
	last := bits.Len32(rest)
	weights[n] = uint8(last)
	rank[last]++
	if rank[1] < 2 {
		return ErrCorrupt // a complete code has two longest codes
	}
	d.buildCodes(weights[:n+1], &rank, log)
	d.haveCodes = true
	return nil
}

// buildCodes fills the table: low weights come first, and in a weight symbols
// in their order. Codes shorter than huffmanLog fill several cells.
func (d *Decoder) buildCodes(weights []uint8, rank *[huffmanLog + 2]int, log int) {
	var at [huffmanLog + 2]int
	wide := huffmanLog - log
	sum := 0
	for w := 1; w <= log; w++ {
		at[w] = sum
		sum += rank[w] << (w - 1 + wide)
	}
	for sym, w := range weights {
		if w == 0 {
			continue
		}
		cell := uint16(sym)<<8 | uint16(log+1-int(w))
		size := 1 << (int(w) - 1 + wide)
		from := at[w]
		at[w] = from + size
		cells := d.huffman[from:][:size]
		for i := range cells {
			cells[i] = cell
		}
	}
}

// readWeights reads the weights of a code and returns how many there are,
// at most 255.
func (d *Decoder) readWeights(weights *[256]uint8, end int) (int, error) {
	if d.in >= end {
		return 0, ErrCorrupt
	}
	h := int(d.src[d.in])
	d.in++
	if h < 128 {
		if h > end-d.in {
			return 0, ErrCorrupt
		}
		end = d.in + h
		n, err := d.packedWeights(weights, end)
		d.in = end
		return n, err
	}
	n := h - 127 // four bits each
	b, ok := d.take(uint64(n+1) / 2)
	if !ok || d.in > end {
		return 0, ErrCorrupt
	}
	for i := range n {
		weights[i] = b[i/2] >> (4 &^ (i * 4)) & 15
	}
	return n, nil
}

// packedWeights decodes weights that are FSE coded, by two states that take
// turns.
func (d *Decoder) packedWeights(weights *[256]uint8, end int) (int, error) {
	log, symbols, err := d.readProbabilities(end, maxWeightsLog, huffmanLog+1)
	if err != nil {
		return 0, err
	}
	cells := d.small[:1<<log]
	d.buildFSE(cells, log, symbols, nil)
	var s stream
	if !s.open(d.src, d.in, end) {
		return 0, ErrCorrupt
	}
	one, ok1 := s.read(d.src, uint(log))
	two, ok2 := s.read(d.src, uint(log))
	if !ok1 || !ok2 {
		return 0, ErrCorrupt
	}
	for n := 0; n < 254; n++ {
		cell := cells[one]
		weights[n] = uint8(cell.value())
		v, ok := s.read(d.src, cell.stateBits())
		if !ok { // the end: the other state has a last symbol
			weights[n+1] = uint8(cells[two].value())
			return n + 2, nil
		}
		one, two = two, cell.nextState()+v
	}
	return 0, ErrCorrupt
}

// read takes n bits, at most 16, or reports that there are fewer.
func (s *stream) read(src []byte, n uint) (uint, bool) {
	if s.pos-int(n) < s.start {
		return 0, false
	}
	v := load(src, s.pos) >> 1 >> (63 - n)
	s.pos -= int(n)
	return uint(v), true
}

// finish decodes lits from s, which must end with them.
func (d *Decoder) finish(lits []byte, s *stream) error {
	table, src, pos := &d.huffman, d.src, s.pos
	for len(lits) >= 5 && pos >= s.start {
		h := load(src, pos)
		part := (*[5]byte)(lits)
		used := uint16(0)
		for i := range part { // 55 bits at most, of 57
			c := table[h>>(64-huffmanLog)]
			h <<= c & 63
			used += c & 63
			part[i] = byte(c >> 8)
		}
		pos -= int(used)
		lits = lits[5:]
	}
	for i := range lits {
		if pos <= s.start {
			return ErrCorrupt
		}
		c := table[load(src, pos)>>(64-huffmanLog)]
		pos -= int(c & 63)
		lits[i] = byte(c >> 8)
	}
	if pos != s.start {
		return ErrCorrupt
	}
	return nil
}

// interleaved decodes all four streams at once while they are far from their
// ends, into quarters of d.lits, and returns how many bytes of each it wrote.
//
// A stream is kept as the next 64 bits, of which the lowest is overwritten by a
// one: as bits are shifted out at the top, the number of zeros at the bottom
// counts them. Five codes of up to 11 bits and up to seven bits left from the
// byte before never reach the mark.
func (d *Decoder) interleaved(s *[4]stream, quarter int) int {
	table, src := &d.huffman, d.src[:len(d.src):len(d.src)]
	var p [4]int // first byte of the 64 bits
	var h [4]uint64
	for i := range s {
		p[i] = (s[i].pos+7)>>3 - 8
		h[i] = (le.Uint64(src[p[i]:]) | 1) << (uint(-s[i].pos) & 7)
	}
	p0, p1, p2, p3 := p[0], p[1], p[2], p[3]
	h0, h1, h2, h3 := h[0], h[1], h[2], h[3]
	l0, l1 := d.lits[:quarter:quarter], d.lits[quarter:2*quarter:2*quarter]
	l2, l3 := d.lits[2*quarter:3*quarter:3*quarter], d.lits[3*quarter:]
	l3 = l3[:len(l3):len(l3)]
	done := 0
	for {
		// A round takes at most seven bytes of each stream.
		rounds := (len(l3) - done) / 5
		rounds = min(rounds, (p0-s[0].start/8)/7, (p1-s[1].start/8)/7)
		rounds = min(rounds, (p2-s[2].start/8)/7, (p3-s[3].start/8)/7)
		if rounds <= 0 {
			break
		}
		for stop := done + rounds*5; done < stop; done += 5 {
			o0, o1 := (*[5]byte)(l0[done:done+5]), (*[5]byte)(l1[done:done+5])
			o2, o3 := (*[5]byte)(l2[done:done+5]), (*[5]byte)(l3[done:done+5])
			c := table[h0>>(64-huffmanLog)]
			h0 <<= c & 63
			o0[0] = byte(c >> 8)
			c = table[h1>>(64-huffmanLog)]
			h1 <<= c & 63
			o1[0] = byte(c >> 8)
			c = table[h2>>(64-huffmanLog)]
			h2 <<= c & 63
			o2[0] = byte(c >> 8)
			c = table[h3>>(64-huffmanLog)]
			h3 <<= c & 63
			o3[0] = byte(c >> 8)
			c = table[h0>>(64-huffmanLog)]
			h0 <<= c & 63
			o0[1] = byte(c >> 8)
			c = table[h1>>(64-huffmanLog)]
			h1 <<= c & 63
			o1[1] = byte(c >> 8)
			c = table[h2>>(64-huffmanLog)]
			h2 <<= c & 63
			o2[1] = byte(c >> 8)
			c = table[h3>>(64-huffmanLog)]
			h3 <<= c & 63
			o3[1] = byte(c >> 8)
			c = table[h0>>(64-huffmanLog)]
			h0 <<= c & 63
			o0[2] = byte(c >> 8)
			c = table[h1>>(64-huffmanLog)]
			h1 <<= c & 63
			o1[2] = byte(c >> 8)
			c = table[h2>>(64-huffmanLog)]
			h2 <<= c & 63
			o2[2] = byte(c >> 8)
			c = table[h3>>(64-huffmanLog)]
			h3 <<= c & 63
			o3[2] = byte(c >> 8)
			c = table[h0>>(64-huffmanLog)]
			h0 <<= c & 63
			o0[3] = byte(c >> 8)
			c = table[h1>>(64-huffmanLog)]
			h1 <<= c & 63
			o1[3] = byte(c >> 8)
			c = table[h2>>(64-huffmanLog)]
			h2 <<= c & 63
			o2[3] = byte(c >> 8)
			c = table[h3>>(64-huffmanLog)]
			h3 <<= c & 63
			o3[3] = byte(c >> 8)
			c = table[h0>>(64-huffmanLog)]
			h0 <<= c & 63
			o0[4] = byte(c >> 8)
			c = table[h1>>(64-huffmanLog)]
			h1 <<= c & 63
			o1[4] = byte(c >> 8)
			c = table[h2>>(64-huffmanLog)]
			h2 <<= c & 63
			o2[4] = byte(c >> 8)
			c = table[h3>>(64-huffmanLog)]
			h3 <<= c & 63
			o3[4] = byte(c >> 8)
			n := bits.TrailingZeros64(h0)
			p0 -= n >> 3
			h0 = (le.Uint64(src[p0:p0+8]) | 1) << (n & 7)
			n = bits.TrailingZeros64(h1)
			p1 -= n >> 3
			h1 = (le.Uint64(src[p1:p1+8]) | 1) << (n & 7)
			n = bits.TrailingZeros64(h2)
			p2 -= n >> 3
			h2 = (le.Uint64(src[p2:p2+8]) | 1) << (n & 7)
			n = bits.TrailingZeros64(h3)
			p3 -= n >> 3
			h3 = (le.Uint64(src[p3:p3+8]) | 1) << (n & 7)
		}
	}
	p, h = [4]int{p0, p1, p2, p3}, [4]uint64{h0, h1, h2, h3}
	for i := range s {
		s[i].pos = p[i]*8 + 64 - bits.TrailingZeros64(h[i])
	}
	return done
}

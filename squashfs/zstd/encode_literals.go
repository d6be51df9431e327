package zstd

import (
	"slices"

	"singularity/squashfs/huffman"
)

const (
	minHuffman    = 32  // literals below which no code pays
	oneStreamSize = 256 // literals below which they are one stream
)

// huffmanEncoder builds the code for literals.
type huffmanEncoder struct {
	counts  [256]uint32
	sizes   [256]uint8  // bits of the codes
	words   [256]uint16 // size | code << 4
	longest int         // size of the longest code
	last    int         // the last symbol
	sorted  []uint64
	code    huffman.Builder
	weights [256]uint8
}

// writeLiterals writes the literals section to out and returns its size, which
// is at most that of the literals and 3: RFC 8878, 3.1.1.3.1.
func (e *Encoder) writeLiterals() int {
	lits := e.literals[:e.lits]
	if len(lits) >= minHuffman {
		h := &e.huffman
		most := h.count(lits)
		if most == len(lits) {
			n := literalsHeader(e.out[:], kindRun, len(lits))
			e.out[n] = lits[0]
			return n + 1
		}
		// Nearly even counts are not worth the work.
		if most > len(lits)>>7+4 {
			if n, ok := e.packLiterals(lits); ok {
				return n
			}
		}
	}
	n := literalsHeader(e.out[:], kindRaw, len(lits))
	return n + copy(e.out[n:], lits)
}

// literalsHeader writes the header of literals that are not packed.
func literalsHeader(out []byte, kind, size int) int {
	switch {
	case size < 32:
		out[0] = byte(kind | size<<3)
		return 1
	case size < 4096:
		le.PutUint16(out, uint16(kind|1<<2|size<<4))
		return 2
	}
	v := kind | 3<<2 | size<<4
	out[0], out[1], out[2] = byte(v), byte(v>>8), byte(v>>16)
	return 3
}

// packLiterals writes literals with a Huffman code, if that makes them smaller.
func (e *Encoder) packLiterals(lits []byte) (size int, ok bool) {
	h := &e.huffman
	h.build()
	streams, format := 4, 1
	head := 3
	switch {
	case len(lits) < oneStreamSize:
		streams, format = 1, 0
	case len(lits) >= 1<<14:
		format, head = 3, 5
	case len(lits) >= 1<<10:
		format, head = 2, 4
	}
	n, ok := e.writeWeights(head)
	if !ok {
		return 0, false
	}
	total := 0
	for s, count := range h.counts {
		total += int(count) * int(h.sizes[s])
	}
	if n+total/8+8+len(lits)>>6 >= len(lits) {
		return 0, false
	}
	if streams == 1 {
		n = h.stream(e.out[:], n, lits)
	} else {
		table := n
		n += 6
		quarter := (len(lits) + 3) / 4
		for i := range 4 {
			start := n
			n = h.stream(e.out[:], n, lits[i*quarter:min((i+1)*quarter, len(lits))])
			if i < 3 {
				le.PutUint16(e.out[table+2*i:], uint16(n-start))
			}
		}
	}
	width := [4]int{10, 10, 14, 18}[format]
	v := uint64(kindPacked|format<<2) | uint64(len(lits))<<4 | uint64(n-head)<<(4+width)
	for i := range head {
		e.out[i] = byte(v >> (8 * i))
	}
	return n, true
}

// count counts the literals and returns the largest count. Four tables keep
// equal bytes in a row from waiting for each other.
func (h *huffmanEncoder) count(lits []byte) (most int) {
	var c [4][256]uint32
	for len(lits) >= 4 {
		v := le.Uint32(lits)
		c[0][v&0xff]++
		c[1][v>>8&0xff]++
		c[2][v>>16&0xff]++
		c[3][v>>24]++
		lits = lits[4:]
	}
	for _, b := range lits {
		c[0][b]++
	}
	for i := range h.counts {
		h.counts[i] = c[0][i] + c[1][i] + c[2][i] + c[3][i]
		most = max(most, int(h.counts[i]))
	}
	return most
}

// stream writes lits, the last one first, to out[n:] and returns its end.
func (h *huffmanEncoder) stream(out []byte, n int, lits []byte) int {
	words := &h.words
	w := bitWriter{out: out, n: n}
	for len(lits)%5 != 0 {
		c := words[lits[len(lits)-1]]
		w.add(uint64(c>>4), uint(c&15))
		lits = lits[:len(lits)-1]
	}
	w.flush()
	acc, count := w.acc, w.count
	n = w.n
	for len(lits) >= 5 {
		p := (*[5]byte)(lits[len(lits)-5:])
		lits = lits[:len(lits)-5]
		for i := 4; i >= 0; i-- {
			c := words[p[i]]
			acc |= uint64(c>>4) << (count & 63)
			count += uint(c & 15)
		}
		le.PutUint64(out[n:], acc)
		n += int(count >> 3)
		acc >>= count & 56
		count &= 7
	}
	w.acc, w.count, w.n = acc, count, n
	return w.end()
}

// build makes the best code for counts, of which at least two are not zero, with
// words of at most huffmanLog bits.
func (h *huffmanEncoder) build() {
	list := h.sorted[:0]
	for s, n := range h.counts {
		if n > 0 {
			list = append(list, uint64(n)<<8|uint64(s))
			h.last = s
		}
	}
	h.sorted = list
	slices.Sort(list)
	numbers := h.code.Sizes(list, 8, huffmanLog)
	// The rarest symbols have the longest words.
	h.sizes = [256]uint8{}
	h.longest = 0
	i := 0
	for size := huffmanLog; size > 0; size-- {
		if numbers[size] > 0 {
			h.longest = max(h.longest, size)
		}
		for range numbers[size] {
			h.sizes[list[i]&0xff] = uint8(size)
			i++
		}
	}
	// Codes count up from the longest words on, in a size by symbol.
	var next [huffmanLog + 1]uint16
	code := 0
	for size := h.longest; size > 0; size-- {
		next[size] = uint16(code)
		code = (code + numbers[size]) >> 1
	}
	for s, size := range h.sizes[:h.last+1] {
		if size > 0 {
			h.words[s] = next[size]<<4 | uint16(size)
			next[size]++
		}
	}
}

// writeWeights writes the description of the code to out[n:]: RFC 8878, 4.2.1.
// It fails if the code has too many symbols for either form.
func (e *Encoder) writeWeights(n int) (int, bool) {
	h := &e.huffman
	w := h.weights[:h.last] // that of the last symbol follows from the others
	for s := range w {
		w[s] = 0
		if size := int(h.sizes[s]); size > 0 {
			w[s] = uint8(h.longest + 1 - size)
		}
	}
	plain := 1 + (len(w)+1)/2
	if size, ok := e.packWeights(e.out[n+1:], w); ok && size < 128 && (1+size < plain || len(w) > 128) {
		e.out[n] = byte(size)
		return n + 1 + size, true
	}
	if len(w) > 128 {
		return 0, false
	}
	e.out[n] = byte(127 + len(w))
	for i := 0; i < len(w); i += 2 {
		b := w[i] << 4
		if i+1 < len(w) {
			b |= w[i+1]
		}
		e.out[n+1+i/2] = b
	}
	return n + plain, true
}

// packWeights writes weights with an FSE code, by two states that take turns.
func (e *Encoder) packWeights(out []byte, weights []uint8) (size int, ok bool) {
	if len(weights) < 3 {
		return 0, false
	}
	var counts [huffmanLog + 1]uint32
	for _, w := range weights {
		counts[w]++
	}
	distinct, last := 0, 0
	for w, n := range counts {
		if n > 0 {
			distinct++
			last = w
		}
	}
	if distinct == 1 {
		return 0, false
	}
	f := &e.weights
	var prob [huffmanLog + 1]int16
	log := tableLog(uint32(len(weights)), distinct, maxWeightsLog)
	scale(prob[:last+1], counts[:last+1], uint32(len(weights)), log)
	f.build(prob[:last+1], log)
	w := bitWriter{out: out, n: f.writeProbabilities(out)}
	var states [2]uint32 // of even and odd places
	for i := len(weights) - 1; i >= 0; i-- {
		if i >= len(weights)-2 {
			states[i&1] = uint32(f.first[weights[i]])
			continue
		}
		state, v, n := f.step(states[i&1], uint32(weights[i]))
		states[i&1] = state
		w.add(v, n)
		w.flush()
	}
	f.finish(&w, states[1])
	f.finish(&w, states[0])
	w.flush()
	return w.end(), true
}

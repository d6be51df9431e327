package deflate

import (
	"math/bits"
	"slices"
)

// codeWord is the code of a symbol, its first bit lowest.
type codeWord struct {
	bits uint16
	size uint8
}

// code is a Huffman code; symbols that do not occur have size 0.
type code struct {
	words [288]codeWord
	used  int // one more than the last symbol with a size
}

// cost is the number of bits of the counted symbols.
func (c *code) cost(counts []uint32) int {
	n := 0
	for i, k := range counts {
		n += int(k) * int(c.words[i].size)
	}
	return n
}

func (c *code) fixedLit() {
	for i := range c.words {
		switch {
		case i < 144:
			c.words[i].size = 8
		case i < 256:
			c.words[i].size = 9
		case i < 280:
			c.words[i].size = 7
		default:
			c.words[i].size = 8
		}
	}
	c.assign(288)
}

func (c *code) fixedDist() {
	for i := range 32 {
		c.words[i].size = 5
	}
	c.assign(32)
}

// assign gives the symbols their bits: by size, then by number.
func (c *code) assign(n int) {
	var counts, next [maxCodeBits + 1]uint16
	for i := range n {
		counts[c.words[i].size]++
	}
	counts[0] = 0
	for i := 1; i < len(next); i++ {
		next[i] = (next[i-1] + counts[i-1]) << 1
	}
	c.used = 0
	for i := range n {
		if s := c.words[i].size; s > 0 {
			c.words[i].bits = bits.Reverse16(next[s]) >> (16 - s)
			next[s]++
			c.used = i + 1
		}
	}
}

// build makes c the best code for counts with words of at most limit bits. It
// has at least two words: not every reader takes a code of one.
func (w *blockWriter) build(c *code, counts []uint32, limit int) {
	list := w.sorted[:0]
	for i, n := range counts {
		c.words[i].size = 0
		if n > 0 {
			list = append(list, uint64(n)<<16|uint64(i))
		}
	}
	for i := 0; len(list) < 2; i++ {
		if counts[i] == 0 {
			list = append(list, 1<<16|uint64(i))
		}
	}
	w.sorted = list
	slices.Sort(list)
	sizes := w.codes.Sizes(list, 16, limit)
	// The rarest symbols have the longest words.
	i := 0
	for size := limit; size > 0; size-- {
		for range sizes[size] {
			c.words[list[i]&0xffff].size = uint8(size)
			i++
		}
	}
	c.assign(len(counts))
}

// blockHeader is the description of the two codes of a block.
type blockHeader struct {
	lits, dists int
	codes       []uint16 // symbol | extra bits << 5
	lens        int      // code lengths of the code for codes that are written
	bits        int
}

// extraBits of the symbols 16, 17 and 18 for repeats.
func extraBits(symbol uint16) uint {
	switch symbol {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

// header describes w.lit and w.dist, and builds w.lens.
func (w *blockWriter) header() (h blockHeader) {
	h.lits, h.dists = max(w.lit.used, endOfBlock+1), max(w.dist.used, 1)
	var sizes [litSymbols + distSymbols]uint8
	for i := range h.lits {
		sizes[i] = w.lit.words[i].size
	}
	for i := range h.dists {
		sizes[h.lits+i] = w.dist.words[i].size
	}
	h.codes = make([]uint16, 0, h.lits+h.dists)
	all := sizes[:h.lits+h.dists]
	for len(all) > 0 {
		run := 1
		for run < len(all) && all[run] == all[0] {
			run++
		}
		h.repeat(uint16(all[0]), run)
		all = all[run:]
	}
	var counts [codeSymbols]uint32
	for _, c := range h.codes {
		counts[c&31]++
		h.bits += int(extraBits(c & 31))
	}
	w.build(&w.lens, counts[:], 7)
	h.lens = codeSymbols
	for h.lens > 4 && w.lens.words[codeOrder[h.lens-1]].size == 0 {
		h.lens--
	}
	h.bits += 14 + 3*h.lens + w.lens.cost(counts[:])
	return h
}

// repeat adds run times the code length size.
func (h *blockHeader) repeat(size uint16, run int) {
	if size != 0 {
		h.codes = append(h.codes, size)
		run--
		for ; run >= 3; run -= min(run, 6) {
			h.codes = append(h.codes, 16|uint16(min(run, 6)-3)<<5)
		}
	}
	for size == 0 && run >= 3 {
		n := min(run, 138)
		if n <= 10 {
			h.codes = append(h.codes, 17|uint16(n-3)<<5)
		} else {
			h.codes = append(h.codes, 18|uint16(n-11)<<5)
		}
		run -= n
	}
	for range run {
		h.codes = append(h.codes, size)
	}
}

func (w *blockWriter) writeHeader(h *blockHeader) {
	w.put(uint64(h.lits-257)|uint64(h.dists-1)<<5|uint64(h.lens-4)<<10, 14)
	for _, s := range codeOrder[:h.lens] {
		w.put(uint64(w.lens.words[s].size), 3)
	}
	for _, c := range h.codes {
		word := w.lens.words[c&31]
		w.put(uint64(word.bits)|uint64(c>>5)<<word.size, uint(word.size)+extraBits(c&31))
	}
}

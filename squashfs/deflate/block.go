package deflate

import (
	"encoding/binary"
	"math"
	"math/bits"

	"singularity/squashfs/huffman"
)

const (
	endOfBlock   = 256
	litSymbols   = 286
	distSymbols  = 30
	codeSymbols  = 19
	maxCodeBits  = 15
	segmentSize  = 2048     // tokens after which a change of statistics is looked for
	maxTokens    = 64 << 10 // of one block
	maxStored    = 65535    // bytes of a stored block
	headerCost   = 450      // bits that a further block costs, roughly
	logShift     = 10       // fraction bits of the logarithm table
	logTableSize = 4096
)

// A token is a literal byte, or matchFlag | length-3 << 16 | distance-1.
const matchFlag = 1 << 31

var codeOrder = [codeSymbols]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

var (
	lengthBase  = [29]uint16{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 255}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
)

// histogram counts the symbols of tokens.
type histogram struct {
	lit  [litSymbols]uint32
	dist [distSymbols]uint32
}

func (h *histogram) add(o *histogram) {
	for i, n := range o.lit {
		h.lit[i] += n
	}
	for i, n := range o.dist {
		h.dist[i] += n
	}
}

// blockWriter collects tokens, cuts them into blocks and writes these.
type blockWriter struct {
	src     []byte
	limit   int
	failed  bool // the result has become larger than limit
	tokens  []uint32
	bytes   int // of src that the tokens stand for
	begin   int // in src, of the present block
	checked int // tokens that all counts
	inAll   int // bytes of src that those stand for
	all     histogram
	part    histogram // of the tokens since

	out   []byte // as large as limit, and some bytes more
	n     int    // finished bytes of out
	acc   uint64 // bits to come
	count uint   // number of these, below 8 between symbols

	lengthSymbol [maxMatch - minMatch + 1]uint8 // length-3 → symbol - 257
	log          [logTableSize]uint32           // logarithms in base 2, fixed point
	lit          code
	dist         code
	lens         code
	sorted       []uint64
	codes        huffman.Builder
}

func (w *blockWriter) init() {
	for s, base := range lengthBase {
		for l := int(base); l < len(w.lengthSymbol); l++ {
			w.lengthSymbol[l] = uint8(s)
		}
	}
	for i := 1; i < len(w.log); i++ {
		w.log[i] = uint32(math.Round(math.Log2(float64(i)) * (1 << logShift)))
	}
	w.tokens = make([]uint32, 0, maxTokens+segmentSize)
}

func (w *blockWriter) start(src []byte, limit int) {
	w.src, w.limit, w.failed = src, limit, false
	w.tokens, w.bytes, w.begin, w.checked, w.inAll = w.tokens[:0], 0, 0, 0, 0
	w.all, w.part = histogram{}, histogram{}
	w.n, w.acc, w.count = 0, 0, 0
	if need := limit + 16; len(w.out) < need {
		w.out = make([]byte, need)
	}
}

func (w *blockWriter) literal(c byte) {
	w.tokens = append(w.tokens, uint32(c))
	w.part.lit[c]++
	w.bytes++
	if len(w.tokens)-w.checked >= segmentSize {
		w.check()
	}
}

func (w *blockWriter) match(length, dist int) {
	w.tokens = append(w.tokens, matchFlag|uint32(length-minMatch)<<16|uint32(dist-1))
	w.part.lit[endOfBlock+1+int(w.lengthSymbol[length-minMatch])]++
	w.part.dist[distSymbol(uint32(dist-1))]++
	w.bytes += length
	if len(w.tokens)-w.checked >= segmentSize {
		w.check()
	}
}

// distSymbol returns the symbol of a distance less one: two symbols for each
// power of two.
func distSymbol(d uint32) uint32 {
	if d < 4 {
		return d
	}
	n := uint32(bits.Len32(d)) - 2
	return n<<1 + d>>n
}

// check ends the present block before the last segment, if codes of its own
// serve that better.
func (w *blockWriter) check() {
	if w.checked > 0 {
		both := w.all
		both.add(&w.part)
		if w.checked >= maxTokens-segmentSize || w.cost(&both) > w.cost(&w.all)+w.cost(&w.part)+headerCost {
			w.writeBlock(w.tokens[:w.checked], &w.all, w.inAll, false)
			w.begin += w.inAll
			w.tokens = w.tokens[:copy(w.tokens, w.tokens[w.checked:])]
			w.bytes -= w.inAll
			w.all = histogram{}
		}
	}
	w.all.add(&w.part)
	w.part = histogram{}
	w.checked, w.inAll = len(w.tokens), w.bytes
}

// finish writes the last block and returns the stream.
func (w *blockWriter) finish() ([]byte, bool) {
	if len(w.tokens) > w.checked {
		w.check()
	}
	w.writeBlock(w.tokens, &w.all, w.bytes, true)
	w.src = nil
	if w.count > 0 && !w.failed {
		w.out[w.n] = byte(w.acc)
		w.n++
	}
	if w.failed || w.n > w.limit {
		return nil, false
	}
	return w.out[:w.n], true
}

// cost is the entropy of the symbols, in bits.
func (w *blockWriter) cost(h *histogram) uint64 {
	return (w.entropy(h.lit[:]) + w.entropy(h.dist[:])) >> logShift
}

func (w *blockWriter) entropy(counts []uint32) uint64 {
	var total uint32
	var sum uint64
	for _, n := range counts {
		if n > 0 {
			total += n
			sum += uint64(n) * uint64(w.log2(n))
		}
	}
	return uint64(total)*uint64(w.log2(total)) - sum
}

func (w *blockWriter) log2(n uint32) uint32 {
	shift := 0
	for n >= logTableSize {
		n >>= 1
		shift++
	}
	return w.log[n] + uint32(shift)<<logShift
}

// writeBlock writes tokens in the shortest of the three forms of a block.
func (w *blockWriter) writeBlock(tokens []uint32, h *histogram, size int, last bool) {
	if w.failed {
		return
	}
	h.lit[endOfBlock] = 1
	extra := 0
	for i, n := range lengthExtra {
		extra += int(n) * int(h.lit[endOfBlock+1+i])
	}
	for s := 4; s < distSymbols; s++ {
		extra += (s/2 - 1) * int(h.dist[s])
	}
	w.lit.fixedLit()
	w.dist.fixedDist()
	fixed := 3 + extra + w.lit.cost(h.lit[:]) + w.dist.cost(h.dist[:])
	w.build(&w.lit, h.lit[:], maxCodeBits)
	w.build(&w.dist, h.dist[:], maxCodeBits)
	header := w.header()
	dynamic := 3 + extra + header.bits + w.lit.cost(h.lit[:]) + w.dist.cost(h.dist[:])
	stored := 3 + int(-(w.count+3)&7) + 32 + max(0, size-1)/maxStored*40 + size*8

	if w.failed = w.n+(int(w.count)+min(fixed, dynamic, stored))/8 > w.limit; w.failed {
		return
	}
	final := uint64(0)
	if last {
		final = 1
	}
	switch {
	case stored < min(fixed, dynamic):
		w.writeStored(w.src[w.begin:w.begin+size], final)
		return
	case fixed <= dynamic:
		w.lit.fixedLit()
		w.dist.fixedDist()
		w.put(final|1<<1, 3)
	default:
		w.put(final|2<<1, 3)
		w.writeHeader(&header)
	}
	w.writeTokens(tokens)
}

// put writes the low n bits of v; n is at most 48. Space was checked before.
func (w *blockWriter) put(v uint64, n uint) {
	w.acc |= v << w.count
	w.count += n
	binary.LittleEndian.PutUint64(w.out[w.n:], w.acc)
	w.n += int(w.count >> 3)
	w.acc >>= w.count &^ 7
	w.count &= 7
}

func (w *blockWriter) writeStored(b []byte, final uint64) {
	for {
		part := b[:min(len(b), maxStored)]
		b = b[len(part):]
		f := final
		if len(b) > 0 {
			f = 0
		}
		w.put(f, 3)
		if w.count > 0 {
			w.put(0, 8-w.count)
		}
		w.put(uint64(len(part))|uint64(len(part)^0xffff)<<16, 32)
		if w.failed = w.n+len(part) > w.limit; w.failed {
			return
		}
		w.n += copy(w.out[w.n:], part)
		if len(b) == 0 {
			return
		}
	}
}

func (w *blockWriter) writeTokens(tokens []uint32) {
	out, n, acc, count := w.out, w.n, w.acc, w.count
	for _, t := range tokens {
		if t < matchFlag {
			c := w.lit.words[t&0xff]
			acc |= uint64(c.bits) << count
			count += uint(c.size)
		} else {
			length, d := t>>16&0xff, t&0xffff
			s := w.lengthSymbol[length]
			c := w.lit.words[endOfBlock+1+int(s)]
			acc |= uint64(c.bits) << count
			count += uint(c.size)
			acc |= uint64(length-uint32(lengthBase[s])) << count
			count += uint(lengthExtra[s])
			ds := distSymbol(d)
			c = w.dist.words[ds]
			acc |= uint64(c.bits) << count
			count += uint(c.size)
			if ds >= 4 {
				size := uint(ds>>1 - 1)
				acc |= uint64(d&(1<<size-1)) << count
				count += size
			}
		}
		binary.LittleEndian.PutUint64(out[n:], acc)
		n += int(count >> 3)
		acc >>= count &^ 7
		count &= 7
	}
	w.n, w.acc, w.count = n, acc, count
	c := w.lit.words[endOfBlock]
	w.put(uint64(c.bits), uint(c.size))
}

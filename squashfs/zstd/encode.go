package zstd

import (
	"math"
	"math/bits"
)

const (
	maxInputLog   = 20
	maxSequences  = maxBlockSize/minMatch + 1
	blockHeader   = 3
	minCompressed = 16 // bytes of a block below which a compressed one is not tried
)

// Encoder compresses one buffer after another. Nothing is kept between them but
// memory: the same buffer always gives the same bits. It is about 900 KiB, and
// not for concurrent use.
type Encoder struct {
	long  [1 << longBits]uint32  // last place of each hash of 8 bytes
	short [1 << shortBits]uint32 // the same for 5 bytes

	repeats   [2]int // offsets of the latest two matches
	sequences []sequence
	codes     [maxSequences]uint32 // of each sequence: literal length | match length << 8 | offset << 16
	literals  [maxBlockSize + margin]byte
	lits      int                        // how many of them
	counts    [3][1 << countsLog]uint32  // of codes
	tables    [3]*fseEncoder             // for codes, of the present block
	own       [3]fseEncoder              // made for one block
	fixed     [3]fseEncoder              // the predefined ones
	log       [1<<maxTableLog + 1]uint16 // logarithms in base 2, fixed point
	weights   fseEncoder                 // for the lengths of Huffman codes
	huffman   huffmanEncoder
	out       [maxBlockSize + outMargin]byte // the content of the present block
}

// outMargin is room in out behind the largest useful content, for what is
// written before the size is looked at.
const outMargin = 1 << 10

// NewEncoder returns an Encoder.
func NewEncoder() *Encoder {
	e := &Encoder{sequences: make([]sequence, 0, maxSequences)}
	for i := 1; i < len(e.log); i++ {
		e.log[i] = uint16(math.Round(math.Log2(float64(i)) * (1 << logShift)))
	}
	for kind := range e.fixed {
		a := &alphabets[kind]
		e.fixed[kind].build(a.predefined, a.log)
	}
	return e
}

// Encode appends src to dst as one frame. ok is false if the frame would be more
// than limit bytes; dst is then returned as it was.
func (e *Encoder) Encode(dst, src []byte, limit int) (out []byte, ok bool) {
	if len(src) > 1<<maxInputLog {
		return dst, false
	}
	clear(e.long[:])
	clear(e.short[:])
	limit += len(dst)
	out = appendFrameHeader(dst, len(src))
	e.repeats = [2]int{1, 4}
	for start := 0; ; {
		end := min(start+maxBlockSize, len(src))
		out = e.appendBlock(out, src[:end], start, end == len(src))
		if len(out) > limit {
			break
		}
		if start = end; end == len(src) {
			ok = true
			break
		}
	}
	if !ok {
		return dst, false
	}
	return out, true
}

// appendFrameHeader appends the header of a frame of size bytes that is its own
// window, without a checksum: RFC 8878, 3.1.1.1.
func appendFrameHeader(dst []byte, size int) []byte {
	const single = 1 << 5
	dst = le.AppendUint32(dst, frameMagic)
	switch {
	case size < 256:
		return append(dst, single, byte(size))
	case size < 1<<16+256:
		return le.AppendUint16(append(dst, single|1<<6), uint16(size-256))
	}
	return le.AppendUint32(append(dst, single|2<<6), uint32(size))
}

// appendBlock appends src[start:] as one block, which may copy what is before.
func (e *Encoder) appendBlock(dst, src []byte, start int, last bool) []byte {
	const run, compressed = 1, 2
	header := func(kind, size int) {
		h := uint32(size)<<3 | uint32(kind)<<1
		if last {
			h |= 1
		}
		dst = append(dst, byte(h), byte(h>>8), byte(h>>16))
	}
	b := src[start:]
	if len(b) > 1 && isRun(b) {
		header(run, len(b))
		return append(dst, b[0])
	}
	if len(b) >= minCompressed {
		repeats := e.repeats
		e.parse(src, start)
		e.gather(src, start)
		if n, ok := e.content(len(b) - 1); ok {
			header(compressed, n)
			return append(dst, e.out[:n]...)
		}
		e.repeats = repeats
	}
	header(0, len(b))
	return append(dst, b...)
}

func isRun(b []byte) bool {
	for _, c := range b[1:] {
		if c != b[0] {
			return false
		}
	}
	return true
}

// content writes the literals and sequences of a block to out, if they take at
// most limit bytes.
func (e *Encoder) content(limit int) (size int, ok bool) {
	n := e.writeLiterals()
	if n+4 > limit {
		return 0, false
	}
	switch count := len(e.sequences); {
	case count < 128:
		e.out[n] = byte(count)
		n++
	case count < 0x7f00:
		e.out[n], e.out[n+1] = byte(count>>8)+128, byte(count)
		n += 2
	default:
		e.out[n], e.out[n+1], e.out[n+2] = 255, byte(count-0x7f00), byte((count-0x7f00)>>8)
		n += 3
	}
	if len(e.sequences) > 0 {
		if n, ok = e.writeSequences(n, limit); !ok {
			return 0, false
		}
	}
	return n, n <= limit
}

// bitWriter writes a stream that is read backwards. Bits collect in acc from
// the lowest on.
type bitWriter struct {
	out   []byte
	n     int // finished bytes of out
	acc   uint64
	count uint
}

// add adds the low size bits of v, the others of which are zero. At most 56
// bits may come between two calls of flush.
func (w *bitWriter) add(v uint64, size uint) {
	w.acc |= v << (w.count & 63)
	w.count += size
}

// flush moves whole bytes to out, which has 8 bytes of room.
func (w *bitWriter) flush() {
	le.PutUint64(w.out[w.n:], w.acc)
	w.n += int(w.count >> 3)
	w.acc >>= w.count & 56
	w.count &= 7
}

// end adds the mark that a reader starts from, and returns the end of the stream.
func (w *bitWriter) end() int {
	w.add(1, 1)
	w.flush()
	if w.count > 0 {
		w.n++
	}
	return w.n
}

// highBit is the place of the highest bit that is set.
func highBit(v uint32) uint { return uint(bits.Len32(v)) - 1 }

// Package deflate compresses whole blocks into the DEFLATE format of RFC 1951,
// denser and faster than a general stream compressor can.
//
// A block of bytes goes in, one complete DEFLATE stream comes out, or the word
// that it would not be smaller than a limit. Nothing is kept between blocks but
// memory: the same block at the same level always gives the same bits.
//
// Three things make the difference at 128 KiB blocks of program code: matches
// of three bytes are found by a table of their own, so that the chains of longer
// matches stay short; a match is weighed against those at the next two places by
// an estimate of its bits; and the Huffman codes change where the statistics of
// the data change, not after a fixed number of symbols.
//
// The input may be hostile: it cannot cause a panic, and the work for each byte
// is bounded by the level.
//
// Files: deflate.go finds matches and chooses among them, block.go cuts the
// result into blocks and writes them, huffman.go builds codes.
package deflate

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	minMatch   = 3
	maxMatch   = 258
	windowSize = 32 << 10
	windowMask = windowSize - 1
	maxDist    = windowSize - 1 // the slot of a place a whole window back is taken already
	hash4Bits  = 16
	hash3Bits  = 14
	hashPrime  = 0x9E3779B1
	maxBase    = 1 << 31
	maxInput   = 1 << 30

	// A match of three bytes further back costs more bits than its literals.
	maxDist3 = 4096
)

// Levels of New.
const (
	MinLevel = 1
	MaxLevel = 9
)

// params are what a level means.
type params struct {
	depth int // places looked at for one match
	nice  int // a match of this length ends the search
	lazy  int // how many places further a better match is looked for
}

var levels = [MaxLevel + 1]params{
	1: {2, 16, 0}, 2: {5, 32, 0}, 3: {8, 32, 1}, 4: {14, 48, 1}, 5: {24, 80, 1},
	6: {40, 130, 1}, 7: {64, 160, 2}, 8: {160, 258, 2}, 9: {600, 258, 2},
}

// Encoder compresses blocks one after another. It is not for concurrent use.
type Encoder struct {
	params
	// The place of byte i of the present block is base+i in the tables. base
	// grows by more than a window from block to block: what earlier blocks left
	// is too far away to be seen.
	base  uint32
	head4 [1 << hash4Bits]uint32 // last place of each hash of 4 bytes
	head3 [1 << hash3Bits]uint32 // the same for 3 bytes
	prev  [windowSize]uint32     // place before with the same hash of 4 bytes
	block blockWriter
}

// New returns an Encoder for a level from MinLevel (fast) to MaxLevel (small).
func New(level int) (*Encoder, error) {
	if level < MinLevel || level > MaxLevel {
		return nil, fmt.Errorf("cannot use deflate level %d: want %d to %d", level, MinLevel, MaxLevel)
	}
	e := &Encoder{params: levels[level], base: windowSize}
	e.block.init()
	return e, nil
}

// Encode appends the compressed form of src to dst. ok is false if that would be
// more than limit bytes; dst is then returned as it was.
func (e *Encoder) Encode(dst, src []byte, limit int) (out []byte, ok bool) {
	if len(src) > maxInput {
		return dst, false
	}
	if e.base >= maxBase {
		clear(e.head4[:])
		clear(e.head3[:])
		clear(e.prev[:])
		e.base = windowSize
	}
	e.block.start(src, limit)
	switch e.lazy {
	case 0:
		e.greedy(src)
	default:
		e.lazily(src)
	}
	e.base += uint32(len(src)) + windowSize
	b, ok := e.block.finish()
	if !ok {
		return dst, false
	}
	return append(dst, b...), true
}

func load32(b []byte, i int) uint32 { return binary.LittleEndian.Uint32(b[i:]) }

func hash4(v uint32) uint32 { return v * hashPrime >> (32 - hash4Bits) }

func hash3(v uint32) uint32 { return v << 8 * hashPrime >> (32 - hash3Bits) }

// insert enters the places from i up to end.
func (e *Encoder) insert(src []byte, i, end int) {
	end = min(end, len(src)-3)
	for ; i < end; i++ {
		v := load32(src, i)
		at := e.base + uint32(i)
		e.head3[hash3(v)] = at
		h := hash4(v)
		e.prev[at&windowMask] = e.head4[h]
		e.head4[h] = at
	}
}

// find enters place i, and returns the longest match there that is longer than
// least bytes; length 0 means none. At least 4 bytes follow i.
func (e *Encoder) find(src []byte, i, least, depth int) (length, dist int) {
	v := load32(src, i)
	at := e.base + uint32(i)
	h := hash3(v)
	near := e.head3[h]
	e.head3[h] = at
	h = hash4(v)
	place := e.head4[h]
	e.head4[h] = at
	e.prev[at&windowMask] = place

	longest := min(maxMatch, len(src)-i)
	nice := min(e.nice, longest)
	best := max(least, minMatch)
	if least < minMatch {
		if d := at - near; d <= maxDist3 && (load32(src, i-int(d))^v)<<8 == 0 {
			length, dist = minMatch, int(d)
		}
	}
	if best >= longest {
		return length, dist
	}
	tail := load32(src, i+best-3)
	for ; depth > 0; depth-- {
		d := at - place
		if d > maxDist {
			break
		}
		p := i - int(d)
		// The last byte that would make the match longer is the likeliest to differ.
		if load32(src, p+best-3) == tail && load32(src, p) == v {
			if l := matchLength(src, p, i, longest); l > best {
				best, length, dist = l, l, int(d)
				if l >= nice {
					break
				}
				tail = load32(src, i+best-3)
			}
		}
		place = e.prev[place&windowMask]
	}
	return length, dist
}

// matchLength counts the equal bytes at p and i, up to longest; 4 are known.
func matchLength(src []byte, p, i, longest int) int {
	a, b := src[p:p+longest], src[i:i+longest]
	n := 4
	for n+8 <= len(a) && n+8 <= len(b) {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
		n += 8
	}
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// greedy takes each match as it comes.
func (e *Encoder) greedy(src []byte) {
	i, last := 0, len(src)-4
	for i <= last {
		length, dist := e.find(src, i, minMatch-1, e.depth)
		if length == 0 {
			e.block.literal(src[i])
			i++
			continue
		}
		e.block.match(length, dist)
		e.insert(src, i+1, i+length)
		i += length
	}
	for ; i < len(src); i++ {
		e.block.literal(src[i])
	}
}

// lazily takes a match only if none of the next places has a better one.
func (e *Encoder) lazily(src []byte) {
	least := leastMatch(src) - 1
	i, last := 0, len(src)-4
	for i <= last {
		length, dist := e.find(src, i, least, e.depth)
		if length == 0 {
			e.block.literal(src[i])
			i++
			continue
		}
		done := i + 1 // first place that is not entered yet
	better:
		for length < e.nice {
			for ahead := 1; ahead <= e.lazy && i+ahead <= last; ahead++ {
				if done > i+ahead {
					continue
				}
				l, d := e.find(src, i+ahead, length-1, e.depth>>ahead)
				done = i + ahead + 1
				if l >= length && 4*(l-length)+bits.Len(uint(dist))-bits.Len(uint(d)) > 4*ahead-2 {
					for range ahead {
						e.block.literal(src[i])
						i++
					}
					length, dist = l, d
					continue better
				}
			}
			break
		}
		e.block.match(length, dist)
		e.insert(src, done, i+length)
		i += length
	}
	for ; i < len(src); i++ {
		e.block.literal(src[i])
	}
}

// leastMatch guesses from what length on a match pays: where few different bytes
// occur, literals are cheap.
func leastMatch(src []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range src[:min(len(src), 16<<10)] {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	switch {
	case n <= 8:
		return 6
	case n <= 24:
		return 5
	case n <= 72:
		return 4
	}
	return minMatch
}

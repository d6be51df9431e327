package zstd

import "math/bits"

const (
	longBits   = 16
	shortBits  = 15
	longPrime  = 0xcf1bbcdcb7a56463
	shortPrime = 0xcf1bbcdcbb
	minMatch   = 4

	// The step from place to place grows by one with each 1<<skipShift bytes
	// that no match was found for.
	skipShift = 7
)

func longHash(v uint64) uint64 { return v * longPrime >> (64 - longBits) }

func shortHash(v uint64) uint64 { return v << 24 * shortPrime >> (64 - shortBits) }

// parse finds the sequences of src[start:]; matches may begin before start. It
// takes the first of these that it finds at a place: the latest offset, one byte
// on; the last place that has the same 8 bytes; the last that has the same 5, or
// 4 of them, unless there is a match of 8 one byte on.
func (e *Encoder) parse(src []byte, start int) {
	src = src[:len(src):len(src)]
	long, short, base := &e.long, &e.short, e.base
	rep, rep2 := e.repeats[0], e.repeats[1]
	list := e.sequences[:0]
	stop := len(src) - 9
	anchor, i := start, start
	for i <= stop {
		v := le.Uint64(src[i:])
		h, hs := longHash(v), shortHash(v)
		place, near := int(long[h]-base), int(short[hs]-base)
		at := base + uint32(i)
		long[h], short[hs] = at, at
		first := i
		var from, length int
		if le.Uint32(src[i+1-rep:]) == uint32(v>>8) {
			i++
			length = minMatch + equal(src, i+minMatch-rep, i+minMatch)
			list = append(list, sequence{uint32(i - anchor), uint32(length), 1})
			goto inserted
		}
		// A place of an earlier buffer is beyond i here.
		if place < i && le.Uint64(src[place:]) == v {
			from, length = place, 8+equal(src, place+8, i+8)
		} else if near < i && le.Uint32(src[near:]) == uint32(v) {
			v = le.Uint64(src[i+1:])
			h = longHash(v)
			place = int(long[h] - base)
			long[h] = at + 1
			if place <= i && le.Uint64(src[place:]) == v {
				i++
				from, length = place, 8+equal(src, place+8, i+8)
			} else {
				from, length = near, minMatch+equal(src, near+minMatch, i+minMatch)
			}
		} else {
			i += 1 + (i-anchor)>>skipShift
			continue
		}
		for i > anchor && from > 0 && src[i-1] == src[from-1] {
			i--
			from--
			length++
		}
		rep2, rep = rep, i-from
		list = append(list, sequence{uint32(i - anchor), uint32(length), uint32(rep) + 3})
	inserted:
		i += length
		anchor = i
		if i > stop {
			break
		}
		v = le.Uint64(src[first+2:])
		at = base + uint32(first+2)
		long[longHash(v)], short[shortHash(v)] = at, at
		long[longHash(le.Uint64(src[i-2:]))] = base + uint32(i-2)
		short[shortHash(le.Uint64(src[i-1:]))] = base + uint32(i-1)
		// With no literals, the code of the latest offset means the one before.
		for i <= stop && rep2 <= i && le.Uint32(src[i-rep2:]) == le.Uint32(src[i:]) {
			length = minMatch + equal(src, i+minMatch-rep2, i+minMatch)
			rep, rep2 = rep2, rep
			v = le.Uint64(src[i:])
			at = base + uint32(i)
			long[longHash(v)], short[shortHash(v)] = at, at
			list = append(list, sequence{0, uint32(length), 1})
			i += length
			anchor = i
		}
	}
	e.repeats = [2]int{rep, rep2}
	e.sequences = list
}

// equal counts the bytes from p on that equal those from i on; p is less than i.
func equal(src []byte, p, i int) int {
	n := 0
	for i+n+8 <= len(src) {
		if x := le.Uint64(src[p+n:]) ^ le.Uint64(src[i+n:]); x != 0 {
			return n + bits.TrailingZeros64(x)>>3
		}
		n += 8
	}
	for i+n < len(src) && src[p+n] == src[i+n] {
		n++
	}
	return n
}

// gather collects the literals of the block src[start:] and the codes of its
// sequences, and counts these.
func (e *Encoder) gather(src []byte, start int) {
	e.counts = [3][1 << countsLog]uint32{}
	lengths, offsets, matches := &e.counts[litLength], &e.counts[offset], &e.counts[matchLength]
	at, n := start, 0
	for i := range e.sequences {
		s := &e.sequences[i]
		size := int(s.lits)
		if size <= 16 && at+16 <= len(src) {
			*(*[16]byte)(e.literals[n : n+16]) = *(*[16]byte)(src[at : at+16])
		} else {
			copy(e.literals[n:], src[at:at+size])
		}
		n += size
		at += size + int(s.match)
		l, m, o := litLengthCode(s.lits), matchLengthCode(s.match-3), highBit(s.off)
		lengths[l&(1<<countsLog-1)]++
		matches[m&(1<<countsLog-1)]++
		offsets[o&(1<<countsLog-1)]++
		e.codes[i] = uint32(l | m<<8 | o<<16)
	}
	e.lits = n + copy(e.literals[n:], src[at:])
}

// litLengthCode is the symbol of a number of literals: RFC 8878, 3.1.1.3.2.1.1.
func litLengthCode(n uint32) uint {
	if n < uint32(len(litLengthCodes)) {
		return uint(litLengthCodes[n])
	}
	return highBit(n) + 19
}

// matchLengthCode is the symbol of the length of a match, less 3.
func matchLengthCode(n uint32) uint {
	if n < uint32(len(matchLengthCodes)) {
		return uint(matchLengthCodes[n])
	}
	return highBit(n) + 36
}

var litLengthCodes = [64]uint8{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
	16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 20, 20, 21, 21, 21, 21,
	22, 22, 22, 22, 22, 22, 22, 22, 23, 23, 23, 23, 23, 23, 23, 23,
	24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 24,
}

var matchLengthCodes = [128]uint8{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
	16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
	32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 36, 36, 37, 37, 37, 37,
	38, 38, 38, 38, 38, 38, 38, 38, 39, 39, 39, 39, 39, 39, 39, 39,
	40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40,
	41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41, 41,
	42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
	42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42,
}

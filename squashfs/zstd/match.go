package zstd

import "math/bits"

const (
	longBits   = 15
	shortBits  = 14
	longPrime  = 0xcf1bbcdcb7a56463
	shortPrime = 0xcf1bbcdcbb
	minMatch   = 4

	// A cell of a table is a place and, in the low bits, more of the hash there:
	// that the bytes differ is then mostly seen without a look at them.
	tagBits = 32 - maxInputLog
	tagMask = 1<<tagBits - 1

	// The step from place to place grows by one with each 1<<skipShift bytes
	// that no match was found for.
	skipShift = 6
)

// longHash returns the slot of v in the table of 8 bytes, and the cell of place i.
func longHash(v uint64, i int) (slot uint64, cell uint32) {
	v *= longPrime
	return v >> (64 - longBits), uint32(i)<<tagBits | uint32(v>>(64-longBits-tagBits))&tagMask
}

// shortHash does the same for the low 5 bytes of v.
func shortHash(v uint64, i int) (slot uint64, cell uint32) {
	v = v << 24 * shortPrime
	return v >> (64 - shortBits), uint32(i)<<tagBits | uint32(v>>(64-shortBits-tagBits))&tagMask
}

// parse finds the sequences of src[start:]; matches may begin before start. It
// takes the first of these that it finds at a place: the latest offset, one byte
// on; the last place that has the same 8 bytes; the last that has the same 5, or
// 4 of them, unless there is a match of 8 one byte on.
func (e *Encoder) parse(src []byte, start int) {
	src = src[:len(src):len(src)]
	long, short := &e.long, &e.short
	rep, rep2 := e.repeats[0], e.repeats[1]
	list := e.sequences[:0]
	stop := len(src) - 9
	anchor, i := start, start
	for i <= stop {
		v := le.Uint64(src[i:])
		h, cell := longHash(v, i)
		hs, cellS := shortHash(v, i)
		place, near := long[h], short[hs]
		long[h], short[hs] = cell, cellS
		repeat := le.Uint32(src[i+1-rep:]) ^ uint32(v>>8)
		// One branch for three questions, as each is hard to predict.
		if min((place^cell)&tagMask, (near^cellS)&tagMask, repeat) != 0 {
			i += 1 + (i-anchor)>>skipShift
			continue
		}
		first := i
		var from, length int
		if repeat == 0 {
			i++
			length = minMatch + equal(src, i+minMatch-rep, i+minMatch)
			list = append(list, sequence{uint32(i - anchor), uint32(length), 1})
		} else {
			from, length = int(place>>tagBits), 8
			if from >= i || le.Uint64(src[from:]) != v {
				from, length = int(near>>tagBits), 4
				if from >= i || le.Uint32(src[from:]) != uint32(v) {
					i++
					continue
				}
				v = le.Uint64(src[i+1:])
				h, cell = longHash(v, i+1)
				place = long[h]
				long[h] = cell
				if (place^cell)&tagMask == 0 && le.Uint64(src[place>>tagBits:]) == v {
					i++
					from, length = int(place>>tagBits), 8
				}
			}
			length += equal(src, from+length, i+length)
			back := before(src, from, i, i-anchor)
			i -= back
			from -= back
			length += back
			rep2, rep = rep, i-from
			list = append(list, sequence{uint32(i - anchor), uint32(length), uint32(rep) + 3})
		}
		i += length
		anchor = i
		if i > stop {
			break
		}
		v = le.Uint64(src[first+2:])
		h, cell = longHash(v, first+2)
		hs, cellS = shortHash(v, first+2)
		long[h], short[hs] = cell, cellS
		h, cell = longHash(le.Uint64(src[i-2:]), i-2)
		hs, cellS = shortHash(le.Uint64(src[i-1:]), i-1)
		long[h], short[hs] = cell, cellS
		// With no literals, the code of the latest offset means the one before.
		for i <= stop && rep2 <= i && le.Uint32(src[i-rep2:]) == le.Uint32(src[i:]) {
			length = minMatch + equal(src, i+minMatch-rep2, i+minMatch)
			rep, rep2 = rep2, rep
			v = le.Uint64(src[i:])
			h, cell = longHash(v, i)
			hs, cellS = shortHash(v, i)
			long[h], short[hs] = cell, cellS
			list = append(list, sequence{0, uint32(length), 1})
			i += length
			anchor = i
		}
	}
	e.repeats = [2]int{rep, rep2}
	e.sequences = list
}

// before counts the bytes before p that equal those before i, at most limit.
func before(src []byte, p, i, limit int) int {
	if p >= 8 {
		if x := le.Uint64(src[p-8:]) ^ le.Uint64(src[i-8:]); x != 0 {
			return min(limit, bits.LeadingZeros64(x)>>3)
		}
	}
	n := 0
	for n < limit && n < p && src[p-1-n] == src[i-1-n] {
		n++
	}
	return n
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

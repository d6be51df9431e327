package zstd

// writeSequences writes the tables and the bits of the sequences to out[n:], and
// returns where they end, unless that is behind limit.
func (e *Encoder) writeSequences(n, limit int) (int, bool) {
	kinds := n
	e.out[kinds] = 0
	n++
	for number := range e.tables {
		kind, size := e.chooseTable(number, e.out[n:])
		e.out[kinds] |= byte(kind << (6 - 2*number))
		n += size
	}
	return e.writeBits(n, limit)
}

// chooseTable makes the code for one kind of number, writes its description and
// returns what kind of description it is and its size.
func (e *Encoder) chooseTable(number int, out []byte) (kind, size int) {
	a, counts, t := &alphabets[number], e.counts[number][:], &e.own[number]
	e.tables[number] = t
	total := uint32(len(e.sequences))
	distinct, last := 0, 0
	for s, n := range counts {
		if n > 0 {
			distinct++
			last = s
		}
	}
	if distinct == 1 {
		t.one(last)
		out[0] = byte(last)
		return kindRun, 1
	}
	counts = counts[:last+1]
	fixed := &e.fixed[number]
	var prob [1 << countsLog]int16
	log := tableLog(total, distinct, a.maxLog)
	scale(prob[:last+1], counts, total, log)
	t.build(prob[:last+1], log)
	size = t.writeProbabilities(out)
	if fixed.cost(e, counts) <= t.cost(e, counts)+uint64(size)<<(logShift+3) {
		e.tables[number] = fixed
		return kindRaw, 0
	}
	return kindPacked, size
}

// writeBits writes the sequences, the last one first, as one stream.
func (e *Encoder) writeBits(n, limit int) (int, bool) {
	lengths, offsets, matches := e.tables[litLength], e.tables[offset], e.tables[matchLength]
	last := len(e.sequences) - 1
	c := e.codes[last]
	l, m, o := uint32(lengths.first[c&63]), uint32(matches.first[c>>8&63]), uint32(offsets.first[c>>16&63])
	out := e.out[:]
	var acc, v uint64 // as in bitWriter
	var count, size uint
	for i := last; i >= 0; i-- {
		s, c := &e.sequences[i], e.codes[i]
		lc, mc, oc := c&63, c>>8&63, c>>16&63
		if i < last {
			o, v, size = offsets.step(o, oc)
			acc |= v << (count & 63)
			count += size
			m, v, size = matches.step(m, mc)
			acc |= v << (count & 63)
			count += size
			l, v, size = lengths.step(l, lc)
			acc |= v << (count & 63)
			count += size
		}
		// What a reader adds to the value of a code are the low bits of the number.
		size = uint(extraBits[litLength][lc]) & 31
		acc |= uint64(s.lits) & (1<<size - 1) << (count & 63)
		count += size
		if count > 24 { // else the rest, at most 36 bits, fits
			le.PutUint64(out[n:], acc)
			n += int(count >> 3)
			acc >>= count & 56
			count &= 7
		}
		size = uint(extraBits[matchLength][mc]) & 31
		acc |= uint64(s.match-3) & (1<<size - 1) << (count & 63)
		count += size
		acc |= uint64(s.off) & (1<<oc - 1) << (count & 63)
		count += uint(oc)
		le.PutUint64(out[n:], acc)
		n += int(count >> 3)
		acc >>= count & 56
		count &= 7
		if n > limit {
			return 0, false
		}
	}
	w := bitWriter{out, n, acc, count}
	matches.finish(&w, m)
	offsets.finish(&w, o)
	lengths.finish(&w, l)
	w.flush()
	return w.end(), true
}

// extraBits are the numbers of bits added to literal lengths and match lengths.
var extraBits = [3][1 << countsLog]uint8{
	litLength:   {16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	matchLength: {32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
}

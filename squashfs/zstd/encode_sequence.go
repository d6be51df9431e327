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
	w := bitWriter{out: e.out[:], n: n}
	lengths, offsets, matches := e.tables[litLength], e.tables[offset], e.tables[matchLength]
	var l, o, m uint32 // states
	for i := len(e.sequences) - 1; i >= 0; i-- {
		s, c := &e.sequences[i], e.codes[i]
		lc, mc, oc := c&0xff, c>>8&0xff, c>>16
		if i == len(e.sequences)-1 {
			l, m, o = uint32(lengths.symbols[lc].first), uint32(matches.symbols[mc].first), uint32(offsets.symbols[oc].first)
		} else {
			o = offsets.step(&w, o, oc)
			m = matches.step(&w, m, mc)
			l = lengths.step(&w, l, lc)
		}
		// What a reader adds to the value of a code are the low bits of the number.
		size := uint(alphabets[litLength].extra[lc])
		w.add(uint64(s.lits)&(1<<size-1), size)
		w.flush()
		size = uint(alphabets[matchLength].extra[mc])
		w.add(uint64(s.match-3)&(1<<size-1), size)
		w.add(uint64(s.off)&(1<<oc-1), uint(oc))
		w.flush()
		if w.n > limit {
			return 0, false
		}
	}
	matches.finish(&w, m)
	offsets.finish(&w, o)
	lengths.finish(&w, l)
	w.flush()
	return w.end(), true
}

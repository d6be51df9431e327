package zstd

// Kinds of the literals section and of the tables of sequences.
const (
	kindRaw = iota // tables: predefined
	kindRun
	kindPacked
	kindRepeat // with the table of an earlier block
)

// readLiterals decodes the literals section of a block that ends at end and
// leaves the literals in d.lits: RFC 8878, 3.1.1.3.1.
func (d *Decoder) readLiterals(end int) error {
	if d.in >= end {
		return ErrCorrupt
	}
	h := uint(d.src[d.in])
	if h&3 >= kindPacked {
		return d.packedLiterals(end, h&3 == kindRepeat)
	}
	// The size is in 5, 12, or 20 bits.
	width, shift := 1, 3
	switch h >> 2 & 3 {
	case 1:
		width, shift = 2, 4
	case 3:
		width, shift = 3, 4
	}
	if width > end-d.in {
		return ErrCorrupt
	}
	v, _ := d.number(uint(width))
	size := int(v >> shift)
	if size > d.maxBlock {
		return ErrCorrupt
	}
	if h&3 == kindRun {
		if d.in >= end {
			return ErrCorrupt
		}
		d.lits = d.literals[:size]
		fill(d.lits, d.src[d.in])
		d.in++
		return nil
	}
	if size > end-d.in {
		return ErrCorrupt
	}
	d.lits = d.src[d.in:][:size]
	d.in += size
	if len(d.src)-d.in < margin { // no room for wide reads
		d.lits = d.literals[:copy(d.literals[:], d.lits)]
	}
	return nil
}

// packedLiterals decodes Huffman coded literals, in one stream or four, behind
// the description of the code unless that repeats.
func (d *Decoder) packedLiterals(end int, repeat bool) error {
	// Two sizes of 10, 14, or 18 bits: unpacked and packed.
	format := d.src[d.in] >> 2 & 3
	bits := [4]uint{10, 10, 14, 18}[format]
	width := (4 + 2*bits) / 8
	if int(width) > end-d.in {
		return ErrCorrupt
	}
	v, _ := d.number(width)
	size := int(v >> 4 & (1<<bits - 1))
	packed := int(v >> (4 + bits) & (1<<bits - 1))
	if size > d.maxBlock || packed > end-d.in {
		return ErrCorrupt
	}
	end = d.in + packed
	if repeat {
		if !d.haveCodes {
			return ErrCorrupt
		}
	} else if err := d.readCodes(end); err != nil {
		return err
	}
	d.lits = d.literals[:size]
	var err error
	if format == 0 {
		err = d.oneStream(d.lits, d.in, end)
	} else {
		err = d.fourStreams(end)
	}
	d.in = end
	return err
}

// fourStreams decodes literals in four streams. The first three hold a quarter
// each, rounded up, and their packed sizes come first.
func (d *Decoder) fourStreams(end int) error {
	const jumps = 6
	if end-d.in < jumps {
		return ErrCorrupt
	}
	var s [4]stream
	jump := d.src[d.in:]
	at := d.in + jumps
	quarter := (len(d.lits) + 3) / 4
	if len(d.lits) < 3*quarter {
		return ErrCorrupt
	}
	for i := range s {
		to := end
		if i < 3 {
			to = at + int(le.Uint16(jump[2*i:]))
		}
		if to > end {
			return ErrCorrupt
		}
		if !s[i].open(d.src, at, to) {
			return ErrCorrupt
		}
		at = to
	}
	done := d.interleaved(&s, quarter)
	for i := range s {
		part := d.lits[i*quarter:]
		part = part[:min(quarter, len(part))]
		if err := d.finish(part[done:], &s[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) oneStream(lits []byte, at, end int) error {
	var s stream
	if !s.open(d.src, at, end) {
		return ErrCorrupt
	}
	return d.finish(lits, &s)
}

package zstd

// execute carries out sequences: each appends some of d.lits to the output and
// then copies earlier output.
//
// Copies go in steps of 16 bytes and may write up to 15 bytes behind their end,
// where the next one goes on; near the end of dst or of the literals, and for
// matches closer than 16 bytes, slower ways are taken.
func (d *Decoder) execute(batch []sequence) error {
	dst, lits, out := d.dst, d.lits, d.out
	wide := lits[:min(len(lits)+margin, cap(lits))]
	at := 0
	for _, s := range batch {
		ll, ml, off := int(s.lits), int(s.match), int(s.off)
		if ll > len(lits)-at || off > out+ll-d.start {
			return ErrCorrupt
		}
		mo := out + ll // where the match goes
		end := mo + ml
		if end+margin > len(dst) || at+ll+margin > len(wide) {
			if end > len(dst) {
				return ErrTooLarge
			}
			copy(dst[out:mo], lits[at:])
			copyMatch(dst[:end], mo, off)
			at += ll
			out = end
			continue
		}
		copy16(dst[out:], wide[at:])
		if ll > 16 {
			for i := 16; i < ll; i += 16 {
				copy16(dst[out+i:], wide[at+i:])
			}
		}
		at += ll
		from := mo - off
		switch {
		case off >= 16:
			copy16(dst[mo:], dst[from:])
			if ml > 16 {
				for i := 16; i < ml; i += 16 {
					copy16(dst[mo+i:], dst[from+i:])
				}
			}
		default:
			copyMatch(dst[:end], mo, off)
		}
		out = end
	}
	d.out, d.lits = out, lits[at:]
	return nil
}

// copy16 copies 16 bytes, all read before any is written.
func copy16(dst, src []byte) {
	a, b := le.Uint64(src), le.Uint64(src[8:])
	le.PutUint64(dst, a)
	le.PutUint64(dst[8:], b)
}

// copyMatch fills dst from at on with what is off bytes before.
func copyMatch(dst []byte, at, off int) {
	// Each copy doubles what can be copied without overlap.
	from := at - off
	for at < len(dst) {
		at += copy(dst[at:], dst[from:at])
	}
}

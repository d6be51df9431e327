package zstd

// execute carries out sequences: each appends some of d.lits to the output and
// then copies earlier output.
//
// Copies go in steps of 16 bytes and may write up to 15 bytes behind their end,
// where the next one goes on; near the end of dst or of the literals, executeOne
// takes over.
func (d *Decoder) execute(batch []sequence) error {
	// Capacities equal to lengths take fewer registers.
	dst := d.dst[:len(d.dst):len(d.dst)]
	wide := d.lits[:min(len(d.lits)+margin, cap(d.lits))]
	wide = wide[:len(wide):len(wide)]
	out, at, start := d.out, 0, d.start
	for i := range batch {
		s := &batch[i]
		mo := out + int(s.lits) // where the match goes
		next := at + int(s.lits)
		end := mo + int(s.match)
		if end > len(dst)-margin || next > len(wide)-margin || int(s.off) > mo-start {
			if err := d.executeOne(s, out, at); err != nil {
				return err
			}
			out, at = end, next
			continue
		}
		for {
			*(*[16]byte)(dst[out : out+16]) = *(*[16]byte)(wide[at : at+16])
			out += 16
			at += 16
			if out >= mo {
				break
			}
		}
		at = next
		from := mo - int(s.off)
		if int(s.off) < 16 {
			copyNear(dst[:end+16], mo, int(s.off))
			out = end
			continue
		}
		for {
			*(*[16]byte)(dst[mo : mo+16]) = *(*[16]byte)(dst[from : from+16])
			mo += 16
			from += 16
			if mo >= end {
				break
			}
		}
		out = end
	}
	d.out, d.lits = out, d.lits[at:]
	return nil
}

// executeOne carries out a sequence that writes at dst[out:] and reads literals
// from lits[at:], or finds it to be wrong.
func (d *Decoder) executeOne(s *sequence, out, at int) error {
	mo := out + int(s.lits)
	end := mo + int(s.match)
	if int(s.lits) > len(d.lits)-at || int(s.off) > mo-d.start {
		return ErrCorrupt
	}
	if end > len(d.dst) {
		return ErrTooLarge
	}
	copy(d.dst[out:mo], d.lits[at:])
	// Each copy doubles what can be copied without overlap.
	for from := mo - int(s.off); mo < end; {
		mo += copy(d.dst[mo:end], d.dst[from:mo])
	}
	return nil
}

// copyNear fills dst from at on, but for its last 16 bytes, with what is off
// bytes before, less than 16. It may write up to seven of the last bytes.
func copyNear(dst []byte, at, off int) {
	from := at - off
	if off < 8 {
		for i := range 8 {
			dst[at+i] = dst[from+i]
		}
		at += 8
		// A multiple of the period that is no less than a step.
		from = at - [8]int{8, 8, 8, 9, 8, 10, 12, 14}[off]
	}
	for at < len(dst)-16 {
		*(*[8]byte)(dst[at : at+8]) = *(*[8]byte)(dst[from : from+8])
		at += 8
		from += 8
	}
}

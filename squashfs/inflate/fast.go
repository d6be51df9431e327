package inflate

// fast decodes symbols while at least 16 bytes of input and 280 bytes of
// output are left, so that it may read and write eight bytes at a time without
// looking at the ends. It reports whether it met the end of the block; if not,
// careful takes over.
//
// Everything lives in local variables here: the compiler keeps those in
// registers, fields it does not. That is also why this is one long function,
// and why it calls none that is not compiled into it: a call would put all of
// them on the stack.
func (d *Decoder) fast() (bool, error) {
	if d.over != 0 {
		return false, nil
	}
	lit, dist, src, dst := &d.lit, &d.dist, d.src, d.dst
	hold, nbits, in, out := d.hold, d.bits, d.in, d.out
	inEnd, outEnd := len(src)-16, len(dst)-280
	done, ok := false, true
	for in <= inEnd && out <= outEnd {
		// 56 bits or more. The bits above nbits may already be set; they are
		// the same ones that the next fill brings.
		hold |= load(src, in) << (nbits & 63)
		in += int((63 - nbits) >> 3)
		nbits |= 56
		e := lit[hold&(1<<litBits-1)]
		if e&flagLiteral != 0 {
			hold >>= e & 63
			nbits -= uint(e & 63)
			dst[out] = byte(e >> 16)
			out++
			e = lit[hold&(1<<litBits-1)]
			if e&flagLiteral != 0 {
				hold >>= e & 63
				nbits -= uint(e & 63)
				dst[out] = byte(e >> 16)
				out++
				e = lit[hold&(1<<litBits-1)]
				if e&flagLiteral != 0 {
					hold >>= e & 63
					nbits -= uint(e & 63)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
			// A length and a distance can take 48 bits.
			hold |= load(src, in) << (nbits & 63)
			in += int((63 - nbits) >> 3)
			nbits |= 56
		}
		if e&flagOther != 0 {
			if e&flagSub != 0 {
				hold >>= litBits
				nbits -= litBits
				e = lit[(e>>16&subMask+uint32(hold)&(1<<(e>>8&31)-1))&(1<<(litBits+1)-1)]
				if e&flagLiteral != 0 {
					hold >>= e & 63
					nbits -= uint(e & 63)
					dst[out] = byte(e >> 16)
					out++
					continue
				}
			}
			if e&flagOther != 0 {
				ok = e&flagBad == 0
				hold >>= e & 63
				nbits -= uint(e & 63)
				done = true
				break
			}
		}
		n := int(e>>16&0x1ff) + int(hold&(1<<(e&63)-1)>>(e>>8&31))
		hold >>= e & 63
		nbits -= uint(e & 63)
		e = dist[hold&(1<<distBits-1)]
		if e&flagOther != 0 {
			hold >>= distBits
			nbits -= distBits
			e = dist[(e>>16&subMask+uint32(hold)&(1<<(e>>8&31)-1))%uint32(len(dist))]
			if e&flagOther != 0 {
				ok = false // no such code, or a reserved one
				break
			}
		}
		from := out - int(e>>16) - int(hold&(1<<(e&63)-1)>>(e>>8&31))
		hold >>= e & 63
		nbits -= uint(e & 63)
		if from < 0 {
			ok = false
			break
		}
		end := out + n
		switch {
		case out-from >= 8:
			store(dst, out, load(dst, from))
			store(dst, out+8, load(dst, from+8))
			for n > 16 {
				n -= 8
				from += 8
				out += 8
				store(dst, out+8, load(dst, from+8))
			}
		case out-from == 1:
			v := uint64(dst[from]) * 0x0101010101010101
			for ; out < end; out += 8 {
				store(dst, out, v)
			}
		default: // the source runs into what is just being written
			for ; out < end; out++ {
				dst[out] = dst[from]
				from++
			}
		}
		out = end
	}
	d.hold, d.bits, d.in, d.out = hold&(1<<nbits-1), nbits, in, out
	if !ok {
		return true, ErrCorrupt
	}
	return done, nil
}

// load and store are the eight bytes at p[i]. The full slice expression spares
// the compiler the case of an empty rest.
func load(p []byte, i int) uint64     { return le.Uint64(p[i : i+8 : i+8]) }
func store(p []byte, i int, v uint64) { le.PutUint64(p[i:i+8:i+8], v) }

package inflate

// fast decodes symbols while at least 16 bytes of input and 280 bytes of
// output are left, so that it may read and write eight bytes at a time without
// looking at the ends. It reports whether it met the end of the block; if not,
// careful takes over.
//
// Everything lives in local variables here: the compiler keeps those in
// registers, fields it does not. That is also why this is one long function.
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
		hold |= le.Uint64(src[in:]) << (nbits & 63)
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
			hold |= le.Uint64(src[in:]) << (nbits & 63)
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
		back := int(e>>16) + int(hold&(1<<(e&63)-1)>>(e>>8&31))
		hold >>= e & 63
		nbits -= uint(e & 63)
		if back > out {
			ok = false
			break
		}
		to, from := dst[out:out+272], dst[out-back:]
		if back >= 8 {
			le.PutUint64(to, le.Uint64(from))
			le.PutUint64(to[8:], le.Uint64(from[8:]))
			for k := 16; k < n; k += 8 {
				le.PutUint64(to[k:], le.Uint64(from[k:]))
			}
		} else {
			overlap(to, from, back, n)
		}
		out += n
	}
	d.hold, d.bits, d.in, d.out = hold&(1<<nbits-1), nbits, in, out
	if !ok {
		return true, ErrCorrupt
	}
	return done, nil
}

// overlap copies n bytes from less than eight bytes back, where the source runs
// into what is just being written. It may write seven bytes too many.
func overlap(to, from []byte, back, n int) {
	if back == 1 {
		v := uint64(from[0]) * 0x0101010101010101
		for k := 0; k < n; k += 8 {
			le.PutUint64(to[k:], v)
		}
		return
	}
	for k := range n {
		to[k] = from[k]
	}
}

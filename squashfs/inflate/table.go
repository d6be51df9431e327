package inflate

import "math/bits"

const (
	maxLit  = 288
	maxDist = 32

	litBits  = 11 // bits that the first look-up of a literal or length takes
	distBits = 8  // the same for a distance

	// Room for second-level tables. Codes have at most 15 bits; with a
	// complete code of 288 symbols and an 11-bit root at most 320 entries are
	// needed, and 384 for 32 distances with 8; build checks it all the same.
	litExtra  = 1 << litBits
	distExtra = 1024
)

// A table entry, from the top: literals have flagLiteral, the byte from bit 16
// and the code's length in bits 0-5. Lengths and distances have the base value
// from bit 16, in bits 8-12 the code's length, in bits 0-5 that plus the number
// of extra bits. Entries with flagOther are the end of a block, a pointer to a
// second-level table (flagSub: start from bit 16, its bits in 8-12), or no code
// at all (flagBad).
const (
	flagLiteral = 1 << 31
	flagOther   = 1 << 15
	flagSub     = 1 << 14
	flagBad     = 1 << 13
	subMask     = 0x3fff
)

// litEntry is the table entry of a literal or length symbol without its code.
func litEntry(sym int) uint32 {
	switch {
	case sym < 256:
		return flagLiteral | uint32(sym)<<16
	case sym == 256:
		return flagOther
	case sym < 265:
		return uint32(sym-254) << 16
	case sym < 285:
		extra := uint32(sym-261) / 4
		return (3+(4+uint32(sym-265)%4)<<extra)<<16 | extra
	case sym == 285:
		return 258 << 16
	}
	return flagOther | flagBad
}

// distEntry is the table entry of a distance symbol without its code.
func distEntry(sym int) uint32 {
	switch {
	case sym < 4:
		return uint32(sym+1) << 16
	case sym < 30:
		extra := uint32(sym)/2 - 1
		return (1+(2+uint32(sym)&1)<<extra)<<16 | extra
	}
	return flagOther | flagBad
}

// codeEntry is the entry of a symbol of the code that codes the code lengths.
func codeEntry(sym int) uint32 { return uint32(sym) << 16 }

// build fills the table t, whose first level takes root bits, with the
// canonical code of the given lengths. It reports whether the lengths make a
// code: complete, or a single code of one bit, or none at all.
func build(t []uint32, root uint, lens []uint8, entry func(int) uint32) bool {
	var count [16]int
	longest := uint(0)
	for _, l := range lens {
		count[l&15]++
		longest = max(longest, uint(l))
	}
	count[0] = 0
	var first [16]uint32
	code, left := uint32(0), 1
	for l := 1; l <= 15; l++ {
		code = (code + uint32(count[l-1])) << 1
		first[l] = code
		left = left<<1 - count[l]
		if left < 0 {
			return false
		}
	}
	if left > 0 {
		if longest > 1 {
			return false
		}
		for i := range t[:1<<root] {
			t[i] = flagOther | flagBad
		}
	}
	if longest > root && !subTables(t, root, lens, first) {
		return false
	}
	for sym, l8 := range lens {
		if l8 == 0 {
			continue
		}
		l := uint(l8)
		rev := uint32(bits.Reverse16(uint16(first[l]))) >> (16 - l)
		first[l]++
		e := entry(sym)
		if l <= root {
			e += uint32(l) | uint32(l)<<8
			for i := rev; i < 1<<root; i += 1 << l {
				t[i] = e
			}
			continue
		}
		sub := t[rev&(1<<root-1)]
		start, size := sub>>16&subMask, uint32(1)<<(sub>>8&31)
		e += uint32(l-root) | uint32(l-root)<<8
		for i := rev >> root; i < size; i += 1 << (l - root) {
			t[start+i] = e
		}
	}
	return true
}

// subTables lays out the second-level tables of the codes longer than root
// bits and points the first level at them.
func subTables(t []uint32, root uint, lens []uint8, first [16]uint32) bool {
	var deepest [1 << litBits]uint8
	for _, l := range lens {
		if l == 0 {
			continue
		}
		c := first[l]
		first[l]++
		if uint(l) > root {
			p := uint32(bits.Reverse16(uint16(c))) >> (16 - uint(l)) & (1<<root - 1)
			deepest[p] = max(deepest[p], l)
		}
	}
	free := 1 << root
	for p, l := range deepest[:1<<root] {
		if l == 0 {
			continue
		}
		n := uint(l) - root
		if free+1<<n > len(t) {
			return false
		}
		t[p] = flagOther | flagSub | uint32(free)<<16 | uint32(n)<<8
		free += 1 << n
	}
	return true
}

// fixedTables sets up the codes of RFC 1951 section 3.2.6.
func (d *Decoder) fixedTables() {
	if d.fixed {
		return
	}
	for i := range maxLit {
		switch {
		case i < 144 || i >= 280:
			d.lens[i] = 8
		case i < 256:
			d.lens[i] = 9
		default:
			d.lens[i] = 7
		}
	}
	for i := maxLit; i < maxLit+maxDist; i++ {
		d.lens[i] = 5
	}
	build(d.lit[:], litBits, d.lens[:maxLit], litEntry)
	build(d.dist[:], distBits, d.lens[maxLit:maxLit+maxDist], distEntry)
	d.fixed = true
}

// dynamicTables reads the codes that the block brings along (section 3.2.7).
func (d *Decoder) dynamicTables() error {
	const order = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"
	d.fixed = false
	lits, dists, codes := int(d.hold&31)+257, int(d.hold>>5&31)+1, int(d.hold>>10&15)+4
	d.drop(14)
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	var lens [19]uint8
	for i := range codes {
		d.fill()
		lens[order[i]] = uint8(d.hold & 7)
		d.drop(3)
	}
	if !build(d.dist[:], 7, lens[:], codeEntry) || !d.codeLengths(lits+dists) {
		return ErrCorrupt
	}
	if !build(d.dist[:], distBits, d.lens[lits:lits+dists], distEntry) || !build(d.lit[:], litBits, d.lens[:lits], litEntry) {
		return ErrCorrupt
	}
	return nil
}

// codeLengths reads n code lengths to d.lens with the code in d.dist.
func (d *Decoder) codeLengths(n int) bool {
	for i := 0; i < n; {
		d.fill()
		e := d.dist[d.hold&127]
		if e&flagOther != 0 || d.over > 8 {
			return false
		}
		d.drop(uint(e & 63))
		sym := uint8(e >> 16)
		if sym < 16 {
			d.lens[i] = sym
			i++
			continue
		}
		var value uint8
		var run int
		switch sym {
		case 16:
			if i == 0 {
				return false
			}
			value, run = d.lens[i-1], 3+int(d.hold&3)
			d.drop(2)
		case 17:
			run = 3 + int(d.hold&7)
			d.drop(3)
		default:
			run = 11 + int(d.hold&127)
			d.drop(7)
		}
		if i+run > n {
			return false
		}
		for range run {
			d.lens[i] = value
			i++
		}
	}
	return true
}

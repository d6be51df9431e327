package inflate

// adler32 is the checksum of RFC 1950, sixteen bytes at a step: the even and
// the odd bytes of a word stand in four lanes of 16 bits each, and one
// multiplication adds the lanes up in the top one, plainly or weighted by how
// often each byte counts in the second sum.
func adler32(p []byte) uint32 {
	const (
		mod   = 65521
		lanes = 0x00ff00ff00ff00ff
		ones  = 0x0001000100010001
		// Byte i of a word counts 8-i times. The lowest lane meets the
		// highest factor.
		even  = 0x0008000600040002 // bytes 0 2 4 6: lane k * factor 3-k
		odd   = 0x0007000500030001
		batch = 4096 // bytes before the sums could leave 64 bits by far
	)
	a, b := uint64(1), uint64(0)
	for len(p) >= 16 {
		n := min(len(p)&^15, batch)
		for q := p[:n]; len(q) >= 16; q = q[16:] {
			v, w := le.Uint64(q), le.Uint64(q[8:])
			ve, vo, we, wo := v&lanes, v>>8&lanes, w&lanes, w>>8&lanes
			sv := ((ve + vo) * ones) >> 48
			b += a<<4 + sv<<3 + (ve*even+vo*odd)>>48 + (we*even+wo*odd)>>48
			a += sv + ((we+wo)*ones)>>48
		}
		a %= mod
		b %= mod
		p = p[n:]
	}
	for _, c := range p {
		a += uint64(c)
		b += a
	}
	return uint32(b%mod<<16 | a%mod)
}

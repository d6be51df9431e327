package inflate

// adler32 is the checksum of RFC 1950.
func adler32(p []byte) uint32 {
	const (
		mod   = 65521
		batch = 4096 // bytes before the sums could leave 64 bits by far
	)
	a, b := uint64(1), uint64(0)
	for len(p) >= 16 {
		n := min(len(p)&^15, batch)
		s, w := sums(p[:n])
		b = (b + a*uint64(n) + w) % mod
		a = (a + s) % mod
		p = p[n:]
	}
	for _, c := range p {
		a += uint64(c)
		b += a
	}
	return uint32(b%mod<<16 | a%mod)
}

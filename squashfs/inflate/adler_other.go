//go:build !amd64

package inflate

// sums returns the sum of the bytes of p, and the sum in which the last one
// counts once, the one before it twice and so on. The length of p is a multiple
// of 16.
//
// It takes sixteen bytes at a step: the even and the odd bytes of a word stand
// in four lanes of 16 bits each, and one multiplication adds the lanes up in the
// top one, plainly or weighted by how often each byte counts.
func sums(p []byte) (plain, weighted uint64) {
	const (
		lanes = 0x00ff00ff00ff00ff
		ones  = 0x0001000100010001
		// Byte i of a word counts 8-i times. The lowest lane meets the
		// highest factor.
		even = 0x0008000600040002 // bytes 0 2 4 6: lane k * factor 3-k
		odd  = 0x0007000500030001
	)
	a, b := uint64(0), uint64(0)
	for ; len(p) >= 16; p = p[16:] {
		v, w := le.Uint64(p), le.Uint64(p[8:])
		ve, vo, we, wo := v&lanes, v>>8&lanes, w&lanes, w>>8&lanes
		sv := ((ve + vo) * ones) >> 48
		b += a<<4 + sv<<3 + (ve*even+vo*odd)>>48 + (we*even+wo*odd)>>48
		a += sv + ((we+wo)*ones)>>48
	}
	return a, b
}

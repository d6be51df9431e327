package inflate

// sums returns the sum of the bytes of p, and the sum in which the last one
// counts once, the one before it twice and so on. The length of p is a multiple
// of 16 and at most 64 KiB.
//
//go:noescape
func sums(p []byte) (plain, weighted uint64)

package zstd

import "math/bits"

const (
	prime1 = 0x9e3779b185ebca87
	prime2 = 0xc2b2ae3d27d4eb4f
	prime3 = 0x165667b19e3779f9
	prime4 = 0x85ebca77c2b2ae63
	prime5 = 0x27d4eb2f165667c5
)

func xxhRound(acc, v uint64) uint64 { return bits.RotateLeft64(acc+v*prime2, 31) * prime1 }

// xxh64 is the XXH64 hash of b with seed 0, the checksum of frames.
func xxh64(b []byte) uint64 {
	h := uint64(prime5)
	size := uint64(len(b))
	if len(b) >= 32 {
		one, two := uint64(prime1), uint64(prime2)
		v1, v2, v3, v4 := one+two, two, uint64(0), -one
		for len(b) >= 32 {
			v1 = xxhRound(v1, le.Uint64(b))
			v2 = xxhRound(v2, le.Uint64(b[8:]))
			v3 = xxhRound(v3, le.Uint64(b[16:]))
			v4 = xxhRound(v4, le.Uint64(b[24:]))
			b = b[32:]
		}
		h = bits.RotateLeft64(v1, 1) + bits.RotateLeft64(v2, 7) + bits.RotateLeft64(v3, 12) + bits.RotateLeft64(v4, 18)
		for _, v := range [4]uint64{v1, v2, v3, v4} {
			h = (h^xxhRound(0, v))*prime1 + prime4
		}
	}
	h += size
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^xxhRound(0, le.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(le.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

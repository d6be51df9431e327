// Package lanes is SHA-256 of two messages side by side.
//
// One SHA-256 waits for itself: each instruction for two rounds needs the
// result of the one before, and the processor could do twice as many. Two
// messages in turn fill the gaps, so that a hash tree, whose blocks do not
// depend on each other, takes little more than half the time on the same core.
//
// In go the state of two hashes and whole blocks of 64 bytes for both, out
// comes the state. Padding and what the messages are is the caller's. Where
// the processor has no instructions for SHA-256, Have says so and the caller
// uses crypto/sha256.
package lanes

import "encoding/binary"

// BlockSize is what a state takes at a time, in bytes.
const BlockSize = 64

// Size is the length of a digest.
const Size = 32

// State is that of one hash. The order of its words is the one that the
// processor wants: f e b a, h g d c.
type State [8]uint32

// Initial is the state before the first block.
func Initial() State {
	return State{0x9b05688c, 0x510e527f, 0xbb67ae85, 0x6a09e667, 0x5be0cd19, 0x1f83d9ab, 0xa54ff53a, 0x3c6ef372}
}

// Put writes the digest that s is, if all blocks have been taken.
func (s *State) Put(out []byte) {
	_ = out[:Size]
	for i, k := range [8]int{3, 2, 7, 6, 1, 0, 5, 4} {
		binary.BigEndian.PutUint32(out[4*i:], s[k])
	}
}

// Finish takes rest, the end of a message of size bytes, and the padding, and
// returns the digest.
func (s *State) Finish(rest []byte, size int64) (sum [Size]byte) {
	One(s, rest, len(rest)/BlockSize)
	var b [2 * BlockSize]byte
	n := copy(b[:], rest[len(rest)/BlockSize*BlockSize:])
	b[n] = 0x80
	end := BlockSize
	if n+9 > BlockSize {
		end = 2 * BlockSize
	}
	binary.BigEndian.PutUint64(b[end-8:], uint64(size)*8)
	One(s, b[:], end/BlockSize)
	s.Put(sum[:])
	return sum
}

// Blocks takes n blocks of p into s, and n of q into t.
func Blocks(s, t *State, p, q []byte, n int) {
	if n <= 0 {
		return
	}
	_, _ = p[:n*BlockSize], q[:n*BlockSize]
	blocks(s, t, &p[0], &q[0], n)
}

// One takes n blocks of p into s.
func One(s *State, p []byte, n int) {
	if n <= 0 {
		return
	}
	_ = p[:n*BlockSize]
	block(s, &p[0], n)
}

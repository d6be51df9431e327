package xts

import "encoding/binary"

// cpuid and xgetbv are the instructions of these names.
//
//go:noescape
func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)

//go:noescape
func xgetbv() (eax uint32)

// expandKey writes the round keys of a key of rounds/4-6 words of 8 bytes to
// enc, and those of the inverse cipher to dec.
//
//go:noescape
func expandKey(rounds int, key, enc, dec *byte)

// encryptTweaks encrypts n blocks in place.
//
//go:noescape
func encryptTweaks(keys *byte, rounds int, blocks *byte, n int)

// The four functions below crypt n > 0 sectors of size bytes, which is a
// multiple of 16, and of 256 for the VAES ones. tweaks holds 16 encrypted
// bytes for each sector.
//
//go:noescape
func encryptAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)

//go:noescape
func decryptAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)

//go:noescape
func encryptVAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)

//go:noescape
func decryptVAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)

// vaesGroup is what the VAES functions take in one step.
const vaesGroup = 256

// fastest asks the processor what it can do, and the system whether it saves
// the wide registers.
func fastest() path {
	const (
		sse41, aesni, osxsave, avx = 1 << 19, 1 << 25, 1 << 27, 1 << 28
		avx2                       = 1 << 5
		vaes, vpclmul              = 1 << 9, 1 << 10
		ymmState                   = 1<<1 | 1<<2
	)
	leaves, _, _, _ := cpuid(0, 0)
	_, _, one, _ := cpuid(1, 0)
	if one&sse41 == 0 || one&aesni == 0 {
		return pathPortable
	}
	if one&osxsave == 0 || one&avx == 0 || leaves < 7 || xgetbv()&ymmState != ymmState {
		return pathAES
	}
	_, b, c, _ := cpuid(7, 0)
	if b&avx2 == 0 || c&vaes == 0 || c&vpclmul == 0 {
		return pathAES
	}
	return pathVAES
}

func (c *Cipher) expand(data, tweak []byte) {
	enc, dec, tweaks := &c.schedule[0], &c.schedule[roundKeysSize], &c.schedule[2*roundKeysSize]
	// The inverse keys of the tweaks' key are not needed: those of the data
	// overwrite them.
	expandKey(c.rounds, &tweak[0], tweaks, dec)
	expandKey(c.rounds, &data[0], enc, dec)
}

func (c *Cipher) batch(dst, src []byte, size, n int, first, step uint64, encrypt bool) {
	var tweaks [tweakBatch * BlockSize]byte
	for i := range n {
		binary.LittleEndian.PutUint64(tweaks[i*BlockSize:], first+uint64(i)*step)
	}
	encryptTweaks(&c.schedule[2*roundKeysSize], c.rounds, &tweaks[0], n)
	d, s := &dst[:n*size][0], &src[:n*size][0]
	enc, dec := &c.schedule[0], &c.schedule[roundKeysSize]
	wide := c.path == pathVAES && size%vaesGroup == 0
	switch {
	case wide && encrypt:
		encryptVAES(enc, c.rounds, d, s, n, size, &tweaks[0])
	case wide:
		decryptVAES(dec, c.rounds, d, s, n, size, &tweaks[0])
	case encrypt:
		encryptAES(enc, c.rounds, d, s, n, size, &tweaks[0])
	default:
		decryptAES(dec, c.rounds, d, s, n, size, &tweaks[0])
	}
}

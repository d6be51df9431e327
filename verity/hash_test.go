package verity

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"singularity/verity/lanes"
)

// TestHasher compares every length of salt with the standard library.
func TestHasher(t *testing.T) {
	data := make([]byte, 3*BlockSize)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	for _, wide := range []bool{false, true} {
		if wide && !lanes.Have() {
			t.Log("this processor has no instructions for SHA-256: only one way is tried")
			continue
		}
		for n := range MaxSalt + 1 {
			salt := bytes.Repeat([]byte{byte(n), 7}, n)[:n]
			h := newHasher(salt, wide)
			got := make([]byte, 3*DigestSize)
			for range 2 { // nothing is left of the first time
				h.all(data, got)
			}
			for i := range 3 {
				want := sha256.Sum256(append(bytes.Clone(salt), data[i*BlockSize:(i+1)*BlockSize]...))
				if !bytes.Equal(got[i*DigestSize:(i+1)*DigestSize], want[:]) {
					t.Fatalf("wide %v, salt of %d bytes, block %d: not what crypto/sha256 says", wide, n, i)
				}
			}
		}
	}
}

func BenchmarkHasher(b *testing.B) {
	data, out := make([]byte, 16*BlockSize), make([]byte, 16*DigestSize)
	for _, wide := range []bool{false, lanes.Have()} {
		b.Run(fmt.Sprintf("wide=%v", wide), func(b *testing.B) {
			h := newHasher(make([]byte, 32), wide)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				h.all(data, out)
			}
		})
	}
}

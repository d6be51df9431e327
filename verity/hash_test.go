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

// TestPlain compares the digest that comes with a tree, and the tree.
func TestPlain(t *testing.T) {
	data := make([]byte, 3*chunkBlocks*BlockSize)
	for i := range data {
		data[i] = byte(i * i >> 9)
	}
	for _, n := range []int{1, 63, 64, 100, 4095, 4096, 4097, 3 * 4096, chunkBlocks * BlockSize, chunkBlocks*BlockSize + 70, len(data) - 1, len(data)} {
		for salt := range MaxSalt + 1 {
			if salt > 65 && salt < MaxSalt {
				continue
			}
			w := NewSummingWriter(make([]byte, salt))
			if w == nil {
				t.Skip("this processor has no instructions for SHA-256")
			}
			for p := data[:n]; len(p) > 0; p = p[min(len(p), 100001):] {
				w.Write(p[:min(len(p), 100001)])
			}
			got, err := w.Sum([16]byte{})
			if err != nil {
				t.Fatal(err)
			}
			if w.Plain() != sha256.Sum256(data[:n]) {
				t.Errorf("%d bytes, salt of %d: not the digest that crypto/sha256 makes", n, salt)
			}
			other := NewWriter(make([]byte, salt), 2)
			other.Write(data[:n])
			if want, err := other.Sum([16]byte{}); err != nil || want.Root != got.Root {
				t.Errorf("%d bytes, salt of %d: not the tree that is made alone, %v", n, salt, err)
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

package lanes

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

func need(t testing.TB) {
	t.Helper()
	if !Have() {
		t.Skip("this processor has no instructions for SHA-256")
	}
}

func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func check(t *testing.T, m, o []byte) {
	t.Helper()
	s, u := Initial(), Initial()
	n := min(len(m), len(o)) / BlockSize
	// In two steps, so that a state goes in and out.
	half := n / 2
	Blocks(&s, &u, m, o, half)
	Blocks(&s, &u, m[half*BlockSize:], o[half*BlockSize:], n-half)
	for _, c := range []struct {
		state State
		of    []byte
	}{{s, m}, {u, o}} {
		got := c.state.Finish(c.of[n*BlockSize:], int64(len(c.of)))
		if want := sha256.Sum256(c.of); got != want {
			t.Errorf("of %d bytes: %x, want %x", len(c.of), got, want)
		}
	}
}

func TestAgreesWithStandardLibrary(t *testing.T) {
	need(t)
	for n := range 200 {
		check(t, random(n, 1), random(n, 2))
		check(t, random(n, 3), random(4128, 4))
		check(t, random(5000-n, 5), random(n, 6))
	}
}

func FuzzAgainstStandardLibrary(f *testing.F) {
	f.Add([]byte("abc"), []byte(""))
	f.Fuzz(func(t *testing.T, m, o []byte) {
		need(t)
		check(t, m, o)
	})
}

func TestRefusesShortMessages(t *testing.T) {
	need(t)
	for name, f := range map[string]func(){
		"first":  func() { s, u := Initial(), Initial(); Blocks(&s, &u, make([]byte, 127), make([]byte, 128), 2) },
		"second": func() { s, u := Initial(), Initial(); Blocks(&s, &u, make([]byte, 128), make([]byte, 127), 2) },
		"one":    func() { s := Initial(); One(&s, make([]byte, 63), 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: reads behind the end", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkBlocks(b *testing.B) {
	need(b)
	p, q := random(4096, 1), random(4096, 2)
	b.Run("both", func(b *testing.B) {
		b.SetBytes(8192)
		s, u := Initial(), Initial()
		for b.Loop() {
			Blocks(&s, &u, p, q, 64)
		}
	})
	b.Run("one", func(b *testing.B) {
		b.SetBytes(4096)
		s := Initial()
		for b.Loop() {
			One(&s, p, 64)
		}
	})
	b.Run("standard", func(b *testing.B) {
		b.SetBytes(4096)
		for b.Loop() {
			sha256.Sum256(p)
		}
	})
}

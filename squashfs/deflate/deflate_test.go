package deflate

import (
	"bytes"
	"compress/flate"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// samples are blocks of different kinds.
func samples() [][]byte {
	r := rand.New(rand.NewPCG(5, 6))
	list := [][]byte{nil, {1}, []byte("ab"), []byte("aaa"), []byte("abcabcabcabcabcabcabc"), make([]byte, 131072), bytes.Repeat([]byte("xyz"), 50000)}
	for _, n := range []int{1, 3, 4, 5, 257, 258, 259, 8192, 32767, 32768, 32769, 65535, 65536, 131072, 1 << 20} {
		random := make([]byte, n)
		for i := range random {
			random[i] = byte(r.Uint32())
		}
		skewed := make([]byte, n)
		for i := range skewed {
			skewed[i] = byte(r.ExpFloat64() * 3)
		}
		mixed := bytes.Clone(random)
		for range n / 20 {
			l := 1 + r.IntN(300)
			a, b := r.IntN(n), r.IntN(n)
			copy(mixed[a:], mixed[b:min(n, b+l)])
		}
		half := bytes.Clone(random)
		copy(half[n/2:], make([]byte, n))
		list = append(list, random, skewed, mixed, half)
	}
	// Counts that grow like Fibonacci's make the longest words.
	var fib []byte
	for a, b, c := 1, 1, byte(0); len(fib) < 300000; a, b, c = b, a+b, c+1 {
		fib = append(fib, bytes.Repeat([]byte{c}, a)...)
	}
	r.Shuffle(len(fib), func(i, j int) { fib[i], fib[j] = fib[j], fib[i] })
	list = append(list, fib)
	if b, err := os.ReadFile("/proc/self/exe"); err == nil {
		list = append(list, b[:min(len(b), 1<<20)])
	}
	return list
}

func inflate(t testing.TB, b []byte) []byte {
	t.Helper()
	r := bytes.NewReader(b)
	got, err := io.ReadAll(flate.NewReader(r))
	if err != nil || r.Len() != 0 {
		t.Fatalf("cannot inflate %d bytes: %v, %d bytes left", len(b), err, r.Len())
	}
	return got
}

func TestEncodeRoundTrip(t *testing.T) {
	for level := MinLevel; level <= MaxLevel; level++ {
		e, err := New(level)
		if err != nil {
			t.Fatal(err)
		}
		for i, src := range samples() {
			out, ok := e.Encode([]byte("head"), src, len(src)+64+len(src)/1000)
			if !ok || !bytes.HasPrefix(out, []byte("head")) {
				t.Fatalf("level %d, sample %d of %d bytes: %v, result has %d bytes", level, i, len(src), ok, len(out))
			}
			if got := inflate(t, out[4:]); !bytes.Equal(got, src) {
				t.Fatalf("level %d, sample %d of %d bytes came back as %d other bytes", level, i, len(src), len(got))
			}
			small, ok := e.Encode(nil, src, len(out)-4)
			if !ok || !bytes.Equal(small, out[4:]) {
				t.Fatalf("level %d, sample %d: with the exact limit of %d bytes: %v", level, i, len(out)-4, ok)
			}
			if b, ok := e.Encode(nil, src, len(out)-5); ok {
				t.Fatalf("level %d, sample %d: %d bytes for a limit of %d", level, i, len(b), len(out)-5)
			}
		}
	}
	if _, err := New(10); err == nil {
		t.Error("level 10 is accepted")
	}
}

// TestEncodeForgets holds that the result does not depend on earlier blocks, even
// where the counter of places begins anew.
func TestEncodeForgets(t *testing.T) {
	used, err := New(6)
	if err != nil {
		t.Fatal(err)
	}
	for i, src := range samples() {
		fresh, err := New(6)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := fresh.Encode(nil, src, len(src)+100)
		if i%5 == 4 {
			used.base = maxBase - uint32(i)
		}
		if got, _ := used.Encode(nil, src, len(src)+100); !bytes.Equal(got, want) {
			t.Errorf("sample %d of %d bytes: used encoder gives %d bytes, new one %d", i, len(src), len(got), len(want))
		}
	}
}

// TestEncodeDenserThanStd compares sizes with the standard library's best level.
func TestEncodeDenserThanStd(t *testing.T) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("needs /proc")
	}
	e, err := New(7)
	if err != nil {
		t.Fatal(err)
	}
	ours, std := 0, 0
	for n := 0; n < 20 && len(b) > 128<<10; n++ {
		src := b[:128<<10]
		b = b[128<<10:]
		out, _ := e.Encode(nil, src, len(src))
		ours += len(out)
		var o bytes.Buffer
		w, _ := flate.NewWriter(&o, 9)
		w.Write(src)
		w.Close()
		std += o.Len()
	}
	if ours > std {
		t.Errorf("level 7 makes %d bytes, the standard library's level 9 %d", ours, std)
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range samples()[:20] {
		f.Add(s[:min(len(s), 5000)], uint8(6))
	}
	var encoders [MaxLevel + 1]*Encoder
	f.Fuzz(func(t *testing.T, src []byte, level uint8) {
		l := int(level)%MaxLevel + 1
		if encoders[l] == nil {
			encoders[l], _ = New(l)
		}
		out, ok := encoders[l].Encode(nil, src, len(src)+10+len(src)/1000)
		if !ok {
			t.Fatalf("level %d refuses %d bytes", l, len(src))
		}
		if got := inflate(t, out); !bytes.Equal(got, src) {
			t.Fatalf("level %d: %d bytes came back as %d", l, len(src), len(got))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	src, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Skip("needs /proc")
	}
	e, err := New(7)
	if err != nil {
		b.Fatal(err)
	}
	src = src[1<<20:][:128<<10]
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		e.Encode(nil, src, len(src))
	}
}

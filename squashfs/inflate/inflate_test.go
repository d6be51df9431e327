package inflate

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	stdadler "hash/adler32"
	"io"
	"math/rand"
	"os"
	"testing"
)

// corpus returns buffers of many shapes, each at most 128 KiB.
func corpus(tb testing.TB) [][]byte {
	r := rand.New(rand.NewSource(1))
	noise := make([]byte, 100_000)
	r.Read(noise)
	few := make([]byte, 128<<10)
	for i := range few {
		few[i] = "aab\nc"[r.Intn(5)]
	}
	skew := make([]byte, 128<<10) // long codes: second-level tables
	for i := range skew {
		skew[i] = byte(r.ExpFloat64() * 12)
	}
	c := [][]byte{nil, {1}, []byte("hello hello hello"), make([]byte, 128<<10), noise, few, skew, bytes.Repeat([]byte("abcdefg"), 9000)}
	if exe, err := os.Executable(); err == nil {
		if b, err := os.ReadFile(exe); err == nil {
			for i := 0; i+128<<10 <= len(b) && i < 4<<20; i += 512 << 10 {
				c = append(c, b[i:i+128<<10])
			}
		}
	}
	return c
}

func compress(tb testing.TB, p []byte, level int) []byte {
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		tb.Fatal(err)
	}
	w.Write(p)
	w.Close()
	return b.Bytes()
}

func TestZlib(t *testing.T) {
	var d Decoder
	for i, p := range corpus(t) {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
			z := compress(t, p, level)
			for _, room := range []int{0, 1, 300} {
				dst := make([]byte, len(p)+room)
				n, err := d.Zlib(dst, z)
				if err != nil || !bytes.Equal(dst[:n], p) {
					t.Fatalf("buffer %d level %d room %d: %d bytes, %v, want %d", i, level, room, n, err, len(p))
				}
			}
			if len(p) > 0 {
				if _, err := d.Zlib(make([]byte, len(p)-1), z); err != ErrTooLarge {
					t.Fatalf("buffer %d level %d in a short destination: got %v, want %v", i, level, err, ErrTooLarge)
				}
			}
			if _, err := d.Zlib(make([]byte, len(p)+9), z[:len(z)-5]); err == nil {
				t.Fatalf("buffer %d level %d: a truncated stream passed", i, level)
			}
		}
	}
}

func TestZlibChecksum(t *testing.T) {
	z := compress(t, []byte("some content"), 0)
	z[9] ^= 1
	if _, err := new(Decoder).Zlib(make([]byte, 100), z); err != ErrChecksum {
		t.Fatalf("got %v, want %v", err, ErrChecksum)
	}
	for n := range 6 {
		if _, err := new(Decoder).Zlib(make([]byte, 100), z[:n]); err == nil {
			t.Fatalf("%d bytes passed as zlib", n)
		}
	}
}

func TestAdler32(t *testing.T) {
	for _, p := range append(corpus(t), bytes.Repeat([]byte{255}, 70001)) {
		for _, q := range [][]byte{p, p[min(1, len(p)):], p[:len(p)/3]} {
			if got, want := adler32(q), stdadler.Checksum(q); got != want {
				t.Fatalf("%d bytes: got %08x, want %08x", len(q), got, want)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, p := range [][]byte{nil, []byte("hello hello hello"), bytes.Repeat([]byte("ab"), 400), []byte("aaaaaaaaaaaaaaaaaaaaab")} {
		for _, level := range []int{-2, 0, 1, 9} {
			z := compress(f, p, level)
			f.Add(z[2:], uint16(len(p)))
		}
	}
	rnd := rand.New(rand.NewSource(2))
	skew := make([]byte, 3000)
	for i := range skew {
		skew[i] = byte(rnd.ExpFloat64() * 12)
	}
	f.Add(compress(f, skew, 6)[2:], uint16(3000))
	var d Decoder
	f.Fuzz(func(t *testing.T, src []byte, room uint16) {
		dst := make([]byte, room)
		n, used, err := d.Inflate(dst, src)
		br := bytes.NewReader(src)
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(br), int64(room)+1))
		fits := len(want) <= int(room)
		if (err == nil) != (wantErr == nil && fits) {
			t.Fatalf("got %d bytes, %v; the oracle has %d bytes, %v, room %d", n, err, len(want), wantErr, room)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(dst[:n], want) {
			t.Fatalf("output differs from the oracle's")
		}
		if taken := len(src) - br.Len(); used != taken {
			t.Fatalf("took %d bytes, the oracle took %d", used, taken)
		}
	})
}

func BenchmarkZlib(b *testing.B) {
	var d Decoder
	var bufs, plain [][]byte
	total := 0
	for _, p := range corpus(b)[8:] {
		bufs, plain = append(bufs, compress(b, p, 9)), append(plain, p)
		total += len(p)
	}
	dst := make([]byte, 128<<10)
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			for _, z := range bufs {
				if _, err := d.Zlib(dst, z); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("std", func(b *testing.B) {
		b.SetBytes(int64(total))
		r := bytes.NewReader(bufs[0])
		zr, _ := zlib.NewReader(r)
		for b.Loop() {
			for _, z := range bufs {
				r.Reset(z)
				zr.(zlib.Resetter).Reset(r, nil)
				if _, err := io.ReadFull(zr, dst); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("adler", func(b *testing.B) {
		b.SetBytes(int64(total))
		for b.Loop() {
			for _, p := range plain {
				adler32(p)
			}
		}
	})
}

package lz4

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
)

// corpus returns buffers of many shapes, each at most 128 KiB.
func corpus() [][]byte {
	r := rand.New(rand.NewSource(1))
	noise := make([]byte, 100_000)
	r.Read(noise)
	few := make([]byte, 128<<10)
	for i := range few {
		few[i] = "aab\nc"[r.Intn(5)]
	}
	far := append(append([]byte{}, noise[:60_000]...), noise[:60_000]...)
	c := [][]byte{{1}, []byte("hello hello hello"), make([]byte, 128<<10), noise, few, far}
	for period := 1; period < 40; period++ { // overlapping matches
		c = append(c, bytes.Repeat(noise[:period], 100+r.Intn(50)))
	}
	for size := 2; size < 300; size += 7 {
		c = append(c, few[:size])
	}
	if exe, err := os.Executable(); err == nil {
		if b, err := os.ReadFile(exe); err == nil {
			for i := 0; i+128<<10 <= len(b) && i < 4<<20; i += 512 << 10 {
				c = append(c, b[i:i+128<<10])
			}
		}
	}
	return c
}

// compress compresses p with another package, at a level of its slow
// compressor, or with the fast one if level is 0.
func compress(tb testing.TB, p []byte, level lz4.CompressionLevel) []byte {
	tb.Helper()
	z := make([]byte, lz4.CompressBlockBound(len(p)))
	var n int
	var err error
	if level == 0 {
		n, err = new(lz4.Compressor).CompressBlock(p, z)
	} else {
		n, err = (&lz4.CompressorHC{Level: level}).CompressBlock(p, z)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return z[:n]
}

func TestDecode(t *testing.T) {
	for _, level := range []lz4.CompressionLevel{0, lz4.Level1, lz4.Level5, lz4.Level9} {
		for i, p := range corpus() {
			z := compress(t, p, level)
			if len(z) == 0 {
				continue
			}
			for _, room := range []int{0, 1, 15, 300} {
				dst := append(make([]byte, len(p)+room), "UUUUUUUU"...)
				n, err := Decode(dst[:len(p)+room:len(p)+room], z)
				if err != nil || !bytes.Equal(dst[:n], p) {
					t.Fatalf("buffer %d level %d room %d: %d bytes, %v, want %d", i, level, room, n, err, len(p))
				}
				if !strings.HasSuffix(string(dst), "UUUUUUUU") {
					t.Fatalf("buffer %d: wrote behind dst", i)
				}
			}
			if _, err := Decode(make([]byte, len(p)-1), z); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("buffer %d without room: %v", i, err)
			}
		}
	}
}

func small(tb testing.TB) [][]byte {
	c := corpus()
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog; ", 5))
	return [][]byte{
		compress(tb, text, 0), compress(tb, c[4][:900], 0), compress(tb, make([]byte, 5000), 0),
		compress(tb, append(c[3][:100:100], c[3][:100]...), lz4.Level9), compress(tb, c[len(c)-1][:3000], lz4.Level9),
		{0}, {0x10, 'a'},
	}
}

// TestHostile cuts inputs at every length and changes every byte of them.
func TestHostile(t *testing.T) {
	dst := make([]byte, 8192)
	for i, z := range small(t) {
		want, err := Decode(dst, z)
		if err != nil {
			t.Fatal(err)
		}
		for n := range z {
			// A cut may fall behind literals that end a shorter block.
			if got, err := Decode(dst, z[:n]); err == nil && got >= want {
				t.Fatalf("buffer %d cut at %d of %d is accepted", i, n, len(z))
			}
		}
		bad := bytes.Clone(z)
		for n := range bad {
			for _, x := range []byte{1, 0x80, 0xff, 0x10} {
				bad[n] ^= x
				Decode(dst, bad)
				Decode(dst[:100], bad)
				bad[n] ^= x
			}
		}
	}
	for _, z := range [][]byte{nil, {0xf0}, {0xf0, 255}, {0x10}, {0x14, 'a', 1}, {0x14, 'a', 0, 0, 0}, {0x14, 'a', 2, 0, 0}, bytes.Repeat([]byte{255}, 5000)} {
		if _, err := Decode(dst, z); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x: %v", z[:min(len(z), 8)], err)
		}
	}
}

// FuzzLZ4 compares with another decoder.
func FuzzLZ4(f *testing.F) {
	for _, z := range small(f) {
		f.Add(z)
	}
	f.Fuzz(func(t *testing.T, z []byte) {
		dst, want := make([]byte, 64<<10), make([]byte, 64<<10)
		n, err := Decode(dst, z)
		m, wantErr := lz4.UncompressBlock(z, want)
		// The other decoder takes an empty block, and one whose end
		// announces a match.
		lax := len(z) == 0 || wantErr == nil && errors.Is(err, ErrCorrupt) && m == n
		if (err == nil) != (wantErr == nil) && !lax {
			t.Fatalf("%d bytes, %v, want %d, %v", n, err, m, wantErr)
		}
		if err == nil && wantErr == nil && !bytes.Equal(dst[:n], want[:m]) {
			t.Fatalf("%d bytes differ from %d wanted", n, m)
		}
	})
}

// blocks returns 128 KiB blocks of files below dir, of total bytes in all,
// taken evenly.
func blocks(tb testing.TB, dir string, total int) [][]byte {
	var all [][]byte
	seen := 0
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for len(b) >= 4096 && total > 0 {
			n := min(len(b), 128<<10)
			if seen++; seen%37 == 0 {
				all = append(all, b[:n])
				total -= n
			}
			b = b[n:]
		}
		if total <= 0 {
			return fs.SkipAll
		}
		return nil
	})
	if total > 0 {
		tb.Skipf("needs more files below %s", dir)
	}
	return all
}

// BenchmarkPeer compares with another decoder on 128 KiB blocks of the files in
// $BENCH_TREE, else /usr/lib. Both take turns, and the best time of each block
// counts, so that other load on the machine does not.
func BenchmarkPeer(b *testing.B) {
	dir := os.Getenv("BENCH_TREE")
	if dir == "" {
		dir = "/usr/lib"
	}
	all := blocks(b, dir, 8<<20)
	for _, level := range []lz4.CompressionLevel{0, lz4.Level9} {
		b.Run(level.String(), func(b *testing.B) {
			var plain, packed [][]byte
			total := 0
			for _, p := range all {
				if z := compress(b, p, level); len(z) > 0 {
					plain, packed, total = append(plain, p), append(packed, z), total+len(p)
				}
			}
			dst := make([]byte, 128<<10)
			for i, z := range packed {
				if n, err := Decode(dst, z); err != nil || !bytes.Equal(dst[:n], plain[i]) {
					b.Fatalf("block %d: %d bytes, %v", i, n, err)
				}
			}
			var best [2][]time.Duration
			for k := range best {
				best[k] = slices.Repeat([]time.Duration{time.Hour}, len(packed))
			}
			for b.Loop() {
				for i, z := range packed {
					for k, decode := range []func(dst, src []byte) (int, error){Decode, func(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }} {
						start := time.Now()
						n, err := decode(dst, z)
						best[k][i] = min(best[k][i], time.Since(start))
						if n != len(plain[i]) {
							b.Fatalf("block %d: %d bytes, %v", i, n, err)
						}
					}
				}
			}
			var sum [2]time.Duration
			for k := range best {
				for _, t := range best[k] {
					sum[k] += t
				}
			}
			b.ReportMetric(float64(total)/sum[0].Seconds()/1e6, "ours-MB/s")
			b.ReportMetric(float64(total)/sum[1].Seconds()/1e6, "peer-MB/s")
			b.ReportMetric(float64(sum[1])/float64(sum[0]), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

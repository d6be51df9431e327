package zstd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// edges returns buffers whose sizes are where forms change.
func edges(tb testing.TB) [][]byte {
	c := corpus(tb)
	var all []byte
	for _, p := range c {
		all = append(all, p...)
	}
	for _, size := range []int{3, 7, 8, 9, 10, 16, 31, 32, 33, 255, 256, 257, 1023, 1024, 4095, 4096, 65791, 65792, 1<<17 - 1, 1<<17 + 1, 1 << 18, 1 << 20} {
		for _, from := range []int{0, 200_000, 500_001} {
			if from+size <= len(all) {
				c = append(c, all[from:from+size])
			}
		}
	}
	every := make([]byte, 70_000) // all symbols, uneven
	for i := range every {
		every[i] = byte(i * i >> 7 % (1 + i%256))
	}
	// Counts that grow like Fibonacci's make the longest words.
	var fib []byte
	for a, b, s := 1, 1, byte(0); len(fib)+a < maxBlockSize; a, b, s = b, a+b, s+1 {
		for k := range a {
			fib = slices.Insert(fib, (k*7919+int(s))%(len(fib)+1), s)
		}
	}
	// Three equal bytes in a row are no match: literals of two symbols only.
	return append(c, every, fib, bytes.Repeat([]byte{1, 1, 1, 0}, 100))
}

// encode compresses p, which may grow by what blocks and a frame cost.
func encode(t testing.TB, e *Encoder, p []byte) []byte {
	t.Helper()
	z, ok := e.Encode([]byte("head"), p, len(p)+16+len(p)/1000)
	if !ok || !bytes.HasPrefix(z, []byte("head")) {
		t.Fatalf("%d bytes: %v, result has %d bytes", len(p), ok, len(z))
	}
	return z[4:]
}

func TestEncodeRoundTrip(t *testing.T) {
	e, peer := NewEncoder(), oracle(t)
	var d Decoder
	for i, p := range edges(t) {
		z := encode(t, e, p)
		check(t, &d, "buffer "+strconv.Itoa(i), z, p)
		if got, err := peer.DecodeAll(z, nil); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("buffer %d of %d bytes: the peer makes %d bytes of it, %v", i, len(p), len(got), err)
		}
		if b, ok := e.Encode(nil, p, len(z)); !ok || !bytes.Equal(b, z) {
			t.Fatalf("buffer %d: with the exact limit of %d bytes: %v", i, len(z), ok)
		}
		if b, ok := e.Encode(nil, p, len(z)-1); ok {
			t.Fatalf("buffer %d: %d bytes for a limit of %d", i, len(b), len(z)-1)
		}
	}
}

// TestEncodeForgets holds that the result does not depend on earlier buffers.
func TestEncodeForgets(t *testing.T) {
	used := NewEncoder()
	for i, p := range edges(t) {
		if got, want := encode(t, used, p), encode(t, NewEncoder(), p); !bytes.Equal(got, want) {
			t.Errorf("buffer %d of %d bytes: used encoder gives %d bytes, new one %d", i, len(p), len(got), len(want))
		}
	}
}

func TestEncodeForCommand(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("needs zstd")
	}
	e := NewEncoder()
	dir := t.TempDir()
	args := []string{"-d", "-q"}
	list := edges(t)
	for i, p := range list {
		name := filepath.Join(dir, strconv.Itoa(i)+".zst")
		if err := os.WriteFile(name, encode(t, e, p), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	if out, err := exec.Command("zstd", args...).CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v: %s", err, out)
	}
	for i, p := range list {
		got, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("buffer %d of %d bytes: zstd makes %d bytes of it, %v", i, len(p), len(got), err)
		}
	}
}

func TestEncodeNoAllocation(t *testing.T) {
	e, p := NewEncoder(), corpus(t)[5]
	dst := make([]byte, 0, len(p))
	e.Encode(dst, p, len(p))
	if n := testing.AllocsPerRun(10, func() { e.Encode(dst, p, len(p)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzEncode(f *testing.F) {
	for _, p := range edges(f) {
		f.Add(p[:min(len(p), 5000)], uint8(1))
	}
	e, peer := NewEncoder(), oracle(f)
	var d Decoder
	// Repeats of the input, each with a byte changed, reach several blocks.
	f.Fuzz(func(t *testing.T, p []byte, repeats uint8) {
		var all []byte
		for i := range max(1, int(repeats)) {
			if all = append(all, p...); len(all) > 0 {
				all[(i*31)%len(all)] ^= byte(i)
			}
			if len(all) > 300_000 {
				break
			}
		}
		z := encode(t, e, all)
		check(t, &d, "fuzz", z, all)
		if got, err := peer.DecodeAll(z, nil); err != nil || !bytes.Equal(got, all) {
			t.Fatalf("%d bytes: the peer makes %d bytes of them, %v", len(all), len(got), err)
		}
	})
}

// BenchmarkEncodePeer compares with another encoder on 128 KiB blocks of the
// files in $BENCH_TREE, else /usr/lib, in the way of BenchmarkPeer.
func BenchmarkEncodePeer(b *testing.B) {
	dir := os.Getenv("BENCH_TREE")
	if dir == "" {
		dir = "/usr/lib"
	}
	plain := blocks(b, dir, 8<<20)
	e, dst := NewEncoder(), make([]byte, 0, 256<<10)
	peer := encoder(b, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(maxBlockSize), zstd.WithLowerEncoderMem(true))
	var best [2][]time.Duration
	for k := range best {
		best[k] = slices.Repeat([]time.Duration{time.Hour}, len(plain))
	}
	var size [2]int
	total := 0
	for b.Loop() {
		size, total = [2]int{}, 0
		for i, p := range plain {
			start := time.Now()
			z, ok := e.Encode(dst, p, len(p))
			best[0][i] = min(best[0][i], time.Since(start))
			if !ok {
				z = p
			}
			start = time.Now()
			out := peer.EncodeAll(p, dst)
			best[1][i] = min(best[1][i], time.Since(start))
			total += len(p)
			size[0] += len(z)
			size[1] += min(len(out), len(p))
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
	b.ReportMetric(float64(size[0])/float64(size[1]), "size-ratio")
	b.ReportMetric(0, "ns/op")
}

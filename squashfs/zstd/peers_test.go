package zstd

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

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

// compressAt compresses blocks at one of the other package's levels, or with
// the zstd command if level is a number.
func compressAt(tb testing.TB, level string, plain [][]byte) [][]byte {
	var packed [][]byte
	if ok, l := zstd.EncoderLevelFromString(level); ok {
		w := encoder(tb, zstd.WithEncoderLevel(l), zstd.WithEncoderCRC(false))
		for _, p := range plain {
			packed = append(packed, w.EncodeAll(p, nil))
		}
		return packed
	}
	dir := tb.TempDir()
	args := []string{"-" + level, "--no-check", "-q"}
	for i, p := range plain {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, p, 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, name)
	}
	if out, err := exec.Command("zstd", args...).CombinedOutput(); err != nil {
		tb.Skipf("needs zstd: %s", out)
	}
	for i := range plain {
		z, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)+".zst"))
		if err != nil {
			tb.Fatal(err)
		}
		packed = append(packed, z)
	}
	return packed
}

// BenchmarkPeer compares with another decoder on 128 KiB blocks of the files in
// $BENCH_TREE, else /usr/lib. Both take turns, and the best time of each block
// counts, so that other load on the machine does not.
func BenchmarkPeer(b *testing.B) {
	dir := os.Getenv("BENCH_TREE")
	if dir == "" {
		dir = "/usr/lib"
	}
	plain := blocks(b, dir, 8<<20)
	total := 0
	for _, p := range plain {
		total += len(p)
	}
	for _, level := range []string{"fastest", "default", "better", "3", "15"} {
		b.Run(level, func(b *testing.B) {
			packed := compressAt(b, level, plain)
			dst := make([]byte, 128<<10)
			d := new(Decoder)
			r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
			if err != nil {
				b.Fatal(err)
			}
			for i, z := range packed {
				if n, err := d.Decode(dst, z); err != nil || !bytes.Equal(dst[:n], plain[i]) {
					b.Fatalf("block %d: %d bytes, %v", i, n, err)
				}
			}
			var best [2][]time.Duration
			for k := range best {
				best[k] = slices.Repeat([]time.Duration{time.Hour}, len(packed))
			}
			for b.Loop() {
				for i, z := range packed {
					start := time.Now()
					n, _ := d.Decode(dst, z)
					best[0][i] = min(best[0][i], time.Since(start))
					start = time.Now()
					out, _ := r.DecodeAll(z, dst[:0])
					best[1][i] = min(best[1][i], time.Since(start))
					if n != len(plain[i]) || n != len(out) {
						b.Fatalf("block %d: %d and %d bytes, want %d", i, n, len(out), len(plain[i]))
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

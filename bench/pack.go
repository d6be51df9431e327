package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
)

// packTree: images of the same archive, by us and by the peers.
func (b *bench) packTree(ctx context.Context) error {
	return errors.Join(b.packZstd(ctx), b.packGzip(ctx), b.sameBits(ctx), b.buildSandbox(ctx))
}

// packed is a side that makes a squashfs file from tree.tar, and the file.
func (b *bench) packed(compressor string, workers int) (side, string) {
	out := b.path("tmp/ours-" + compressor + "-" + strconv.Itoa(workers))
	return b.runs("packtree", b.path("tree.tar"), b.program("packtree"), "-tar", "-c", compressor, "-j", strconv.Itoa(workers), "-", out), out
}

// packRuns is how often a command runs that takes seconds.
func (b *bench) packRuns() int {
	if b.quick {
		return 2
	}
	return max(5, b.n/5)
}

func (b *bench) packZstd(ctx context.Context) error {
	if err := b.need("tar2sqfs"); err != nil {
		b.skip("build, zstd / tar2sqfs", err.Error())
		return nil
	}
	out := b.path("tmp/tar2sqfs")
	ours, file := b.packed("zstd", 0)
	got, err := rounds(ctx, b.packRuns(), []side{
		ours, b.runs("tar2sqfs", b.path("tree.tar"), b.peers["tar2sqfs"], "-c", "zstd", "-X", "level=3", "-f", "-q", out),
	})
	if err != nil {
		return err
	}
	b.compare(row{Name: "build, zstd / `tar2sqfs -c zstd -X level=3`", Goal: 1.2, Unit: "ms"}, walls(got[0]), walls(got[1]))
	b.compare(row{Name: "CPU of the same", Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	b.compare(row{Name: "size of the same", Unit: "MB"}, megabytes(file), megabytes(out))
	b.memoryOf("zstd", got[0])
	return nil
}

func (b *bench) packGzip(ctx context.Context) error {
	ours, file := b.packed("gzip", 0)
	if b.quick || b.need("mksquashfs") != nil {
		got, err := rounds(ctx, 1, []side{ours})
		if err != nil {
			return err
		}
		b.memoryOf("gzip", got[0])
		reason := "-quick leaves it out, it takes minutes"
		if err := b.need("mksquashfs"); err != nil {
			reason = err.Error()
		}
		b.skip("build, gzip / mksquashfs", reason)
		return nil
	}
	out := b.path("tmp/mksquashfs")
	peer := b.runs("mksquashfs", b.path("tree.tar"), b.peers["mksquashfs"], "-", out, "-tar", "-noappend", "-no-progress", "-quiet")
	var got [2][]sample
	for range 2 {
		for k, s := range []side{ours, peer} {
			v, err := s.run(ctx)
			if err != nil {
				return err
			}
			got[k] = append(got[k], v)
		}
	}
	b.compare(row{Name: "CPU of build, gzip / mksquashfs", Goal: 0.3, Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	b.compare(row{Name: "time of the same", Unit: "ms"}, walls(got[0]), walls(got[1]))
	b.compare(row{Name: "size of the same", Goal: 1.02, Unit: "MB"}, megabytes(file), megabytes(out))
	b.memoryOf("gzip", got[0])
	return nil
}

func (b *bench) memoryOf(compressor string, got []sample) {
	b.absolute(row{Name: "memory of build, " + compressor, Goal: 256, Unit: "MB"}, values(got, func(s sample) float64 { return float64(s.rss) / 1e6 }))
}

func megabytes(path string) []float64 {
	st, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return []float64{float64(st.Size()) / 1e6}
}

// sameBits makes images by different numbers of threads.
func (b *bench) sameBits(ctx context.Context) error {
	for _, c := range []string{"zstd", "gzip"} {
		var sums [2][sha256.Size]byte
		for i, workers := range []int{1, runtime.NumCPU() + 1} {
			s, file := b.packed(c, workers)
			if _, err := s.run(ctx); err != nil {
				return err
			}
			var err error
			if sums[i], err = hashFile(file); err != nil {
				return err
			}
			os.Remove(file)
		}
		b.report.Rows = append(b.report.Rows, row{Name: fmt.Sprintf("build, %s: the same bits by 1 and %d threads", c, runtime.NumCPU()+1), Met: verdict(sums[0] == sums[1]), Note: fmt.Sprintf("sha256 %x", sums[0][:6])})
	}
	return nil
}

func verdict(ok bool) string {
	if ok {
		return "yes"
	}
	return "NO"
}

func hashFile(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// buildSandbox: the whole command, which reads a directory and writes a SIF.
func (b *bench) buildSandbox(ctx context.Context) error {
	const name = "`singularity build --compression zstd` of the directory / tar2sqfs of its archive"
	if _, err := b.output(ctx, b.program("singularity"), "help", "build"); err != nil {
		b.skip(name, err.Error())
		return nil
	}
	if err := b.need("tar2sqfs"); err != nil {
		b.skip(name, err.Error())
		return nil
	}
	out := b.path("tmp/tar2sqfs")
	got, err := rounds(ctx, b.packRuns(), []side{
		b.runs("build", "", b.program("singularity"), "build", "-F", "--compression", "zstd", b.path("tmp/build.sif"), b.path("tree")),
		b.runs("tar2sqfs", b.path("tree.tar"), b.peers["tar2sqfs"], "-c", "zstd", "-X", "level=3", "-f", "-q", out),
	})
	if err != nil {
		b.skip(name, err.Error())
		return nil
	}
	b.compare(row{Name: name, Unit: "ms"}, walls(got[0]), walls(got[1]))
	return nil
}

// Command packtree packs a directory into a squashfs file, for timing.
//
//	packtree [-c gzip|zstd|lz4|xz|none] [-level N] [-b SIZE] [-j WORKERS] [-tar] DIR|TAR|- IMAGE
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"

	"singularity/build"
	"singularity/squashfs"
	"singularity/squashfs/compress"
)

func main() {
	comp := flag.String("c", "gzip", "compressor: gzip, zstd, lz4, xz or none")
	level := flag.Int("level", 0, "level of the compressor")
	block := flag.Int("b", 0, "block size")
	workers := flag.Int("j", 0, "goroutines that compress")
	isTar := flag.Bool("tar", false, "the input is a tar archive")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	o := squashfs.WriterOptions{Level: *level, BlockSize: *block, Workers: *workers, NoCompress: *comp == "none"}
	for c := squashfs.Gzip; c <= squashfs.Zstd; c++ {
		if c.String() == *comp {
			o.Compression = c
		}
	}
	if err := run(o, *isTar, *profile, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "packtree:", err)
		os.Exit(1)
	}
}

func run(o squashfs.WriterOptions, isTar bool, profile string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want an input and an output, found %d arguments", len(args))
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	in := os.Stdin
	if args[0] != "-" {
		var err error
		if in, err = os.Open(args[0]); err != nil {
			return err
		}
		defer in.Close()
	}
	out, err := os.Create(args[1])
	if err != nil {
		return err
	}
	size, err := pack(o, isTar, in, out)
	if err == nil {
		err = out.Truncate(size)
	}
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

func pack(o squashfs.WriterOptions, isTar bool, in *os.File, out io.WriterAt) (int64, error) {
	o.NewEncoder = func(c squashfs.Compression, level, blockSize int) (squashfs.Encoder, error) {
		return compress.New(c.String(), level, blockSize)
	}
	o.Digest = sha256.Sum256
	w, err := squashfs.NewWriter(out, o)
	if err != nil {
		return 0, err
	}
	defer w.Abort()
	if isTar {
		err = w.AddTar(in, squashfs.TarOptions{})
	} else {
		_, err = build.PackTree(context.Background(), in, w, build.PackOptions{})
	}
	if err != nil {
		return 0, err
	}
	return w.Close()
}

package build

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/squashfs"
)

// Compressions are the names that Options.Compression may have.
func Compressions() []string { return []string{"gzip", "zstd", "lz4", "xz", "none"} }

// Squashfs says how the file system of an image is written. The zero value is
// what is usual.
type Squashfs struct {
	Level     int // the compressor's own; 0 is its default
	BlockSize int // bytes; 0 is the default
	Workers   int // processors; 0 is all
	AllRoot   bool
}

// MksquashfsArgs reads arguments of the program mksquashfs, which is not used,
// as choices of a build. Those that change nothing here are passed over; notes
// name those that are not followed.
func MksquashfsArgs(text string) (compression string, o Squashfs, notes []string, err error) {
	words := strings.Fields(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		value := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			err = fmt.Errorf("cannot use --mksquashfs-args: %s has no value", w)
			return ""
		}
		switch w {
		case "-comp":
			if compression = value(); err == nil && !slices.Contains(Compressions(), compression) {
				err = fmt.Errorf("cannot use --mksquashfs-args: unknown compressor %q: want one of %s", compression, strings.Join(Compressions(), ", "))
			}
		case "-Xcompression-level":
			o.Level, err = number(w, value(), err)
		case "-b":
			o.BlockSize, err = number(w, value(), err)
		case "-processors":
			o.Workers, err = number(w, value(), err)
		case "-all-root", "-root-owned":
			o.AllRoot = true
		case "-noD", "-noDataCompression":
			compression = "none"
		case "-mem", "-throttle", "-limit", "-info-file":
			value()
		case "-noappend", "-no-progress", "-progress", "-quiet", "-no-recovery", "-no-exports", "-exports", "-reproducible",
			"-noI", "-noId", "-noF", "-noX", "-no-tailends", "-tailends", "-always-use-fragments":
		case "-no-duplicates", "-no-fragments", "-no-sparse", "-no-hardlinks", "-no-xattrs":
			notes = append(notes, "--mksquashfs-args: "+w+" is not followed")
		default:
			err = fmt.Errorf("cannot use --mksquashfs-args: %q has no counterpart here", w)
		}
		if err != nil {
			return "", Squashfs{}, nil, err
		}
	}
	return compression, o, notes, nil
}

// number reads the value of an argument, perhaps with a unit.
func number(name, text string, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	digits, factor := text, 1
	switch {
	case strings.HasSuffix(text, "K"), strings.HasSuffix(text, "k"):
		digits, factor = text[:len(text)-1], 1<<10
	case strings.HasSuffix(text, "M"), strings.HasSuffix(text, "m"):
		digits, factor = text[:len(text)-1], 1<<20
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > math.MaxInt32/factor {
		return 0, fmt.Errorf("cannot use --mksquashfs-args: %s %q is not a number in its range", name, text)
	}
	return n * factor, nil
}

// writerOptions turns the choices of a build into those of the squashfs writer.
func (b *builder) writerOptions() (squashfs.WriterOptions, error) {
	s := b.o.Squashfs
	w := squashfs.WriterOptions{
		ModTime: uint32(min(time.Now().Unix(), math.MaxUint32)), Level: s.Level, BlockSize: s.BlockSize, Workers: s.Workers,
	}
	if t, ok := b.o.sourceDate(); ok {
		w.ModTime, w.MaxModTime = uint32(t), &t
	}
	switch b.o.Compression {
	case "", "gzip":
		w.Compression = squashfs.Gzip
	case "zstd":
		w.Compression = squashfs.Zstd
	case "lz4":
		w.Compression = squashfs.LZ4
	case "xz":
		w.Compression = squashfs.XZ
	case "none":
		w.NoCompress = true
	default:
		return w, fmt.Errorf("unknown compression %q: want one of %s", b.o.Compression, strings.Join(Compressions(), ", "))
	}
	if n := s.BlockSize; n != 0 && (n < squashfs.MinBlockSize || n > squashfs.MaxBlockSize || n&(n-1) != 0) {
		return w, fmt.Errorf("cannot use a block size of %d bytes: want a power of two from %d to %d", n, squashfs.MinBlockSize, squashfs.MaxBlockSize)
	}
	return w, nil
}

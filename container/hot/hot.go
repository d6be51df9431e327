// Package hot makes the next start of a program from the same image faster: it
// keeps a record of the blocks that the start touched, and, if asked to, their
// decompressed content.
//
// In: an open squashfs.Reader, the descriptor of its image, the name of the
// program, the directory of the caller's cache. Begin watches the reader and, if
// an earlier start left a file, brings the blocks that come next to the reader's
// cache before the program asks for them. End hands what is new to a writer
// process of its own, which goes on when the container has ended.
//
// There is one file for each image and program: header, identity, a table of
// blocks in the order in which they were first touched, then their content.
//
//	0   magic, 8 bytes      20  bytes of content
//	8   bytes of identity   28  CRC of all before the content, this field as 0
//	12  blocks in the table 32  identity, then the table, 24 bytes a block:
//	16  0                       place, size as stored, length, CRC, 0
//
// Trust: the directory is the caller's alone, mode 0700, and so are the files;
// others are not used. Everything is opened by descriptors, and no link below the
// caller's own directory is followed. The identity is compared byte for byte: the
// image file as it is now (device, inode, size, times of change), the header of its
// SIF and of its file system. Every length is bounded, every block has a checksum.
// What does not fit is taken for absent. Who can write to this directory is the
// caller or a program that the caller ran with the home directory in sight. So an
// image that is checked while it is read (package verity) must be used without
// Blocks: then only an order comes from here, and every byte from the image.
//
// Nothing here is waited for by a start: files are opened and read by a goroutine
// of their own, and a read of the container takes from a file only what the kernel
// has in memory. There are no locks: a file is written under another name and
// renamed, so that any may be removed at any time.
//
// Files: format.go (the bytes), dir.go (the directory), session.go (one start),
// write.go (the writer).
package hot

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

// Config says where and how much to keep. The zero value keeps nothing.
type Config struct {
	// Root is the caller's cache directory; the files are in cache/hot of it.
	Root string
	// Limit bounds all files together, in bytes.
	Limit int64
	// Blocks keeps the content of blocks, not only which they are.
	//
	// Security: it must not be set for an image that is checked while it is
	// read, since nothing would check what comes from here.
	Blocks bool
	// Program names what is started: starts of the same name share a file.
	Program string
}

// ConfigArgs is how many words a Config is on a command line.
const ConfigArgs = 4

// Args returns c as words.
func (c Config) Args() []string {
	return []string{strconv.FormatInt(c.Limit, 10), strconv.FormatBool(c.Blocks), c.Root, c.Program}
}

// ParseConfig reads what Args returned.
func ParseConfig(args []string) (Config, error) {
	if len(args) != ConfigArgs {
		return Config{}, errFile
	}
	limit, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return Config{}, err
	}
	blocks, err := strconv.ParseBool(args[1])
	return Config{Limit: limit, Blocks: blocks, Root: args[2], Program: args[3]}, err
}

// DefaultLimit is the room for all files if the user names none, in bytes.
const DefaultLimit = 512 << 20

// Image is what is watched.
type Image struct {
	File      *os.File
	Format    int // as the caller's opener knows it
	Off, Size int64
	Reader    *squashfs.Reader
}

const (
	sifHeaderSize = 128
	maxProgram    = 255
	identitySize  = 7*8 + sifHeaderSize + squashfs.SuperblockSize // without the program
)

// raceTime is how long ago an image must have changed: within one tick of the
// kernel's clock a second change would not show.
const raceTime = 50 * time.Millisecond

var errFresh = errors.New("the image has changed just now")

// identity tells an image and a program from all others.
//
// Security: the time of the last change of the inode is a part, which unlike the
// time of modification no user can set, so that an image that was written in
// place is another one.
func (im *Image) identity(program string) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(im.File.Fd()), &st); err != nil {
		return nil, err
	}
	if time.Since(time.Unix(st.Ctim.Unix())) < raceTime {
		return nil, errFresh
	}
	var b []byte
	for _, n := range []uint64{st.Dev, st.Ino, uint64(st.Size), uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano()), uint64(im.Off), uint64(im.Size)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, at := range []struct{ off, size int64 }{{0, sifHeaderSize}, {im.Off, squashfs.SuperblockSize}} {
		p := make([]byte, at.size)
		if _, err := im.File.ReadAt(p, at.off); err != nil {
			return nil, err
		}
		b = append(b, p...)
	}
	return append(b, program[:min(len(program), maxProgram)]...), nil
}

// fileName is where the file of an identity is looked for. Two identities with one
// name get in each other's way and no more: the file holds its identity.
func fileName(identity []byte) string {
	const digits = "0123456789abcdef"
	h := fnv.New128a()
	h.Write(identity)
	var out []byte
	for _, c := range h.Sum(nil) {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out) + suffix
}

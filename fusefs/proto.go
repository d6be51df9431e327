package fusefs

import (
	"encoding/binary"
	"syscall"
)

// Requests of the kernel (enum fuse_opcode).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opSetxattr    = 21
	opGetxattr    = 22
	opListxattr   = 23
	opRemovexattr = 24
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opCreate      = 35
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43
	opReaddirplus = 44
	opRename2     = 45
	opTmpfile     = 51
)

// Flags of INIT that we ask for.
const (
	initAsyncRead       = 1 << 0  // several reads of one file at once
	initReaddirplus     = 1 << 13 // attributes along with names
	initReaddirplusAuto = 1 << 14 // where they are likely to be wanted
	initNoOpen          = 1 << 17 // ENOSYS to OPEN means: never ask again
	initParallelDirops  = 1 << 18
	initMaxPages        = 1 << 22
	initCacheSymlinks   = 1 << 23
	initNoOpendir       = 1 << 24
)

const (
	protoMajor    = 7
	protoMinor    = 38 // newest that we know
	protoMinorMin = 23 // oldest with the 64-byte answer to INIT; Linux 3.15

	inHeaderSize  = 40
	outHeaderSize = 16
	attrSize      = 88
	attrMode      = 60 // offset of the mode in it
	entrySize     = 128
	direntSize    = 24
	initOutSize   = 64
	statfsSize    = 80

	// forever is a time-out for what never changes, in seconds.
	forever = 1 << 32

	// maxWrite must not be larger than the buffer that requests are read to;
	// the kernel takes no less than a page.
	maxWrite = 4096
	// requestSize is the room for one request; the kernel insists on 8 KiB.
	requestSize = 16 << 10
	// replySize is the room for an answer other than file data.
	replySize = 128<<10 + outHeaderSize
	// maxReadSize is the most that one READ may ask for, in bytes: max_pages
	// of the answer to INIT.
	maxReadSize = 1 << 20
)

var le = binary.NativeEndian

// request is one message of the kernel, in the buffer it was read to.
type request struct {
	op     uint32
	unique uint64
	node   uint64
	body   []byte
}

// parse reads the header of a message. It reports whether the message is whole.
func parse(b []byte) (request, bool) {
	if len(b) < inHeaderSize || uint64(le.Uint32(b)) != uint64(len(b)) {
		return request{}, false
	}
	return request{le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint64(b[16:]), b[inHeaderSize:]}, true
}

// name returns the file name that the body begins with.
func (r *request) name() (string, bool) {
	for i, c := range r.body {
		if c == 0 {
			return string(r.body[:i]), i > 0
		}
	}
	return "", false
}

// putHeader writes the header of an answer of size bytes behind it.
func putHeader(b []byte, unique uint64, size int, errno syscall.Errno) {
	le.PutUint32(b, uint32(outHeaderSize+size))
	le.PutUint32(b[4:], uint32(-int32(errno)))
	le.PutUint64(b[8:], unique)
}

// putAttr writes struct fuse_attr.
func putAttr(b []byte, a *Attr, blockSize uint32) {
	b = b[:attrSize]
	le.PutUint64(b[0:], a.Ino)
	le.PutUint64(b[8:], uint64(a.Size))
	le.PutUint64(b[16:], uint64(a.Size+511)/512)
	for i := 24; i < 48; i += 8 {
		le.PutUint64(b[i:], uint64(a.ModTime))
	}
	for i := 48; i < 60; i += 4 {
		le.PutUint32(b[i:], a.Nanos)
	}
	le.PutUint32(b[attrMode:], a.Mode)
	le.PutUint32(b[64:], a.Nlink)
	le.PutUint32(b[68:], a.UID)
	le.PutUint32(b[72:], a.GID)
	le.PutUint32(b[76:], a.Rdev)
	le.PutUint32(b[80:], blockSize)
	le.PutUint32(b[84:], 0)
}

// putEntry writes struct fuse_entry_out without its attributes. Node 0 is a
// name that does not exist, which the kernel then keeps as well.
func putEntry(b []byte, node uint64) {
	clear(b[:entrySize])
	le.PutUint64(b, node)
	le.PutUint64(b[16:], forever)
	le.PutUint64(b[24:], forever)
}

// putDirent writes struct fuse_dirent and returns its length with padding.
func putDirent(b []byte, ino, next uint64, name string, mode uint32) int {
	le.PutUint64(b, ino)
	le.PutUint64(b[8:], next)
	le.PutUint32(b[16:], uint32(len(name)))
	le.PutUint32(b[20:], mode>>12&15)
	n := direntSize + copy(b[direntSize:], name)
	end := (n + 7) &^ 7
	clear(b[n:end])
	return end
}

package squashfs

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// ErrCorrupt is wrapped by every error that says that the image contradicts
// the format or one of our limits.
var ErrCorrupt = errors.New("corrupt squashfs image")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// DefaultCacheSize is the room for decompressed data blocks, in bytes, if
// ReaderOptions names none.
const DefaultCacheSize = 24 << 20

// Bounds of the decoded metadata kept in memory, in bytes. A cache may hold
// twice its bound for a while.
const (
	metaCacheSize = 2 << 20
	dirCacheSize  = 2 << 20
	fileCacheSize = 512 << 10
)

// ReaderOptions are the choices of Open. The zero value is good.
type ReaderOptions struct {
	// CacheSize is the room for decompressed data blocks, in bytes; 0 means
	// DefaultCacheSize. At least eight blocks are kept whatever it says.
	CacheSize int64
}

// Reader gives access to one image. It may be used by several goroutines.
type Reader struct {
	src    source
	sb     Superblock
	unpack decompressor
	meta   genCache[int64, *metaBlock]
	dirs   genCache[uint64, []Dirent]
	files  genCache[uint64, *File]
	blocks blockCache
	in     sync.Pool // *[]byte: room for a compressed data or metadata block

	observer atomic.Pointer[observed]

	ids, frags, export table

	xattrOnce  sync.Once
	xattrErr   error
	xattrTable table
	xattrStart int64
}

// Open reads the superblock of the image in the first size bytes of r and
// checks it. Everything else is read when it is needed.
func Open(r io.ReaderAt, size int64, o ReaderOptions) (*Reader, error) {
	var b [SuperblockSize]byte
	n, err := r.ReadAt(b[:min(int64(len(b)), max(size, 0))], 0)
	if n < len(b) {
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("cannot read the squashfs superblock: %w", err)
		}
		return nil, ErrNotSquashfs
	}
	sb, err := ParseSuperblock(b[:], size)
	if err != nil {
		return nil, err
	}
	if err := checkCounts(sb); err != nil {
		return nil, err
	}
	f := &Reader{sb: *sb, src: source{r, int64(sb.BytesUsed)}}
	if f.unpack, err = newDecompressor(sb.Compression, int(sb.BlockSize)); err != nil {
		return nil, err
	}
	f.meta.limit, f.dirs.limit, f.files.limit = metaCacheSize, dirCacheSize, fileCacheSize
	f.ids = table{name: "id", off: int64(sb.IDTable), count: uint64(sb.IDs), width: 4}
	f.frags = table{name: "fragment", off: int64(sb.FragTable), count: uint64(sb.Fragments), width: 16}
	f.export = table{name: "export", off: int64(sb.ExportTable), count: uint64(sb.Inodes), width: 8}
	size = o.CacheSize
	if size <= 0 {
		size = DefaultCacheSize
	}
	f.blocks.init(int(sb.BlockSize), size)
	f.in.New = func() any { b := make([]byte, max(int(sb.BlockSize), MetadataSize+2)); return &b }
	return f, nil
}

// checkCounts refuses a superblock whose numbers cannot be true together.
// Security: tables are read on demand, so these are not needed for bounded
// memory; they turn nonsense away before a mount is made.
func checkCounts(sb *Superblock) error {
	if sb.Inodes == 0 || sb.IDs == 0 {
		return corrupt("superblock claims %d inodes and %d ids", sb.Inodes, sb.IDs)
	}
	if sb.Fragments > 0 && sb.FragTable == noTable {
		return corrupt("superblock claims %d fragments and no fragment table", sb.Fragments)
	}
	if pos, off := sb.Root>>16, sb.Root&0xffff; off >= MetadataSize || pos >= sb.DirTable-sb.InodeTable {
		return corrupt("root inode reference %#x lies outside the inode table", sb.Root)
	}
	return nil
}

// Superblock returns a copy of the superblock.
func (r *Reader) Superblock() Superblock { return r.sb }

// Root returns the inode reference of the root directory.
func (r *Reader) Root() uint64 { return r.sb.Root }

// Close gives the block cache back to the system. Blocks that are still held
// stay valid until they are released; reads after Close fail.
func (r *Reader) Close() error { return r.blocks.close() }

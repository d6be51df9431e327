package squashfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
)

// Limits of what a Writer takes.
const (
	maxPathSize   = 4096    // bytes of Entry.Path
	maxFileBlocks = 1 << 24 // blocks of one file: 2 TiB with the default block size
)

// errWriterClosed is returned by every call after Close or Abort.
var errWriterClosed = errors.New("squashfs writer is closed")

// DigestSize is the size of a digest of WriterOptions, in bytes.
const DigestSize = 32

// WriterOptions are the settings of an image. With nothing but Digest they make
// a gzip image with the default block size.
type WriterOptions struct {
	Compression Compression // Gzip, Zstd, LZ4 or XZ; zero means Gzip
	// Level is the compressor's own: gzip 1 to 9, zstd 1 to 22, lz4 1 to 9 for
	// its high-compression form. Zero is the default: one that is fast and
	// within 2 % of the size that the slowest level reaches for gzip, 3 for zstd
	// (1 to 5 are the same), the fast form for lz4.
	Level int
	// NewEncoder makes the encoders of every compressor but gzip and the fast levels
	// of zstd; nil means that there are none. Package squashfs/compress has them.
	NewEncoder func(c Compression, level, blockSize int) (Encoder, error)
	// Digest is SHA-256, by which duplicate contents are found. It comes from
	// the caller, since a program that only reads images shall not link it.
	Digest     func([]byte) [DigestSize]byte
	NoCompress bool   // store every block; the image then names gzip
	BlockSize  int    // bytes, a power of two from MinBlockSize to MaxBlockSize; zero means DefaultBlockSize
	Workers    int    // goroutines that compress; zero means one per processor. The image does not depend on it
	ModTime    uint32 // seconds since the epoch: time of the image and of directories that no entry names
	MaxModTime *int64 // later times of entries become this one; nil leaves them
}

// Entry is one file, directory or other node of the tree.
type Entry struct {
	Path     string // "a/b", without "." or ".." in it; "" or "." is the root
	Mode     uint32 // type and permissions as in st_mode; the type of a hard link is ignored
	UID, GID uint32
	ModTime  int64   // seconds since the epoch; clamped to the 32 bits of the format
	Size     int64   // bytes of a regular file
	Rdev     uint32  // device number of a device node, in the kernel's 32-bit form
	Target   string  // target of a symbolic link
	Hardlink string  // if set, the path of an earlier entry that this one is another name of
	Xattrs   []Xattr // extended attributes, in any order
}

// SparseReader is content that knows where its holes are. SkipHole moves over
// as many whole units of unit bytes as are certain to be zero at the present
// position, and returns their number; 0 means "read on".
type SparseReader interface {
	io.Reader
	SkipHole(unit int64) (units int64, err error)
}

// Marker is an output that cannot write at any place again, but for the
// superblock: the Writer calls Mark where it may go back to, and Rewind when it
// goes on from the last such place.
type Marker interface {
	io.WriterAt
	Mark()
	Rewind()
}

// Writer makes a squashfs image. Its methods must not be called concurrently.
// After an error about contents or output every later call returns that same
// error; an error about an entry's fields leaves the Writer as it was.
type Writer struct {
	opt   WriterOptions
	enc   encSettings
	data  *writerData
	root  *writerInode
	ids   map[uint32]uint16
	idTab []uint32
	xattr writerXattrs
	nodes int
	done  bool
}

// NewWriter starts an image at offset 0 of w, and goroutines that Close or
// Abort end. The superblock is written last, so that a half-made image is not
// mistaken for a whole one.
//
// A duplicate file is found only when all of it has been compressed, and its
// place is then used again: bytes behind the size that Close returns may have
// been written, and the caller cuts them off.
func NewWriter(w io.WriterAt, o WriterOptions) (*Writer, error) {
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.BlockSize < MinBlockSize || o.BlockSize > MaxBlockSize || o.BlockSize&(o.BlockSize-1) != 0 {
		return nil, fmt.Errorf("cannot use squashfs block size %d: want a power of two from %d to %d", o.BlockSize, MinBlockSize, MaxBlockSize)
	}
	if o.Digest == nil {
		return nil, errors.New("cannot make a squashfs image without a digest")
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	enc, err := newEncSettings(&o)
	if err != nil {
		return nil, err
	}
	sw := &Writer{opt: o, enc: enc, ids: map[uint32]uint16{}, nodes: 1}
	if sw.root, err = sw.newInode(&Entry{Mode: ModeDir | 0o755, ModTime: int64(o.ModTime)}); err != nil {
		return nil, err
	}
	if sw.data, err = startWriterData(w, enc, o.Workers); err != nil {
		return nil, err
	}
	return sw, nil
}

// Add adds e, and for a regular file exactly e.Size bytes of content (which may
// be nil for an empty file; a SparseReader spares the reading of holes). An
// earlier entry of the same path is replaced, a directory's children excepted if
// e is a directory too. Missing parents are made, mode 0755, owned by root.
func (w *Writer) Add(e Entry, content io.Reader) error {
	if w.done {
		return errWriterClosed
	}
	if err := w.data.failure(); err != nil {
		return err
	}
	if e.Hardlink != "" {
		return w.addHardlink(&e)
	}
	n, err := w.newInode(&e)
	if err != nil {
		return err
	}
	if n.mode&ModeType == ModeRegular {
		if e.Size < 0 || (e.Size-1)/int64(w.opt.BlockSize) >= maxFileBlocks {
			return fmt.Errorf("cannot add %q: size %d is not within 0 to %d", e.Path, e.Size, int64(maxFileBlocks)*int64(w.opt.BlockSize))
		}
	}
	if err := w.place(e.Path, n); err != nil {
		return err
	}
	if n.mode&ModeType == ModeRegular {
		return w.data.add(n, e.Path, e.Size, content)
	}
	return nil
}

func (w *Writer) addHardlink(e *Entry) error {
	n, err := w.find(e.Hardlink)
	if err != nil {
		return err
	}
	if n == nil || n.mode&ModeType == ModeDir {
		return fmt.Errorf("cannot link %q to %q: no such file was added before", e.Path, e.Hardlink)
	}
	return w.place(e.Path, n)
}

// newInode makes the inode of e from its checked fields.
func (w *Writer) newInode(e *Entry) (*writerInode, error) {
	n := &writerInode{mode: e.Mode & (ModeType | 0o7777), xattr: noXattr}
	switch e.Mode & ModeType {
	case ModeDir:
		n.children = map[string]*writerInode{}
	case ModeSymlink:
		if len(e.Target) == 0 || len(e.Target) > maxLinkSize || strings.IndexByte(e.Target, 0) >= 0 {
			return nil, fmt.Errorf("cannot add symbolic link %q: its target has %d bytes, want 1 to %d without NUL", e.Path, len(e.Target), maxLinkSize)
		}
		n.target = e.Target
	case ModeBlock, ModeChar:
		n.rdev = e.Rdev
	case ModeRegular, ModeFIFO, ModeSocket:
	default:
		return nil, fmt.Errorf("cannot add %q: mode %#o has no file type", e.Path, e.Mode)
	}
	t := e.ModTime
	if limit := w.opt.MaxModTime; limit != nil {
		t = min(t, *limit)
	}
	n.modTime = uint32(min(max(t, 0), math.MaxUint32))
	var err error
	if n.uid, err = w.id(e.UID); err != nil {
		return nil, err
	}
	if n.gid, err = w.id(e.GID); err != nil {
		return nil, err
	}
	if n.xattr, err = w.xattr.add(e.Xattrs); err != nil {
		return nil, fmt.Errorf("cannot add %q: %w", e.Path, err)
	}
	return n, nil
}

// id returns the place of a user or group id in the id table.
func (w *Writer) id(id uint32) (uint16, error) {
	if i, ok := w.ids[id]; ok {
		return i, nil
	}
	if len(w.idTab) >= math.MaxUint16 {
		return 0, fmt.Errorf("cannot add owner %d: a squashfs image holds at most %d different ids", id, math.MaxUint16)
	}
	i := uint16(len(w.idTab))
	w.ids[id] = i
	w.idTab = append(w.idTab, id)
	return i, nil
}

// splitPath returns the names on the way to path; none for the root.
func splitPath(path string) ([]string, error) {
	if path == "" || path == "." {
		return nil, nil
	}
	if len(path) > maxPathSize {
		return nil, fmt.Errorf("cannot add a path of %d bytes: at most %d", len(path), maxPathSize)
	}
	names := strings.Split(path, "/")
	for _, n := range names {
		// Security: a reader joins these names to paths; none may climb or hide a part.
		if n == "" || n == "." || n == ".." || len(n) > maxNameSize || strings.IndexByte(n, 0) >= 0 {
			return nil, fmt.Errorf("cannot add %q: %q is not a name of 1 to %d bytes", path, n, maxNameSize)
		}
	}
	return names, nil
}

// find returns the inode at path, nil if there is none.
func (w *Writer) find(path string) (*writerInode, error) {
	names, err := splitPath(path)
	n := w.root
	for _, name := range names {
		if n = n.children[name]; n == nil {
			break
		}
	}
	return n, err
}

// place puts n at path.
func (w *Writer) place(path string, n *writerInode) error {
	names, err := splitPath(path)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if n.mode&ModeType != ModeDir {
			return fmt.Errorf("cannot add %q: the root is a directory", path)
		}
		w.root.takeAttributes(n)
		return nil
	}
	dir, last := w.root, len(names)-1
	for i, name := range names[:last] {
		next := dir.children[name]
		if next == nil {
			if next, err = w.newInode(&Entry{Mode: ModeDir | 0o755, ModTime: int64(w.opt.ModTime)}); err != nil {
				return err
			}
			w.link(dir, name, next)
		}
		if next.children == nil {
			return fmt.Errorf("cannot add %q: %q is not a directory", path, strings.Join(names[:i+1], "/"))
		}
		dir = next
	}
	switch old := dir.children[names[last]]; {
	case old == n: // a link to itself
	case old != nil && old.children != nil && n.children != nil:
		old.takeAttributes(n)
	default:
		if old != nil {
			w.unlink(old)
		}
		w.link(dir, names[last], n)
	}
	return nil
}

func (w *Writer) link(dir *writerInode, name string, n *writerInode) {
	// The path of an entry is often one long string; keep the name alone.
	dir.children[strings.Clone(name)] = n
	if n.nlink++; n.nlink == 1 {
		w.nodes++
	}
}

// unlink takes one name from n, and with its last one all that is below it.
func (w *Writer) unlink(n *writerInode) {
	if n.nlink--; n.nlink > 0 {
		return
	}
	w.nodes--
	for _, c := range n.children {
		w.unlink(c)
	}
}

// Abort ends the Writer's goroutines without finishing the image. It does
// nothing after Close.
func (w *Writer) Abort() {
	if !w.done {
		w.done = true
		w.data.fail(errWriterClosed)
		w.data.stop()
	}
}

// Close writes what is still held back, the tables and the superblock, and
// returns the size of the image, a multiple of 4096 bytes. The image is whole
// only if the error is nil. The goroutines are gone in any case.
func (w *Writer) Close() (size int64, err error) {
	if w.done {
		return 0, errWriterClosed
	}
	w.done = true
	w.data.stop()
	if err := w.data.failure(); err != nil {
		return 0, err
	}
	return w.finish()
}

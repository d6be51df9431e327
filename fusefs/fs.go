package fusefs

import "singularity/squashfs"

// FS is a read-only tree. Files are named by numbers below 1<<62 that it chooses
// itself and that always mean the same file. Its methods are called by several
// goroutines at once. An error that is a syscall.Errno reaches the process that
// asked; any other becomes EIO.
type FS interface {
	Root() uint64
	// Attr fills in what stat tells.
	Attr(id uint64, a *Attr) error
	// Lookup finds a name in a directory.
	Lookup(dir uint64, name string) (id uint64, ok bool, err error)
	// ReadDir calls emit for the names in a directory, without "." and "..",
	// from index from on, until emit returns false.
	ReadDir(dir uint64, from int, emit func(Dirent) bool) error
	Readlink(id uint64) (string, error)
	// Read appends up to n bytes of a file at off to d, fewer only at the end
	// of the file. With wait false it does so only if the bytes are at hand,
	// and reports whether it did.
	Read(id uint64, off int64, n int, d *Data, wait bool) (bool, error)
	Xattrs(id uint64) ([]Xattr, error)
	Stat() Stat
}

// Attr is what stat tells about a file.
type Attr struct {
	Ino     uint64
	Size    int64
	ModTime int64 // seconds since the epoch, for all three times
	Nanos   uint32
	Mode    uint32 // type and permissions as in st_mode
	Nlink   uint32
	UID     uint32
	GID     uint32
	Rdev    uint32
}

// Dirent is one name in a directory.
type Dirent struct {
	Name string
	ID   uint64
	Ino  uint64
	Mode uint32 // at least the type bits; 0 if they are not known
}

// Xattr is an extended attribute with its full name.
type Xattr struct {
	Name  string
	Value []byte
	// Hidden keeps it out of lists: it can only be asked for by its name.
	Hidden bool
}

// Stat describes a tree as a whole.
type Stat struct {
	BlockSize uint32 // what a process should read at a time, in bytes
	Size      int64  // bytes of the image
	Files     uint64
	HasXattrs bool // false: no file has any, so the kernel need not ask
}

// Data collects the bytes of one answer: parts of cached blocks, or a copy.
type Data struct {
	parts  [][]byte // the first is the header of the answer
	blocks []squashfs.Block
	buf    []byte
}

// Append adds bytes that stay as they are until the answer is sent.
func (d *Data) Append(p []byte) {
	if len(p) > 0 {
		d.parts = append(d.parts, p)
	}
}

// Buffer returns n bytes of memory that is valid until the answer is sent.
func (d *Data) Buffer(n int) []byte {
	if cap(d.buf) < n {
		d.buf = make([]byte, n)
	}
	return d.buf[:n]
}

// reset releases the blocks and begins a new answer.
func (d *Data) reset() {
	for i := range d.blocks {
		d.blocks[i].Release()
	}
	d.blocks = d.blocks[:0]
	d.parts = append(d.parts[:0], nil)
}

// size returns the number of bytes behind the header.
func (d *Data) size() int {
	n := 0
	for _, p := range d.parts[1:] {
		n += len(p)
	}
	return n
}

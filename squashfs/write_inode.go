package squashfs

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// writerInode is a node of the tree that a Writer collects.
type writerInode struct {
	mode     uint32
	uid, gid uint16 // places in the id table
	modTime  uint32
	xattr    uint32
	nlink    uint32 // names that lead here
	rdev     uint32
	number   uint32 // from 1; 0 as long as none is given
	written  bool
	ref      uint64
	file     *writerFile
	target   string
	children map[string]*writerInode // not nil for a directory
	listing  *writerListing          // of a directory, once it is written; others need no space for it
}

// writerListing is where the entries of a directory lie.
type writerListing struct {
	ref     uint64
	size    int
	subdirs uint32
	index   []byte
	count   int // entries of index
}

// takeAttributes gives n the owner, mode, time and attributes of another
// directory entry.
func (n *writerInode) takeAttributes(o *writerInode) {
	n.mode, n.uid, n.gid, n.modTime, n.xattr = o.mode, o.uid, o.gid, o.modTime, o.xattr
}

func (n *writerInode) kind() uint16 {
	switch n.mode & ModeType {
	case ModeDir:
		return typeDir
	case ModeSymlink:
		return typeSymlink
	case ModeBlock:
		return typeBlock
	case ModeChar:
		return typeChar
	case ModeFIFO:
		return typeFIFO
	case ModeSocket:
		return typeSocket
	}
	return typeFile
}

// writerTree turns the tree into the inode and the directory table.
type writerTree struct {
	inodes, dirs *writerMeta
	refs         []uint64 // by number - 1: the export table
	last         uint32   // highest number given
	buf          []byte
}

// write writes both tables and returns the reference of the root.
func (t *writerTree) write(root *writerInode) (uint64, error) {
	t.last = 1
	root.number = 1
	// The parent of the root is a number that no inode has.
	if err := t.directory(root, uint32(len(t.refs)+1)); err != nil {
		return 0, err
	}
	if err := t.inode(root, uint32(len(t.refs)+1)); err != nil {
		return 0, err
	}
	return root.ref, nil
}

// directory writes all that is below dir and the listing of dir, but not its
// inode. The inodes of one directory lie together and have numbers in a row, so
// that its listing needs few headers and a reader few blocks.
func (t *writerTree) directory(dir *writerInode, parent uint32) error {
	dir.listing = &writerListing{}
	names := slices.Sorted(maps.Keys(dir.children))
	for _, name := range names {
		if c := dir.children[name]; c.number == 0 {
			t.last++
			c.number = t.last
		}
	}
	for _, name := range names {
		if c := dir.children[name]; c.children != nil {
			dir.listing.subdirs++
			if err := t.directory(c, dir.number); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		if c := dir.children[name]; !c.written {
			if err := t.inode(c, dir.number); err != nil {
				return err
			}
		}
	}
	return t.list(dir, names)
}

const (
	dirHeaderSize  = 12
	dirEntrySize   = 8
	maxDirEntries  = 256 // of one header
	maxDirSize     = math.MaxInt32
	dirSizeOffset  = 3 // a listing counts "." and ".." as three bytes
	maxIndexedDirs = math.MaxUint16
)

// list writes the entries of dir. A header covers at most 256 entries whose
// inodes lie in one metadata block with numbers within 15 bits of the first. A
// header also ends with its metadata block, and the index names the first header
// of each block: so the kernel finds a name in a large directory without reading
// all of it.
func (t *writerTree) list(dir *writerInode, names []string) error {
	l := dir.listing
	l.ref = t.dirs.ref()
	indexed := len(t.dirs.out)
	for len(names) > 0 {
		first := dir.children[names[0]]
		count, size := 0, dirHeaderSize
		for _, name := range names[:min(len(names), maxDirEntries)] {
			c := dir.children[name]
			diff := int64(c.number) - int64(first.number)
			if c.ref>>16 != first.ref>>16 || diff != int64(int16(diff)) {
				break
			}
			if count > 0 && len(t.dirs.buf)+size+dirEntrySize+len(name) > MetadataSize {
				break
			}
			count++
			size += dirEntrySize + len(name)
		}
		if at := len(t.dirs.out); at != indexed && l.count < maxIndexedDirs {
			indexed = at
			l.count++
			l.index = le.AppendUint32(l.index, uint32(l.size))
			l.index = le.AppendUint32(l.index, uint32(at))
			l.index = le.AppendUint32(l.index, uint32(len(names[0])-1))
			l.index = append(l.index, names[0]...)
		}
		if err := t.listPart(dir, names[:count]); err != nil {
			return err
		}
		names = names[count:]
		if l.size += size; l.size > maxDirSize {
			return fmt.Errorf("cannot write a directory of more than %d bytes of names", maxDirSize)
		}
	}
	return nil
}

// listPart writes one header and its entries.
func (t *writerTree) listPart(dir *writerInode, names []string) error {
	first := dir.children[names[0]]
	b := le.AppendUint32(t.buf[:0], uint32(len(names)-1))
	b = le.AppendUint32(b, uint32(first.ref>>16))
	b = le.AppendUint32(b, first.number)
	for _, name := range names {
		c := dir.children[name]
		b = le.AppendUint16(b, uint16(c.ref))
		b = le.AppendUint16(b, uint16(c.number-first.number))
		b = le.AppendUint16(b, c.kind())
		b = le.AppendUint16(b, uint16(len(name)-1))
		b = append(b, name...)
	}
	t.buf = b
	return t.dirs.add(b)
}

// inode writes one inode, in its basic form where that can hold it.
func (t *writerTree) inode(n *writerInode, parent uint32) error {
	n.ref = t.inodes.ref()
	n.written = true
	if n.ref>>16 > math.MaxUint32 || len(t.dirs.out) > math.MaxUint32 {
		return fmt.Errorf("cannot write more than 4 GiB of inodes or directories")
	}
	t.refs[n.number-1] = n.ref
	kind, body := n.body(t.buf[:0], parent)
	head := make([]byte, 0, 16)
	head = le.AppendUint16(head, kind)
	head = le.AppendUint16(head, uint16(n.mode&0o7777))
	head = le.AppendUint16(head, n.uid)
	head = le.AppendUint16(head, n.gid)
	head = le.AppendUint32(head, n.modTime)
	head = le.AppendUint32(head, n.number)
	if err := t.inodes.add(head); err != nil {
		return err
	}
	t.buf = body
	return t.inodes.add(body)
}

// body appends what follows the common head to b, and returns the type.
func (n *writerInode) body(b []byte, parent uint32) (uint16, []byte) {
	kind := n.kind()
	switch kind {
	case typeDir:
		return n.dirBody(b, parent)
	case typeFile:
		return n.fileBody(b)
	}
	b = le.AppendUint32(b, n.nlink)
	switch kind {
	case typeSymlink:
		b = le.AppendUint32(b, uint32(len(n.target)))
		b = append(b, n.target...)
	case typeBlock, typeChar:
		b = le.AppendUint32(b, n.rdev)
	}
	if n.xattr == noXattr {
		return kind, b
	}
	return kind + typeExtended, le.AppendUint32(b, n.xattr)
}

func (n *writerInode) dirBody(b []byte, parent uint32) (uint16, []byte) {
	l := n.listing
	size := l.size + dirSizeOffset
	if size <= math.MaxUint16 && l.count == 0 && n.xattr == noXattr {
		b = le.AppendUint32(b, uint32(l.ref>>16))
		b = le.AppendUint32(b, l.subdirs+2)
		b = le.AppendUint16(b, uint16(size))
		b = le.AppendUint16(b, uint16(l.ref))
		return typeDir, le.AppendUint32(b, parent)
	}
	b = le.AppendUint32(b, l.subdirs+2)
	b = le.AppendUint32(b, uint32(size))
	b = le.AppendUint32(b, uint32(l.ref>>16))
	b = le.AppendUint32(b, parent)
	b = le.AppendUint16(b, uint16(l.count))
	b = le.AppendUint16(b, uint16(l.ref))
	b = le.AppendUint32(b, n.xattr)
	return typeDir + typeExtended, append(b, l.index...)
}

func (n *writerInode) fileBody(b []byte) (uint16, []byte) {
	f := n.file
	kind := uint16(typeFile)
	if f.start > math.MaxUint32 || f.size > math.MaxUint32 || f.sparse > 0 || n.nlink > 1 || n.xattr != noXattr {
		kind += typeExtended
		b = le.AppendUint64(b, f.start)
		b = le.AppendUint64(b, uint64(f.size))
		b = le.AppendUint64(b, f.sparse)
		b = le.AppendUint32(b, n.nlink)
		b = le.AppendUint32(b, f.frag)
		b = le.AppendUint32(b, f.fragOff)
		b = le.AppendUint32(b, n.xattr)
	} else {
		b = le.AppendUint32(b, uint32(f.start))
		b = le.AppendUint32(b, f.frag)
		b = le.AppendUint32(b, f.fragOff)
		b = le.AppendUint32(b, uint32(f.size))
	}
	for _, s := range f.blocks {
		b = le.AppendUint32(b, s)
	}
	return kind, b
}

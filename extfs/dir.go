package extfs

import (
	"fmt"
	"strings"
)

const (
	maxDirSize  = 64 << 20 // bytes of a directory: about 1.5 million names
	maxDirents  = 1 << 20  // names that ReadDir returns
	maxNameSize = 255
	direntSize  = 8 // bytes of an entry before its name
)

// Dirent is a name in a directory.
type Dirent struct {
	Name  string
	Inode uint32
	Type  uint32 // ModeDir, ModeRegular, ...; 0 if the directory does not say
}

// direntTypes are the file types of directory entries.
var direntTypes = [...]uint32{1: ModeRegular, 2: ModeDir, 3: ModeChar, 4: ModeBlock, 5: ModeFIFO, 6: ModeSocket, 7: ModeSymlink}

// ReadDir returns the entries of a directory in stored order, without "." and
// "..". A directory of more than 64 MiB or 2^20 names is ErrLimit.
func (f *FS) ReadDir(dir *Inode) ([]Dirent, error) {
	var list []Dirent
	err := f.ReadDirFrom(dir, 0, func(e Dirent) bool {
		list = append(list, e)
		return true
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// ReadDirFrom calls emit for the entries of a directory from number from on, in
// the order and with the limits of ReadDir, until emit returns false. It
// remembers where that was, so that reading a directory in pieces, each from
// the entry that was refused, parses every entry once.
func (f *FS) ReadDirFrom(dir *Inode, from int, emit func(Dirent) bool) error {
	if from < 0 || from > maxDirents {
		return nil
	}
	at, n := f.pages.load(dir.Number, from), from
	if at == 0 {
		n = 0 // nobody stopped there: count
	}
	inline := dir.flags&flagInlineData != 0 // at most a few dozen names, parsed again each time
	var tooMany, stopped bool
	err := f.entriesFrom(dir, at, func(e rawDirent) bool {
		if n >= from {
			if tooMany = n == maxDirents; tooMany {
				return false
			}
			if !emit(Dirent{Name: string(e.name), Inode: e.inode, Type: e.mode}) {
				if stopped = true; !inline {
					f.pages.store(dir.Number, n, e.at)
				}
				return false
			}
		}
		n++
		return true
	})
	switch {
	case err != nil:
		return err
	case tooMany:
		return fmt.Errorf("%w: directory inode %d holds more than %d names", ErrLimit, dir.Number, maxDirents)
	case !stopped && !inline:
		f.pages.store(dir.Number, n, dir.Size) // a reader asks again to learn that this was the end
	}
	return nil
}

// Lookup finds name in a directory and returns its inode number. "." and ".."
// are not found: Walk resolves them without asking the image.
func (f *FS) Lookup(dir *Inode, name string) (uint32, bool, error) {
	if len(name) > maxNameSize {
		return 0, false, nil
	}
	if dir.Size > f.sb.BlockSize && dir.Size <= maxCachedDirSize && dir.IsDir() {
		index, err := f.index(dir)
		n, ok := index[name]
		return n, ok, err
	}
	var found uint32
	err := f.entries(dir, func(e rawDirent) bool {
		if string(e.name) == name {
			found = e.inode
		}
		return found == 0
	})
	if err != nil {
		return 0, false, err
	}
	return found, found != 0, nil
}

// index returns all names of a directory.
func (f *FS) index(dir *Inode) (map[string]uint32, error) {
	if index := f.names.load(dir.Number); index != nil {
		return index, nil
	}
	index := map[string]uint32{}
	err := f.entries(dir, func(e rawDirent) bool {
		if _, ok := index[string(e.name)]; !ok { // the first of two equal names counts, as without an index
			index[string(e.name)] = e.inode
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	f.names.store(dir.Number, index)
	return index, nil
}

// rawDirent is an entry whose name lies in a cached block.
type rawDirent struct {
	name  []byte
	inode uint32
	mode  uint32
	at    int64 // where the entry lies, in bytes of its directory or part of an inode
}

// entries calls yield for each entry but "." and ".." until it returns false.
func (f *FS) entries(dir *Inode, yield func(rawDirent) bool) error {
	return f.entriesFrom(dir, 0, yield)
}

// entriesFrom is entries from the entry at byte at on. Index blocks of a large
// directory look like empty entries, so reading block after block finds every
// name.
func (f *FS) entriesFrom(dir *Inode, at int64, yield func(rawDirent) bool) error {
	if !dir.IsDir() {
		return fmt.Errorf("inode %d: %w", dir.Number, ErrNotDir)
	}
	if dir.Size > maxDirSize {
		return fmt.Errorf("%w: directory inode %d holds %d bytes, at most %d are read", ErrLimit, dir.Number, dir.Size, int64(maxDirSize))
	}
	if dir.flags&flagInlineData != 0 {
		return f.inlineEntries(dir, yield)
	}
	bs := f.sb.BlockSize
	if dir.Size%bs != 0 || uint64(dir.Size/bs) > f.sb.Blocks {
		return corrupt("directory inode %d holds %d bytes", dir.Number, dir.Size)
	}
	for l := uint64(at / bs); l < uint64(dir.Size/bs); l++ {
		r, err := f.mapBlock(dir, l, 1)
		if err != nil {
			return err
		}
		if r.phys == 0 {
			return corrupt("directory inode %d has a hole at block %d", dir.Number, l)
		}
		b, err := f.block(r.phys)
		if err != nil {
			return err
		}
		skip := max(at-int64(l)*bs, 0)
		if more, err := f.parseEntries(dir, b[skip:], int64(l)*bs+skip, yield); !more || err != nil {
			return err
		}
	}
	return nil
}

// inlineEntries reads a directory that lies in its inode. Its first four bytes
// are the parent's inode number, the entries fill the rest of the 60 bytes, and
// more of them may lie in the attribute.
func (f *FS) inlineEntries(dir *Inode, yield func(rawDirent) bool) error {
	content, err := dir.inlineData()
	if err != nil {
		return err
	}
	if dir.Size > int64(len(content)) || dir.Size < 4 {
		return corrupt("directory inode %d: %d bytes of content, %d of them stored", dir.Number, dir.Size, len(content))
	}
	content = content[:dir.Size]
	first := content[4:min(inodeDataSize, len(content))]
	more, err := f.parseEntries(dir, first, 0, yield)
	if err == nil && more && len(content) > inodeDataSize {
		_, err = f.parseEntries(dir, content[inodeDataSize:], 0, yield)
	}
	return err
}

// parseEntries calls yield for the entries in b, which lies at byte at of the
// directory, and tells if it wants more.
func (f *FS) parseEntries(dir *Inode, b []byte, at int64, yield func(rawDirent) bool) (bool, error) {
	for end := at + int64(len(b)); len(b) > 0; {
		if len(b) < direntSize {
			return false, corrupt("directory inode %d: %d bytes left for an entry", dir.Number, len(b))
		}
		size := f.recordSize(b)
		nameSize := int(b[6])
		if size < direntSize+nameSize || size%4 != 0 || size > len(b) {
			return false, corrupt("directory inode %d: an entry of %d bytes with a name of %d in %d", dir.Number, size, nameSize, len(b))
		}
		e := rawDirent{inode: le.Uint32(b), name: b[direntSize:][:nameSize], at: end - int64(len(b))}
		if f.sb.incompat&incompatFiletype != 0 {
			if t := int(b[7]); t < len(direntTypes) {
				e.mode = direntTypes[t]
			}
		}
		b = b[size:]
		if e.inode == 0 || string(e.name) == "." || string(e.name) == ".." {
			continue
		}
		// Security: a name with a slash would lead a caller that joins paths
		// out of its directory.
		if len(e.name) == 0 || strings.ContainsAny(string(e.name), "/\x00") {
			return false, corrupt("directory inode %d: the name %q", dir.Number, e.name)
		}
		if !yield(e) {
			return false, nil
		}
	}
	return true, nil
}

// recordSize returns the length of the entry at b. Its 16 bits hold lengths up
// to 64 KiB: the two lowest are free, as lengths are multiples of four.
func (f *FS) recordSize(b []byte) int {
	n := int(le.Uint16(b[4:]))
	if f.sb.BlockSize < 65536 {
		return n
	}
	if n == 0 || n == 65535 {
		return 65536
	}
	return n&0xfffc | n&3<<16
}

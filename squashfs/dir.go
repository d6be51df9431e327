package squashfs

import (
	"sort"
	"strings"
	"syscall"
)

// Dirent is one name in a directory.
type Dirent struct {
	Name   string
	Ref    uint64 // inode reference
	Number uint32 // inode number
	Mode   uint32 // file type only (ModeType); the inode has the rest
}

const (
	// maxListing bounds the listing of one directory, in bytes: about two
	// million names.
	maxListing = 64 << 20
	// dirSizeExtra is what a directory's size counts besides its listing, for
	// the "." and ".." that are not stored.
	dirSizeExtra   = 3
	maxHeaderRun   = 256 // entries behind one header
	listHeaderSize = 12
	direntSize     = 8
)

// ReadDir returns the names in the directory with inode reference dir, sorted
// by their bytes. The slice belongs to the reader's cache: do not change it.
func (r *Reader) ReadDir(dir uint64) ([]Dirent, error) {
	if d, ok := r.dirs.get(dir); ok {
		return d, nil
	}
	var in Inode
	if err := r.Stat(dir, &in); err != nil {
		return nil, err
	}
	if !in.IsDir() {
		return nil, syscall.ENOTDIR
	}
	list, err := r.listing(&in)
	if err != nil {
		return nil, err
	}
	d, err := parseListing(list, dir)
	if err != nil {
		return nil, err
	}
	r.dirs.put(dir, d, int64(len(list))+int64(cap(d))*40+64)
	return d, nil
}

// listing reads the stored bytes of a directory.
func (r *Reader) listing(in *Inode) ([]byte, error) {
	n := in.Size - dirSizeExtra
	if n <= 0 {
		return nil, nil
	}
	if n > maxListing {
		return nil, corrupt("directory at %#x claims a listing of %d bytes", in.Ref, n)
	}
	pos := r.sb.DirTable + in.start
	if pos >= r.sb.BytesUsed || in.offset >= MetadataSize {
		return nil, corrupt("directory at %#x has its listing at %d outside the image", in.Ref, pos)
	}
	c, err := r.at(int64(pos), int(in.offset))
	if err != nil {
		return nil, err
	}
	// Security: grown as the bytes appear, because the size is only a claim.
	list := make([]byte, 0, min(n, 4*MetadataSize))
	for {
		part := c.block.data[c.off:]
		part = part[:min(int64(len(part)), n-int64(len(list)))]
		list = append(list, part...)
		if int64(len(list)) == n {
			return list, nil
		}
		if err := c.advance(); err != nil {
			return nil, err
		}
	}
}

// parseListing decodes the listing b of the directory at ref.
func parseListing(b []byte, ref uint64) ([]Dirent, error) {
	all := string(b) // one allocation; the names are parts of it
	d := make([]Dirent, 0, len(b)/24)
	prev := ""
	for pos := 0; pos < len(b); {
		if len(b)-pos < listHeaderSize {
			return nil, corrupt("directory at %#x ends inside a header", ref)
		}
		count := uint64(le.Uint32(b[pos:])) + 1
		start, number := uint64(le.Uint32(b[pos+4:])), le.Uint32(b[pos+8:])
		if count > maxHeaderRun {
			return nil, corrupt("directory at %#x has a header for %d names", ref, count)
		}
		pos += listHeaderSize
		for range count {
			if len(b)-pos < direntSize {
				return nil, corrupt("directory at %#x ends inside an entry", ref)
			}
			e := b[pos:]
			off, kind, size := le.Uint16(e), int(le.Uint16(e[4:])), int(le.Uint16(e[6:]))+1
			pos += direntSize
			if size > len(b)-pos {
				return nil, corrupt("directory at %#x ends inside a name", ref)
			}
			name := all[pos : pos+size]
			pos += size
			if kind == 0 || kind > typeSocket || off >= MetadataSize {
				return nil, corrupt("directory at %#x: %q has type %d and offset %d", ref, name[:min(size, maxNameSize)], kind, off)
			}
			if err := checkName(name, prev, ref); err != nil {
				return nil, err
			}
			prev = name
			d = append(d, Dirent{
				Name: name, Ref: start<<16 | uint64(off), Mode: typeModes[kind],
				Number: number + uint32(int32(int16(le.Uint16(e[2:])))),
			})
		}
	}
	return d, nil
}

// checkName refuses a name that no directory may hold, or that does not come
// after prev.
// Security: such names make an extractor write outside its target, or through
// a link of the same name that it has just made.
func checkName(name, prev string, ref uint64) error {
	switch {
	case len(name) > maxNameSize:
		return corrupt("directory at %#x has a name of %d bytes", ref, len(name))
	case name == "." || name == ".." || strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return corrupt("directory at %#x has the forbidden name %q", ref, name)
	case name == prev:
		return corrupt("directory at %#x has %q twice", ref, name)
	case name < prev:
		return corrupt("directory at %#x has %q behind %q", ref, name, prev)
	}
	return nil
}

// Lookup finds name in the directory with inode reference dir.
func (r *Reader) Lookup(dir uint64, name string) (ref uint64, ok bool, err error) {
	d, err := r.ReadDir(dir)
	if err != nil {
		return 0, false, err
	}
	if i := find(d, name); i < len(d) && d[i].Name == name {
		return d[i].Ref, true, nil
	}
	return 0, false, nil
}

// find returns the index of the first name that is not below name.
func find(d []Dirent, name string) int {
	return sort.Search(len(d), func(i int) bool { return d[i].Name >= name })
}

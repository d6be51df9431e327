package extfs

import (
	"fmt"
)

const (
	xattrMagic      = 0xea020000
	xattrHeaderSize = 32 // of an attribute block
	xattrEntrySize  = 16 // before the name
	maxXattrSize    = 64 << 10
	maxXattrTotal   = 1 << 20 // bytes of all values of an inode
	xattrSystem     = 7
)

// xattrPrefixes are the beginnings of names that are stored as a number.
var xattrPrefixes = [...]string{
	1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 6: "security.",
}

// Xattr is an extended attribute. The value of a POSIX ACL has the form that
// getxattr(2) returns.
type Xattr struct {
	Name  string
	Value []byte
}

// rawXattr is an entry as stored.
type rawXattr struct {
	index byte
	name  []byte
	value []byte
	inode uint32 // holds the value instead, if not 0
	size  uint32
}

// Xattrs returns the extended attributes of an inode: user.*, security.* and
// POSIX ACLs. Those of trusted.* and system.* are left out, as they mean
// something only to the system that wrote them.
func (f *FS) Xattrs(in *Inode) ([]Xattr, error) {
	raw, err := parseXattrs(in.xattrs, in.xattrs)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", in.Number, err)
	}
	if in.acl != 0 {
		b, err := f.block(in.acl)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", in.Number, err)
		}
		if le.Uint32(b) != xattrMagic {
			return nil, corrupt("inode %d: an attribute block with magic %#x", in.Number, le.Uint32(b))
		}
		more, err := parseXattrs(b[xattrHeaderSize:], b)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", in.Number, err)
		}
		raw = append(raw, more...)
	}
	return f.finishXattrs(in, raw)
}

// finishXattrs gives the entries their full names and values.
func (f *FS) finishXattrs(in *Inode, raw []rawXattr) ([]Xattr, error) {
	var list []Xattr
	total := 0
	for _, r := range raw {
		if int(r.index) >= len(xattrPrefixes) || xattrPrefixes[r.index] == "" {
			continue
		}
		value, err := f.xattrValue(&r)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", in.Number, err)
		}
		if total += len(value); total > maxXattrTotal {
			return nil, fmt.Errorf("%w: inode %d has more than %d bytes of attributes", ErrLimit, in.Number, maxXattrTotal)
		}
		name := xattrPrefixes[r.index] + string(r.name)
		if cString([]byte(name)) != name {
			return nil, corrupt("inode %d: an attribute named %q", in.Number, name)
		}
		if r.index == 2 || r.index == 3 {
			if value, err = convertACL(value); err != nil {
				return nil, fmt.Errorf("inode %d: %w", in.Number, err)
			}
		}
		list = append(list, Xattr{Name: name, Value: value})
	}
	return list, nil
}

// xattrValue returns a copy of a value, which a large one has in an inode of
// its own.
func (f *FS) xattrValue(r *rawXattr) ([]byte, error) {
	if r.size > maxXattrSize {
		return nil, corrupt("an attribute of %d bytes", r.size)
	}
	if r.inode == 0 {
		return append([]byte{}, r.value...), nil
	}
	in, err := f.readInode(r.inode)
	if err != nil {
		return nil, err
	}
	// Security: the flag keeps an attribute from showing what a file that its
	// reader may not open contains.
	if in.flags&flagEAInode == 0 || !in.IsRegular() || in.Size != int64(r.size) {
		return nil, corrupt("inode %d does not hold an attribute of %d bytes", r.inode, r.size)
	}
	value := make([]byte, r.size)
	if r.size > 0 {
		if _, err := f.readContent(in, value, 0); err != nil {
			return nil, err
		}
	}
	return value, nil
}

// parseXattrs reads the entries in b up to the first that is empty. Values lie
// in the same area or block, at offsets from the start of base.
func parseXattrs(b, base []byte) ([]rawXattr, error) {
	var list []rawXattr
	total := 0
	for len(b) >= 4 && le.Uint32(b) != 0 {
		if len(b) < xattrEntrySize || len(b) < xattrEntrySize+int(b[0]) {
			return nil, corrupt("an attribute's entry is cut off")
		}
		nameSize := int(b[0])
		r := rawXattr{index: b[1], inode: le.Uint32(b[4:]), size: le.Uint32(b[8:]), name: b[xattrEntrySize:][:nameSize]}
		if r.inode == 0 {
			off, size := uint64(le.Uint16(b[2:])), uint64(r.size)
			if off > uint64(len(base)) || size > uint64(len(base))-off {
				return nil, corrupt("an attribute's value of %d bytes at %d of %d", size, off, len(base))
			}
			r.value = base[off:][:size]
		}
		// Security: many entries may name the same value; their sum is what
		// a caller would have to hold.
		if total += len(r.value); total > maxXattrTotal {
			return nil, fmt.Errorf("%w: more than %d bytes of attributes", ErrLimit, maxXattrTotal)
		}
		list = append(list, r)
		next := (xattrEntrySize + nameSize + 3) &^ 3
		b = b[min(next, len(b)):]
	}
	return list, nil
}

// inlineData returns the content that lies in the inode: 60 bytes and the
// attribute system.data.
func (in *Inode) inlineData() ([]byte, error) {
	raw, err := parseXattrs(in.xattrs, in.xattrs)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", in.Number, err)
	}
	content := in.data[:]
	for _, r := range raw {
		if r.index == xattrSystem && string(r.name) == "data" && r.inode == 0 {
			return append(content[:len(content):len(content)], r.value...), nil
		}
	}
	return content, nil
}

// convertACL turns the stored form of a POSIX ACL (version 1, ids only where
// they mean something) into that of getxattr(2) (version 2, ids everywhere).
func convertACL(b []byte) ([]byte, error) {
	const user, group = 0x02, 0x08 // the tags of entries with an id
	if len(b) < 4 || le.Uint32(b) != 1 {
		return nil, corrupt("an access control list of %d bytes", len(b))
	}
	out := le.AppendUint32(nil, 2)
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, corrupt("an access control list is cut off")
		}
		tag, id := le.Uint16(b), ^uint32(0)
		out = append(out, b[:4]...)
		b = b[4:]
		if tag == user || tag == group {
			if len(b) < 4 {
				return nil, corrupt("an access control list is cut off")
			}
			id = le.Uint32(b)
			b = b[4:]
		}
		out = le.AppendUint32(out, id)
	}
	return out, nil
}

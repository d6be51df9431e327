package squashfs

const (
	xattrOutOfLine = 0x100 // bit of the type: the value lies elsewhere
	maxXattrs      = 4096  // per inode
	maxXattrValue  = 64 << 10
	maxXattrBytes  = 1 << 20 // names and values of one inode
)

// HasXattrs reports whether the image has extended attributes at all.
func (r *Reader) HasXattrs() bool { return r.sb.XattrTable != noTable }

// Xattrs returns the extended attributes of an inode in stored order.
func (r *Reader) Xattrs(in *Inode) ([]Xattr, error) {
	if in.xattr == noXattr || !r.HasXattrs() {
		return nil, nil
	}
	r.xattrOnce.Do(r.openXattrs)
	if r.xattrErr != nil {
		return nil, r.xattrErr
	}
	var id [16]byte
	if err := r.entry(&r.xattrTable, uint64(in.xattr), id[:]); err != nil {
		return nil, err
	}
	count := le.Uint32(id[8:])
	if count > maxXattrs {
		return nil, corrupt("inode at %#x claims %d extended attributes", in.Ref, count)
	}
	c, err := r.xattrAt(le.Uint64(id[:]))
	if err != nil {
		return nil, err
	}
	var list []Xattr
	total := 0
	for range count {
		x, err := r.readXattr(&c)
		if err != nil {
			return nil, err
		}
		if total += len(x.Name) + len(x.Value); total > maxXattrBytes {
			return nil, corrupt("inode at %#x has over %d bytes of extended attributes", in.Ref, maxXattrBytes)
		}
		list = append(list, x)
	}
	return list, nil
}

// openXattrs reads the header of the xattr table.
func (r *Reader) openXattrs() {
	var b [16]byte
	off := int64(r.sb.XattrTable)
	if r.xattrErr = r.src.read(b[:], off); r.xattrErr != nil {
		return
	}
	start := le.Uint64(b[:])
	if start < SuperblockSize || start > r.sb.XattrTable {
		r.xattrErr = corrupt("extended attributes begin at %d, behind their table at %d", start, off)
		return
	}
	r.xattrStart = int64(start)
	r.xattrTable = table{name: "xattr", off: off + 16, count: uint64(le.Uint32(b[8:])), width: 16}
}

// xattrAt returns a cursor at a reference into the attributes.
func (r *Reader) xattrAt(ref uint64) (cursor, error) {
	pos, off := ref>>16, int(ref&0xffff)
	if pos >= uint64(r.src.size-r.xattrStart) || off >= MetadataSize {
		return cursor{}, corrupt("extended attribute reference %#x lies outside the image", ref)
	}
	return r.at(r.xattrStart+int64(pos), off)
}

// readXattr decodes the attribute at c.
func (r *Reader) readXattr(c *cursor) (Xattr, error) {
	var b [8]byte
	if err := c.read(b[:4]); err != nil {
		return Xattr{}, err
	}
	kind, size := le.Uint16(b[:]), int(le.Uint16(b[2:]))
	prefix := int(kind &^ xattrOutOfLine)
	if prefix >= len(xattrPrefixes) || size == 0 || size > 255 {
		return Xattr{}, corrupt("extended attribute of type %#x with a name of %d bytes", kind, size)
	}
	name := make([]byte, size)
	if err := c.read(name); err != nil {
		return Xattr{}, err
	}
	for _, x := range name {
		if x == 0 {
			return Xattr{}, corrupt("extended attribute name %q has a zero byte", name)
		}
	}
	if err := c.read(b[:4]); err != nil {
		return Xattr{}, err
	}
	n := le.Uint32(b[:])
	from := c
	if kind&xattrOutOfLine != 0 {
		if n != 8 {
			return Xattr{}, corrupt("out-of-line extended attribute %q has a reference of %d bytes", name, n)
		}
		if err := c.read(b[:]); err != nil {
			return Xattr{}, err
		}
		there, err := r.xattrAt(le.Uint64(b[:]))
		if err != nil {
			return Xattr{}, err
		}
		from = &there
		if err := from.read(b[:4]); err != nil {
			return Xattr{}, err
		}
		n = le.Uint32(b[:])
	}
	if n > maxXattrValue {
		return Xattr{}, corrupt("extended attribute %q has a value of %d bytes", name, n)
	}
	value := make([]byte, n)
	if err := from.read(value); err != nil {
		return Xattr{}, err
	}
	return Xattr{xattrPrefixes[prefix] + string(name), value}, nil
}

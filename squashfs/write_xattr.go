package squashfs

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// maxXattrSize is how many bytes of names and values one inode may have: what
// the kernel hands out in one list.
const maxXattrSize = 64 << 10

// xattrPrefixes are the name spaces, at their number in the format.
var xattrPrefixes = []string{"user.", "trusted.", "security."}

// writerXattrs collects sets of attributes; equal sets are kept once.
type writerXattrs struct {
	sets  []writerXattrSet
	known map[string]uint32
}

type writerXattrSet struct {
	pairs string // the key and value records of the set
	count uint32
	size  uint32
}

// add returns the number of the set, noXattr for an empty one.
func (x *writerXattrs) add(list []Xattr) (uint32, error) {
	if len(list) == 0 {
		return noXattr, nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	set := writerXattrSet{count: uint32(len(list))}
	var b []byte
	total := 0
	for i, a := range list {
		if i > 0 && a.Name == list[i-1].Name {
			return 0, fmt.Errorf("extended attribute %q is given twice", a.Name)
		}
		if total += len(a.Name) + 1 + len(a.Value); total > maxXattrSize {
			return 0, fmt.Errorf("its extended attributes have more than %d bytes", maxXattrSize)
		}
		kind, ok := xattrKind(a.Name)
		if !ok || strings.IndexByte(a.Name, 0) >= 0 || len(a.Name) > 255 {
			return 0, fmt.Errorf("extended attribute %q is not in user., trusted. or security., with a name of at most 255 bytes", a.Name)
		}
		short := a.Name[len(xattrPrefixes[kind]):]
		b = le.AppendUint16(b, kind)
		b = le.AppendUint16(b, uint16(len(short)))
		b = append(b, short...)
		b = le.AppendUint32(b, uint32(len(a.Value)))
		b = append(b, a.Value...)
		set.size += uint32(len(a.Name) + 1 + len(a.Value))
	}
	if i, ok := x.known[string(b)]; ok {
		return i, nil
	}
	if len(x.sets) >= math.MaxUint32-1 {
		return 0, fmt.Errorf("image has too many sets of extended attributes")
	}
	if x.known == nil {
		x.known = map[string]uint32{}
	}
	set.pairs = string(b)
	i := uint32(len(x.sets))
	x.known[set.pairs] = i
	x.sets = append(x.sets, set)
	return i, nil
}

func xattrKind(name string) (uint16, bool) {
	for i, p := range xattrPrefixes {
		if strings.HasPrefix(name, p) && len(name) > len(p) {
			return uint16(i), true
		}
	}
	return 0, false
}

// write writes the attribute tables and returns the offset of their header.
func (x *writerXattrs) write(t *writerTables) (uint64, error) {
	if len(x.sets) == 0 {
		return noTable, nil
	}
	pairs := t.newMeta()
	var ids []byte
	for _, s := range x.sets {
		ids = le.AppendUint64(ids, pairs.ref())
		ids = le.AppendUint32(ids, s.count)
		ids = le.AppendUint32(ids, s.size)
		if err := pairs.add([]byte(s.pairs)); err != nil {
			return 0, err
		}
	}
	start, err := t.put(pairs)
	if err != nil {
		return 0, err
	}
	header := le.AppendUint64(nil, start)
	header = le.AppendUint32(header, uint32(len(x.sets)))
	header = le.AppendUint32(header, 0)
	return t.table(ids, header)
}

package sif

import (
	"encoding/binary"
	"fmt"
)

// HeaderDigestBytes returns the 61 bytes of the header that signatures cover:
// launch line, magic, version and image id. The architecture, the times and the
// places are not among them.
func (f *File) HeaderDigestBytes() []byte {
	b := make([]byte, 0, 61)
	b = append(b, f.head[:45]...)
	return append(b, f.head[48:64]...)
}

// DescriptorDigestBytes returns the 557 bytes of the descriptor of o that
// signatures cover: everything but the place, the group, the time of the last
// change and, in place of the id, relativeID: the id less the smallest id of the
// signed group, so that a group keeps its signature when it moves.
func (f *File) DescriptorDigestBytes(o Object, relativeID uint32) ([]byte, error) {
	i, ok := f.byID[o.ID]
	if !ok {
		return nil, fmt.Errorf("cannot digest descriptor: no object %d", o.ID)
	}
	s := f.table[f.slots[i]*slotSize:][:slotSize]
	b := make([]byte, 0, 557)
	b = append(b, s[0:5]...) // type, used
	b = binary.LittleEndian.AppendUint32(b, relativeID)
	b = append(b, s[13:17]...)       // link
	b = append(b, s[25:33]...)       // size
	b = append(b, s[41:49]...)       // created
	return append(b, s[57:]...), nil // uid, gid, name, extra
}

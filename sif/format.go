package sif

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Sizes and places of the format.
const (
	headerSize    = 128
	slotSize      = 585
	nameSize      = 128
	tableOff      = 4096 // of the images written here; readers use the header's
	defaultSlots  = 48
	maxSlots      = 65536
	maxLaunchSize = 31
	partAlign     = 4096
	maxAlign      = 1 << 30

	groupMark = 0xf0000000 // high bits of every group field, and of links to a group
	maxGroup  = 0x0fffffff
)

// DefaultGroup is the group that the objects of a built image share.
const DefaultGroup = 1

// LaunchScript is the launch line of images that may be started directly as a
// program.
const LaunchScript = "#!/usr/bin/env run-singularity\n"

const (
	magic   = "SIF_MAGIC\x00"
	version = "01\x00"
)

// noTime is the time of deterministic images, in seconds: the year 1.
const noTime = -62135596800

// ID is the identity of an image: a UUID in the byte order of its text.
type ID [16]byte

// String returns the usual text form with four dashes.
func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// ContentID returns an ID that depends on sum alone, a digest of what makes the
// image itself (usually its primary partition): a version 8 UUID of sum's first
// bytes. Reproducible builds use it in place of a random one.
func ContentID(sum [32]byte) ID { return uuid([16]byte(sum[:16]), 8) }

// uuid sets the version and variant bits of RFC 9562.
func uuid(b [16]byte, version byte) ID {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return b
}

// Header is what the first 128 bytes say. Sizes and offsets are in bytes, times
// in seconds since 1970.
type Header struct {
	LaunchScript string // text from the image, not escaped
	Version      string
	Arch         string // of the primary partition, or UnknownArch; not signed
	ID           ID
	Created      int64
	Modified     int64
	FreeSlots    int64 // counted, not read
	TotalSlots   int64
	TableOff     int64
	TableSize    int64
	DataOff      int64
	DataSize     int64
}

// Deterministic tells whether the image carries neither identity nor times, so
// that the same objects make the same bytes. Editing keeps it so.
func (h Header) Deterministic() bool {
	return h.ID == ID{} && h.Created == noTime && h.Modified == noTime
}

// ArchOf returns the architecture that the first 128 bytes of an image name,
// UnknownArch if they are not those of an image.
func ArchOf(head []byte) string {
	if len(head) < headerSize || string(head[32:42]) != magic {
		return UnknownArch
	}
	return decodeHeader((*[headerSize]byte)(head)).Arch
}

// HeaderSize is how many bytes at the begin of an image are its header.
const HeaderSize = headerSize

// IDOf returns the ID in the header of an image, all zeros if the bytes are none.
func IDOf(head []byte) ID {
	if len(head) < headerSize || string(head[32:42]) != magic {
		return ID{}
	}
	return decodeHeader((*[headerSize]byte)(head)).ID
}

func decodeHeader(b *[headerSize]byte) Header {
	le := func(off int) int64 { return int64(binary.LittleEndian.Uint64(b[off:])) }
	return Header{
		LaunchScript: cString(b[:32]),
		Version:      cString(b[42:45]),
		Arch:         archName(b[45:48]),
		ID:           ID(b[48:64]),
		Created:      le(64),
		Modified:     le(72),
		FreeSlots:    le(80),
		TotalSlots:   le(88),
		TableOff:     le(96),
		TableSize:    le(104),
		DataOff:      le(112),
		DataSize:     le(120),
	}
}

// encode writes h over b. Fields that say the same already keep their bytes, as
// signatures cover bytes: a launch line may go on after its NUL.
func (h Header) encode(b *[headerSize]byte) {
	old := decodeHeader(b)
	if h.LaunchScript != old.LaunchScript {
		clear(b[:32])
		copy(b[:32], h.LaunchScript)
	}
	copy(b[32:42], magic)
	copy(b[42:45], version)
	if h.Arch != old.Arch || b[45] == 0 {
		code, _ := archCode(h.Arch)
		copy(b[45:48], code[:])
	}
	copy(b[48:64], h.ID[:])
	numbers := []int64{h.Created, h.Modified, h.FreeSlots, h.TotalSlots, h.TableOff, h.TableSize, h.DataOff, h.DataSize}
	for i, n := range numbers {
		binary.LittleEndian.PutUint64(b[64+8*i:], uint64(n))
	}
}

// decodeSlot reads a used slot and checks what can be checked without the others.
func decodeSlot(b []byte) (Object, error) {
	le32 := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	le64 := func(off int) int64 { return int64(binary.LittleEndian.Uint64(b[off:])) }
	o := Object{
		ID:       le32(5),
		Type:     DataType(le32(0)),
		Group:    le32(9) &^ groupMark,
		Link:     le32(13),
		Off:      le64(17),
		Size:     le64(25),
		Created:  le64(41),
		Modified: le64(49),
		UID:      le64(57),
		GID:      le64(65),
		Name:     cString(b[73:201]),
		Extra:    [384]byte(b[201:slotSize]),
	}
	if o.ID == 0 {
		return o, fmt.Errorf("an object has id 0")
	}
	if raw := le32(9); raw&groupMark != groupMark {
		return o, fmt.Errorf("object %d has group field %#x, want %#x plus a group number", o.ID, raw, uint32(groupMark))
	}
	if o.Link&groupMark == groupMark {
		o.Link, o.LinkIsGroup = o.Link&^groupMark, true
	}
	return o, nil
}

// encodeSlot writes o into b; padded is the size with the padding before it.
func encodeSlot(b []byte, o Object, padded int64) {
	clear(b)
	put32 := func(off int, n uint32) { binary.LittleEndian.PutUint32(b[off:], n) }
	put64 := func(off int, n int64) { binary.LittleEndian.PutUint64(b[off:], uint64(n)) }
	put32(0, uint32(o.Type))
	b[4] = 1
	put32(5, o.ID)
	put32(9, groupMark|o.Group)
	put32(13, o.Link)
	if o.LinkIsGroup {
		put32(13, groupMark|o.Link)
	}
	put64(17, o.Off)
	put64(25, o.Size)
	put64(33, padded)
	put64(41, o.Created)
	put64(49, o.Modified)
	put64(57, o.UID)
	put64(65, o.GID)
	copy(b[73:201], o.Name)
	copy(b[201:], o.Extra[:])
}

// cString returns the text of b before its first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// seconds is t as the file stores it; the zero time is now.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return time.Now().Unix()
	}
	return t.Unix()
}

// checkText refuses text that does not fit into size bytes or that a NUL would cut.
func checkText(what, s string, size int) error {
	if len(s) > size {
		return fmt.Errorf("%s has %d bytes, want at most %d", what, len(s), size)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%s %q has a NUL byte", what, s)
	}
	return nil
}

package sif

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Storage is the file that an image is written to; *os.File is one.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// Input describes an object to be written. Exactly one of Data and Write is set.
type Input struct {
	Type        DataType
	Name        string // at most 128 bytes
	Group       uint32 // usually DefaultGroup; 0: in no group
	Link        uint32 // id or group that it belongs to; 0: none
	LinkIsGroup bool
	// Align is what the offset of the data is a multiple of, in bytes; 0 means
	// 4096 for partitions and 1 for others.
	Align int64
	Extra [384]byte // from Partition.Extra, Signature.Extra, ...
	// Time is when the object was created; zero means the time of the image
	// in Create and the time of the change in Add.
	Time time.Time
	// Data is read to its end.
	Data io.Reader
	// Write writes the data itself, at any offset and in any order, and
	// returns their size. Offset 0 of w is the first byte of the object. It
	// suits writers that come back to their first bytes, such as squashfs.
	Write func(w *io.OffsetWriter) (size int64, err error)
}

// CreateOptions says what the header of a new image holds. The zero value makes
// an image with a random id and the current time.
type CreateOptions struct {
	ID   ID        // zero: random
	Time time.Time // zero: now
	// Deterministic leaves id and times empty, so that the same objects make
	// the same bytes. ID, Time and the times of the objects are ignored.
	Deterministic bool
	// IDFrom, if set, gives the id once all data is written, from what was
	// written (see ContentID).
	IDFrom       func(*File) (ID, error)
	LaunchScript string // at most 31 bytes; zero: none (see LaunchScript)
	Slots        int    // most objects that the image can ever have; zero: 48
}

// Create makes w an image of the objects in, numbered from 1 in their order. What
// w held before is lost. The header is written last: after an error or a crash w
// holds no SIF image.
func Create(w Storage, o CreateOptions, in ...Input) (*File, error) {
	f, err := create(w, o, in)
	if err != nil {
		return nil, fmt.Errorf("cannot create SIF image: %w", err)
	}
	return f, nil
}

func create(w Storage, o CreateOptions, in []Input) (*File, error) {
	h, err := newHeader(o)
	if err != nil {
		return nil, err
	}
	if err := w.Truncate(0); err != nil {
		return nil, err
	}
	t := draft{w: w, header: h, table: make([]byte, h.TotalSlots*slotSize), now: h.Created}
	t.end = h.tableEnd()
	t.size = t.end
	for _, i := range in {
		if o.Deterministic {
			i.Time = time.Time{}
		}
		if _, err := t.add(i); err != nil {
			return nil, err
		}
	}
	if o.IDFrom != nil && !o.Deterministic {
		f, err := t.check()
		if err != nil {
			return nil, err
		}
		if t.header.ID, err = o.IDFrom(f); err != nil {
			return nil, err
		}
	}
	return t.commit()
}

func newHeader(o CreateOptions) (Header, error) {
	slots := int64(o.Slots)
	if slots == 0 {
		slots = defaultSlots
	}
	if slots < 0 || slots > maxSlots {
		return Header{}, fmt.Errorf("%d descriptors asked for, want 1 to %d", slots, maxSlots)
	}
	if err := checkText("launch line", o.LaunchScript, maxLaunchSize); err != nil {
		return Header{}, err
	}
	h := Header{
		LaunchScript: o.LaunchScript,
		Arch:         UnknownArch,
		ID:           o.ID,
		FreeSlots:    slots,
		TotalSlots:   slots,
		TableOff:     tableOff,
		TableSize:    slots * slotSize,
		DataOff:      tableOff + slots*slotSize,
	}
	h.Created = seconds(o.Time)
	if o.Deterministic {
		h.ID, h.Created = ID{}, noTime
	} else if h.ID == (ID{}) {
		var err error
		if h.ID, err = randomID(); err != nil {
			return Header{}, err
		}
	}
	h.Modified = h.Created
	return h, nil
}

// randomID returns a version 4 UUID. It asks the kernel directly: this package is
// part of every start of a container, and crypto/rand would bring the start-up
// work of twenty packages with it.
func randomID() (ID, error) {
	var b [16]byte
	for n := 0; n < len(b); {
		m, err := unix.Getrandom(b[n:], 0)
		if err != nil && err != unix.EINTR {
			return ID{}, fmt.Errorf("cannot make an image id: %w", err)
		}
		n += max(m, 0)
	}
	return uuid(b, 4), nil
}

// draft is an image in the making: its data is in w already, header and table
// only in memory.
type draft struct {
	w      Storage
	head   [headerSize]byte // as read; zero in a new image
	header Header
	table  []byte
	end    int64 // of the data of the last object
	size   int64 // of the file
	now    int64 // time of the change
}

// ErrTableFull says that an image cannot have more objects.
var ErrTableFull = errors.New("insufficient descriptor capacity to add data object(s) to image")

// add writes the data of in after the last object and its slot into the table.
func (t *draft) add(in Input) (Object, error) {
	if err := in.check(); err != nil {
		return Object{}, err
	}
	slot := 0
	for slot < int(t.header.TotalSlots) && t.slot(slot)[4] != 0 {
		slot++
	}
	if slot == int(t.header.TotalSlots) {
		return Object{}, ErrTableFull
	}
	o := Object{
		ID:          uint32(slot) + 1,
		Type:        in.Type,
		Group:       in.Group,
		Link:        in.Link,
		LinkIsGroup: in.LinkIsGroup,
		Created:     t.now,
		Name:        in.Name,
		Extra:       in.Extra,
	}
	if !in.Time.IsZero() {
		o.Created = in.Time.Unix()
	}
	o.Modified = o.Created
	if p, _ := o.Partition(); isPrimary(o) {
		if t.hasPrimary() {
			return Object{}, errors.New("image already contains a primary partition")
		}
		t.header.Arch = p.Arch
	}
	padding, err := t.pad(in.align())
	if err != nil {
		return Object{}, err
	}
	o.Off = t.end
	if o.Size, err = t.write(in, o.Off); err != nil {
		return Object{}, fmt.Errorf("cannot write data of object %d: %w", o.ID, err)
	}
	t.end = o.Off + o.Size
	t.size = max(t.size, t.end)
	t.header.FreeSlots--
	t.header.DataSize = t.end - t.header.DataOff
	encodeSlot(t.slot(slot), o, padding+o.Size)
	return o, nil
}

func (t *draft) slot(i int) []byte { return t.table[i*slotSize:][:slotSize] }

func (t *draft) hasPrimary() bool {
	for i := range int(t.header.TotalSlots) {
		if b := t.slot(i); b[4] != 0 {
			if o, err := decodeSlot(b); err == nil && isPrimary(o) {
				return true
			}
		}
	}
	return false
}

// pad moves the end to a multiple of align. What lies between is zero, even if
// it held the data of a deleted object.
func (t *draft) pad(align int64) (int64, error) {
	padding := (align - t.end%align) % align
	if stale := min(padding, t.size-t.end); stale > 0 {
		if err := writeZeros(t.w, t.end, stale); err != nil {
			return 0, err
		}
	}
	t.end += padding
	return padding, nil
}

// write writes the data of in at off and returns their size.
func (t *draft) write(in Input, off int64) (int64, error) {
	w := io.NewOffsetWriter(t.w, off)
	if in.Write == nil {
		return io.Copy(w, in.Data)
	}
	size, err := in.Write(w)
	if err == nil && (size < 0 || size > math.MaxInt64-off) {
		err = fmt.Errorf("impossible size %d", size)
	}
	return size, err
}

// check parses the draft as Open would.
func (t *draft) check() (*File, error) {
	head := t.head
	t.header.encode(&head)
	f, err := parse(head, t.table, t.size)
	if err != nil {
		return nil, err
	}
	f.r = t.w
	return f, nil
}

// commit makes the draft the image: data to disk, then table, then header. What
// the reader would refuse is never written.
func (t *draft) commit() (*File, error) {
	f, err := t.check()
	if err != nil {
		return nil, err
	}
	// Input.Write may have left its last bytes out, as they are zero, or have
	// written more than it tells.
	if err := t.w.Truncate(t.size); err != nil {
		return nil, err
	}
	if err := t.w.Sync(); err != nil {
		return nil, err
	}
	if _, err := t.w.WriteAt(t.table, t.header.TableOff); err != nil {
		return nil, err
	}
	if _, err := t.w.WriteAt(f.head[:], 0); err != nil {
		return nil, err
	}
	return f, t.w.Sync()
}

func (in Input) align() int64 {
	switch {
	case in.Align > 0:
		return in.Align
	case in.Type == DataPartition:
		return partAlign
	}
	return 1
}

// check refuses what the format cannot hold.
func (in Input) check() error {
	if (in.Data == nil) == (in.Write == nil) {
		return errors.New("an object needs either data or a function that writes them")
	}
	if err := checkText("object name", in.Name, nameSize); err != nil {
		return err
	}
	switch {
	case in.Type == 0:
		return errors.New("an object needs a type")
	case in.Group > maxGroup:
		return fmt.Errorf("group %d is too large, want at most %d", in.Group, maxGroup)
	case in.Link > maxGroup:
		return fmt.Errorf("link %d is too large, want at most %d", in.Link, maxGroup)
	case in.LinkIsGroup && in.Link == 0:
		return errors.New("a link to a group needs a group number")
	case in.Align < 0 || in.Align > maxAlign:
		return fmt.Errorf("alignment %d is impossible, want at most %d", in.Align, maxAlign)
	}
	return checkExtra(Object{Type: in.Type, Extra: in.Extra})
}

// checkExtra refuses metadata that no reader could make sense of.
func checkExtra(o Object) error {
	switch o.Type {
	case DataPartition:
		p, _ := o.Partition()
		switch {
		case p.FS < FSSquashfs || p.FS > FSGocryptfsSquashfs:
			return fmt.Errorf("unknown file system type %d", p.FS)
		case p.Type < PartSystem || p.Type > PartOverlay:
			return fmt.Errorf("unknown partition type %d", p.Type)
		case p.Arch == UnknownArch:
			return errors.New("a partition needs a known architecture")
		}
	case DataSignature:
		if s, _ := o.Signature(); s.Hash < HashSHA256 || s.Hash > HashBLAKE2b256 {
			return fmt.Errorf("unknown signature hash %d", s.Hash)
		}
	case DataSBOM:
		if s, _ := o.SBOM(); s.Format < SBOMCycloneDXJSON || s.Format > SBOMSyftJSON {
			return fmt.Errorf("unknown SBOM format %d", s.Format)
		}
	case DataOCIRootIndex, DataOCIBlob:
		if d, ok := o.Digest(); !ok {
			return fmt.Errorf("digest %q is not sha256: and 64 hex digits", string(d))
		}
	}
	return nil
}

// writeZeros writes size zero bytes at off.
func writeZeros(w io.WriterAt, off, size int64) error {
	zeros := make([]byte, min(size, 1<<20))
	for size > 0 {
		n := min(size, int64(len(zeros)))
		if _, err := w.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, size = off+n, size-n
	}
	return nil
}

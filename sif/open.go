package sif

import (
	"errors"
	"fmt"
	"io"
)

// ErrNotSIF is returned by Open for bytes that are no SIF image at all; a damaged
// or hostile SIF image gives another error.
var ErrNotSIF = errors.New("not a SIF image")

// File is an image that passed all checks of Open.
type File struct {
	r        io.ReaderAt
	head     [headerSize]byte
	table    []byte // TotalSlots slots
	header   Header
	objects  []Object
	slots    []int          // slots[i] is the slot of objects[i]
	byID     map[uint32]int // index in objects
	warnings []string
}

// Open reads the header and the table of the image of size bytes in r, in one
// read if they lie where they usually do. It returns an error that wraps
// ErrNotSIF if r holds no SIF image, and an error that names the fault for an
// image that breaks the format. r is used by the readers that File gives later.
func Open(r io.ReaderAt, size int64) (*File, error) {
	if size < headerSize {
		return nil, fmt.Errorf("%w: %d bytes are too few", ErrNotSIF, size)
	}
	// The usual place of header and table, in one read.
	buf := make([]byte, min(size, tableOff+defaultSlots*slotSize))
	if err := readFull(r, buf, 0); err != nil {
		return nil, fmt.Errorf("cannot read SIF header: %w", err)
	}
	head := [headerSize]byte(buf)
	h, err := checkHeader(&head, size)
	if err != nil {
		return nil, err
	}
	var table []byte
	if end := h.tableEnd(); end <= int64(len(buf)) {
		table = buf[h.TableOff:end:end]
	} else {
		// Security: allocated only now that the header's numbers are known
		// to be small and inside the file.
		table = make([]byte, h.TotalSlots*slotSize)
		if err := readFull(r, table, h.TableOff); err != nil {
			return nil, fmt.Errorf("cannot read SIF descriptor table: %w", err)
		}
	}
	f, err := parse(head, table, size)
	if err != nil {
		return nil, err
	}
	f.r = r
	return f, nil
}

// parse checks header and table of an image of size bytes; it reads no data.
func parse(head [headerSize]byte, table []byte, size int64) (*File, error) {
	h, err := checkHeader(&head, size)
	if err != nil {
		return nil, err
	}
	f := &File{head: head, table: table, header: h}
	if err := f.readSlots(); err != nil {
		return nil, fmt.Errorf("damaged SIF image: %w", err)
	}
	if err := f.checkObjects(size); err != nil {
		return nil, fmt.Errorf("damaged SIF image: %w", err)
	}
	return f, nil
}

// Header returns the header.
func (f *File) Header() Header { return f.header }

// Objects returns the objects in the order of their slots. The caller must not
// change the slice.
func (f *File) Objects() []Object { return f.objects }

// Object returns the object numbered id.
func (f *File) Object(id uint32) (Object, bool) {
	i, ok := f.byID[id]
	if !ok {
		return Object{}, false
	}
	return f.objects[i], true
}

// Primary returns the primary system partition: the root file system. It is an
// error if there is none or, as nobody could say which one was meant, several.
func (f *File) Primary() (Object, error) {
	found := Object{}
	for _, o := range f.objects {
		if !isPrimary(o) {
			continue
		}
		if found.ID != 0 {
			return Object{}, fmt.Errorf("SIF image has more than one primary system partition: objects %d and %d", found.ID, o.ID)
		}
		found = o
	}
	if found.ID == 0 {
		return Object{}, errors.New("SIF image has no primary system partition")
	}
	return found, nil
}

// Named returns the object of type t called name. Security: if several bear the
// name none is returned, so that nobody can slip in a second one that some
// readers prefer.
func (f *File) Named(t DataType, name string) (found Object, ok bool) {
	for _, o := range f.objects {
		if o.Type == t && o.Name == name {
			if ok {
				return Object{}, false
			}
			found, ok = o, true
		}
	}
	return found, ok
}

// Reader returns a reader of the data of o, which must come from f. It may be
// used from several goroutines if f was opened on such a reader.
func (f *File) Reader(o Object) *io.SectionReader { return io.NewSectionReader(f.r, o.Off, o.Size) }

// ReadAll returns the data of o if it is of a type that is small by nature, and
// an error if it is larger than such an object may be: definitions, JSON and
// bills of materials 16 MiB, OCI blobs (their JSON) 4 MiB, signatures 1 MiB,
// crypto messages 64 KiB. Other types are for Reader.
func (f *File) ReadAll(o Object) ([]byte, error) {
	limit := readLimit(o.Type)
	if limit == 0 {
		return nil, fmt.Errorf("cannot read object %d into memory: objects of type %s are streamed", o.ID, o.Type)
	}
	if o.Size > limit {
		return nil, fmt.Errorf("cannot read object %d: %s of %d bytes, want at most %d", o.ID, o.Type, o.Size, limit)
	}
	b := make([]byte, o.Size)
	if err := readFull(f.r, b, o.Off); err != nil {
		return nil, fmt.Errorf("cannot read object %d: %w", o.ID, err)
	}
	return b, nil
}

func readLimit(t DataType) int64 {
	switch t {
	case DataDefFile, DataEnvVar, DataLabels, DataJSON, DataSBOM:
		return 16 << 20
	case DataOCIRootIndex, DataOCIBlob:
		return 4 << 20
	case DataSignature:
		return 1 << 20
	case DataCryptoMessage:
		return 64 << 10
	}
	return 0
}

// Warnings returns what is odd about the image but harmless, one line each.
// Names from the image are quoted.
func (f *File) Warnings() []string { return f.warnings }

func (f *File) warn(format string, args ...any) {
	const most = 100
	switch {
	case len(f.warnings) < most:
		f.warnings = append(f.warnings, fmt.Sprintf(format, args...))
	case len(f.warnings) == most:
		f.warnings = append(f.warnings, "more warnings are left out")
	}
}

func isPrimary(o Object) bool {
	p, ok := o.Partition()
	return ok && p.Type == PartPrimary
}

// readFull fills p from off; a file that is shorter than it claimed is an error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if n, err := r.ReadAt(p, off); n < len(p) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

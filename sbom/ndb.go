package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Parts of rpm's own database (its lib/backend/ndb/rpmpkg.c): pages of slots, of which
// each names the place of a header in units of 16 bytes.
const (
	ndbMagic     = "RpmP"
	ndbSlot      = "Slot"
	ndbBlob      = "BlbS"
	ndbUnit      = 16
	ndbPage      = 4096
	maxSlotPages = 4096 // a million packages
)

var errNDB = errors.New("the database of rpm is damaged")

// eachInNDB calls fn with every header.
//
// Security: all headers together are no more than the file, as slots that share one would
// have it read for ever.
func eachInNDB(file io.ReaderAt, size int64, fn func([]byte) error) error {
	var head [2 * ndbUnit]byte
	if _, err := file.ReadAt(head[:], 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	pages := int64(le.Uint32(head[12:]))
	if string(head[:4]) != ndbMagic || le.Uint32(head[4:]) != 0 {
		return errors.New("it is no database of rpm that is known")
	}
	if pages < 1 || pages > maxSlotPages || pages*ndbPage > size {
		return errNDB
	}
	slots := make([]byte, pages*ndbPage-int64(len(head)))
	if _, err := file.ReadAt(slots, int64(len(head))); err != nil {
		return err
	}
	left := size
	for ; len(slots) > 0; slots = slots[ndbUnit:] {
		number := le.Uint32(slots[4:])
		if string(slots[:4]) != ndbSlot {
			return errNDB
		}
		if number == 0 { // free
			continue
		}
		b, err := readBlob(file, int64(le.Uint32(slots[8:]))*ndbUnit, number, &left)
		if err == nil {
			err = fn(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBlob reads the header of the package with a number.
func readBlob(file io.ReaderAt, off int64, number uint32, left *int64) ([]byte, error) {
	var head [ndbUnit]byte
	if _, err := file.ReadAt(head[:], off); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[12:]))
	if string(head[:4]) != ndbBlob || binary.LittleEndian.Uint32(head[4:]) != number {
		return nil, errNDB
	}
	if *left -= n; n > maxHeader || *left < 0 {
		return nil, fmt.Errorf("%w: a header has %d bytes", errNDB, n)
	}
	b := make([]byte, n)
	_, err := file.ReadAt(b, off+ndbUnit)
	return b, err
}

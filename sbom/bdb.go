package sbom

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Parts of the hash of Berkeley DB (its dbinc/db_page.h, unchanged since version 4).
const (
	bdbHash     = 0x061561 // magic of the first page
	bdbHeader   = 26       // bytes at the start of a page
	pageHashOld = 2        // page of keys and values
	pageLong    = 7        // page of a value that is on pages of its own
	pageMeta    = 8        // the first page
	pageHash    = 13       // as pageHashOld, sorted
	itemInline  = 1        // value on the page
	itemLong    = 3        // value on pages of its own
	minInline   = 16       // bytes of a value that may be a header: the counter of packages is shorter
)

// bdb is a hash of Berkeley DB.
type bdb struct {
	file  io.ReaderAt
	size  int64
	order binary.ByteOrder
	page  int64 // bytes of a page
	last  int64 // number of the last page
	long  int64 // bytes of values that may be read still: no page is in two of them
}

var errBDB = errors.New("the Berkeley DB is damaged")

func openBDB(file io.ReaderAt, size int64) (*bdb, error) {
	var meta [512]byte
	if _, err := file.ReadAt(meta[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	d := &bdb{file: file, size: size, long: size, order: binary.LittleEndian}
	if d.order.Uint32(meta[12:]) != bdbHash {
		d.order = binary.BigEndian
	}
	if d.order.Uint32(meta[12:]) != bdbHash || meta[24] != 0 || meta[25] != pageMeta {
		return nil, errors.New("it is no hash of Berkeley DB in clear")
	}
	d.page, d.last = int64(d.order.Uint32(meta[20:])), int64(d.order.Uint32(meta[32:]))
	if d.page < 512 || d.page > 64<<10 || d.page&(d.page-1) != 0 || (d.last+1)*d.page > size {
		return nil, errBDB
	}
	return d, nil
}

// each calls fn with the values that may be headers of packages.
func (d *bdb) each(fn func([]byte) error) error {
	page := make([]byte, d.page)
	for n := int64(1); n <= d.last; n++ {
		if err := d.read(page, n); err != nil {
			return err
		}
		if kind := page[25]; kind != pageHash && kind != pageHashOld {
			continue
		}
		if err := d.eachOn(page, fn); err != nil {
			return err
		}
	}
	return nil
}

func (d *bdb) read(page []byte, n int64) error {
	if n < 1 || n > d.last {
		return errBDB
	}
	_, err := d.file.ReadAt(page, n*d.page)
	return err
}

// eachOn does it for one page: keys and values by turns, the first at its end.
func (d *bdb) eachOn(page []byte, fn func([]byte) error) error {
	count := int(d.order.Uint16(page[20:]))
	if count%2 != 0 || bdbHeader+2*count > len(page) {
		return errBDB
	}
	end := len(page)
	for i := range count {
		at := int(d.order.Uint16(page[bdbHeader+2*i:]))
		if at < bdbHeader || at >= len(page) {
			return errBDB
		}
		if i%2 != 0 {
			if err := d.value(page[at:max(at, end)], fn); err != nil {
				return err
			}
		}
		end = at
	}
	return nil
}

func (d *bdb) value(item []byte, fn func([]byte) error) error {
	switch {
	case len(item) > minInline && item[0] == itemInline:
		return fn(item[1:])
	case len(item) >= 12 && item[0] == itemLong:
		b, err := d.longValue(int64(d.order.Uint32(item[4:])), int64(d.order.Uint32(item[8:])))
		if err != nil {
			return err
		}
		return fn(b)
	}
	return nil
}

// longValue reads a value of size bytes on a chain of pages.
//
// Security: the size ends the chain, which may lead in a circle, and all values together
// are no more than the file, as pages that many values share would be read for ever.
func (d *bdb) longValue(n, size int64) ([]byte, error) {
	if d.long -= size; size > maxHeader || d.long < 0 {
		return nil, fmt.Errorf("%w: a value has %d bytes", errBDB, size)
	}
	value := make([]byte, 0, size)
	page := make([]byte, d.page)
	for int64(len(value)) < size {
		if err := d.read(page, n); err != nil {
			return nil, err
		}
		if page[25] != pageLong {
			return nil, errBDB
		}
		value = append(value, page[bdbHeader:min(d.page, bdbHeader+size-int64(len(value)))]...)
		n = int64(d.order.Uint32(page[16:]))
	}
	return value, nil
}

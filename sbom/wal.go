package sbom

import (
	"encoding/binary"
	"errors"
	"io"
)

// maxPage bounds a page of SQLite, bytes.
const maxPage = 64 << 10

// applyWAL writes to db what the write-ahead log of SQLite in wal holds in whole
// transactions (https://sqlite.org/fileformat.html, section 4): rpm often leaves
// it beside the database. What follows the last good transaction is not used,
// as SQLite itself does.
func applyWAL(db io.WriterAt, wal io.Reader) error {
	head := make([]byte, 32)
	if _, err := io.ReadFull(wal, head); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // empty
		}
		return errors.New("its write-ahead log is cut short")
	}
	var order binary.ByteOrder
	switch binary.BigEndian.Uint32(head) {
	case 0x377f0682:
		order = binary.LittleEndian
	case 0x377f0683:
		order = binary.BigEndian
	default:
		return errors.New("its write-ahead log is none of SQLite")
	}
	size := binary.BigEndian.Uint32(head[8:])
	if size < 512 || size > maxPage || size&(size-1) != 0 {
		return errors.New("its write-ahead log has pages of an impossible size")
	}
	sum := walSum(order, [2]uint32{}, head[:24])
	if sum != [2]uint32{binary.BigEndian.Uint32(head[24:]), binary.BigEndian.Uint32(head[28:])} {
		return nil
	}
	type page struct {
		number uint32
		data   []byte
	}
	var open []page // of the transaction that has not ended
	for held := 0; ; {
		frame := make([]byte, 24+size)
		if _, err := io.ReadFull(wal, frame); err != nil {
			return nil
		}
		if string(frame[8:16]) != string(head[16:24]) { // left from before the last checkpoint
			return nil
		}
		sum = walSum(order, walSum(order, sum, frame[:8]), frame[24:])
		if sum != [2]uint32{binary.BigEndian.Uint32(frame[16:]), binary.BigEndian.Uint32(frame[20:])} {
			return nil
		}
		number := binary.BigEndian.Uint32(frame)
		if held += int(size); number == 0 || int64(number)*int64(size) > maxDatabase || held > maxDatabase/2 {
			return errors.New("its write-ahead log is too large")
		}
		open = append(open, page{number, frame[24:]})
		if binary.BigEndian.Uint32(frame[4:]) == 0 {
			continue
		}
		for _, p := range open {
			if _, err := db.WriteAt(p.data, int64(p.number-1)*int64(size)); err != nil {
				return err
			}
		}
		open, held = nil, 0
	}
}

// walSum goes on with the checksum s of a write-ahead log over b.
func walSum(order binary.ByteOrder, s [2]uint32, b []byte) [2]uint32 {
	for ; len(b) >= 8; b = b[8:] {
		s[0] += order.Uint32(b) + s[1]
		s[1] += order.Uint32(b[4:]) + s[0]
	}
	return s
}

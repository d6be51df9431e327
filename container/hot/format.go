package hot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"singularity/squashfs"
)

var le = binary.LittleEndian

// Limits of a file.
const (
	maxBlocks   = 2048
	maxIdentity = 1024
	headerSize  = 32
	entrySize   = 24
	maxHead     = headerSize + maxIdentity + maxBlocks*entrySize
)

var magic = [8]byte{'S', 'G', 'H', 'O', 'T', 0, 0, 1}

// errFile says that a file is not one of ours, or not whole.
var errFile = errors.New("no file of hot blocks, or a damaged one")

// entry is a row of the table.
type entry struct {
	id     squashfs.BlockID
	length uint32 // of the content; 0 if there is none
	crc    uint32 // of the content
	off    int64  // in the file; not stored
}

// table is the head of a file.
type table struct {
	identity []byte
	entries  []entry
	byID     map[squashfs.BlockID]int
	content  int64 // bytes
}

// checksum finds torn writes and bad disks; it is no proof of origin.
func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// headSize returns the size of header, identity and table, from the header.
func headSize(b []byte) (int, error) {
	if len(b) < headerSize || !bytes.Equal(b[:8], magic[:]) {
		return 0, errFile
	}
	n, count := le.Uint32(b[8:]), le.Uint32(b[12:])
	if n > maxIdentity || count > maxBlocks {
		return 0, errFile
	}
	return headerSize + int(n) + int(count)*entrySize, nil
}

// parseTable reads the head of a file of size bytes. It is strict: one byte of the
// head that is not as written makes the file useless.
func parseTable(b []byte, size int64) (*table, error) {
	n, err := headSize(b)
	if err != nil || len(b) != n {
		return nil, errFile
	}
	head := bytes.Clone(b)
	le.PutUint32(head[28:], 0)
	if checksum(head) != le.Uint32(b[28:]) {
		return nil, errFile
	}
	idEnd := headerSize + int(le.Uint32(b[8:]))
	t := &table{identity: head[headerSize:idEnd], byID: map[squashfs.BlockID]int{}}
	off := int64(n)
	for p := head[idEnd:]; len(p) > 0; p = p[entrySize:] {
		e := entry{id: squashfs.BlockID{Pos: int64(le.Uint64(p)), Size: le.Uint32(p[8:])}, length: le.Uint32(p[12:]), crc: le.Uint32(p[16:]), off: off}
		if e.length > squashfs.MaxBlockSize || e.id.Size == squashfs.MetadataBlock && e.length > 0 {
			return nil, errFile
		}
		if _, twice := t.byID[e.id]; twice {
			return nil, errFile
		}
		t.byID[e.id] = len(t.entries)
		t.entries = append(t.entries, e)
		off += int64(e.length)
	}
	t.content = off - int64(n)
	if off != size || le.Uint64(b[20:]) != uint64(t.content) {
		return nil, errFile
	}
	return t, nil
}

// forget makes t a table without content.
func (t *table) forget() {
	for i := range t.entries {
		t.entries[i].length = 0
	}
	t.content = 0
}

// lacks tells whether t has no content though there could be some.
func (t *table) lacks() bool {
	for i := range t.entries {
		if t.content > 0 {
			return false
		}
		if t.entries[i].id.Compressed() {
			return true
		}
	}
	return false
}

// encode writes the head of a file.
func (t *table) encode() []byte {
	b := make([]byte, headerSize, headerSize+len(t.identity)+len(t.entries)*entrySize)
	copy(b, magic[:])
	le.PutUint32(b[8:], uint32(len(t.identity)))
	le.PutUint32(b[12:], uint32(len(t.entries)))
	content := uint64(0)
	b = append(b, t.identity...)
	for i := range t.entries {
		e := &t.entries[i]
		b = le.AppendUint64(b, uint64(e.id.Pos))
		b = le.AppendUint32(b, e.id.Size)
		b = le.AppendUint32(b, e.length)
		b = le.AppendUint32(b, e.crc)
		b = le.AppendUint32(b, 0)
		content += uint64(e.length)
	}
	le.PutUint64(b[20:], content)
	le.PutUint32(b[28:], checksum(b))
	return b
}

// A message to the writer: the identity, then the blocks in their order.
func encodeMessage(identity []byte, ids []squashfs.BlockID) []byte {
	b := le.AppendUint32(nil, uint32(len(identity)))
	b = append(b, identity...)
	for _, id := range ids {
		b = le.AppendUint32(le.AppendUint64(b, uint64(id.Pos)), id.Size)
	}
	return b
}

const maxMessage = 4 + maxIdentity + maxBlocks*12

func decodeMessage(b []byte) (identity []byte, ids []squashfs.BlockID, err error) {
	if len(b) < 4 || len(b) > maxMessage {
		return nil, nil, errFile
	}
	n := le.Uint32(b)
	b = b[4:]
	if n > maxIdentity || int(n) > len(b) || (len(b)-int(n))%12 != 0 {
		return nil, nil, errFile
	}
	identity, b = b[:n], b[n:]
	for ; len(b) > 0; b = b[12:] {
		ids = append(ids, squashfs.BlockID{Pos: int64(le.Uint64(b)), Size: le.Uint32(b[8:])})
	}
	return identity, ids, nil
}

package squashfs

import (
	"fmt"
	"math"
	"math/bits"
)

// writerMeta fills metadata blocks: at most 8192 bytes each before compression,
// led by their size as written.
type writerMeta struct {
	enc Encoder
	out []byte // finished blocks
	buf []byte // the block being filled
	tmp []byte
}

// ref is the reference of the next byte: the offset of its block from the start
// of the table, and the offset within the uncompressed block.
func (m *writerMeta) ref() uint64 { return uint64(len(m.out))<<16 | uint64(len(m.buf)) }

func (m *writerMeta) add(b []byte) error {
	for len(b) > 0 {
		n := min(MetadataSize-len(m.buf), len(b))
		m.buf = append(m.buf, b[:n]...)
		b = b[n:]
		if len(m.buf) == MetadataSize {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *writerMeta) flush() error {
	if len(m.buf) == 0 {
		return nil
	}
	out, ok, err := m.enc.Encode(m.tmp, m.buf)
	if err != nil {
		return fmt.Errorf("cannot compress a metadata block: %w", err)
	}
	size := uint16(len(out))
	if !ok {
		out, size = m.buf, uint16(len(m.buf))|metaStored
	}
	m.out = le.AppendUint16(m.out, size)
	m.out = append(m.out, out...)
	m.buf = m.buf[:0]
	return nil
}

// writerTables writes what follows the contents.
type writerTables struct {
	d   *writerData
	enc Encoder
}

func (t *writerTables) newMeta() *writerMeta {
	return &writerMeta{enc: t.enc, buf: make([]byte, 0, MetadataSize), tmp: make([]byte, 0, MetadataSize)}
}

// put writes a run of metadata blocks and returns its offset.
func (t *writerTables) put(m *writerMeta) (uint64, error) {
	if err := m.flush(); err != nil {
		return 0, err
	}
	start := t.d.pos
	t.d.write(m.out)
	return start, t.d.failure()
}

// table writes entries as metadata blocks, then header and the offsets of those
// blocks, and returns the offset of header.
func (t *writerTables) table(entries, header []byte) (uint64, error) {
	m := t.newMeta()
	for len(entries) > 0 {
		header = le.AppendUint64(header, t.d.pos+uint64(len(m.out)))
		n := min(len(entries), MetadataSize)
		if err := m.add(entries[:n]); err != nil {
			return 0, err
		}
		entries = entries[n:]
	}
	if _, err := t.put(m); err != nil {
		return 0, err
	}
	start := t.d.pos
	t.d.write(header)
	return start, t.d.failure()
}

// finish writes the tables, the padding and the superblock. The kernel demands
// this order of tables, without gaps.
func (w *Writer) finish() (int64, error) {
	enc, err := w.enc.newEncoder()
	if err != nil {
		return 0, err
	}
	if uint64(len(w.data.frags)) >= math.MaxUint32 {
		return 0, fmt.Errorf("image has %d fragments, more than the format numbers", len(w.data.frags))
	}
	t := &writerTables{w.data, enc}
	tree := writerTree{inodes: t.newMeta(), dirs: t.newMeta(), refs: make([]uint64, w.nodes)}
	s := Superblock{
		ModTime: w.opt.ModTime, BlockSize: uint32(w.opt.BlockSize), BlockLog: uint16(bits.Len(uint(w.opt.BlockSize)) - 1),
		Compression: w.enc.kind, Inodes: uint32(w.nodes), Fragments: uint32(len(w.data.frags)), IDs: uint16(len(w.idTab)),
		Flags: w.flags(), FragTable: noTable,
	}
	if s.Root, err = tree.write(w.root); err != nil {
		return 0, err
	}
	steps := []struct {
		at    *uint64
		write func() (uint64, error)
	}{
		{&s.InodeTable, func() (uint64, error) { return t.put(tree.inodes) }},
		{&s.DirTable, func() (uint64, error) { return t.put(tree.dirs) }},
		{&s.FragTable, func() (uint64, error) { return w.writeFragmentTable(t) }},
		{&s.ExportTable, func() (uint64, error) { return t.table(appendAll(le.AppendUint64, tree.refs), nil) }},
		{&s.IDTable, func() (uint64, error) { return t.table(appendAll(le.AppendUint32, w.idTab), nil) }},
		{&s.XattrTable, func() (uint64, error) { return w.xattr.write(t) }},
	}
	for _, step := range steps {
		if *step.at, err = step.write(); err != nil {
			return 0, err
		}
	}
	s.BytesUsed = w.data.pos
	// The kernel reads block devices in units of up to 4096 bytes.
	w.data.write(make([]byte, -w.data.pos&4095))
	size := w.data.pos
	w.data.pos = 0
	w.data.write(s.append(nil))
	return int64(size), w.data.failure()
}

func (w *Writer) flags() uint16 {
	f := uint16(flagExportable | flagDuplicates)
	if w.enc.options() != nil {
		f |= flagCompressorOptions
	}
	if w.enc.store {
		f |= flagUncompressedInodes | flagUncompressedData | flagUncompressedFragments | flagUncompressedXattrs | flagUncompressedIDs
	}
	return f
}

func (w *Writer) writeFragmentTable(t *writerTables) (uint64, error) {
	var b []byte
	for _, f := range w.data.frags {
		b = le.AppendUint64(b, f.start)
		b = le.AppendUint32(b, f.size)
		b = le.AppendUint32(b, 0)
	}
	return t.table(b, nil)
}

func appendAll[T any](add func([]byte, T) []byte, list []T) []byte {
	var b []byte
	for _, v := range list {
		b = add(b, v)
	}
	return b
}

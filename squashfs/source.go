package squashfs

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// source is the image: reads are checked against the bytes in use.
type source struct {
	r    io.ReaderAt
	size int64
}

func (s source) read(p []byte, off int64) error {
	if off < 0 || int64(len(p)) > s.size || off > s.size-int64(len(p)) {
		return corrupt("%d bytes at %d lie outside the %d bytes in use", len(p), off, s.size)
	}
	n, err := s.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("cannot read %d bytes of the image at %d: %w", len(p), off, err)
}

// metaBlock is one decompressed metadata block.
type metaBlock struct {
	data []byte // 1 to MetadataSize bytes
	next int64  // where the next block begins, always further on
}

// metaBlock returns the metadata block whose header lies at pos.
func (r *Reader) metaBlock(pos int64) (*metaBlock, error) {
	if b, ok := r.meta.get(pos); ok {
		return b, nil
	}
	if o := r.observer.Load(); o != nil {
		o.o.Touched(BlockID{pos, MetadataBlock})
	}
	return r.metaBlockUntold(pos)
}

// metaBlockUntold is metaBlock without the observer.
func (r *Reader) metaBlockUntold(pos int64) (*metaBlock, error) {
	if b, ok := r.meta.get(pos); ok {
		return b, nil
	}
	buf := r.in.Get().(*[]byte)
	defer r.in.Put(buf)
	local := (*buf)[:MetadataSize+2]
	if rest := r.src.size - pos; int64(len(local)) > rest {
		local = local[:max(rest, 0)]
	}
	if len(local) < 2 || pos < SuperblockSize {
		return nil, corrupt("metadata block at %d lies outside the %d bytes in use", pos, r.src.size)
	}
	if err := r.src.read(local, pos); err != nil {
		return nil, err
	}
	header := le.Uint16(local)
	n := int(header &^ metaStored)
	if n == 0 || n > MetadataSize || n > len(local)-2 {
		return nil, corrupt("metadata block at %d claims %d bytes", pos, n)
	}
	b := &metaBlock{next: pos + 2 + int64(n)}
	if header&metaStored != 0 {
		b.data = append(b.data, local[2:2+n]...)
	} else {
		out := make([]byte, MetadataSize)
		k, err := r.unpack(out, local[2:2+n])
		if err != nil || k == 0 {
			return nil, corrupt("metadata block at %d: %d bytes, %v", pos, k, err)
		}
		b.data = out[:k]
	}
	r.meta.put(pos, b, int64(cap(b.data))+64)
	return b, nil
}

// cursor is a place in a run of metadata blocks. It only moves forward, and
// ends at the end of the image at the latest.
type cursor struct {
	r     *Reader
	pos   int64 // header of the current block
	off   int   // next byte of the current block
	block *metaBlock
}

// at returns a cursor at an offset into the block at pos.
func (r *Reader) at(pos int64, off int) (cursor, error) {
	b, err := r.metaBlock(pos)
	if err != nil {
		return cursor{}, err
	}
	if off > len(b.data) {
		return cursor{}, corrupt("offset %d in the metadata block at %d of %d bytes", off, pos, len(b.data))
	}
	return cursor{r, pos, off, b}, nil
}

// read fills p.
func (c *cursor) read(p []byte) error {
	for {
		n := copy(p, c.block.data[c.off:])
		c.off += n
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		if err := c.advance(); err != nil {
			return err
		}
	}
}

func (c *cursor) advance() error {
	b, err := c.r.metaBlock(c.block.next)
	if err != nil {
		return err
	}
	c.pos, c.off, c.block = c.block.next, 0, b
	return nil
}

// take returns the next n bytes: in place if the block holds them all, else
// copied to buf, which has room for n.
func (c *cursor) take(n int, buf []byte) ([]byte, error) {
	if len(c.block.data)-c.off >= n {
		p := c.block.data[c.off : c.off+n]
		c.off += n
		return p, nil
	}
	err := c.read(buf[:n])
	return buf[:n], err
}

// skip moves n bytes on.
func (c *cursor) skip(n int64) error {
	for n > int64(len(c.block.data)-c.off) {
		n -= int64(len(c.block.data) - c.off)
		if err := c.advance(); err != nil {
			return err
		}
	}
	c.off += int(n)
	return nil
}

// table is an array of fixed-size entries in metadata blocks, with a list of
// the blocks' positions at off. The list is read at first use.
type table struct {
	name  string
	off   int64
	count uint64 // entries
	width int    // bytes of an entry; divides MetadataSize

	once  sync.Once
	index []byte
	err   error
}

// maxTableIndex bounds the memory of one table's index, in bytes: 64 million
// fragments, or half a gigabyte of ids.
const maxTableIndex = 1 << 20

// entry copies entry i of t to p, which is t.width bytes long.
func (r *Reader) entry(t *table, i uint64, p []byte) error {
	if i >= t.count {
		return corrupt("entry %d of the %s table, which has %d", i, t.name, t.count)
	}
	perBlock := uint64(MetadataSize / t.width)
	t.once.Do(func() {
		n := (t.count + perBlock - 1) / perBlock * 8
		if n > maxTableIndex {
			t.err = corrupt("%s table of %d entries is over the limit", t.name, t.count)
			return
		}
		t.index = make([]byte, n)
		t.err = r.src.read(t.index, t.off)
	})
	if t.err != nil {
		return t.err
	}
	pos := le.Uint64(t.index[i/perBlock*8:])
	if pos >= uint64(r.src.size) {
		return corrupt("block %d of the %s table lies at %d, outside the %d bytes in use", i/perBlock, t.name, pos, r.src.size)
	}
	b, err := r.metaBlock(int64(pos))
	if err != nil {
		return err
	}
	off := int(i%perBlock) * t.width
	if off+t.width > len(b.data) {
		return corrupt("block %d of the %s table ends before entry %d", i/perBlock, t.name, i)
	}
	copy(p, b.data[off:])
	return nil
}

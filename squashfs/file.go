package squashfs

import (
	"fmt"
	"io"
	"sync"
)

// chunkBlocks is how many entries of a block list are decoded at a time: the
// content of one metadata block. Only files of more blocks have several chunks.
const chunkBlocks = MetadataSize / 4

// maxBlockCount bounds the block list of one file: 1 TiB in blocks of 4 KiB,
// 32 TiB in blocks of 128 KiB.
const maxBlockCount = 1 << 28

// keptChunks is how many decoded chunks a file keeps.
const keptChunks = 4

// File is the content of a regular file. It may be used by several goroutines.
type File struct {
	r       *Reader
	size    int64
	nblocks int64
	tail    BlockID // the fragment block with the tail, if tailLen > 0
	tailOff int
	tailLen int // bytes of the tail in its fragment

	mu     sync.Mutex
	marks  []mark // where each chunk begins; grows as the file is explored
	chunks map[int64]*chunk
}

// mark is where the block list of a chunk and its first block lie.
type mark struct {
	pos  int64 // metadata block of the list
	off  int
	data int64
}

// chunk is a part of a block list.
type chunk struct {
	pos  []int64  // where each block lies
	size []uint32 // as stored; 0 is a block of zeros
}

// File returns the content of the regular file at an inode reference.
func (r *Reader) File(ref uint64) (*File, error) {
	if f, ok := r.files.get(ref); ok {
		return f, nil
	}
	var in Inode
	if err := r.Stat(ref, &in); err != nil {
		return nil, err
	}
	f, err := r.newFile(&in)
	if err != nil {
		return nil, err
	}
	r.files.put(ref, f, min(f.nblocks, keptChunks*chunkBlocks)*12+f.nblocks/chunkBlocks*24+256)
	return f, nil
}

func (r *Reader) newFile(in *Inode) (*File, error) {
	if !in.IsRegular() {
		return nil, fmt.Errorf("inode at %#x is not a regular file", in.Ref)
	}
	bs := int64(r.sb.BlockSize)
	f := &File{r: r, size: in.Size, nblocks: in.Size / bs, chunks: map[int64]*chunk{}}
	if rest := in.Size % bs; rest != 0 {
		if in.frag == noFragment {
			f.nblocks++
		} else if err := f.findTail(in, int(rest)); err != nil {
			return nil, err
		}
	}
	if f.nblocks > maxBlockCount {
		return nil, corrupt("file at %#x has %d blocks", in.Ref, f.nblocks)
	}
	if in.start > r.sb.BytesUsed {
		return nil, corrupt("file at %#x begins at %d, outside the image", in.Ref, in.start)
	}
	f.marks = []mark{{in.tailPos, in.tailOff, int64(in.start)}}
	return f, nil
}

// findTail looks the fragment up that holds the last n bytes of the file.
func (f *File) findTail(in *Inode, n int) error {
	r := f.r
	var b [16]byte
	if err := r.entry(&r.frags, uint64(in.frag), b[:]); err != nil {
		return err
	}
	f.tail = BlockID{int64(le.Uint64(b[:])), le.Uint32(b[8:])}
	if err := r.checkBlock(f.tail); err != nil {
		return err
	}
	if uint64(in.offset)+uint64(n) > uint64(r.sb.BlockSize) {
		return corrupt("file at %#x has %d bytes at %d of a fragment block", in.Ref, n, in.offset)
	}
	f.tailOff, f.tailLen = int(in.offset), n
	return nil
}

// checkBlock refuses a block that cannot be: too large or outside the image.
func (r *Reader) checkBlock(k BlockID) error {
	n := k.Size &^ blockStored
	if n > r.sb.BlockSize || k.Pos < SuperblockSize || k.Pos > r.src.size-int64(n) {
		return corrupt("data block of %d bytes at %d in an image of %d bytes with blocks of %d", n, k.Pos, r.src.size, r.sb.BlockSize)
	}
	return nil
}

// Size returns the length of the file in bytes.
func (f *File) Size() int64 { return f.size }

// chunk returns chunk i of the block list. With wait false it returns nil if
// metadata would have to be read.
func (f *File) chunk(i int64, wait bool) (*chunk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.chunks[i]; c != nil {
		return c, nil
	}
	if !wait {
		return nil, nil
	}
	for {
		from := min(i, int64(len(f.marks)-1))
		c, next, err := f.readChunk(from)
		if err != nil {
			return nil, err
		}
		if from == int64(len(f.marks)-1) {
			f.marks = append(f.marks, next)
		}
		if from == i {
			if len(f.chunks) >= keptChunks {
				clear(f.chunks)
			}
			f.chunks[i] = c
			return c, nil
		}
	}
}

// readChunk decodes the part of the block list that begins at mark i.
func (f *File) readChunk(i int64) (*chunk, mark, error) {
	n := int(min(chunkBlocks, f.nblocks-i*chunkBlocks))
	m := f.marks[i]
	cur, err := f.r.at(m.pos, m.off)
	if err != nil {
		return nil, mark{}, err
	}
	buf := make([]byte, 4*n)
	if err := cur.read(buf); err != nil {
		return nil, mark{}, err
	}
	c := &chunk{make([]int64, n), make([]uint32, n)}
	pos := m.data
	for k := range n {
		size := le.Uint32(buf[4*k:])
		c.pos[k], c.size[k] = pos, size
		if size != 0 {
			if err := f.r.checkBlock(BlockID{pos, size}); err != nil {
				return nil, mark{}, err
			}
		}
		pos += int64(size &^ blockStored)
	}
	return c, mark{cur.pos, cur.off, pos}, nil
}

// Block is a run of bytes of a file. Data must not be changed, and is valid
// until Release.
type Block struct {
	Data  []byte
	cache *blockCache
	from  *cachedBlock
}

// Release gives the block back to the cache; once for each Block.
func (b *Block) Release() {
	if b.from != nil {
		b.cache.release(b.from)
		b.from = nil
	}
}

// zeros is the content of holes.
var zeros [64 << 10]byte

// Blocks appends to dst the bytes of the file from off, n of them or up to the
// end of the file, as parts of cached blocks. The caller releases each. With
// wait false only blocks that are at hand are given; if one is missing, Blocks
// returns dst as it was and false, and the caller tries again with wait true
// where it may take its time.
func (f *File) Blocks(dst []Block, off int64, n int, wait bool) ([]Block, bool, error) {
	old := len(dst)
	if off < 0 || off >= f.size {
		return dst, true, nil
	}
	for end := off + min(int64(n), f.size-off); off < end; {
		b, err := f.block(off, end, wait)
		if err != nil || b.Data == nil {
			for i := range dst[old:] {
				dst[old+i].Release()
			}
			return dst[:old], false, err
		}
		dst = append(dst, b)
		off += int64(len(b.Data))
	}
	return dst, true, nil
}

// block returns bytes of the file from off up to the end of its block, but not
// behind end. Data is nil if they are not at hand and wait is false.
func (f *File) block(off, end int64, wait bool) (Block, error) {
	bs := int64(f.r.sb.BlockSize)
	i, skip := off/bs, int(off%bs)
	n := int(min(bs-int64(skip), end-off))
	if i >= f.nblocks {
		return f.cached(f.tail, f.tailOff+skip, n, wait)
	}
	c, err := f.chunk(i/chunkBlocks, wait)
	if c == nil || err != nil {
		return Block{}, err
	}
	key := BlockID{c.pos[i%chunkBlocks], c.size[i%chunkBlocks]}
	if key.Size == 0 {
		return Block{Data: zeros[:min(n, len(zeros))]}, nil
	}
	return f.cached(key, skip, n, wait)
}

// cached returns n bytes at skip of a data or fragment block.
func (f *File) cached(key BlockID, skip, n int, wait bool) (Block, error) {
	cache := &f.r.blocks
	if o := f.r.observer.Load(); o != nil {
		o.o.Touched(key)
	}
	e, err := cache.acquire(key, wait, f.r.load)
	if e == nil || err != nil {
		return Block{}, err
	}
	if skip+n > len(e.data) {
		have := len(e.data)
		cache.release(e)
		return Block{}, corrupt("data block at %d has %d bytes, %d are needed", key.Pos, have, skip+n)
	}
	return Block{e.data[skip : skip+n], cache, e}, nil
}

// load gets a data block to slot: from the observer, or decompressed.
func (r *Reader) load(key BlockID, slot []byte) (n int, err error) {
	if o := r.observer.Load(); o != nil {
		if n, ok := o.o.Load(key, slot); ok && n <= len(slot) {
			return n, nil
		}
	}
	return r.ReadBlock(key, slot)
}

// ReadBlock reads and decompresses a data block to slot, which has room for a
// block, beside the cache.
func (r *Reader) ReadBlock(key BlockID, slot []byte) (n int, err error) {
	if err := r.checkBlock(key); err != nil {
		return 0, err
	}
	n = int(key.Size &^ blockStored)
	if key.Size&blockStored != 0 {
		return n, r.src.read(slot[:n], key.Pos)
	}
	buf := r.in.Get().(*[]byte)
	defer r.in.Put(buf)
	if err := r.src.read((*buf)[:n], key.Pos); err != nil {
		return 0, err
	}
	k, err := r.unpack(slot, (*buf)[:n])
	if err != nil {
		return 0, corrupt("data block of %d bytes at %d: %v", n, key.Pos, err)
	}
	return k, nil
}

// ReadAt reads from the content of a regular file, as io.ReaderAt does.
func (r *Reader) ReadAt(in *Inode, p []byte, off int64) (int, error) {
	f, err := r.File(in.Ref)
	if err != nil {
		return 0, err
	}
	return f.ReadAt(p, off)
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("cannot read at the negative offset %d", off)
	}
	n := 0
	for n < len(p) && off < f.size {
		b, err := f.block(off, min(f.size, off+int64(len(p)-n)), true)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], b.Data)
		b.Release()
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

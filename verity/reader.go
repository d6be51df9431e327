package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"singularity/verity/lanes"
)

// Slots of the caches of checked blocks, of 4 KiB each.
const (
	leafSlots  = 256 // hash blocks over the data: 128 MiB of it
	upperSlots = 64  // of each level above
	dataSlots  = 64  // blocks of data of which only a part was wanted
)

// BlockError says that a block is not what the tree says it is.
type BlockError struct {
	Block int64 // of the data, or of the level
	Level int   // -1 for the data, 0 for the leaves of the tree
}

func (e *BlockError) Error() string {
	if e.Level < 0 {
		return fmt.Sprintf("block %d is not the one that was hashed", e.Block)
	}
	return fmt.Sprintf("block %d in level %d of the hash tree is not the one that was hashed", e.Block, e.Level)
}

// Reader reads data and checks it. It is safe for concurrent use.
type Reader struct {
	data, tree io.ReaderAt
	size       int64
	shape      shape
	salt       []byte
	root       Digest
	hashBlocks [maxLevels][]atomic.Pointer[checked]
	dataBlocks []atomic.Pointer[checked]
	hashers    sync.Pool
}

// checked is a block that was checked, and never changes.
type checked struct {
	index int64
	bytes [BlockSize]byte
}

// NewReader returns a Reader over size bytes of data, whose hash area is the
// treeSize bytes of tree. Salt and root must come from a trusted source.
func NewReader(data io.ReaderAt, size int64, tree io.ReaderAt, treeSize int64, salt []byte, root Digest) (*Reader, error) {
	s, err := shapeOf(size)
	if err != nil {
		return nil, err
	}
	if treeSize != s.size {
		return nil, fmt.Errorf("the hash tree over %d bytes has %d bytes, this one %d", size, s.size, treeSize)
	}
	if len(salt) > MaxSalt {
		return nil, fmt.Errorf("a salt has at most %d bytes, this one %d", MaxSalt, len(salt))
	}
	r := &Reader{data: data, tree: tree, size: size, shape: s, salt: bytes.Clone(salt), root: root,
		dataBlocks: make([]atomic.Pointer[checked], dataSlots)}
	wide := lanes.Have()
	r.hashers.New = func() any { return newHasher(r.salt, wide) }
	for l := range s.levels {
		r.hashBlocks[l] = make([]atomic.Pointer[checked], min(s.count[l], upperSlots))
	}
	if s.levels > 0 {
		r.hashBlocks[0] = make([]atomic.Pointer[checked], min(s.count[0], leafSlots))
	}
	return r, nil
}

// Size returns the size of the data.
func (r *Reader) Size() int64 { return r.size }

// ReadAt reads data and checks every block that it touches. A block that is
// wrong ends it with a *BlockError; the bytes before it are in p.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= r.size {
		return 0, io.EOF
	}
	atEnd := int64(len(p)) > r.size-off
	p = p[:min(int64(len(p)), r.size-off)]
	n := 0
	h := r.hashers.Get().(*hasher)
	defer r.hashers.Put(h)
	for n < len(p) {
		k, err := r.readSome(h, p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, err
		}
	}
	if atEnd {
		return n, io.EOF
	}
	return n, nil
}

// readSome reads whole blocks if p begins with some, else a part of one.
func (r *Reader) readSome(h *hasher, p []byte, off int64) (int, error) {
	block, within := off/BlockSize, off%BlockSize
	whole := int64(len(p)) / BlockSize * BlockSize
	if within != 0 || whole == 0 {
		b, err := r.edge(h, block)
		if err != nil {
			return 0, err
		}
		return copy(p, b[within:]), nil
	}
	if err := readFull(r.data, p[:whole], off); err != nil {
		return 0, err
	}
	return r.checkAll(h, p[:whole], block)
}

// edge returns a block of the data of which the caller wants a part. Compressed
// blocks lie end to end, so the next reader wants the rest of it.
func (r *Reader) edge(h *hasher, block int64) (*[BlockSize]byte, error) {
	slot := &r.dataBlocks[block%dataSlots]
	if c := slot.Load(); c != nil && c.index == block {
		return &c.bytes, nil
	}
	c := &checked{index: block}
	size := min(BlockSize, r.size-block*BlockSize)
	if err := readFull(r.data, c.bytes[:size], block*BlockSize); err != nil {
		return nil, err
	}
	if err := r.check(h, c.bytes[:], -1, block); err != nil {
		return nil, err
	}
	slot.Store(c)
	return &c.bytes, nil
}

// checkAll checks whole blocks of the data, from block on, by twos. It returns
// how many bytes are good before a wrong one.
func (r *Reader) checkAll(h *hasher, p []byte, block int64) (n int, err error) {
	for ; len(p)-n >= 2*BlockSize; block += 2 {
		var want [2][]byte
		for i := range want {
			if want[i], err = r.want(h, -1, block+int64(i)); err != nil {
				return n, err
			}
		}
		h.two(p[n:n+BlockSize], p[n+BlockSize:n+2*BlockSize], h.out[0][:], h.out[1][:])
		for i := range want {
			if !bytes.Equal(h.out[i][:], want[i]) {
				return n, &BlockError{Block: block + int64(i), Level: -1}
			}
			n += BlockSize
		}
	}
	if n < len(p) {
		if err := r.check(h, p[n:], -1, block); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// check compares a block of a level, -1 for the data, with its digest.
func (r *Reader) check(h *hasher, b []byte, level int, index int64) error {
	want, err := r.want(h, level, index)
	if err != nil {
		return err
	}
	h.one(b, h.out[0][:])
	if !bytes.Equal(h.out[0][:], want) {
		return &BlockError{Block: index, Level: level}
	}
	return nil
}

// want returns the digest that a block of a level must have.
func (r *Reader) want(h *hasher, level int, index int64) ([]byte, error) {
	if level+1 >= r.shape.levels {
		return r.root[:], nil
	}
	up, err := r.hashBlock(h, level+1, index/perBlock)
	if err != nil {
		return nil, err
	}
	return up[index%perBlock*DigestSize:][:DigestSize], nil
}

// hashBlock returns a block of the tree, checked.
func (r *Reader) hashBlock(h *hasher, level int, index int64) (*[BlockSize]byte, error) {
	slots := r.hashBlocks[level]
	slot := &slots[index%int64(len(slots))]
	if c := slot.Load(); c != nil && c.index == index {
		return &c.bytes, nil
	}
	c := &checked{index: index}
	if err := readFull(r.tree, c.bytes[:], r.shape.start[level]+index*BlockSize); err != nil {
		return nil, err
	}
	if err := r.check(h, c.bytes[:], level, index); err != nil {
		return nil, err
	}
	slot.Store(c)
	return &c.bytes, nil
}

// readFull fills p; a file that has become shorter is an error.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

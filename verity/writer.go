package verity

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"singularity/verity/lanes"
)

// chunkBlocks is how many blocks a goroutine takes at once, and ahead how many
// chunks wait, so that whoever writes hashes something else meanwhile: 2 MiB.
const (
	chunkBlocks = 64
	ahead       = 8
)

// Writer hashes data that is written to it in order. It is not safe for
// concurrent use.
type Writer struct {
	salt   []byte
	wide   bool // lanes.Have
	size   int64
	buf    []byte // of the chunk that is being filled
	leaves [][]byte
	jobs   chan job
	free   chan []byte
	done   sync.WaitGroup

	// Of a summing Writer, which hashes at once, where the data lies.
	plain  *lanes.State // of the data in whole blocks
	hasher *hasher
}

// job is a chunk of data and where its digests go.
type job struct {
	data, digests []byte
}

// NewWriter returns a Writer that hashes with the given number of goroutines,
// at least one, and a salt of at most 256 bytes. Sum must be called, after an
// error too: it ends them.
func NewWriter(salt []byte, workers int) *Writer {
	workers = max(workers, 1)
	w := &Writer{salt: bytes.Clone(salt), wide: lanes.Have(), jobs: make(chan job, ahead), free: make(chan []byte, workers+ahead)}
	for range workers + ahead {
		w.free <- make([]byte, 0, chunkBlocks*BlockSize)
	}
	w.buf = <-w.free
	for range workers {
		w.done.Go(w.work)
	}
	return w
}

func (w *Writer) work() {
	h := newHasher(w.salt, w.wide)
	for j := range w.jobs {
		h.all(j.data, j.digests)
		w.free <- j.data[:0]
	}
}

// Write takes the next bytes of the data. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	n := len(p)
	w.size += int64(n)
	if w.plain != nil {
		w.hashNow(p)
		return n, nil
	}
	for len(p) > 0 {
		k := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) == cap(w.buf) {
			w.send()
		}
	}
	return n, nil
}

// send gives the chunk to a goroutine; only the last one may be short.
func (w *Writer) send() {
	w.buf = filled(w.buf)
	d := make([]byte, chunkBlocks*DigestSize)
	w.leaves = append(w.leaves, d)
	w.jobs <- job{w.buf, d}
	w.buf = <-w.free
}

// Sum ends the data and returns its tree. There must be at least one byte.
func (w *Writer) Sum(uuid [16]byte) (*Tree, error) {
	w.finish()
	s, err := shapeOf(w.size)
	if err != nil {
		return nil, err
	}
	if len(w.salt) > MaxSalt {
		return nil, fmt.Errorf("a salt has at most %d bytes, this one %d", MaxSalt, len(w.salt))
	}
	t := &Tree{Superblock: Superblock{UUID: uuid, Blocks: s.blocks, Salt: w.salt}, shape: s}
	t.build(w.leaves, newHasher(w.salt, w.wide))
	return t, nil
}

// finish ends the data, and the goroutines.
func (w *Writer) finish() {
	if w.plain != nil {
		w.finishNow()
		return
	}
	if len(w.buf) > 0 {
		w.send()
	}
	close(w.jobs)
	w.done.Wait()
}

// filled appends zeros to b, up to a whole block.
func filled(b []byte) []byte { return append(b, make([]byte, -len(b)&(BlockSize-1))...) }

// Tree is the hash tree over some data.
type Tree struct {
	Superblock
	Root   Digest
	shape  shape
	levels [][]byte // the leaves first
}

// build makes the levels over the digests of the data.
func (t *Tree) build(chunks [][]byte, h *hasher) {
	if t.shape.levels == 0 {
		t.Root = Digest(chunks[0][:DigestSize])
		return
	}
	level := make([]byte, t.shape.count[0]*BlockSize)
	for i, c := range chunks {
		copy(level[i*chunkBlocks*DigestSize:], c)
	}
	t.levels = append(t.levels, level)
	for l := 1; l < t.shape.levels; l++ {
		up := make([]byte, t.shape.count[l]*BlockSize)
		h.all(level, up)
		t.levels = append(t.levels, up)
		level = up
	}
	h.one(level, t.Root[:])
}

// Size returns the size of the hash area in bytes.
func (t *Tree) Size() int64 { return t.shape.size }

// WriteTo writes the hash area.
func (t *Tree) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.Superblock.block())
	total := int64(n)
	for l := len(t.levels) - 1; l >= 0 && err == nil; l-- {
		n, err = w.Write(t.levels[l])
		total += int64(n)
	}
	return total, err
}

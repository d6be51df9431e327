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
	wide   bool         // lanes.Have
	plain  *lanes.State // of the data without its last block, nil if nobody wants it
	rest   []byte       // the last block, if plain wants it
	size   int64
	buf    []byte // of the chunk that is being filled
	leaves [][]byte
	jobs   chan job
	free   chan []byte
	done   sync.WaitGroup
}

// NewSummingWriter returns a Writer that makes the SHA-256 of the data as well, for
// Plain, in the time of one of the two. It returns nil where the processor has no
// instructions for that.
func NewSummingWriter(salt []byte) *Writer {
	if !lanes.Have() {
		return nil
	}
	s := lanes.Initial()
	return newWriter(&Writer{salt: bytes.Clone(salt), wide: true, plain: &s}, 1)
}

// job is a chunk of data and where its digests go.
type job struct {
	data, digests []byte
	whole         int // bytes of data in whole blocks; the rest is filled up
}

// NewWriter returns a Writer that hashes with the given number of goroutines,
// at least one, and a salt of at most 256 bytes. Sum must be called, after an
// error too: it ends them.
func NewWriter(salt []byte, workers int) *Writer {
	return newWriter(&Writer{salt: bytes.Clone(salt), wide: lanes.Have()}, max(workers, 1))
}

func newWriter(w *Writer, workers int) *Writer {
	w.jobs, w.free = make(chan job, ahead), make(chan []byte, workers+ahead)
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
		if w.plain == nil {
			h.all(j.data, j.digests)
		} else {
			h.with(w.plain, j.data[:j.whole], j.digests)
			h.all(j.data[j.whole:], j.digests[j.whole/BlockSize*DigestSize:])
		}
		w.free <- j.data[:0]
	}
}

// Write takes the next bytes of the data. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	n := len(p)
	w.size += int64(n)
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
	whole := len(w.buf) / BlockSize * BlockSize
	if short := len(w.buf) - whole; short > 0 {
		w.rest = bytes.Clone(w.buf[whole:])
		w.buf = append(w.buf, make([]byte, BlockSize-short)...)
	}
	d := make([]byte, chunkBlocks*DigestSize)
	w.leaves = append(w.leaves, d)
	w.jobs <- job{w.buf, d, whole}
	w.buf = <-w.free
}

// Sum ends the data and returns its tree. There must be at least one byte.
func (w *Writer) Sum(uuid [16]byte) (*Tree, error) {
	if len(w.buf) > 0 {
		w.send()
	}
	close(w.jobs)
	w.done.Wait()
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

// Sums tells whether w is a summing one.
func (w *Writer) Sums() bool { return w.plain != nil }

// Plain returns the SHA-256 of the data, after Sum, once, if w is a summing one.
func (w *Writer) Plain() Digest { return w.plain.Finish(w.rest, w.size) }

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

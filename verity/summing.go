package verity

import (
	"bytes"

	"singularity/verity/lanes"
)

// NewSummingWriter returns a Writer that makes the SHA-256 of the data as well, for
// Plain, in the time of one of the two, and in Write itself. It returns nil where
// the processor has no instructions for that.
func NewSummingWriter(salt []byte) *Writer {
	if !lanes.Have() {
		return nil
	}
	s := lanes.Initial()
	return &Writer{salt: bytes.Clone(salt), wide: true, plain: &s, hasher: newHasher(salt, true), leaves: make([][]byte, 1)}
}

// Sums tells whether w is a summing one.
func (w *Writer) Sums() bool { return w.plain != nil }

// hashNow hashes whole blocks where they lie, and keeps the rest.
func (w *Writer) hashNow(p []byte) {
	if len(w.buf) > 0 {
		k := min(len(p), BlockSize-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) < BlockSize {
			return
		}
		w.hashBlocks(w.buf)
		w.buf = w.buf[:0]
	}
	whole := len(p) / BlockSize * BlockSize
	w.hashBlocks(p[:whole])
	w.buf = append(w.buf, p[whole:]...)
}

func (w *Writer) hashBlocks(data []byte) {
	d := make([]byte, len(data)/BlockSize*DigestSize)
	w.hasher.with(w.plain, data, d)
	w.leaves[0] = append(w.leaves[0], d...)
}

// finishNow hashes the last block, filled up.
func (w *Writer) finishNow() {
	if len(w.buf) == 0 {
		return
	}
	var d Digest
	w.hasher.all(filled(bytes.Clone(w.buf)), d[:])
	w.leaves[0] = append(w.leaves[0], d[:]...)
}

// Plain returns the SHA-256 of the data, after Sum, once, if w is a summing one.
func (w *Writer) Plain() Digest { return w.plain.Finish(w.buf, w.size) }

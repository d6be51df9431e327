package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
)

// The contents pass three stations:
//
//	Add ──order──▶ writer goroutine ──▶ io.WriterAt
//	  └──work──▶ workers ──done──┘
//
// Add cuts files into blocks and puts each both in the queue of the workers and
// in the queue that keeps the order. The writer goroutine takes jobs in order,
// waits for each one's worker, and alone decides places, duplicates and the
// packing of fragments: so the image depends on the input, not on who was first.
// Both queues are short, which bounds memory and makes Add wait for the output.

const (
	maxQueueSize    = 64 << 20 // bytes of blocks under way, before and after compression
	maxFragmentWait = 4 << 20  // bytes of fragments under way
)

// writerFile is where the contents of a file lie. Duplicates share it.
type writerFile struct {
	start   uint64
	size    int64
	sparse  uint64 // bytes in blocks that are all zero
	blocks  []uint32
	frag    uint32
	fragOff uint32
}

type writerJobKind uint8

const (
	jobBlock writerJobKind = iota // one block: compressed by a worker
	jobZeros                      // a run of zero blocks
	jobEnd                        // the end of a file that has blocks
	jobSmall                      // the whole of a file that is smaller than a block
)

// writerJob is one step of the order.
type writerJob struct {
	kind  writerJobKind
	raw   []byte // contents
	out   []byte // contents as they are written
	size  uint32 // size word of a block
	zeros int
	sum   [DigestSize]byte
	inode *writerInode // of jobEnd and jobSmall
	bytes int64        // size of that file, or of the run of zeros
	err   error
	done  chan struct{}
}

// writerKey tells contents apart. SHA-256 makes it safe to take equal keys for
// equal contents without reading them again: no two contents of one digest are
// known, nor can one be made to collide. For a file of blocks the digest covers
// the size word and the digest of each block as written; a block can be
// decompressed in one way only, so equal blocks as written are equal contents.
type writerKey struct {
	size int64
	sum  [DigestSize]byte
}

type writerFragment struct {
	start uint64
	size  uint32
}

// writerData is the pipeline and the state of its writer goroutine.
type writerData struct {
	out       io.WriterAt
	marker    Marker // out, if it is one
	blockSize int
	order     chan *writerJob
	work      chan *writerJob
	buffers   writerBuffers
	err       atomic.Pointer[error]
	workers   sync.WaitGroup
	writer    sync.WaitGroup

	// Below: the writer goroutine's own until stop returns.
	pos     uint64
	known   map[writerKey]*writerFile
	file    writerFile // the file of blocks under way
	digest  func([]byte) [DigestSize]byte
	chain   [DigestSize]byte // of its blocks: each is the digest of the one before and a block
	frag    []byte           // the fragment block being filled
	waiting []*writerJob
	maxWait int
	frags   []writerFragment
	packed  uint32 // fragments handed to the workers
}

func startWriterData(out io.WriterAt, s encSettings, workers int) (*writerData, error) {
	queue := max(2, min(4*workers+16, maxQueueSize/(2*s.blockSize)))
	d := &writerData{
		out: out, blockSize: s.blockSize, order: make(chan *writerJob, queue), work: make(chan *writerJob, queue),
		known: map[writerKey]*writerFile{}, digest: s.digest, maxWait: max(2, maxFragmentWait/s.blockSize),
		pos: SuperblockSize,
	}
	d.marker, _ = out.(Marker)
	if o := s.options(); o != nil {
		d.write(append([]byte{byte(len(o)), metaStored >> 8}, o...))
	}
	encoders := make([]Encoder, workers)
	for i := range encoders {
		var err error
		if encoders[i], err = s.newEncoder(); err != nil {
			return nil, err
		}
	}
	for _, e := range encoders {
		d.workers.Go(func() { d.compress(e) })
	}
	d.writer.Go(d.writeInOrder)
	return d, nil
}

// stop waits until all that was added is written, and ends the goroutines.
func (d *writerData) stop() {
	close(d.order)
	d.writer.Wait()
	close(d.work)
	d.workers.Wait()
}

func (d *writerData) fail(err error) { d.err.CompareAndSwap(nil, &err) }

func (d *writerData) failure() error {
	if err := d.err.Load(); err != nil {
		return *err
	}
	return nil
}

// add cuts the contents of n into jobs.
func (d *writerData) add(n *writerInode, path string, size int64, content io.Reader) error {
	if content == nil {
		content = bytes.NewReader(nil)
	}
	var err error
	if size < int64(d.blockSize) {
		err = d.addSmall(n, size, content)
	} else {
		err = d.addBlocks(n, size, content)
	}
	if err == nil {
		var more [1]byte
		if k, _ := io.ReadFull(content, more[:]); k > 0 {
			err = fmt.Errorf("it is longer than the %d bytes announced", size)
		}
	}
	if err == nil {
		return d.failure()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("it is shorter than the %d bytes announced: %w", size, io.ErrUnexpectedEOF)
	}
	// What was queued of the file cannot be taken back.
	d.fail(fmt.Errorf("cannot add the contents of %q: %w", path, err))
	return d.failure()
}

// addSmall adds a file that fits in a fragment.
func (d *writerData) addSmall(n *writerInode, size int64, content io.Reader) error {
	raw := d.buffers.take(int(size))
	if _, err := io.ReadFull(content, raw); err != nil && size > 0 {
		return err
	}
	d.order <- &writerJob{kind: jobSmall, raw: raw, sum: d.digest(raw), inode: n, bytes: size}
	return nil
}

// addBlocks adds a file of at least one block. Its last block may be short: a
// tail of its own costs some bytes of size, but to read the end of a large file
// (section headers of libraries) then does not mean to decompress a fragment too.
func (d *writerData) addBlocks(n *writerInode, size int64, content io.Reader) error {
	sparse, _ := content.(SparseReader)
	for left := size; left > 0; {
		if err := d.failure(); err != nil {
			return err
		}
		if sparse != nil {
			units, err := sparse.SkipHole(int64(d.blockSize))
			if err != nil {
				return err
			}
			if units = min(units, left/int64(d.blockSize)); units > 0 {
				d.order <- &writerJob{kind: jobZeros, zeros: int(units), bytes: units * int64(d.blockSize)}
				left -= units * int64(d.blockSize)
				continue
			}
		}
		raw := d.buffers.take(int(min(left, int64(d.blockSize))))
		if _, err := io.ReadFull(content, raw); err != nil {
			return err
		}
		left -= int64(len(raw))
		if allZero(raw) {
			d.order <- &writerJob{kind: jobZeros, zeros: 1, bytes: int64(len(raw))}
			d.buffers.give(raw)
			continue
		}
		j := &writerJob{kind: jobBlock, raw: raw, done: make(chan struct{})}
		d.order <- j
		d.work <- j
	}
	d.order <- &writerJob{kind: jobEnd, inode: n, bytes: size}
	return nil
}

// allZero compares b with itself one byte on, which is as fast as memory.
func allZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// compress is the body of a worker.
func (d *writerData) compress(e Encoder) {
	for j := range d.work {
		if d.failure() != nil {
			// Nobody wants the image any more, and a slow compressor would
			// keep its caller waiting for a whole queue.
			j.out, j.size, j.raw = j.raw, uint32(len(j.raw))|blockStored, nil
			close(j.done)
			continue
		}
		dst := d.buffers.take(len(j.raw))
		out, ok, err := e.Encode(dst[:0], j.raw)
		switch {
		case err != nil:
			j.err = fmt.Errorf("cannot compress a block: %w", err)
		case ok:
			d.buffers.give(j.raw)
			j.raw, j.out, j.size = nil, out, uint32(len(out))
		default:
			d.buffers.give(dst)
			j.out, j.size, j.raw = j.raw, uint32(len(j.raw))|blockStored, nil
		}
		j.sum = d.digest(j.out)
		close(j.done)
	}
}

// writeInOrder is the body of the writer goroutine. After a failure it goes on
// taking jobs, so that Add never waits for ever.
func (d *writerData) writeInOrder() {
	for j := range d.order {
		switch j.kind {
		case jobBlock:
			<-j.done
			if j.err != nil {
				d.fail(j.err)
			}
			d.startFile()
			d.write(j.out)
			d.addBlockSize(j.size, &j.sum)
			d.buffers.give(j.out)
		case jobZeros:
			d.startFile()
			d.file.sparse += uint64(j.bytes)
			for range j.zeros {
				d.addBlockSize(0, nil)
			}
		case jobEnd:
			d.endFile(j)
		case jobSmall:
			d.small(j)
		}
	}
	d.flushFragment()
	d.writeFragments(0)
}

// startFile notes the place of a file at its first block.
func (d *writerData) startFile() {
	if len(d.file.blocks) == 0 {
		d.file = writerFile{start: d.pos, frag: noFragment}
		if d.marker != nil {
			d.marker.Mark()
		}
		d.chain = [DigestSize]byte{}
	}
}

func (d *writerData) addBlockSize(size uint32, sum *[DigestSize]byte) {
	d.file.blocks = append(d.file.blocks, size)
	var b [DigestSize + 4 + DigestSize]byte
	copy(b[:], d.chain[:])
	le.PutUint32(b[DigestSize:], size)
	n := DigestSize + 4
	if sum != nil {
		n += copy(b[n:], sum[:])
	}
	d.chain = d.digest(b[:n])
}

// endFile gives the inode its blocks. Those of a duplicate are given up: the
// next file is written over them.
func (d *writerData) endFile(j *writerJob) {
	key := writerKey{size: j.bytes}
	key.sum = d.chain
	f := d.known[key]
	if f == nil {
		f = &writerFile{}
		*f = d.file
		f.size = j.bytes
		f.blocks = append(make([]uint32, 0, len(f.blocks)), f.blocks...)
		// Readers take the count of zero bytes for smaller than the size.
		f.sparse = min(f.sparse, uint64(f.size-1))
		d.known[key] = f
	} else {
		d.pos = d.file.start
		if d.marker != nil {
			d.marker.Rewind()
		}
	}
	j.inode.file = f
	d.file.blocks = d.file.blocks[:0]
}

// small puts the contents of a small file into the current fragment block.
func (d *writerData) small(j *writerJob) {
	key := writerKey{size: j.bytes, sum: j.sum}
	f := d.known[key]
	if f == nil {
		f = &writerFile{size: j.bytes, frag: noFragment}
		if j.bytes > 0 {
			if len(d.frag)+len(j.raw) > d.blockSize {
				d.flushFragment()
			}
			if d.frag == nil {
				d.frag = d.buffers.take(d.blockSize)[:0]
			}
			f.frag, f.fragOff = d.packed, uint32(len(d.frag))
			d.frag = append(d.frag, j.raw...)
		}
		d.known[key] = f
	}
	j.inode.file = f
	d.buffers.give(j.raw)
}

// flushFragment hands the current fragment block to the workers. It is written
// when a fixed number of later ones has been handed over as well: late enough to
// keep all workers busy, and at a place that does not depend on their speed.
func (d *writerData) flushFragment() {
	if len(d.frag) == 0 {
		return
	}
	j := &writerJob{raw: d.frag, done: make(chan struct{})}
	d.frag = nil
	d.packed++
	d.work <- j
	d.waiting = append(d.waiting, j)
	d.writeFragments(d.maxWait)
}

// writeFragments writes fragment blocks until at most keep are waiting.
func (d *writerData) writeFragments(keep int) {
	for len(d.waiting) > keep {
		j := d.waiting[0]
		d.waiting = d.waiting[1:]
		<-j.done
		if j.err != nil {
			d.fail(j.err)
		}
		d.frags = append(d.frags, writerFragment{d.pos, j.size})
		d.write(j.out)
		d.buffers.give(j.out)
	}
}

// write appends b to the image, or drops it once anything has failed.
func (d *writerData) write(b []byte) {
	if d.failure() != nil || len(b) == 0 {
		return
	}
	if _, err := d.out.WriteAt(b, int64(d.pos)); err != nil {
		d.fail(fmt.Errorf("cannot write the squashfs image: %w", err))
		return
	}
	d.pos += uint64(len(b))
}

// writerBuffers keeps used buffers, by size in powers of two. The number in use
// is bounded by the queues.
type writerBuffers struct {
	mu   sync.Mutex
	free [bits.UintSize][][]byte
}

// take returns a buffer of size bytes with any contents.
func (w *writerBuffers) take(size int) []byte {
	class := bits.Len(uint(max(size, 512) - 1))
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.free[class]); n > 0 {
		b := w.free[class][n-1]
		w.free[class] = w.free[class][:n-1]
		return b[:size]
	}
	return make([]byte, size, 1<<class)
}

// give takes b back, if it came from take.
func (w *writerBuffers) give(b []byte) {
	class := bits.Len(uint(cap(b))) - 1
	if cap(b) == 0 || cap(b) != 1<<class {
		return // grown by an encoder
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free[class] = append(w.free[class], b)
}

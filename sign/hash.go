package sign

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"hash"
	"io"
	"runtime"
	"slices"
	"sync"

	"singularity/sif"
	"singularity/verity"
)

// chunkSize is how much is read at once, in bytes. While one chunk is hashed the
// next is read, so that the time is that of the slower of the two.
const chunkSize = 1 << 20

// hashing reads runs of objects once each and hashes them with every algorithm
// that somebody asked for.
type hashing struct {
	f    *sif.File
	jobs map[string]*hashJob
}

// hashJob is one run of objects, hashed as if their data were one.
type hashJob struct {
	objects []sif.Object
	hashes  map[crypto.Hash]hash.Hash
	sums    map[crypto.Hash][]byte
	tree    *verity.Writer // builds a hash tree meanwhile, if not nil; it may make the SHA-256 too
}

func newHashing(f *sif.File) *hashing {
	return &hashing{f: f, jobs: map[string]*hashJob{}}
}

// want asks for the hash of the data of objects, one after the other, and
// returns where it will be once run has returned.
func (h *hashing) want(alg crypto.Hash, objects ...sif.Object) *hashJob {
	j := h.job(objects...)
	if j.hashes[alg] == nil {
		j.hashes[alg] = alg.New()
	}
	return j
}

func (h *hashing) job(objects ...sif.Object) *hashJob {
	key := ""
	for _, o := range objects {
		key += fmt.Sprint(o.ID, " ")
	}
	j := h.jobs[key]
	if j == nil {
		j = &hashJob{objects: objects, hashes: map[crypto.Hash]hash.Hash{}, sums: map[crypto.Hash][]byte{}}
		h.jobs[key] = j
	}
	return j
}

// sum returns the digest of the job for alg.
func (j *hashJob) sum(alg crypto.Hash) digest { return digest{hash: alg, sum: j.sums[alg]} }

func (j *hashJob) size() (n int64) {
	for _, o := range j.objects {
		n += o.Size
	}
	return n
}

// run does all that was asked for, the largest first and as many at a time as
// there are processors.
func (h *hashing) run(ctx context.Context) error {
	var jobs []*hashJob
	for _, j := range h.jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *hashJob) int { return cmp.Compare(b.size(), a.size()) })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *hashJob, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	var wg sync.WaitGroup
	for range min(len(jobs), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			var bufs [2][]byte
			for j := range queue {
				if err := j.run(ctx, h.f, &bufs); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// run hashes one run of objects with the given buffers, which it may allocate.
func (j *hashJob) run(ctx context.Context, f *sif.File, bufs *[2][]byte) error {
	var all []io.Writer
	if j.tree != nil {
		all = append(all, j.tree)
	}
	for alg, h := range j.hashes {
		if alg != crypto.SHA256 || j.tree == nil || !j.tree.Sums() {
			all = append(all, h)
		}
	}
	for _, o := range j.objects {
		if err := hashObject(ctx, f.Reader(o), bufs, all); err != nil {
			return fmt.Errorf("cannot read object %d: %w", o.ID, err)
		}
	}
	for alg, h := range j.hashes {
		j.sums[alg] = h.Sum(nil)
	}
	return nil
}

// chunk is a part of the data that was read, or why it could not be.
type chunk struct {
	data []byte
	err  error
}

// hashObject feeds what r holds to all hashes; another goroutine reads ahead.
func hashObject(ctx context.Context, r *io.SectionReader, bufs *[2][]byte, all []io.Writer) error {
	size := int(min(r.Size(), chunkSize))
	for i := range bufs {
		if len(bufs[i]) < size {
			bufs[i] = make([]byte, size)
		}
	}
	if r.Size() <= chunkSize {
		if _, err := io.ReadFull(r, bufs[0][:size]); err != nil {
			return err
		}
		write(all, bufs[0][:size])
		return ctx.Err()
	}
	free, full := make(chan []byte, 2), make(chan chunk, 2)
	free <- bufs[0][:chunkSize]
	free <- bufs[1][:chunkSize]
	go func() {
		defer close(full)
		for left := r.Size(); left > 0; {
			buf := <-free
			if buf == nil {
				return
			}
			n, err := io.ReadFull(r, buf[:min(left, chunkSize)])
			left -= int64(n)
			full <- chunk{buf[:n], err}
			if err != nil {
				return
			}
		}
	}()
	// Closing free ends the reader; waiting for it makes the buffers ours again.
	defer func() {
		close(free)
		for range full {
		}
	}()
	for c := range full {
		if c.err != nil {
			return c.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		write(all, c.data)
		free <- c.data[:chunkSize]
	}
	return nil
}

// write feeds hashes, which never fail.
func write(all []io.Writer, data []byte) {
	for _, h := range all {
		h.Write(data)
	}
}

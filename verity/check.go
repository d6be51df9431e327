package verity

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// checkChunk is what a goroutine of Check reads at once.
const checkChunk = 1 << 20

// Check reads all data with the given number of goroutines. It returns the
// *BlockError of the lowest wrong block that was met, and calls progress, if not
// nil, with the bytes done so far, from any goroutine.
func (r *Reader) Check(ctx context.Context, workers int, progress func(done int64)) error {
	inner, stop := context.WithCancel(ctx)
	defer stop()
	var next, done atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, max(workers, 1))
	for i := range errs {
		group.Go(func() {
			buf := make([]byte, min(checkChunk, r.size))
			for inner.Err() == nil {
				off := next.Add(checkChunk) - checkChunk
				if off >= r.size {
					return
				}
				b := buf[:min(checkChunk, r.size-off)]
				if n, err := r.ReadAt(b, off); n < len(b) {
					errs[i] = err
					stop()
					return
				}
				if d := done.Add(int64(len(b))); progress != nil {
					progress(d)
				}
			}
		})
	}
	group.Wait()
	if err := firstError(errs); err != nil {
		return err
	}
	return ctx.Err()
}

// firstError prefers the wrong block that comes first in the data.
func firstError(errs []error) error {
	var first error
	var lowest *BlockError
	for _, err := range errs {
		var b *BlockError
		switch {
		case errors.As(err, &b) && b.Level < 0 && (lowest == nil || b.Block < lowest.Block):
			lowest, first = b, err
		case first == nil:
			first = err
		}
	}
	return first
}

package main

import (
	"context"
	"os"
	"sync"
	"time"
)

// crowd is how many containers start at once: the ranks of a node.
const crowd = 128

// shared: starts that share a mount with others of the same user and image, as
// is the default.
func (b *bench) shared(ctx context.Context) error {
	if err := b.need("bwrap"); err != nil {
		return err
	}
	tree, image := b.path("tree"), b.sif("gzip")
	start := []string{b.program("singularity"), "exec", image, "true"}
	got, err := rounds(ctx, b.n, []side{
		b.runs("bwrap", "", b.bwrap(tree, "true")...),
		b.runs("warm", "", start...),
		{"first", func(ctx context.Context) (sample, error) {
			// An image that changed has no holder yet.
			now := time.Now()
			if err := os.Chtimes(image, now, now); err != nil {
				return sample{}, err
			}
			return b.once(b.command(ctx, start...), "")
		}},
	})
	if err != nil {
		return err
	}
	b.compare(row{Name: "exec of a SIF, shared mount, gzip / bwrap", Goal: 1, Unit: "ms"}, walls(got[1]), walls(got[0]))
	b.compare(row{Name: "CPU of exec of a SIF, shared mount, gzip / bwrap", Unit: "ms"}, cpus(got[1]), cpus(got[0]))
	b.compare(row{Name: "the first start of a shared mount, gzip / bwrap", Unit: "ms", Note: "the CPU of the holder is not in the wall time"}, walls(got[2]), walls(got[0]))
	got, err = rounds(ctx, max(b.n/3, 3), []side{b.atOnce("bwrap", b.bwrap(tree, "true")), b.atOnce("shared", start)})
	if err != nil {
		return err
	}
	b.compare(row{Name: "128 starts at once of a SIF / bwrap on the directory", Goal: 1.25, Unit: "ms"}, walls(got[1]), walls(got[0]))
	return nil
}

// atOnce runs a command many times at once.
func (b *bench) atOnce(name string, argv []string) side {
	return side{name, func(ctx context.Context) (sample, error) {
		var wg sync.WaitGroup
		errs := make(chan error, crowd)
		begin := time.Now()
		for range crowd {
			wg.Go(func() {
				_, err := b.once(b.command(ctx, argv...), "")
				errs <- err
			})
		}
		wg.Wait()
		s := sample{wall: time.Since(begin)}
		for range crowd {
			if err := <-errs; err != nil {
				return s, err
			}
		}
		return s, nil
	}}
}

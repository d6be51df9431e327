package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// hot: starts that keep blocks of the image for the next start, against the same
// starts without, against the directory and against squashfuse. Every start has a fresh mount.
func (b *bench) hot(ctx context.Context) error {
	if err := b.need("bwrap", "squashfuse_ll", "unshare"); err != nil {
		return err
	}
	image := b.image("gzip")
	for _, what := range []struct {
		name string
		argv []string
		n    int
	}{
		{"python, numpy, scipy", []string{"python3", "-c", imports}, b.longRuns()},
		{"exec of true", []string{"true"}, b.n},
	} {
		sides := []side{
			b.runs("directory", "", b.singularity(b.path("tree"), what.argv...)...),
			b.runs("plain", "", b.singularity(image, what.argv...)...),
		}
		for _, keep := range []string{"trace", "true"} {
			s, err := b.hotSide(ctx, keep, image, what.argv)
			if err != nil {
				return err
			}
			sides = append(sides, s)
		}
		sides = append(sides, b.squashfuseSide(image, what.argv))
		got, err := rounds(ctx, what.n, sides)
		if err != nil {
			return err
		}
		fresh := what.name + ", fresh mount, gzip, "
		b.compare(row{Name: fresh + "--hot-cache / directory", Unit: "ms"}, walls(got[3]), walls(got[0]))
		r := row{Name: fresh + "--hot-cache / squashfuse_ll + bwrap", Unit: "ms"}
		if what.argv[0] == "python3" {
			r.Goal = 0.5
		}
		b.compare(r, walls(got[3]), walls(got[4]))
		b.compare(row{Name: fresh + "--hot-cache / without", Unit: "ms"}, walls(got[3]), walls(got[1]))
		b.compare(row{Name: "CPU of " + fresh + "--hot-cache / without", Unit: "ms"}, cpus(got[3]), cpus(got[1]))
		b.compare(row{Name: fresh + "--hot-cache=trace / without", Unit: "ms", Note: "gains only where a processor is idle"}, walls(got[2]), walls(got[1]))
	}
	return nil
}

// hotSide is a start with a cache of its own, which an earlier start has filled.
func (b *bench) hotSide(ctx context.Context, keep, image string, argv []string) (side, error) {
	cache := filepath.Join(b.path("tmp"), "hot-"+keep+"-"+argv[0])
	argv = append([]string{b.program("singularity"), "exec", "--no-shared-mount", "--hot-cache=" + keep, image}, argv...)
	s := side{keep, func(ctx context.Context) (sample, error) {
		c := b.command(ctx, argv...)
		c.Env = append(c.Env, "SINGULARITY_CACHEDIR="+cache)
		return b.once(c, "")
	}}
	if err := os.RemoveAll(cache); err != nil {
		return s, err
	}
	if _, err := s.run(ctx); err != nil {
		return s, err
	}
	// The file is written when the start is over, in the background.
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if list, _ := filepath.Glob(cache + "/cache/hot/*.hot"); len(list) > 0 {
			return s, nil
		}
		if time.Now().After(end) {
			return s, errors.New("no file of hot blocks was written")
		}
	}
}

package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// imports is the Python program whose start is measured.
const imports = "import numpy, scipy.linalg, scipy.stats"

// findAll walks the whole image.
const findAll = "find / -xdev | wc -l"

// readScript reads the large files of the image in order, or 4 KiB pieces of
// them in a random but repeatable order, and prints the seconds.
const readScript = `
import os, random, sys, time
files = []
for top, dirs, names in os.walk("/usr"):
    for n in names:
        p = os.path.join(top, n)
        if os.path.isfile(p) and not os.path.islink(p) and os.path.getsize(p) > 1 << 20:
            files.append(p)
files.sort()
fds = [os.open(p, os.O_RDONLY) for p in files]
sizes = [os.fstat(f).st_size for f in fds]
random.seed(1)
if sys.argv[1] == "sequential":
    t = time.monotonic()
    for f in fds:
        while os.read(f, 1 << 20):
            pass
else:
    picks = [random.randrange(len(fds)) for _ in range(4000)]
    picks = [(fds[i], random.randrange(sizes[i] - 4096)) for i in picks]
    for f in fds:
        os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
    t = time.monotonic()
    for f, off in picks:
        os.pread(f, 4096, off)
print(time.monotonic() - t)
`

// longRuns is how often commands run that take a good part of a second.
func (b *bench) longRuns() int {
	if b.quick {
		return 3
	}
	return max(15, b.n*3/5)
}

// python: start of a program that reads much, on a fresh mount and on one
// that the kernel has cached.
func (b *bench) python(ctx context.Context) error {
	for _, c := range []string{"gzip", "zstd"} {
		err := b.coldPython(ctx, c)
		if err != nil {
			b.skip("python on a fresh "+c+" mount / squashfuse_ll", err.Error())
		}
	}
	return b.warmPython(ctx)
}

func (b *bench) coldPython(ctx context.Context, compressor string) error {
	if err := b.need("bwrap", "squashfuse_ll", "unshare"); err != nil {
		return err
	}
	image := b.image(compressor)
	py := []string{"python3", "-c", imports}
	shell, err := b.session(ctx, "/bin/sh", "-c", loop)
	if err != nil {
		return err
	}
	defer shell.close()
	got, err := rounds(ctx, b.longRuns(), []side{
		{"singularity", func(context.Context) (sample, error) {
			took, _, err := shell.step(quote(b.singularity(image, py...)))
			return sample{wall: took}, err
		}},
		b.squashfuseSide(image, py),
	})
	if err != nil {
		return err
	}
	r := row{Name: "python, numpy, scipy: mount and run, " + compressor + " / squashfuse_ll + bwrap", Unit: "ms"}
	if compressor == "gzip" {
		r.Goal = 0.7
	}
	b.compare(r, walls(got[0]), walls(got[1]))
	return nil
}

// squashfuseSide mounts an image afresh and runs a program in it.
func (b *bench) squashfuseSide(image string, argv []string) side {
	return side{"squashfuse_ll", func(ctx context.Context) (sample, error) {
		s, err := b.session(ctx, b.isolated(loop)...)
		if err != nil {
			return sample{}, err
		}
		defer s.close()
		took, _, err := s.step(b.squashfuse(image) + " && " + quote(b.bwrap(b.path("mnt"), argv...)))
		return sample{wall: took}, err
	}}
}

// warmPython runs again in containers that are there already.
func (b *bench) warmPython(ctx context.Context) error {
	line := quote([]string{"python3", "-c", imports})
	var sides []side
	for _, image := range []string{b.image("gzip"), b.path("tree")} {
		s, err := b.session(ctx, b.singularity(image, "/bin/sh", "-c", loop)...)
		if err != nil {
			return err
		}
		defer s.close()
		sides = append(sides, side{image, func(context.Context) (sample, error) {
			took, _, err := s.step(line)
			return sample{wall: took}, err
		}})
	}
	got, err := rounds(ctx, b.longRuns(), sides)
	if err != nil {
		return err
	}
	b.compare(row{Name: "the same again in one container, gzip / directory", Goal: 1.15, Unit: "ms"}, walls(got[0]), walls(got[1]))
	return nil
}

// find: a walk over a fresh mount, and again.
func (b *bench) find(ctx context.Context) error {
	if err := b.need("bwrap", "squashfuse_ll", "unshare"); err != nil {
		return err
	}
	var first, again [3][]float64
	var noKernel error
	for i := -1; i < b.longRuns(); i++ {
		for k := range first {
			cold, warm, err := b.findOnce(ctx, k, b.image("gzip"))
			if err != nil && k == 2 {
				noKernel = err
				continue
			}
			if err != nil {
				return err
			}
			if i >= 0 {
				first[k], again[k] = append(first[k], ms(cold)), append(again[k], ms(warm))
			}
		}
	}
	const fresh, later = "find / on a fresh mount, gzip / ", "find / again / "
	b.compare(row{Name: fresh + "squashfuse_ll", Goal: 0.7, Unit: "ms"}, first[0], first[1])
	b.compare(row{Name: later + "squashfuse_ll", Goal: 0.7, Unit: "ms"}, again[0], again[1])
	if noKernel != nil {
		b.skip(fresh+"kernel", noKernel.Error())
		return nil
	}
	b.compare(row{Name: fresh + "kernel", Unit: "ms"}, first[0], first[2])
	b.compare(row{Name: later + "kernel", Unit: "ms"}, again[0], again[2])
	return nil
}

var manyFiles = regexp.MustCompile(`^\s*\d{3,}\s*$`)

// findOnce walks twice over a fresh mount.
func (b *bench) findOnce(ctx context.Context, by int, image string) (cold, warm time.Duration, err error) {
	s, err := b.served(ctx, by, image)
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	cold, n, err := s.step(findAll)
	if err == nil && !manyFiles.MatchString(n) {
		err = fmt.Errorf("find printed %q", n)
	}
	if err != nil {
		return 0, 0, err
	}
	warm, _, err = s.step(findAll)
	return cold, warm, err
}

// served starts a session on a fresh mount: of ours (0), of squashfuse (1), of
// the kernel (2).
func (b *bench) served(ctx context.Context, by int, image string) (*session, error) {
	switch by {
	case 0:
		return b.session(ctx, b.singularity(image, "/bin/sh", "-c", loop)...)
	case 1:
		return b.squashfuseSession(ctx, image)
	}
	return b.kernelSession(ctx, image)
}

// reads: large files in order and small pieces at random; to report only.
func (b *bench) reads(ctx context.Context) error {
	if err := b.need("bwrap", "squashfuse_ll", "unshare"); err != nil {
		return err
	}
	n := max(3, b.longRuns()/3)
	for _, c := range []string{"gzip", "zstd"} {
		for _, how := range []string{"sequential", "random"} {
			var got [3][]float64
			var noKernel error
			for range n {
				for k := range got {
					v, err := b.readOnce(ctx, k, b.image(c), how)
					if err != nil && k == 2 {
						noKernel = err
						continue
					}
					if err != nil {
						return err
					}
					got[k] = append(got[k], v)
				}
			}
			name := how + " reads, fresh mount, " + c + " / "
			b.compare(row{Name: name + "squashfuse_ll", Unit: "ms"}, got[0], got[1])
			if noKernel != nil {
				b.skip(name+"kernel", noKernel.Error())
				continue
			}
			b.compare(row{Name: name + "kernel", Unit: "ms"}, got[0], got[2])
		}
	}
	return nil
}

func (b *bench) readOnce(ctx context.Context, by int, image, how string) (float64, error) {
	s, err := b.served(ctx, by, image)
	if err != nil {
		return 0, err
	}
	defer s.close()
	_, text, err := s.step(`python3 -c "$BENCH_SCRIPT" ` + how)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return v * 1000, err
}

// memory: the most that the process that serves an image used, and what one
// uses that only waits.
func (b *bench) memory(ctx context.Context) error {
	for _, c := range []string{"gzip", "zstd"} {
		for _, work := range []struct{ name, line string }{
			{"hashing 3,000 files", "find /usr -xdev -type f | head -n 3000 | xargs sha256sum | wc -l"},
			{"importing numpy", quote([]string{"python3", "-c", imports})},
		} {
			list, err := b.peaks(ctx, 3, b.singularity(b.image(c), "/bin/sh", "-c", loop), work.line)
			if err != nil {
				return err
			}
			b.absolute(row{Name: "memory of the server, " + c + ", " + work.name, Goal: 40, Unit: "MB"}, list)
		}
	}
	// Fake root needs a process that stays outside; a plain start of a
	// directory leaves none at all.
	argv := []string{b.program("singularity"), "exec", "--fakeroot", b.path("tree"), "/bin/sh", "-c", loop}
	list, err := b.peaks(ctx, 3, argv, ":")
	if err != nil {
		return err
	}
	b.absolute(row{Name: "memory of the supervisor without a mount (--fakeroot)", Goal: 12, Unit: "MB"}, list)
	return nil
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peaks runs line in n new sessions and returns the most memory, in MB (10^6
// bytes), that the process used which was started, without the container's.
func (b *bench) peaks(ctx context.Context, n int, argv []string, line string) ([]float64, error) {
	var list []float64
	for range n {
		s, err := b.session(ctx, argv...)
		if err != nil {
			return nil, err
		}
		_, _, err = s.step(line)
		text := readAll(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		s.close()
		if err != nil {
			return nil, err
		}
		m := highWater.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("no memory figures of %s: %w", argv[0], exec.ErrNotFound)
		}
		kb, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return nil, err
		}
		list = append(list, kb*1024/1e6)
	}
	return list, nil
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is what one run of a command took.
type sample struct {
	wall time.Duration
	cpu  time.Duration // user and system, of the command and all it waited for
	rss  int64         // bytes, of the largest process
}

// side is one of the commands that run by turns.
type side struct {
	name string
	run  func(context.Context) (sample, error)
}

// command makes a command that runs as the ordinary user, with no terminal and
// a small, fixed environment.
func (b *bench) command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = b.environ()
	c.Dir = b.user.home
	c.Stderr = b.stderr
	// Nothing outlives this program, even if it is killed.
	c.SysProcAttr = &syscall.SysProcAttr{Credential: b.user.credential, Pdeathsig: syscall.SIGKILL}
	c.WaitDelay = 10 * time.Second
	return c
}

func (b *bench) environ() []string {
	return []string{"HOME=" + b.user.home, "USER=" + b.user.name, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "TMPDIR=" + b.path("tmp")}
}

// runs is a side that runs a command; input may be "".
func (b *bench) runs(name, input string, argv ...string) side {
	return side{name, func(ctx context.Context) (sample, error) {
		return b.once(b.command(ctx, argv...), input)
	}}
}

// once runs c and measures it.
func (b *bench) once(c *exec.Cmd, input string) (sample, error) {
	if input != "" {
		f, err := os.Open(input)
		if err != nil {
			return sample{}, err
		}
		defer f.Close()
		c.Stdin = f
	}
	b.stderr.Truncate(0)
	start := time.Now()
	err := c.Run()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, b.failure(c, err)
	}
	s.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if ru, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = ru.Maxrss << 10
	}
	return s, nil
}

// failure adds the last words of a command to its error.
func (b *bench) failure(c *exec.Cmd, err error) error {
	text := make([]byte, 2000)
	n, _ := b.stderr.ReadAt(text, 0)
	text = bytes.TrimSpace(text[:n])
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return fmt.Errorf("%s: %w: %s", strings.Join(c.Args[:min(len(c.Args), 3)], " "), err, text)
}

// output runs a command and returns what it prints.
func (b *bench) output(ctx context.Context, argv ...string) (string, error) {
	c := b.command(ctx, argv...)
	b.stderr.Truncate(0)
	out, err := c.Output()
	if err != nil {
		return "", b.failure(c, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// rounds runs all sides by turns, n times after one round that does not count,
// and returns the samples of each side.
func rounds(ctx context.Context, n int, sides []side) ([][]sample, error) {
	out := make([][]sample, len(sides))
	for i := -1; i < n; i++ {
		for k := range sides {
			s, err := sides[k].run(ctx)
			if err != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
			if i >= 0 {
				out[k] = append(out[k], s)
			}
		}
	}
	return out, nil
}

func walls(list []sample) []float64 {
	return values(list, func(s sample) float64 { return ms(s.wall) })
}

func cpus(list []sample) []float64 { return values(list, func(s sample) float64 { return ms(s.cpu) }) }

func values(list []sample, f func(sample) float64) []float64 {
	var out []float64
	for _, s := range list {
		out = append(out, f(s))
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	l := slices.Sorted(slices.Values(list))
	m := len(l) / 2
	if len(l)%2 == 0 {
		return (l[m-1] + l[m]) / 2
	}
	return l[m]
}

// ratios divides the elements of a by those of b.
func ratios(a, b []float64) []float64 {
	var out []float64
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

// readAll reads a small file; "" if that fails.
func readAll(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(text)
}

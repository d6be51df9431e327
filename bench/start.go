package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// partArch is the number of this machine's architecture, as sif add wants it.
func partArch() string {
	return map[string]string{"386": "1", "amd64": "2", "arm": "3", "arm64": "4", "ppc64": "5", "ppc64le": "6", "s390x": "11", "riscv64": "12", "loong64": "13"}[runtime.GOARCH]
}

// launcher: how long our program takes to do nothing.
func (b *bench) launcher(ctx context.Context) error {
	got, err := rounds(ctx, 2*b.n, []side{
		b.runs("singularity --version", "", b.program("singularity"), "--version"),
		b.runs("/bin/true", "", "/bin/true"),
	})
	if err != nil {
		return err
	}
	b.compare(row{Name: "`singularity --version` / `/bin/true`", Goal: 2.2, Unit: "ms"}, walls(got[0]), walls(got[1]))
	return nil
}

var initLine = regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, (\S+) ms clock`)

// packageInit: the time of the initialisers of all packages that are linked.
func (b *bench) packageInit(ctx context.Context) error {
	trace := b.path("tmp/inittrace")
	var sums []float64
	worst := map[string]float64{}
	for range max(b.n, 15) {
		f, err := os.Create(trace)
		if err != nil {
			return err
		}
		c := b.command(ctx, b.singularity(b.path("tree"), "true")...)
		c.Env = append(c.Env, "GODEBUG=inittrace=1")
		c.Stderr = f
		err = c.Run()
		f.Close()
		if err != nil {
			return err
		}
		var sum float64
		for _, m := range initLine.FindAllStringSubmatch(readAll(trace), -1) {
			v, _ := strconv.ParseFloat(m[2], 64)
			sum += v
			worst[m[1]] += v
		}
		if sum == 0 {
			return errors.New("no trace of the initialisers")
		}
		sums = append(sums, sum)
	}
	var name string
	for k := range worst {
		if name == "" || worst[k] > worst[name] {
			name = k
		}
	}
	b.absolute(row{Name: "package initialisers of `exec`", Goal: 0.3, Unit: "ms", Note: "slowest package: " + name}, sums)
	return nil
}

// execTrue: start of a container that does nothing, from a directory and from
// images with a mount of their own each.
func (b *bench) execTrue(ctx context.Context) error {
	if err := b.need("bwrap"); err != nil {
		return err
	}
	if err := b.sameMounts(ctx); err != nil {
		say("the two sides do not mount the same: %v", err)
	}
	tree := b.path("tree")
	sides := []side{
		b.runs("bwrap", "", b.bwrap(tree, "true")...),
		b.runs("directory", "", b.singularity(tree, "true")...),
	}
	for _, c := range compressors {
		sides = append(sides, b.runs(c, "", b.singularity(b.sif(c), "true")...))
	}
	got, err := rounds(ctx, b.n, sides)
	if err != nil {
		return err
	}
	peer := got[0]
	b.compare(row{Name: "exec of a directory / bwrap", Goal: 0.9, Unit: "ms"}, walls(got[1]), walls(peer))
	for i, c := range compressors {
		r := row{Name: "exec of a SIF, cold mount, " + c + " / bwrap", Goal: 2.5, Unit: "ms"}
		if c == "zstd" || c == "gzip" {
			r.Goal = 3.5
		}
		b.compare(r, walls(got[2+i]), walls(peer))
	}
	b.compare(row{Name: "CPU of exec of a directory / bwrap", Unit: "ms"}, cpus(got[1]), cpus(peer))
	b.compare(row{Name: "CPU of exec of a SIF, cold mount, gzip / bwrap", Goal: 4, Unit: "ms"}, cpus(got[len(got)-1]), cpus(peer))
	return nil
}

// sameMounts makes sure that both sides show the same mounts; the user and
// group files may be served by the root instead of mounted.
func (b *bench) sameMounts(ctx context.Context) error {
	ours, err := b.mounts(ctx, b.singularity(b.path("tree"), "cat", "/proc/self/mountinfo"))
	if err != nil {
		return err
	}
	peer, err := b.mounts(ctx, b.bwrap(b.path("tree"), "cat", "/proc/self/mountinfo"))
	if err != nil {
		return err
	}
	delete(peer, "/etc/passwd")
	delete(peer, "/etc/group")
	var differ []string
	for p := range ours {
		if !peer[p] {
			differ = append(differ, "only ours has "+p)
		}
	}
	for p := range peer {
		if !ours[p] {
			differ = append(differ, "only bwrap has "+p)
		}
	}
	if len(differ) > 0 {
		return errors.New(strings.Join(differ, ", "))
	}
	return nil
}

func (b *bench) mounts(ctx context.Context, argv []string) (map[string]bool, error) {
	text, err := b.output(ctx, argv...)
	list := map[string]bool{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 4 {
			list[filepath.Clean(f[4])] = true
		}
	}
	delete(list, "/etc/passwd")
	delete(list, "/etc/group")
	return list, err
}

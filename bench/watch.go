package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// watch: what knowing the contents of images costs those who build and start them.
func (b *bench) watch(ctx context.Context) error {
	return errors.Join(b.billOf(ctx, "a Debian tree", b.path("tree")), b.billOfGo(ctx), b.runRecords(ctx))
}

// billOf builds an image with and without a list of its packages, by turns.
func (b *bench) billOf(ctx context.Context, what, tree string) error {
	build := func(name string, flags ...string) side {
		args := append([]string{"build", "--force", "--compression", "zstd"}, flags...)
		return b.runs(name, "", append(append([]string{b.program("singularity")}, args...), b.path("tmp/bill.sif"), tree)...)
	}
	got, err := rounds(ctx, b.packRuns(), []side{build("build"), build("build --no-sbom", "--no-sbom")})
	os.Remove(b.path("tmp/bill.sif"))
	if err != nil {
		return err
	}
	b.compare(row{Name: "build of " + what + ", zstd / without a list of packages", Goal: 1.1, Unit: "ms"}, walls(got[0]), walls(got[1]))
	b.compare(row{Name: "CPU of the same", Goal: 1.1, Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	return nil
}

// billOfGo does it with a tree of Go programs alone: each has a list of modules.
func (b *bench) billOfGo(ctx context.Context) error {
	dir := b.path("tmp/go")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	for _, p := range []string{"singularity", "singularity-cli"} {
		text, err := os.ReadFile(b.program(p))
		if err != nil {
			return err
		}
		for _, copied := range []string{"a-", "b-", "c-", "d-"} {
			if err := os.WriteFile(filepath.Join(dir, "bin", copied+p), text, 0o755); err != nil {
				return err
			}
		}
	}
	return b.billOf(ctx, "eight Go programs", dir)
}

// runRecords starts a container where the site keeps records of runs, and where it
// does not.
func (b *bench) runRecords(ctx context.Context) error {
	spool := b.path("tmp/spool")
	defer os.RemoveAll(spool)
	if err := errors.Join(os.MkdirAll(spool, 0o755), os.Chmod(spool, 0o1733)); err != nil {
		return err
	}
	var sides []side
	for _, c := range [][2]string{{"with", "run records = " + spool + "\n"}, {"without", "# none\n"}} {
		file := b.path("tmp/" + c[0] + ".conf")
		defer os.Remove(file)
		if err := os.WriteFile(file, []byte(c[1]), 0o644); err != nil {
			return err
		}
		argv := b.singularity(b.path("tree"), "true")
		sides = append(sides, b.runs(c[0], "", append([]string{argv[0], "-c", file}, argv[1:]...)...))
	}
	got, err := rounds(ctx, 4*b.n, sides)
	if err != nil {
		return err
	}
	if files, err := os.ReadDir(spool); err != nil || len(files) < 8*b.n {
		return errors.Join(err, errors.New("the starts left no records"))
	}
	b.compare(row{Name: "exec of a directory, with a record of the run / without", Goal: 1.05, Unit: "ms"}, walls(got[0]), walls(got[1]))
	b.compare(row{Name: "CPU of the same", Goal: 1.05, Unit: "ms"}, cpus(got[0]), cpus(got[1]))
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// compressors are the images that are made of the tree.
var compressors = []string{"none", "lz4", "zstd", "gzip"}

// prepare makes the cache: the programs, the tree, and the images that are not
// there yet.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := b.makeDir(b.dir); err != nil {
		return err
	}
	if err := b.lock(); err != nil {
		return err
	}
	b.clean() // after a run that was killed
	for _, d := range []string{"bin", "mnt", "kernel", "tmp", "tmp/keys"} {
		if err := b.makeDir(b.path(d)); err != nil {
			return err
		}
	}
	if b.stderr, err = os.CreateTemp(b.path("tmp"), "stderr"); err != nil {
		return err
	}
	os.Remove(b.stderr.Name())
	if err := b.programs(ctx); err != nil {
		return err
	}
	if err := b.makeTree(ctx); err != nil {
		return err
	}
	for _, c := range compressors {
		if err := b.makeImage(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps a second run away from the cache until this process ends.
func (b *bench) lock() error {
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		d.Close()
		return fmt.Errorf("cannot lock %q, which another run may use (-dir names another place): %w", b.dir, err)
	}
	b.locked = d
	return nil
}

// makeDir makes a directory that belongs to the ordinary user.
func (b *bench) makeDir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		return os.Lchown(path, b.user.uid, b.user.gid)
	}
	return nil
}

// clean removes what only one run needs, if this run has the cache.
func (b *bench) clean() {
	if b.locked == nil {
		return
	}
	os.RemoveAll(b.path("tmp"))
}

// programs copies the programs to the cache, which the ordinary user reaches
// where the source may be closed to them.
func (b *bench) programs(ctx context.Context) error {
	for _, name := range []string{"singularity", "singularity-cli", "singularity-unlock", "starter-verify", "singularity-server"} {
		if err := copyProgram(filepath.Join(b.bin, name), b.program(name)); err != nil {
			return fmt.Errorf("%w (make build makes it)", err)
		}
	}
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.program("packtree"), "./bench/packtree")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	return c.Run()
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	os.Remove(to)
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// makeTree makes the tree of a Debian with python3, numpy and scipy, owned by
// the ordinary user, and tree.tar, its archive in one fixed order. The given
// tree, or a new one, passes through an archive, so that files that the user
// may not read or make are settled here.
func (b *bench) makeTree(ctx context.Context) error {
	if exists(b.path("tree.tar")) {
		return nil
	}
	if err := b.need("tar"); err != nil {
		return err
	}
	os.RemoveAll(b.path("tree"))
	if err := b.makeDir(b.path("tree")); err != nil {
		return err
	}
	source := b.path("source.tar")
	defer os.Remove(source)
	if b.given != "" {
		say("copying %s", b.given)
		if out, err := exec.CommandContext(ctx, b.peers["tar"], "-C", b.given, "--one-file-system", "-cf", source, ".").CombinedOutput(); err != nil {
			return fmt.Errorf("cannot archive %q: %w: %s", b.given, err, out)
		}
	} else {
		if err := b.need("mmdebstrap"); err != nil {
			return err
		}
		say("making a Debian tree")
		c := exec.CommandContext(ctx, b.peers["mmdebstrap"], "--variant=minbase", "--include=python3-numpy,python3-scipy", "bookworm", source)
		c.Stdout, c.Stderr = os.Stderr, os.Stderr
		if err := c.Run(); err != nil {
			return fmt.Errorf("cannot make the tree: %w", err)
		}
	}
	os.Chmod(source, 0o644)
	if _, err := b.output(ctx, b.peers["tar"], "-C", b.path("tree"), "--no-same-owner", "--exclude=./dev/*", "-xf", source); err != nil {
		return err
	}
	if err := b.mountPoints(ctx); err != nil {
		return err
	}
	say("packing the archive")
	part := b.path("tree.tar.part")
	if _, err := b.output(ctx, b.peers["tar"], "-C", b.path("tree"), "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-cf", part, "."); err != nil {
		return err
	}
	return os.Rename(part, b.path("tree.tar"))
}

// mountPoints makes what bwrap wants to find in the tree.
func (b *bench) mountPoints(ctx context.Context) error {
	script := `cd "$1"; shift; chmod -R u+rwX . && mkdir -p dev; for p; do
		mkdir -p ".${p%/*}"; if [ -d "$p" ]; then mkdir -p ".$p"; else rm -f ".$p"; : > ".$p"; fi; done`
	_, err := b.output(ctx, append([]string{"/bin/sh", "-ec", script, "sh", b.path("tree")}, b.binds()...)...)
	return err
}

// image is the squashfs file with that compressor, sif the SIF around it.
func (b *bench) image(compressor string) string { return b.path(compressor + ".sqfs") }
func (b *bench) sif(compressor string) string   { return b.path(compressor + ".sif") }

func (b *bench) makeImage(ctx context.Context, compressor string) error {
	if img := b.image(compressor); !exists(img) {
		say("packing %s", img)
		if _, err := b.output(ctx, b.program("packtree"), "-tar", "-c", compressor, b.path("tree.tar"), img+".part"); err != nil {
			return err
		}
		if err := os.Rename(img+".part", img); err != nil {
			return err
		}
	}
	sif := b.sif(compressor)
	if exists(sif) {
		return nil
	}
	part := strings.TrimSuffix(sif, ".sif") + ".part.sif"
	if err := b.wrap(ctx, b.image(compressor), part, squashfsPart); err != nil {
		return err
	}
	return os.Rename(part, sif)
}

// The numbers of file systems, as sif add wants them, and where the first
// object of a SIF begins.
const (
	squashfsPart  = "1"
	encryptedPart = "5"
	partOff       = 32768
)

// wrap makes a SIF whose root partition is the file part.
func (b *bench) wrap(ctx context.Context, part, sif, fs string) error {
	cli := b.program("singularity")
	os.Remove(sif)
	if _, err := b.output(ctx, cli, "sif", "new", sif); err != nil {
		return err
	}
	_, err := b.output(ctx, cli, "sif", "add", "--datatype", "4", "--parttype", "2", "--partfs", fs, "--partarch", partArch(), "--groupid", "1", sif, part)
	return err
}

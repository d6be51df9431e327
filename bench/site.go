package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// site: an image of root's, mounted by the kernel through the setuid helper, in an
// installation of its own.
func (b *bench) site(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("needs root, to install the setuid helper")
	}
	if err := b.need("bwrap"); err != nil {
		return err
	}
	top, err := os.MkdirTemp("", "singularity-site")
	if err != nil {
		return err
	}
	defer os.RemoveAll(top)
	image := filepath.Join(top, "image.sif")
	for _, args := range [][]string{
		{"chmod", "755", top}, {"make", "-s", "install-suid", "PREFIX=" + top, "SYSCONFDIR=" + top + "/etc", "LOCALSTATEDIR=" + top + "/var", "DESTDIR="}, {"install", "-o", "root", "-m", "644", b.sif("gzip"), image},
		{"sed", "-i", "s/^shared loop devices = no/shared loop devices = yes/", filepath.Join(top, "etc/singularity/singularity.conf")},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return errors.New(args[0] + ": " + err.Error() + ": " + string(out))
		}
	}
	program := filepath.Join(top, "bin/singularity")
	got, err := rounds(ctx, b.n, []side{
		b.runs("bwrap", "", b.bwrap(b.path("tree"), "true")...),
		b.runs("kernel", "", program, "exec", image, "true"),
		b.runs("directory", "", program, "exec", b.path("tree"), "true"),
	})
	if err != nil {
		return err
	}
	b.compare(row{Name: "site mode: exec of a SIF mounted by the kernel, shared loop device / bwrap on the directory", Goal: 2, Unit: "ms"}, walls(got[1]), walls(got[0]))
	b.compare(row{Name: "CPU of that", Unit: "ms"}, cpus(got[1]), cpus(got[0]))
	b.compare(row{Name: "site mode: exec of a directory / bwrap", Unit: "ms"}, walls(got[2]), walls(got[0]))
	return nil
}

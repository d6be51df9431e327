package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// siteInstall installs the programs with the setuid helper below top, and an image
// of root's, and returns the paths of singularity and of the image.
func (b *bench) siteInstall(ctx context.Context, top, shared string) (program, image string, err error) {
	image = filepath.Join(top, "image.sif")
	for _, args := range [][]string{
		{"mkdir", top}, {"make", "-s", "install-suid", "PREFIX=" + top, "SYSCONFDIR=" + top + "/etc", "LOCALSTATEDIR=" + top + "/var", "DESTDIR=", "VERIFY_USER="}, {"install", "-o", "root", "-m", "644", b.sif("gzip"), image},
		{"sed", "-i", "s/^shared loop devices = no/shared loop devices = " + shared + "/", filepath.Join(top, "etc/singularity/singularity.conf")},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", "", errors.New(args[0] + ": " + err.Error() + ": " + string(out))
		}
	}
	return filepath.Join(top, "bin/singularity"), image, nil
}

// site measures starts through the setuid helper, of which an installation of its
// own is made. Only an image of root's is mounted by the kernel: with a shared loop
// device, so that the mount is warm, and with one of each start, which is cold.
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
	if err := os.Chmod(top, 0o755); err != nil {
		return err
	}
	cold, coldImage, err := b.siteInstall(ctx, filepath.Join(top, "cold"), "no")
	if err != nil {
		return err
	}
	program, image, err := b.siteInstall(ctx, filepath.Join(top, "shared"), "yes")
	if err != nil {
		return err
	}
	got, err := rounds(ctx, b.n, []side{
		b.runs("bwrap", "", b.bwrap(b.path("tree"), "true")...),
		b.runs("kernel", "", program, "exec", image, "true"),
		b.runs("directory", "", program, "exec", b.path("tree"), "true"),
		b.runs("cold", "", cold, "exec", coldImage, "true"),
		b.runs("fuse", "", cold, "exec", "--userns", "--no-shared-mount", coldImage, "true"),
	})
	if err != nil {
		return err
	}
	b.compare(row{Name: "site mode: exec of a SIF mounted by the kernel, shared loop device / bwrap on the directory", Goal: 2, Unit: "ms"}, walls(got[1]), walls(got[0]))
	b.compare(row{Name: "CPU of that", Unit: "ms"}, cpus(got[1]), cpus(got[0]))
	b.compare(row{Name: "site mode: exec of a directory / bwrap", Unit: "ms"}, walls(got[2]), walls(got[0]))
	b.compare(row{Name: "site mode: exec of a SIF that the kernel mounts anew (cold) / bwrap on the directory", Unit: "ms"}, walls(got[3]), walls(got[0]))
	b.compare(row{Name: "that cold mount / a FUSE mount of its own in a user namespace", Unit: "ms"}, walls(got[3]), walls(got[4]))
	return nil
}

package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// emulator is a program that runs those of another machine, as Debian's
// qemu-user-static has them, and how the kernel knows these: the magic bytes of
// an ELF file, in the notation of binfmt_misc.
type emulator struct {
	arch, name, program, magic, mask string
}

const (
	anyELF = `\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
	elf64  = `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00`
)

var emulators = []emulator{
	{"arm64", "qemu-aarch64", "/usr/bin/qemu-aarch64-static", elf64 + `\xb7\x00`, anyELF},
	{"riscv64", "qemu-riscv64", "/usr/bin/qemu-riscv64-static", elf64 + `\xf3\x00`, anyELF},
	{"ppc64le", "qemu-ppc64le", "/usr/bin/qemu-ppc64le-static", elf64 + `\x15\x00`, `\xff\xff\xff\xff\xff\xff\xff\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\x00`},
	{"amd64", "qemu-x86_64", "/usr/bin/qemu-x86_64-static", elf64 + `\x3e\x00`, `\xff\xff\xff\xff\xff\xfe\xfe\xfc\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`},
}

const binfmt = "/proc/sys/fs/binfmt_misc"

// registerEmulators lets the sandbox run programs of other machines. Since Linux
// 6.7 a user namespace has a table of its own for that, so that nothing changes
// for the host; where the kernel has none, the host's holds.
func registerEmulators() bool {
	if err := unix.Mount("binfmt_misc", binfmt, "binfmt_misc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return false
	}
	for _, e := range emulators {
		if _, err := os.Stat(e.program); err != nil || e.arch == runtime.GOARCH {
			continue
		}
		// F: the program is opened now, and found in every container.
		line := fmt.Sprintf(":%s:M::%s:%s:%s:F", e.name, e.magic, e.mask, e.program)
		if os.WriteFile(binfmt+"/register", []byte(line), 0) != nil {
			return false
		}
	}
	return true
}

// probe makes a sandbox, to know before the first build that it can be made, and
// what can be built in it.
func (w *Worker) probe() ([]string, error) {
	dir := filepath.Join(w.o.Dir, "job-probe")
	defer w.remove(dir, 0)
	for _, d := range []string{"", "root", "work", "work/tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	ids, err := w.ids(0)
	if err != nil {
		return nil, err
	}
	if err := give(dir, ids); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := w.keep(ctx, &spec{Dir: dir, IDs: ids, Program: w.o.Program, Probe: true, Time: time.Minute}, os.Stderr)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("no sandbox can be made here: %w", err)
	}
	archs := []string{runtime.GOARCH}
	for _, e := range emulators {
		_, installed := os.Stat(e.program)
		_, onHost := os.Stat(binfmt + "/" + e.name)
		if e.arch != runtime.GOARCH && (r.Emulate && installed == nil || onHost == nil) {
			archs = append(archs, e.arch)
		}
	}
	return archs, nil
}

// give makes the directory of a build its own: root's builds have other ids.
func give(dir string, ids idRange) error {
	if !ids.Root {
		return nil
	}
	return filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, int(ids.UID), int(ids.GID))
	})
}

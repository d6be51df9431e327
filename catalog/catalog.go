// Package catalog runs sbom.Read in a process of its own.
//
// What an image says of its packages was written by whoever made the image, and
// is read by decoders of which not all were made for hostile bytes. So the
// program that asks (singularity-cli, singularity-server) starts itself once
// more with one descriptor, that of the image, under limits of memory, time and
// files, without the environment and unable to gain rights; a crash there is an
// error here. Nothing is written to disk.
//
// An OCI-SIF is looked into as a container would see it: files of upper layers, and what
// these remove, hide those below.
package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"singularity/image"
	"singularity/sbom"
	"singularity/sign"
)

// Verb is the argument by which a program knows that it is to call Main.
const Verb = "__catalog"

// Limits of the process.
const (
	maxMemory = 3 << 30   // bytes of address space beyond what the runtime reserves
	softHeap  = 768 << 20 // bytes of heap above which memory is given back
	maxCPU    = 600       // seconds
	maxFile   = 600 << 20 // bytes: copies of databases in memory
	maxOutput = 512 << 20 // bytes that are taken from it
	maxErrors = 4 << 10   // bytes of its last words that are shown
	maxLayers = 256       // of an image that is stored as such
)

// Read lists the packages of the image or directory that f is. program is the
// absolute path of a program whose main calls Main for Verb.
func Read(ctx context.Context, program string, f *os.File) (*sbom.Inventory, error) {
	cmd := exec.CommandContext(ctx, program, Verb)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"PATH=/nowhere"}
	cmd.Dir = "/"
	// Whatever ends this program ends that one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	var words tail
	cmd.Stderr = &words
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var inv sbom.Inventory
	bad := json.NewDecoder(io.LimitReader(out, maxOutput)).Decode(&inv)
	if bad != nil {
		cmd.Process.Kill()
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case words.told() != "":
		return nil, errors.New(words.told())
	case bad == nil:
		return &inv, nil
	case err != nil:
		return nil, fmt.Errorf("the process that lists packages ended: %w", err)
	}
	return nil, bad
}

// Main is the whole of the process that Read starts. It returns the exit status.
func Main() int {
	signal.Reset()
	if err := confine(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", mark, err)
		return 1
	}
	inv, err := read()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(inv)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", mark, err)
		return 1
	}
	return 0
}

// confine sets the limits of this process.
func confine() error {
	debug.SetMemoryLimit(softHeap)
	used, err := addressSpace()
	if err != nil {
		return err
	}
	for _, l := range []struct {
		what  int
		value uint64
	}{{unix.RLIMIT_AS, used + maxMemory}, {unix.RLIMIT_CPU, maxCPU}, {unix.RLIMIT_FSIZE, maxFile}, {unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, 256}} {
		var old unix.Rlimit
		if err := unix.Getrlimit(l.what, &old); err != nil {
			return err
		}
		n := min(l.value, old.Max)
		if err := unix.Setrlimit(l.what, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return fmt.Errorf("cannot limit the process that lists packages: %w", err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// addressSpace is what the runtime of Go has reserved already, in bytes.
func addressSpace() (uint64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(b), &pages); err != nil {
		return 0, err
	}
	return pages * uint64(os.Getpagesize()), nil
}

func read() (*sbom.Inventory, error) {
	const path = "/proc/self/fd/3"
	im, err := image.Open(path)
	if errors.Is(err, image.ErrOCISIF) {
		return readLayers(path)
	}
	if err != nil {
		return nil, err
	}
	defer im.Close()
	files, _, err := im.Files()
	if err != nil {
		return nil, err
	}
	return sbom.Read(context.Background(), files)
}

// readLayers lists the packages of an OCI-SIF: what its layers show above one another.
func readLayers(path string) (*sbom.Inventory, error) {
	im, err := image.OpenParts(path, false)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	layers, err := sign.OCILayers(im.SIF)
	if err != nil {
		return nil, err
	}
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("it has %d layers, more than %d", len(layers), maxLayers)
	}
	var list []image.Files
	for n, l := range slices.Backward(layers) {
		format := layerFormat(l.MediaType)
		if format == image.FormatNone {
			return nil, fmt.Errorf("its layer %d is of a type that cannot be looked into: %.100q", n+1, l.MediaType)
		}
		files, _, err := image.OpenFiles(format, io.NewSectionReader(im.File, l.Object.Off, l.Object.Size))
		if err != nil {
			return nil, fmt.Errorf("cannot read its layer %d: %w", n+1, err)
		}
		list = append(list, files)
	}
	return sbom.Read(context.Background(), image.NewLayers(list...))
}

// layerFormat is the file system of a layer in an OCI-SIF; the second is a writable
// overlay.
func layerFormat(mediaType string) image.Format {
	switch mediaType {
	case "application/vnd.sylabs.image.layer.v1.squashfs":
		return image.FormatSquashfs
	case "application/vnd.sylabs.image.layer.v1.ext3":
		return image.FormatExt
	}
	return image.FormatNone
}

// mark is what an error that is meant for people begins with.
const mark = "catalog: "

// tail keeps the last words of a process.
type tail struct{ bytes.Buffer }

func (t *tail) Write(b []byte) (int, error) {
	if room := maxErrors - t.Len(); room > 0 {
		t.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// told is the error that the process meant for people, "" for none.
func (t *tail) told() string {
	s, ok := strings.CutPrefix(t.String(), mark)
	if !ok {
		return ""
	}
	return strings.TrimSpace(s)
}

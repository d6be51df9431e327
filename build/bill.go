package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"singularity/sbom"
	"singularity/sif"
)

// Bills are the objects of a SIF that list its packages, in the two forms that
// programs read.
var Bills = []struct {
	Name   string
	Format sif.SBOMFormat
}{{"sbom.cdx.json", sif.SBOMCycloneDXJSON}, {"sbom.spdx.json", sif.SBOMSPDXJSON}}

// twoWriters writes the same to both.
type twoWriters [2]io.WriterAt

func (w twoWriters) WriteAt(p []byte, off int64) (int, error) {
	if n, err := w[0].WriteAt(p, off); err != nil {
		return n, err
	}
	return w[1].WriteAt(p, off)
}

// keepPlain lets what is written to w, the file system before encryption, be kept
// in memory, for the list of packages.
func (b *builder) keepPlain(w io.WriterAt) (io.WriterAt, error) {
	if b.o.Catalog == nil {
		return w, nil
	}
	fd, err := unix.MemfdCreate("root", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("root", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot keep what is encrypted in memory during the build: %w", err)
	}
	b.plain = os.NewFile(uintptr(fd), "root")
	return twoWriters{w, b.plain}, nil
}

// addBills lists the packages of the image that was just written to f and adds
// the list to it, behind everything else. An image whose packages cannot be
// listed is still one: people are told, and the build goes on.
func (b *builder) addBills(ctx context.Context, f *os.File, at time.Time) error {
	if b.o.Catalog == nil {
		return nil
	}
	if b.plain != nil {
		defer b.plain.Close()
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	e, err := sif.Edit(f, st.Size())
	if err != nil {
		return err
	}
	b.o.progress("Listing packages", 0, 0)
	listed := f
	if b.plain != nil {
		listed = b.plain
	}
	inv, err := b.o.Catalog(ctx, listed)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		b.o.Log.Warning(fmt.Sprintf("The image has no bill of materials: %v", err))
		return nil
	}
	if e.Time = at; at.IsZero() {
		e.Time = time.Unix(e.File().Header().Created, 0)
	}
	// Not its file name: equal images are equal bytes.
	subject := sbom.Subject{Name: "image", Tool: b.o.Version, Created: e.Time}
	_, err = e.AddAll(func(added []sif.Object) []sif.Input {
		if len(added) > 0 || err != nil {
			return nil
		}
		var list []sif.Input
		for _, x := range Bills {
			var out bytes.Buffer
			if err = sbom.Encode(&out, inv, subject, x.Format); err != nil {
				return nil
			}
			s := sif.SBOM{Format: x.Format}
			list = append(list, sif.Input{Type: sif.DataSBOM, Group: sif.DefaultGroup, Name: x.Name, Extra: s.Extra(), Data: &out})
		}
		return list
	})
	return err
}

package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"singularity/provenance"
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

// addRecords adds to the image that was just written to f what it is made of, the
// list of its packages, and perhaps signatures, behind everything else: the objects before them have
// the ids that they have with other builders, which scripts rely on.
func (b *builder) addRecords(ctx context.Context, f *os.File, at time.Time) error {
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
	if e.Time = at; at.IsZero() {
		e.Time = time.Unix(e.File().Header().Created, 0)
	}
	var list []sif.Input
	if !b.o.StripMetadata {
		origin, err := b.provenance(e.File())
		if err != nil {
			return err
		}
		list = append(list, sif.Input{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: provenance.Object, Data: bytes.NewReader(origin)})
		if b.o.Attest != nil {
			envelope, err := b.o.Attest(origin)
			if err != nil {
				return err
			}
			list = append(list, sif.Input{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: provenance.Envelope, Data: bytes.NewReader(envelope)})
		}
	}
	bills, err := b.bills(ctx, f, e.Time)
	if err != nil {
		return err
	}
	if list = append(list, bills...); len(list) > 0 {
		_, err = e.AddAll(func(added []sif.Object) []sif.Input {
			if len(added) > 0 {
				return nil
			}
			return list
		})
	}
	if err != nil || b.o.Sign == nil {
		return err
	}
	return b.o.Sign(ctx, f, at)
}

// bills lists the packages of the image. An image whose packages cannot be
// listed is still one: people are told, and the build goes on.
func (b *builder) bills(ctx context.Context, f *os.File, at time.Time) (list []sif.Input, err error) {
	if b.o.Catalog == nil {
		return nil, nil
	}
	b.o.progress("Listing packages", 0, 0)
	if b.plain != nil {
		f = b.plain
	}
	inv, err := b.o.Catalog(ctx, f)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		b.o.Log.Warning(fmt.Sprintf("The image has no bill of materials: %v", err))
		return nil, nil
	}
	// Not its file name: equal images are equal bytes.
	subject := sbom.Subject{Name: "image", Tool: b.o.Version, Created: at}
	for _, x := range Bills {
		var out bytes.Buffer
		if err := sbom.Encode(&out, inv, subject, x.Format); err != nil {
			return nil, err
		}
		s := sif.SBOM{Format: x.Format}
		list = append(list, sif.Input{Type: sif.DataSBOM, Group: sif.DefaultGroup, Name: x.Name, Extra: s.Extra(), Data: &out})
	}
	return list, nil
}

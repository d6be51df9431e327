package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"singularity/sbom"
	"singularity/sif"
)

// Bills are the objects of a SIF that list its packages, in the two forms that
// programs read.
var Bills = []struct {
	Name   string
	Format sif.SBOMFormat
}{{"sbom.cdx.json", sif.SBOMCycloneDXJSON}, {"sbom.spdx.json", sif.SBOMSPDXJSON}}

// addBills lists the packages of the image that was just written to f and adds
// the list to it, behind everything else. An image whose packages cannot be
// listed is still one: people are told, and the build goes on.
func (b *builder) addBills(ctx context.Context, f *os.File, at time.Time) error {
	if b.o.Catalog == nil || b.o.Seal != nil || b.o.StripMetadata {
		return nil
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
	inv, err := b.o.Catalog(ctx, f)
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

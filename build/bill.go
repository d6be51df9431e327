package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

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

// addRecords adds to the image that was just written to f what it is made of, and
// the list of its packages, behind everything else: the objects before them have
// the ids that they have with other builders, which scripts rely on.
func (b *builder) addRecords(ctx context.Context, f *os.File, at time.Time) error {
	if b.o.StripMetadata {
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
	if e.Time = at; at.IsZero() {
		e.Time = time.Unix(e.File().Header().Created, 0)
	}
	origin, err := b.provenance(e.File())
	if err != nil {
		return err
	}
	list := []sif.Input{{Type: sif.DataJSON, Group: sif.DefaultGroup, Name: provenance.Object, Data: bytes.NewReader(origin)}}
	bills, err := b.bills(ctx, f, e.Time)
	if err != nil {
		return err
	}
	list = append(list, bills...)
	_, err = e.AddAll(func(added []sif.Object) []sif.Input {
		if len(added) > 0 {
			return nil
		}
		return list
	})
	return err
}

// bills lists the packages of the image. An image whose packages cannot be
// listed is still one: people are told, and the build goes on.
func (b *builder) bills(ctx context.Context, f *os.File, at time.Time) (list []sif.Input, err error) {
	if b.o.Catalog == nil || b.o.Seal != nil {
		return nil, nil
	}
	b.o.progress("Listing packages", 0, 0)
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

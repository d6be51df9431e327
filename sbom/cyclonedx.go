package sbom

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"singularity/sif"
)

// Names of the properties that CycloneDX keeps and other programs pass over.
const (
	propPath  = "singularity:path"
	propOwner = "singularity:owner"
	propGap   = "singularity:gap"
)

// Subject is the image that a bill of materials is about.
type Subject struct {
	Name    string // of the file
	Version string // of the image, "" if it has none
	Digest  string // SHA-256 of the tree or the file in hex, "" if not known
	Tool    string // version of this program
	Created time.Time
}

// Encode writes inv in format, sif.SBOMCycloneDXJSON or sif.SBOMSPDXJSON. Equal
// arguments give equal bytes.
func Encode(w io.Writer, inv *Inventory, s Subject, format sif.SBOMFormat) error {
	switch format {
	case sif.SBOMCycloneDXJSON:
		return writeCycloneDX(w, inv, s)
	case sif.SBOMSPDXJSON:
		return writeSPDX(w, inv, s)
	}
	return fmt.Errorf("cannot write a bill of materials: the format %d is not known", format)
}

func writeCycloneDX(w io.Writer, inv *Inventory, s Subject) error {
	bom := cdx.NewBOM()
	root := cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: s.Name, Version: s.Version}
	if s.Digest != "" {
		root.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: s.Digest}}
	}
	bom.Metadata = &cdx.Metadata{
		Timestamp: s.Created.UTC().Format(time.RFC3339),
		Component: &root,
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "singularity", Version: s.Tool}}},
	}
	var props []cdx.Property
	for _, g := range inv.Gaps {
		props = append(props, cdx.Property{Name: propGap, Value: g})
	}
	if props != nil {
		bom.Properties = &props
	}
	list := make([]cdx.Component, 0, len(inv.Packages)+1)
	refs := make([]string, 0, cap(list))
	if d := inv.Distro; d.ID != "" {
		list = append(list, cdx.Component{BOMRef: "os", Type: cdx.ComponentTypeOS, Name: d.ID, Version: d.Version, Description: d.Name})
		refs = append(refs, "os")
	}
	for i, p := range inv.Packages {
		c := cdx.Component{BOMRef: fmt.Sprintf("p%d", i), Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: p.PURL(inv.Distro)}
		if p.License != "" {
			c.Licenses = &cdx.Licenses{{License: &cdx.License{Name: p.License}}}
		}
		var props []cdx.Property
		if p.Path != "" {
			props = append(props, cdx.Property{Name: propPath, Value: p.Path})
		}
		if p.Owner != "" {
			props = append(props, cdx.Property{Name: propOwner, Value: p.Owner})
		}
		if props != nil {
			c.Properties = &props
		}
		list, refs = append(list, c), append(refs, c.BOMRef)
	}
	bom.Components = &list
	bom.Dependencies = &[]cdx.Dependency{{Ref: "image", Dependencies: &refs}}
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6)
}

// maxBill bounds a bill of materials that Decode reads.
const maxBill = 256 << 20

// Decode reads a bill of materials, CycloneDX or SPDX in JSON. Packages without
// a purl, and of kinds that are not known here, are left out and counted in a
// gap.
func Decode(r io.Reader) (*Inventory, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBill+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBill {
		return nil, fmt.Errorf("cannot read the bill of materials: it is larger than %d bytes", maxBill)
	}
	var head struct{ BOMFormat, SPDXVersion string }
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("cannot read the bill of materials: %w", err)
	}
	switch {
	case head.BOMFormat == "CycloneDX":
		return readCycloneDX(b)
	case head.SPDXVersion != "":
		return readSPDX(b)
	}
	return nil, errors.New("cannot read the bill of materials: it is neither CycloneDX nor SPDX in JSON")
}

// decoder collects the packages of a bill of materials.
type decoder struct {
	r       reader
	unnamed int
}

func (d *decoder) add(purl, path, owner string) {
	p, distro, ok := fromPURL(purl)
	if !ok {
		d.unnamed++
		return
	}
	if d.r.inv.Distro.ID == "" && distro.Version != "" {
		d.r.inv.Distro = distro
	}
	p.Path, p.Owner = path, owner
	d.r.add(p)
}

func (d *decoder) done() *Inventory {
	if d.unnamed > 0 {
		d.r.gap("%d components have no usable purl", d.unnamed)
	}
	d.r.inv.tidy()
	return &d.r.inv
}

func readCycloneDX(b []byte) (*Inventory, error) {
	var bom cdx.BOM
	if err := json.Unmarshal(b, &bom); err != nil {
		return nil, fmt.Errorf("cannot read the bill of materials: %w", err)
	}
	var d decoder
	if bom.Properties != nil {
		for _, p := range *bom.Properties {
			if p.Name == propGap && plainText(p.Value) {
				d.r.gap("%s", p.Value)
			}
		}
	}
	if bom.Components == nil {
		return d.done(), nil
	}
	for _, c := range *bom.Components {
		if c.Type == cdx.ComponentTypeOS {
			d.setOS(c.Name, c.Version, c.Description)
			continue
		}
		var path, owner string
		if c.Properties != nil {
			for _, p := range *c.Properties {
				switch {
				case !plainText(p.Value):
				case p.Name == propPath:
					path = p.Value
				case p.Name == propOwner:
					owner = p.Value
				}
			}
		}
		d.add(c.PackageURL, path, owner)
	}
	return d.done(), nil
}

func (d *decoder) setOS(id, version, name string) {
	if plainField(id) && plainField(version) && plainText(name) && len(name) <= maxField {
		d.r.inv.Distro = Distro{ID: id, Version: version, Name: name}
	}
}

package sbom

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// Marks of what SPDX has no field of its own for.
const (
	ownerMark = "installed by the system package "
	gapMark   = "not read: "
)

// noAssertion is what SPDX wants where nothing is known.
const noAssertion = "NOASSERTION"

func writeSPDX(w io.Writer, inv *Inventory, s Subject) error {
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: s.Name,
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: strings.TrimSuffix("singularity-"+s.Tool, "-")}},
			Created:  s.Created.UTC().Format(time.RFC3339),
		},
	}
	var gaps []string
	for _, g := range inv.Gaps {
		gaps = append(gaps, gapMark+g)
	}
	doc.DocumentComment = strings.Join(gaps, "\n")

	root := &v2_3.Package{PackageName: s.Name, PackageSPDXIdentifier: "image", PackageVersion: s.Version, PackageDownloadLocation: noAssertion, PrimaryPackagePurpose: "CONTAINER"}
	if s.Digest != "" {
		root.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: s.Digest}}
	}
	doc.Packages = append(doc.Packages, root)
	doc.Relationships = append(doc.Relationships, relation("DOCUMENT", "image", common.TypeRelationshipDescribe))
	contain := func(p *v2_3.Package) {
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation("image", p.PackageSPDXIdentifier, common.TypeRelationshipContains))
	}
	if d := inv.Distro; d.ID != "" {
		contain(&v2_3.Package{PackageName: d.ID, PackageSPDXIdentifier: "os", PackageVersion: d.Version, PackageSummary: d.Name, PackageDownloadLocation: noAssertion, PrimaryPackagePurpose: "OPERATING-SYSTEM"})
	}
	sum := sha256.New()
	for i, p := range inv.Packages {
		q := &v2_3.Package{
			PackageName: p.Name, PackageSPDXIdentifier: common.ElementID(fmt.Sprintf("p%d", i)), PackageVersion: p.Version,
			PackageFileName: p.Path, PackageDownloadLocation: noAssertion, PackageLicenseDeclared: noAssertion, PackageLicenseConcluded: noAssertion,
			PackageExternalReferences: []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: p.PURL(inv.Distro)}},
		}
		// What distributions write is often no expression of SPDX.
		q.PackageLicenseComments = p.License
		if p.Owner != "" {
			q.PackageSourceInfo = ownerMark + p.Owner
		}
		fmt.Fprintln(sum, q.PackageExternalReferences[0].Locator, p.Path)
		contain(q)
	}
	doc.DocumentNamespace = fmt.Sprintf("urn:singularity:sbom:%x", sum.Sum([]byte(s.Digest)))
	return spdxjson.Write(doc, w, spdxjson.Indent("  "), spdxjson.EscapeHTML(false))
}

func relation(from, to common.ElementID, kind string) *v2_3.Relationship {
	return &v2_3.Relationship{RefA: common.MakeDocElementID("", string(from)), RefB: common.MakeDocElementID("", string(to)), Relationship: kind}
}

func readSPDX(b []byte) (*Inventory, error) {
	doc, err := spdxjson.Read(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("cannot read the bill of materials: %w", err)
	}
	var d decoder
	for line := range strings.Lines(doc.DocumentComment) {
		if g, ok := strings.CutPrefix(strings.TrimSpace(line), gapMark); ok && plainText(g) {
			d.r.gap("%s", g)
		}
	}
	described := map[common.ElementID]bool{}
	for _, r := range doc.Relationships {
		if r.Relationship == common.TypeRelationshipDescribe {
			described[r.RefB.ElementRefID] = true
		}
	}
	for _, p := range doc.Packages {
		switch {
		case p.PrimaryPackagePurpose == "OPERATING-SYSTEM":
			d.setOS(p.PackageName, p.PackageVersion, p.PackageSummary)
			continue
		case described[p.PackageSPDXIdentifier]:
			continue
		}
		owner, _ := strings.CutPrefix(p.PackageSourceInfo, ownerMark)
		if owner == p.PackageSourceInfo || !plainField(owner) {
			owner = ""
		}
		path := p.PackageFileName
		if !plainText(path) {
			path = ""
		}
		d.add(purlOf(p), path, owner)
	}
	return d.done(), nil
}

// purlOf is the purl among the references of a package.
func purlOf(p *v2_3.Package) string {
	for _, x := range p.PackageExternalReferences {
		if x.RefType == common.TypePackageManagerPURL {
			return x.Locator
		}
	}
	return ""
}

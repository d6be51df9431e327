package oracle

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"

	"singularity/image"
	"singularity/sbom"
	"singularity/sif"
)

// realInventory lists the packages of a tree with the databases of this host, a program in
// Go, and what else is read; with a gap.
func realInventory(t *testing.T) *sbom.Inventory {
	t.Helper()
	root := t.TempDir()
	put := func(name string, b []byte, mode os.FileMode) {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"etc/os-release", "var/lib/dpkg/status"} {
		if b, err := os.ReadFile("/" + name); err == nil {
			put(name, b, 0o644)
		} else {
			t.Logf("this host has no %s", name)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	put("usr/bin/program", program, 0o755)
	put("lib/apk/db/installed", []byte("P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl-libs\n\n"), 0o644)
	put("usr/lib/python3/dist-packages/Zope.X-1.dist-info/METADATA", []byte("Name: Zope.X\nVersion: 1!2.0+local.1\nLicense: BSD, or ours\n"), 0o644)
	put("opt/node_modules/@scope/left/package.json", []byte(`{"name":"@scope/left","version":"1.0.0","license":"(MIT OR Apache-2.0)"}`), 0o644)
	put("opt/Cargo.lock", []byte("[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry\"\n"), 0o644)
	put("opt/node_modules/broken/package.json", []byte("{"), 0o644)
	d, err := image.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	inv, err := sbom.Read(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, p := range inv.Packages {
		kinds[p.Type]++
	}
	for _, k := range []string{"golang", "apk", "pypi", "npm", "cargo"} {
		if kinds[k] == 0 {
			t.Errorf("no package of the kind %s", k)
		}
	}
	if len(inv.Gaps) == 0 {
		t.Error("no gap is told")
	}
	t.Logf("packages of each kind: %v", kinds)
	return inv
}

var billSubject = sbom.Subject{Name: "image one.sif", Version: "1", Digest: strings.Repeat("0a", 32), Tool: "5.0.0+x", Created: time.Unix(1_700_000_000, 0)}

func encode(t *testing.T, inv *sbom.Inventory, s sbom.Subject, format sif.SBOMFormat) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := sbom.Encode(&b, inv, s, format); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// cycloneSchema is the schema that the makers of CycloneDX publish, from their library.
func cycloneSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatal("the library with the schemas is not here: ", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema*.json"} {
		found, _ := filepath.Glob(filepath.Join(dir, "schema", name))
		if len(found) != 1 {
			t.Fatalf("%s: %q", name, found)
		}
		f, err := os.Open(found[0])
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(f)
		f.Close()
		if err == nil {
			err = c.AddResource(doc.(map[string]any)["$id"].(string), doc)
		}
		if err != nil {
			t.Fatal(name, err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(s *jsonschema.Schema, b []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// TestCycloneDX: what is written is valid by the official schema of CycloneDX 1.6.
func TestCycloneDX(t *testing.T) {
	s, inv := cycloneSchema(t), realInventory(t)
	for what, b := range map[string][]byte{
		"a real list":   encode(t, inv, billSubject, sif.SBOMCycloneDXJSON),
		"an empty list": encode(t, &sbom.Inventory{}, sbom.Subject{Name: "x"}, sif.SBOMCycloneDXJSON),
	} {
		if err := validate(s, b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for from, to := range map[string]string{`"type": "container"`: `"type": "box"`, `"specVersion": "1.6"`: `"specVersion": 1.6`, `"bomFormat"`: `"format"`} {
			if bad := bytes.Replace(b, []byte(from), []byte(to), 1); bytes.Equal(bad, b) || validate(s, bad) == nil {
				t.Errorf("%s: the schema takes it with %s", what, to)
			}
		}
	}
}

// The forms that the specification of SPDX 2.3 gives (clauses 6 to 11).
var (
	spdxID        = regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	spdxNamespace = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:[^#\s]+$`)
	spdxCreator   = regexp.MustCompile(`^(Tool|Person|Organization): \S.*$`)
	spdxDate      = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	purl          = regexp.MustCompile(`^pkg:[a-z]+/[^\s@?#]+(@[^\s?#]+)?(\?[a-z_]+=[^\s&#]+(&[a-z_]+=[^\s&#]+)*)?$`)
)

// TestSPDX: what is written is read by the library of SPDX without a loss, its elements and
// relations are whole, and every field has the form that the specification gives.
func TestSPDX(t *testing.T) {
	inv := realInventory(t)
	for what, b := range map[string][]byte{
		"a real list":   encode(t, inv, billSubject, sif.SBOMSPDXJSON),
		"an empty list": encode(t, &sbom.Inventory{}, sbom.Subject{Name: "x"}, sif.SBOMSPDXJSON),
	} {
		doc, err := spdxjson.Read(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := spdxlib.ValidateDocument(doc); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		// A field that the library does not know would not come out again.
		var again bytes.Buffer
		if err := spdxjson.Write(doc, &again); err != nil {
			t.Fatal(err)
		}
		if !equalJSON(t, b, again.Bytes()) {
			t.Errorf("%s: the library does not write what it reads", what)
		}
		checkSPDX(t, what, b, doc)
	}
}

func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	for text, to := range map[*any][]byte{&x: a, &y: b} {
		if err := json.NewDecoder(bytes.NewReader(to)).Decode(text); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return bytes.Equal(p, q)
}

func checkSPDX(t *testing.T, what string, b []byte, doc *v2_3.Document) {
	t.Helper()
	var d struct {
		SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string
		CreationInfo                                              struct {
			Created  string
			Creators []string
		}
		Packages []struct {
			Name, SPDXID, DownloadLocation, PrimaryPackagePurpose string
			FilesAnalyzed                                         *bool
			ExternalRefs                                          []struct{ ReferenceCategory, ReferenceType, ReferenceLocator string }
			Checksums                                             []struct{ Algorithm, ChecksumValue string }
		}
		Relationships []struct{ SPDXElementID, RelatedSPDXElement, RelationshipType string }
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	is := func(ok bool, format string, args ...any) {
		t.Helper()
		if !ok {
			t.Errorf(what+": "+format, args...)
		}
	}
	is(d.SPDXVersion == "SPDX-2.3" && d.DataLicense == "CC0-1.0" && d.SPDXID == "SPDXRef-DOCUMENT" && d.Name != "", "head %+v", d)
	is(spdxNamespace.MatchString(d.DocumentNamespace), "namespace %q", d.DocumentNamespace)
	is(spdxDate.MatchString(d.CreationInfo.Created), "date %q", d.CreationInfo.Created)
	is(len(d.CreationInfo.Creators) > 0, "no creator")
	for _, c := range d.CreationInfo.Creators {
		is(spdxCreator.MatchString(c), "creator %q", c)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	for _, p := range d.Packages {
		is(spdxID.MatchString(p.SPDXID) && !ids[p.SPDXID], "id %q", p.SPDXID)
		ids[p.SPDXID] = true
		is(p.Name != "" && p.DownloadLocation == "NOASSERTION", "package %+v", p)
		// Where files are analysed, which is meant unless said otherwise, a code of them must be there.
		is(p.FilesAnalyzed != nil && !*p.FilesAnalyzed, "%s: files are said to be analysed", p.Name)
		is(slices.Contains([]string{"", "CONTAINER", "OPERATING-SYSTEM"}, p.PrimaryPackagePurpose), "purpose %q", p.PrimaryPackagePurpose)
		for _, x := range p.ExternalRefs {
			is(x.ReferenceCategory == "PACKAGE-MANAGER" && x.ReferenceType == "purl" && purl.MatchString(x.ReferenceLocator), "reference %+v", x)
		}
		for _, c := range p.Checksums {
			is(c.Algorithm == "SHA256" && len(c.ChecksumValue) == 64, "checksum %+v", c)
		}
	}
	described := false
	for _, r := range d.Relationships {
		is(ids[r.SPDXElementID] && ids[r.RelatedSPDXElement], "relation %+v of what is not there", r)
		is(slices.Contains([]string{"DESCRIBES", "CONTAINS"}, r.RelationshipType), "relation %+v", r)
		described = described || r.RelationshipType == "DESCRIBES"
	}
	is(described && len(doc.Packages) == len(d.Packages), "nothing is described")
}

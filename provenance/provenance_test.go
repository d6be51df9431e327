package provenance

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/sif"
)

func image(t testing.TB, system string) *sif.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s, err := sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataDefFile, Group: 1, Data: strings.NewReader("Bootstrap: scratch\n")},
		sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: strings.NewReader(system)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var example = Build{Version: "5.0.0", Parameters: map[string]any{"arch": "amd64"}, Dependencies: []Dependency{
	{Name: "base of stage 1", URI: "docker://alpine", Digest: "sha256:" + strings.Repeat("ab", 32), More: map[string]any{"agent": "docker", "packages": struct{ Count int }{3}}},
	{Name: "/opt/x", Digest: "tree-sha256:" + strings.Repeat("cd", 32)}}}

// TestStatement: what is written is read again, is the same each time, and is
// about the image that it was made for alone.
func TestStatement(t *testing.T) {
	f := image(t, "one system")
	text, err := New(f, example)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"_type": "https://in-toto.io/Statement/v1"`, `"predicateType": "https://slsa.dev/provenance/v1"`, `"uri": "docker://alpine"`, `"treeSha256": "cdcd`, `"name": "Def.FILE"`, `"Count": 3`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	again, err := New(f, example)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("the same build gives other bytes: %s, %v", again, err)
	}
	v, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Check(f); err != nil {
		t.Error(err)
	}
	if err := v.Check(image(t, "another system")); !errors.Is(err, ErrOther) {
		t.Errorf("another image: %v", err)
	}
	if v.Builder() != LocalBuilder {
		t.Errorf("built by %q", v.Builder())
	}
}

func TestIssue(t *testing.T) {
	f := image(t, "one system")
	text, err := New(f, example)
	if err != nil {
		t.Fatal(err)
	}
	v, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC)
	issued, err := v.Issue(Run{Builder: "https://images.example.org/", Invocation: "abc", Started: at, Finished: at.Add(time.Minute), Submitted: strings.Repeat("ef", 32)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id": "https://images.example.org/"`, `"invocationId": "abc"`, `"sha256": "efef`, `"startedOn": "2026-11-26T01:02:03Z"`, `"finishedOn": "2026-11-26T01:03:03Z"`, `"uri": "docker://alpine"`} {
		if !bytes.Contains(issued, []byte(want)) {
			t.Errorf("no %s in %s", want, issued)
		}
	}
	again, err := Parse(issued)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Check(f); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "{}", "[]", `{"version":1,"builder":"singularity"}`, `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"00"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}`} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q is a statement", bad)
		}
	}
}

// FuzzParse: whatever an image carries, reading it ends, and what has the form can
// be checked and issued.
func FuzzParse(f *testing.F) {
	s := image(f, "one system")
	text, err := New(s, example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		v.Check(s)
		v.Issue(Run{Builder: "x", Started: time.Unix(0, 0), Finished: time.Unix(0, 0)})
	})
}

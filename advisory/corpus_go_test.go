package advisory

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"singularity/sbom"
)

var keepPrograms = flag.String("keep-programs", "", "directory in which TestCorpusGo leaves its programs, for another scanner")

// program is a Go program of the corpus: the release of Go that it says to be
// built with, by the length of its name, and its modules.
type program struct {
	name    string
	goes    []string
	modules map[string]string
}

var programs = []program{
	{"old", []string{"go1.20", "go1.20.3", "go1.20.10"}, map[string]string{
		"golang.org/x/crypto": "v0.0.0-20190308221718-c2843e01d9a2", "golang.org/x/net": "v0.0.0-20190404232315-eb5bcb51f2a3", "golang.org/x/text": "v0.3.0",
		"golang.org/x/sys": "v0.0.0-20190215142949-d0b11bdaac8a", "golang.org/x/image": "v0.0.0-20190227222117-0694c2d4d067", "google.golang.org/grpc": "v1.19.0",
		"github.com/dgrijalva/jwt-go": "v3.2.0+incompatible", "gopkg.in/yaml.v2": "v2.2.1", "github.com/gin-gonic/gin": "v1.3.0", "github.com/gogo/protobuf": "v1.2.0",
		"github.com/prometheus/client_golang": "v1.0.0", "github.com/containerd/containerd": "v1.2.0", "github.com/opencontainers/runc": "v1.0.0-rc9",
		"github.com/docker/docker": "v17.12.0-ce-rc1.0.20200309214505-aa6a9891b09c+incompatible", "github.com/hashicorp/consul": "v1.4.0", "github.com/miekg/dns": "v1.0.0",
		"github.com/gorilla/websocket": "v1.4.0", "github.com/satori/go.uuid": "v1.2.0", "github.com/ulikunitz/xz": "v0.5.5", "github.com/labstack/echo/v4": "v4.1.0",
		"github.com/pkg/errors": "v0.9.1",
	}},
	{"middle", []string{"go1.21", "go1.21.4", "go1.21.11"}, map[string]string{
		"golang.org/x/crypto": "v0.16.0", "golang.org/x/net": "v0.19.0", "golang.org/x/text": "v0.14.0", "golang.org/x/image": "v0.10.0", "google.golang.org/grpc": "v1.58.2",
		"google.golang.org/protobuf": "v1.31.0", "gopkg.in/yaml.v3": "v3.0.0", "gopkg.in/square/go-jose.v2": "v2.5.1", "github.com/nats-io/nats-server/v2": "v2.9.0",
		"k8s.io/client-go": "v0.20.0-alpha.1", "github.com/golang-jwt/jwt/v4": "v4.5.0", "github.com/russellhaering/goxmldsig": "v1.1.0", "github.com/sirupsen/logrus": "v1.9.0",
		"github.com/containerd/containerd": "v1.6.0-rc.1", "github.com/opencontainers/runc": "v1.1.11", "github.com/docker/docker": "v24.0.0+incompatible",
		"github.com/hashicorp/consul": "v1.17.0", "github.com/pkg/errors": "v0.9.1",
	}},
	// What a correction is in, and the version right before one.
	{"edges", []string{"go1.25", "go1.25.5", "go1.25.10"}, map[string]string{
		"golang.org/x/crypto": "v0.45.0", "golang.org/x/net": "v0.38.0", "golang.org/x/text": "v0.3.8", "golang.org/x/sys": "v0.1.0", "google.golang.org/grpc": "v1.79.3",
		"github.com/gin-gonic/gin": "v1.9.1", "gopkg.in/yaml.v2": "v2.2.8", "github.com/labstack/echo/v4": "v4.9.0", "github.com/ulikunitz/xz": "v0.5.14",
		"github.com/gorilla/websocket": "v1.4.1", "github.com/miekg/dns": "v1.1.25", "golang.org/x/oauth2": "v0.26.0", "github.com/golang-jwt/jwt/v4": "v4.5.2",
	}},
}

// TestCorpusGo: programs with old modules have the faults that the records of
// the Go vulnerability database say they have, no more and no fewer. There are
// two independent lists: the ranges evaluated by golang.org/x/mod/semver here,
// and what govulncheck says of the same programs (testdata/govulncheck.json).
func TestCorpusGo(t *testing.T) {
	ctx := context.Background()
	db, err := Load(ctx, "testdata/go-osv.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/govulncheck.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]map[string][]string // program, Go release -> finding
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	records := goRecords(t)
	var peer, ranges score
	for _, p := range programs {
		goes, inv := p.inventory(t)
		list, err := NewMatcher(db).Match(ctx, inv)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, f := range list {
			for _, id := range f.IDs {
				got[f.Package.Name+" "+id] = true
			}
		}
		want := set(golden[p.name][goes])
		if len(want) == 0 && p.name != "edges" {
			t.Errorf("testdata/govulncheck.json has nothing about %q built with %s", p.name, goes)
		}
		peer.add(t, p.name+" against govulncheck", got, want)
		ranges.add(t, p.name+" against the ranges", got, p.affected(goes, records))
	}
	t.Logf("Go programs against govulncheck: %s; against the ranges: %s", &peer, &ranges)
}

// score counts what was flagged rightly, wrongly and not at all.
type score struct{ right, wrong, missed int }

func (s *score) add(t *testing.T, what string, got, want map[string]bool) {
	t.Helper()
	for id := range got {
		if want[id] {
			s.right++
		} else {
			s.wrong++
			t.Errorf("%s: %s is flagged", what, id)
		}
	}
	for id := range want {
		if !got[id] {
			s.missed++
			t.Errorf("%s: %s is not flagged", what, id)
		}
	}
}

func (s *score) String() string {
	return fmt.Sprintf("precision %.4f, recall %.4f (%d right, %d wrong, %d missed)",
		float64(s.right)/float64(max(1, s.right+s.wrong)), float64(s.right)/float64(max(1, s.right+s.missed)), s.right, s.wrong, s.missed)
}

func set(list []string) map[string]bool {
	m := map[string]bool{}
	for _, s := range list {
		m[s] = true
	}
	return m
}

// inventory builds p and reads the packages of an image that has it. It tells
// which release of Go the program claims.
func (p *program) inventory(t *testing.T) (string, *sbom.Inventory) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	goes := p.build(t, filepath.Join(root, "usr/bin", p.name))
	if dir := *keepPrograms; dir != "" {
		os.MkdirAll(dir, 0o755)
		for _, g := range p.goes {
			p.rename(t, filepath.Join(root, "usr/bin", p.name), filepath.Join(dir, p.name+"-"+g), goes, g)
		}
	}
	inv := readRoot(t, root)
	if len(inv.Packages) != len(p.modules)+1 {
		t.Fatalf("the program has %d modules and the standard library; found are %+v", len(p.modules), inv.Packages)
	}
	return goes, inv
}

// build makes the program: a real one, by the linker, of modules that are empty
// but for their names and versions, which lie in its vendor directory.
func (p *program) build(t *testing.T, out string) (goes string) {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) { write(t, filepath.Join(dir, name), text) }
	mod, vendored, main := "module example.org/old\n\ngo 1.17\n\n", "", "package main\n\nimport (\n"
	for _, m := range slices.Sorted(maps.Keys(p.modules)) {
		mod += "require " + m + " " + p.modules[m] + "\n"
		vendored += "# " + m + " " + p.modules[m] + "\n## explicit\n" + m + "\n"
		main += "\t_ \"" + m + "\"\n"
		put("vendor/"+m+"/x.go", "package x\n")
	}
	put("go.mod", mod)
	put("vendor/modules.txt", vendored)
	put("main.go", main+")\n\nfunc main() { println(\"old\") }\n")
	cmd := exec.Command("go", "build", "-mod=vendor", "-buildvcs=false", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=", "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	now, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimSpace(string(now))
	for _, g := range p.goes {
		if len(g) == len(version) {
			goes = g
		}
	}
	if goes == "" {
		t.Fatalf("no release in %q has a name as long as %q", p.goes, version)
	}
	p.rename(t, out, out, version, goes)
	return goes
}

// rename changes the release of Go in the build information of a program
// (debug/buildinfo: 32 bytes, then the length of a text and that).
func (p *program) rename(t *testing.T, in, out, from, to string) {
	t.Helper()
	b, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("\xff Go buildinf:"))
	if at < 0 || string(b[at+33:at+33+len(from)]) != from {
		t.Fatalf("%s does not say that it was built with %s", in, from)
	}
	// A shorter name moves the rest, which ends with zeros.
	rest := b[at+33+len(from):]
	info := append(append([]byte{byte(len(to))}, to...), rest[:2+int(rest[0])&0x7f|int(rest[1])<<7]...)
	copy(b[at+32:], append(info, 0, 0, 0, 0))
	if err := os.WriteFile(out, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// goRecords reads the records by a decoder of this test.
func goRecords(t *testing.T) (list []map[string]any) {
	t.Helper()
	f, err := os.Open("testdata/go-osv.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		if _, err := r.Next(); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.NewDecoder(r).Decode(&m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
}

// affected lists what the ranges of the records say of p, by the rules of
// https://ossf.github.io/osv-schema and the order of golang.org/x/mod/semver.
func (p *program) affected(goes string, records []map[string]any) map[string]bool {
	versions := maps.Clone(p.modules)
	versions["stdlib"] = "v" + strings.TrimPrefix(goes, "go")
	if strings.Count(goes, ".") == 1 {
		versions["stdlib"] += ".0"
	}
	found := map[string]bool{}
	for _, r := range records {
		if r["withdrawn"] != nil {
			continue
		}
		for _, a := range r["affected"].([]any) {
			a := a.(map[string]any)
			name := a["package"].(map[string]any)["name"].(string)
			v := versions[name]
			if v == "" {
				continue
			}
			if other, _ := a["ecosystem_specific"].(map[string]any); onlyElsewhere(other) {
				continue
			}
			for _, x := range a["ranges"].([]any) {
				if inRange(v, x.(map[string]any)["events"].([]any)) {
					found[name+" "+r["id"].(string)] = true
				}
			}
		}
	}
	return found
}

func inRange(v string, events []any) bool {
	in := false
	for _, e := range events { // the database has them in order
		e := e.(map[string]any)
		if at, ok := e["introduced"].(string); ok && (at == "0" || semver.Compare(v, "v"+at) >= 0) {
			in = true
		}
		if at, ok := e["fixed"].(string); ok && semver.Compare(v, "v"+at) >= 0 {
			in = false
		}
	}
	return in
}

// onlyElsewhere tells whether all parts of a module that a record names are for
// systems or processors that the programs are not for.
func onlyElsewhere(specific map[string]any) bool {
	parts, _ := specific["imports"].([]any)
	for _, p := range parts {
		p := p.(map[string]any)
		system, _ := json.Marshal(p["goos"])
		processor, _ := json.Marshal(p["goarch"])
		if (p["goos"] == nil || strings.Contains(string(system), `"linux"`)) && (p["goarch"] == nil || strings.Contains(string(processor), `"amd64"`)) {
			return false
		}
	}
	return len(parts) > 0
}

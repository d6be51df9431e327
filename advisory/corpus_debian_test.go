package advisory

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/image"
	"singularity/sbom"
)

// installed is a package of the image of TestCorpusDebian: one of this host, in an
// older version that its changelog tells of.
type installed struct {
	name, source string
	changelog    string // of this host
	rebuilt      bool   // the package has a version of its own
	version      string // of the source, in the image
}

// debianCorpus takes packages of this host whose changelogs name CVEs, one of
// each source. Those of the kernel and of browsers would fill the whole test.
func debianCorpus(t *testing.T) (list []*installed) {
	t.Helper()
	out, err := exec.Command("dpkg-query", "-W", "-f", `${binary:Package} ${Version} ${source:Package} ${source:Version}\n`).Output()
	if err != nil {
		t.Skip("this host has no packages of Debian: ", err)
	}
	seen := map[string]bool{"linux": true, "chromium": true, "firefox-esr": true}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 4 || seen[f[2]] || len(list) == 50 {
			continue
		}
		name, _, _ := strings.Cut(f[0], ":")
		p := &installed{name: name, source: f[2], changelog: filepath.Join("/usr/share/doc", name, "changelog.Debian.gz"), rebuilt: f[1] != f[3]}
		if namesCVE(p.changelog) {
			seen[p.source] = true
			list = append(list, p)
		}
	}
	if len(list) < 20 {
		t.Skipf("only %d packages of this host have changelogs that name CVEs: documentation is left out here", len(list))
	}
	return list
}

func namesCVE(changelog string) bool {
	f, err := os.Open(changelog)
	if err != nil {
		return false
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return false
	}
	b, err := io.ReadAll(z)
	return err == nil && bytes.Contains(b, []byte("CVE-2"))
}

// told is what an independent reader takes from changelogs: the versions of a
// source, the newest first, and for each CVE the versions that speak of it.
type told struct {
	versions []string
	cves     map[string][]string
}

const changelogAwk = `
/^[a-z0-9]/ && $2 ~ /^\(.*\)$/ { source = $1; version = substr($2, 2, length($2) - 2); print "V", source, version; next }
{ line = $0
  while (match(line, /CVE-[0-9][0-9][0-9][0-9]-[0-9][0-9][0-9][0-9]+/)) {
    print "C", source, version, substr(line, RSTART, RLENGTH); line = substr(line, RSTART + RLENGTH) } }`

func readTold(t *testing.T, changelog string) map[string]*told {
	t.Helper()
	out, err := exec.Command("sh", "-c", `zcat "$1" | awk "$2"`, "sh", changelog, changelogAwk).Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*told{} // a changelog may go back to a source of another name
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if all[f[1]] == nil {
			all[f[1]] = &told{cves: map[string][]string{}}
		}
		s := all[f[1]]
		if f[0] == "V" {
			s.versions = append(s.versions, f[2])
		} else {
			s.cves[f[3]] = append(s.cves[f[3]], f[2])
		}
	}
	return all
}

// TestCorpusDebian: an image with old packages has the faults that the changelogs
// of the newer ones tell of. The independent list is that of awk, which reads the
// changelogs, and of dpkg, which compares the versions.
func TestCorpusDebian(t *testing.T) {
	ctx := context.Background()
	packages := debianCorpus(t)
	docs, root := t.TempDir(), t.TempDir()
	var status strings.Builder
	facts := map[string]*told{}
	for i, p := range packages {
		s := readTold(t, p.changelog)[p.source]
		if s == nil {
			t.Fatalf("%s tells nothing of %s", p.changelog, p.source)
		}
		facts[p.source] = s
		// Each fourth package is of today, the others are up to a dozen versions old.
		p.version = s.versions[min(i%4*(1+i%5), len(s.versions)-1)]
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nArchitecture: amd64\n", p.name)
		switch {
		case p.rebuilt:
			fmt.Fprintf(&status, "Source: %s (%s)\nVersion: %s+b1\n\n", p.source, p.version, p.version)
		case p.source != p.name:
			fmt.Fprintf(&status, "Source: %s\nVersion: %s\n\n", p.source, p.version)
		default:
			fmt.Fprintf(&status, "Version: %s\n\n", p.version)
		}
		b, err := os.ReadFile(p.changelog)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(docs, p.name, filepath.Base(p.changelog)), string(b))
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), status.String())
	write(t, filepath.Join(root, "etc/os-release"), "ID=debian\nVERSION_ID=\"12\"\n")

	records, err := Changelogs(ctx, os.DirFS(docs), "Debian:12")
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder()
	for i := range records {
		if err := b.Add(&records[i]); err != nil {
			t.Fatal(err)
		}
	}
	list, err := NewMatcher(b.DB()).Match(ctx, readRoot(t, root))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range list {
		got[f.Package.Name+" "+f.ID] = true
	}
	want := affectedDebian(t, packages, facts)
	if len(want) < 50 {
		t.Fatalf("the independent list has only %d faults", len(want))
	}
	var s score
	s.add(t, "the old image", got, want)
	t.Logf("an image of %d old packages of Debian, %d advisories: %s", len(packages), len(records), &s)
}

// affectedDebian asks dpkg whether each package is older than all versions that
// speak of a CVE.
func affectedDebian(t *testing.T, packages []*installed, facts map[string]*told) map[string]bool {
	t.Helper()
	var questions strings.Builder
	asked := map[[2]string]bool{}
	for _, p := range packages {
		for _, versions := range facts[p.source].cves {
			for _, v := range versions {
				if q := [2]string{p.version, v}; !asked[q] {
					asked[q] = false
					fmt.Fprintln(&questions, p.version, v)
				}
			}
		}
	}
	cmd := exec.Command("sh", "-c", `while read a b; do dpkg --compare-versions "$a" lt "$b" && echo "$a $b"; done; true`)
	cmd.Stdin = strings.NewReader(questions.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		asked[[2]string{f[0], f[1]}] = true
	}
	want := map[string]bool{}
	for _, p := range packages {
		for id, versions := range facts[p.source].cves {
			older := true
			for _, v := range versions {
				older = older && asked[[2]string{p.version, v}]
			}
			if older {
				want[p.name+" "+id] = true
			}
		}
	}
	return want
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readRoot reads the packages of a directory.
func readRoot(t *testing.T, root string) *sbom.Inventory {
	t.Helper()
	im, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	files, _, err := im.Files()
	if err != nil {
		t.Fatal(err)
	}
	inv, err := sbom.Read(context.Background(), files)
	if err != nil || len(inv.Gaps) > 0 {
		t.Fatal(err, inv.Gaps)
	}
	return inv
}

package advisory

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/sbom"
)

func build(t *testing.T, records ...string) *DB {
	t.Helper()
	b := NewBuilder()
	for i, s := range records {
		var r Record
		if err := json.Unmarshal([]byte(s), &r); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if err := b.Add(&r); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	return b.DB()
}

// rec is a record about one package, fixed in a version ("" for not at all).
func rec(id, eco, name, fixed string, aliases ...string) string {
	events := `{"introduced":"0"}`
	if fixed != "" {
		events += fmt.Sprintf(`,{"fixed":%q}`, fixed)
	}
	a, _ := json.Marshal(aliases)
	return fmt.Sprintf(`{"id":%q,"modified":"2026-01-02T03:04:05Z","aliases":%s,"affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"ECOSYSTEM","events":[%s]}]}]}`,
		id, a, eco, name, events)
}

func match(t *testing.T, db *DB, inv *sbom.Inventory) []Finding {
	t.Helper()
	list, err := NewMatcher(db).Match(context.Background(), inv)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func debian(version string, p ...sbom.Package) *sbom.Inventory {
	return &sbom.Inventory{Distro: sbom.Distro{ID: "debian", Version: version}, Packages: p}
}

func TestSourcePackagesOfDebian(t *testing.T) {
	db := build(t, rec("DEBIAN-CVE-2023-1", "Debian:12", "openssl", "3.0.9-1", "CVE-2023-1"))
	old := sbom.Package{Type: "deb", Name: "libssl3", Version: "3.0.8-1+b1", Source: "openssl", SourceVersion: "3.0.8-1"}
	list := match(t, db, debian("12", old))
	if len(list) != 1 || list[0].ID != "CVE-2023-1" || list[0].Fixed[0] != "3.0.9-1" || list[0].IDs[0] != "DEBIAN-CVE-2023-1" {
		t.Errorf("got %+v", list)
	}
	fixed := old
	fixed.SourceVersion = "3.0.9-1"
	other := old
	other.Source = "openssl1.1"
	if list := match(t, db, debian("12", fixed, other)); len(list) != 0 {
		t.Errorf("a corrected and another source: %+v", list)
	}
	if list := match(t, db, debian("11", old)); len(list) != 0 {
		t.Errorf("another release: %+v", list)
	}
}

func TestOwnedByTheSystem(t *testing.T) {
	db := build(t, rec("GHSA-1", "PyPI", "Requests", "2.31.0"))
	p := sbom.Package{Type: "pypi", Name: "requests", Version: "2.28.1", Path: "usr/lib/python3/dist-packages/requests-2.28.1.dist-info/METADATA"}
	if list := match(t, db, debian("12", p)); len(list) != 1 {
		t.Errorf("installed by pip: %+v", list)
	}
	p.Owner = "python3-requests"
	if list := match(t, db, debian("12", p)); len(list) != 0 {
		t.Errorf("the distribution's own: %+v", list)
	}
}

// TestNames: records of one fault are one finding, a notice about several is
// several, and what sources disagree about is said.
func TestNames(t *testing.T) {
	db := build(t,
		rec("GHSA-a", "npm", "left", "2.0.0", "CVE-2024-1"),
		rec("SNYK-a", "npm", "left", "1.5.0", "CVE-2024-1"),
		rec("X-join", "npm", "left", "3.0.0", "GHSA-b"),
		rec("GHSA-b", "npm", "left", "3.0.0"),
		`{"id":"DSA-1","modified":"2026-01-01T00:00:00Z","upstream":["CVE-2025-1","CVE-2025-2"],"affected":[{"package":{"ecosystem":"Debian:12","name":"curl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"8"}]}]}]}`)
	list := match(t, db, debian("12",
		sbom.Package{Type: "npm", Name: "left", Version: "1.6.0"},
		sbom.Package{Type: "deb", Name: "curl", Version: "7"}))
	var got []string
	for _, f := range list {
		got = append(got, fmt.Sprint(f.ID, f.IDs, f.Denied, f.Fixed))
	}
	want := []string{"CVE-2025-1[DSA-1] [] [8]", "CVE-2025-2[DSA-1] [] [8]", "CVE-2024-1[GHSA-a] [SNYK-a] [2.0.0]", "GHSA-b[GHSA-b X-join] [] [3.0.0]"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestContradictions: names that lead back to themselves end, records that deny each
// other are one finding which says so, and an event without an order hides nothing.
func TestContradictions(t *testing.T) {
	db := build(t,
		rec("A", "npm", "x", "2.0.0", "B", "A"), rec("B", "npm", "x", "1.0.0", "C"), rec("C", "npm", "x", "", "A"),
		`{"id":"D","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"x"},"ranges":[{"type":"SEMVER","events":[{"introduced":"2.0.0"},{"fixed":"1.0.0"}]}]}]}`,
		`{"id":"E","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"x"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"not a version"}]}]}]}`,
		`{"id":"F","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"x"},"versions":["1.5.0"]},{"package":{"ecosystem":"npm","name":"x"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.0.0"}]}]}]}`)
	var got []string
	for _, f := range match(t, db, debian("12", sbom.Package{Type: "npm", Name: "x", Version: "1.5.0"})) {
		got = append(got, fmt.Sprint(f.ID, f.IDs, f.Denied, f.Unsure))
	}
	if want := "A[A C] [B] false\nE[E] [] true\nF[F] [] false"; strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	// A mirror that goes back in time, or has lost much.
	have := Info{Records: 100, Newest: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)}
	for _, next := range []Info{{Records: 200, Newest: have.Newest.Add(-time.Second)}, {Records: 89, Newest: have.Newest}} {
		if next.Follows(have) == nil {
			t.Errorf("%+v may follow %+v", next, have)
		}
	}
	if err := (Info{Records: 90, Newest: have.Newest}).Follows(have); err != nil {
		t.Error(err)
	}
}

func TestRanges(t *testing.T) {
	o := order{"Go"}
	r := Range{Type: "SEMVER", Events: []Event{{Fixed: "2.15.3"}, {Introduced: "2.15.0"}, {Introduced: "2.3.1"}, {Fixed: "2.14.4"}, {Introduced: "3.0.0"}, {LastAffected: "3.1.0"}}}
	for v, want := range map[string]bool{"2.3.0": false, "2.3.1": true, "2.14.3": true, "2.14.4": false, "2.15.0": true, "2.15.3": false, "3.0.0": true, "3.1.0": true, "3.1.1": false, "2.3.1-rc.1": false} {
		if got, ok := o.in(v, r); got != want || !ok {
			t.Errorf("%s: affected %t (comparable %t), want %t", v, got, ok, want)
		}
	}
}

func TestLaterRecordCounts(t *testing.T) {
	old := rec("A-1", "npm", "x", "")
	corrected := strings.Replace(rec("A-1", "npm", "x", "1.0.0"), "2026-01-02", "2026-02-02", 1)
	withdrawn := strings.Replace(corrected, `"2026-02-02T03:04:05Z"`, `"2026-03-02T03:04:05Z","withdrawn":"2026-03-02T03:04:05Z"`, 1)
	p := debian("12", sbom.Package{Type: "npm", Name: "x", Version: "1.2.0"})
	if n := len(match(t, build(t, old), p)); n != 1 {
		t.Errorf("the old record: %d", n)
	}
	for _, order := range [][]string{{old, corrected}, {corrected, old}, {old, withdrawn}, {withdrawn, corrected, old}} {
		if list := match(t, build(t, order...), p); len(list) != 0 {
			t.Errorf("%q: %+v", order, list)
		}
	}
	if a, b := build(t, old, corrected).Info(), build(t, corrected).Info(); a.Digest != b.Digest || a.Records != 1 || !a.Newest.Equal(time.Date(2026, 2, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("info %+v and %+v", a, b)
	}
}

func TestSeverity(t *testing.T) {
	for text, want := range map[string]Level{
		`"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]`:                          Critical,
		`"severity":[{"type":"CVSS_V3","score":"CVSS:3.0/AV:L/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N"}]`:                          Low,
		`"severity":[{"type":"CVSS_V4","score":"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}]`:       Critical,
		`"severity":[{"type":"Ubuntu","score":"medium"}]`:                                                                 Medium,
		`"database_specific":{"severity":"MODERATE"}`:                                                                     Medium,
		`"severity":[{"type":"CVSS_V3","score":"nonsense"}],"database_specific":{"severity":["LIST"],"urgency":"high**"}`: High,
		`"summary":"x"`: Unknown,
	} {
		s := strings.Replace(rec("A", "npm", "x", ""), `"affected"`, text+`,"affected"`, 1)
		list := match(t, build(t, s), debian("12", sbom.Package{Type: "npm", Name: "x", Version: "1"}))
		if len(list) != 1 || list[0].Level != want {
			t.Errorf("%s: %+v, want %v", text, list, want)
		}
	}
}

// TestHostileRecords: what cannot be used is refused with its cause and hides
// nothing else.
func TestHostileRecords(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("good.json", rec("GOOD", "npm", "x", ""))
	put("list.json", "["+rec("GOOD-2", "npm", "x", "")+","+strings.Replace(rec("B!", "npm", "x", ""), "!", `\u001b`, 1)+"]")
	put("broken.json", "{")
	put("deep.json", strings.Repeat("[", 100000))
	put("noid.json", `{"modified":"2026-01-01T00:00:00Z","affected":[]}`)
	put("large.json", `{"id":"L","details":"`+strings.Repeat("x", maxRecord)+`"}`)
	put("readme.txt", "no record")
	put("escape.json", strings.Replace(rec("ESC", "npm", "x", ""), `"affected"`, `"summary":"a\u001b[2Jb\u202ec","affected"`, 1))
	os.Symlink("/etc/passwd", filepath.Join(dir, "link.json"))
	db, err := Load(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if info := db.Info(); info.Records != 3 || info.Skipped != 5 {
		t.Errorf("info %+v", info)
	}
	if s := db.Record("ESC").Summary; s != "a[2Jbc" {
		t.Errorf("summary %q", s)
	}
	list := match(t, db, debian("12", sbom.Package{Type: "npm", Name: "x", Version: strings.Repeat("9.", 200)}))
	if len(list) != 3 {
		t.Errorf("findings %+v", list)
	}
	if _, err := Load(context.Background(), t.TempDir()); err == nil {
		t.Error("an empty directory is no advisory data")
	}
}

// TestDpkgOrder compares the order of versions with that of dpkg.
func TestDpkgOrder(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg is not installed")
	}
	versions := []string{"0", "1", "1.0", "1.0-1", "1.0-1+b1", "1.0~rc1-1", "1.0~~", "1:0.9", "1.0+dfsg-1", "1.0-1~bpo11+1", "1.10", "1.9", "1.0a", "1.0A", "1.0.1", "2:1", "1.0-10", "1.0-9", "1.0-1ubuntu0.1", "1.0-1deb12u1"}
	o := order{"Debian"}
	for _, a := range versions {
		for _, b := range versions {
			n, ok := o.compare(a, b)
			if !ok {
				t.Errorf("%q, %q cannot be compared", a, b)
			}
			op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[min(max(n, -1), 1)]
			if err := exec.Command(dpkg, "--compare-versions", a, op, b).Run(); err != nil {
				t.Errorf("%q %s %q, dpkg says no: %v", a, op, b, err)
			}
		}
	}
}

// TestRPMOrder compares the order of versions with that of rpm.
func TestRPMOrder(t *testing.T) {
	rpm, err := exec.LookPath("rpm")
	if err != nil {
		t.Skip("rpm is not installed")
	}
	versions := []string{"1.0-1.el9", "1.0-1.el9_2", "1.0-10.el9", "1.0~rc1-1.el9", "1.0^git1-1.el9", "1.0.1-1.el9", "1.0a-1.el9", "1:0.9-1.el9", "1.10-1.el9", "1.9-1.el9", "1.0-1.el9.1", "1.0_1-1.el9"}
	o := order{"Rocky Linux"}
	var script strings.Builder
	for _, a := range versions {
		for _, b := range versions {
			fmt.Fprintf(&script, "%%{lua:print(rpm.vercmp(%q,%q))}\n", a, b)
		}
	}
	out, err := exec.Command(rpm, "--eval", script.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for _, a := range versions {
		for _, b := range versions {
			for lines.Scan() && strings.TrimSpace(lines.Text()) == "" {
			}
			want := strings.TrimSpace(lines.Text())
			n, ok := o.compare(a, b)
			if got := fmt.Sprint(min(max(n, -1), 1)); got != want || !ok {
				t.Errorf("%q against %q: %s, rpm says %s", a, b, got, want)
			}
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(rec("A", "npm", "x", "1")), "1.2")
	f.Add([]byte(rec("A", "Debian:12", "x", "1")), "1:2-3~x")
	f.Fuzz(func(t *testing.T, data []byte, version string) {
		if len(version) > maxName {
			return
		}
		b := NewBuilder()
		var r Record
		if json.Unmarshal(data, &r) != nil || b.Add(&r) != nil {
			return
		}
		m := NewMatcher(b.DB())
		for k := range m.db.byName {
			for _, h := range m.lookUp(identity{k, version, k.ecosystem, ""}) {
				if h.id == "" || len(h.records) == 0 {
					t.Errorf("a finding without a name: %+v", h)
				}
			}
		}
	})
}

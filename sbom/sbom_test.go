package sbom

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"singularity/image"
	"singularity/sif"
)

// tree writes files into a directory and opens it as an image.
func tree(t *testing.T, files map[string]string) *image.Dir {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d, err := image.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func read(t *testing.T, files map[string]string) *Inventory {
	t.Helper()
	inv, err := Read(context.Background(), tree(t, files))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// short writes the packages of inv as lines.
func short(inv *Inventory) string {
	var b strings.Builder
	for _, p := range inv.Packages {
		fmt.Fprintln(&b, strings.TrimRight(strings.Join([]string{p.Type, p.Name, p.Version, p.Arch, p.Source, p.SourceVersion, p.Owner}, "|"), "|"))
	}
	return b.String()
}

const debianRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n"

var debianImage = map[string]string{
	"etc/os-release": debianRelease,
	"var/lib/dpkg/status": "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl (3.0.8-1)\nVersion: 3.0.8-1+b1\nDescription: a\n Package: not-a-field\n\n" +
		"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n" +
		"Package: python3-requests\nStatus: install ok installed\nArchitecture: all\nSource: requests\nVersion: 2.28.1+dfsg-1\n",
	"var/lib/dpkg/info/python3-requests.list":                                "/.\n/usr/lib/python3/dist-packages/requests-2.28.1.egg-info/PKG-INFO\n",
	"usr/lib/python3/dist-packages/requests-2.28.1.egg-info/PKG-INFO":        "Metadata-Version: 2.1\nName: requests\nVersion: 2.28.1\n\nName: wrong\n",
	"usr/local/lib/python3.11/dist-packages/Jinja2-3.1.0.dist-info/METADATA": "Name: Jinja2\nVersion: 3.1.0\nLicense: BSD\n",
	"opt/app/node_modules/@scope/part/package.json":                          `{"name":"@scope/part","version":"1.2.3","license":"MIT"}`,
	"opt/app/node_modules/left/lib/package.json":                             `{"name":"inner","version":"9"}`,
	"opt/app/package-lock.json":                                              `{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1"},"node_modules/a/node_modules/@s/b":{"version":"2.0.0"},"node_modules/l":{"link":true}}}`,
	"opt/old/package-lock.json":                                              `{"lockfileVersion":1,"dependencies":{"c":{"version":"1.0.0","dependencies":{"d":{"version":"2.0.0"}}},"f":{"version":"file:x"}}}`,
	"opt/rust/Cargo.lock":                                                    "[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry+https://example.org\"\n[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n",
	"usr/lib/python3/dist-packages/broken.dist-info/METADATA":                "Name: bad name\nVersion: 1\n",
}

const debianPackages = `cargo|serde|1.0.1
deb|libssl3|3.0.8-1+b1|amd64|openssl|3.0.8-1
deb|python3-requests|2.28.1+dfsg-1|all|requests
npm|@s/b|2.0.0
npm|@scope/part|1.2.3
npm|c|1.0.0
npm|d|2.0.0
pypi|Jinja2|3.1.0
pypi|requests|2.28.1||||python3-requests
`

func TestRead(t *testing.T) {
	inv := read(t, debianImage)
	if d := cmp.Diff(debianPackages, short(inv)); d != "" {
		t.Error(d)
	}
	if inv.Distro != (Distro{ID: "debian", Version: "12", Name: "Debian GNU/Linux 12 (bookworm)"}) {
		t.Errorf("distribution %+v", inv.Distro)
	}
	if len(inv.Gaps) != 1 || !strings.Contains(inv.Gaps[0], "broken.dist-info") {
		t.Errorf("gaps %q", inv.Gaps)
	}
}

func TestAlpine(t *testing.T) {
	inv := read(t, map[string]string{
		"etc/os-release":       "ID=alpine\nVERSION_ID=3.18.4\n",
		"lib/apk/db/installed": "C:Q1=\nP:libcrypto3\nV:3.1.3-r0\nA:x86_64\nL:Apache-2.0\no:openssl\nF:usr/lib\nR:x.dist-info\n\nP:py3-six\nV:1.16-r6\nA:noarch\no:py3-six\nF:usr/lib/python3.11/site-packages/six-1.16.0.dist-info\nR:METADATA\n",
		"usr/lib/python3.11/site-packages/six-1.16.0.dist-info/METADATA": "Name: six\nVersion: 1.16.0\n",
	})
	want := "apk|libcrypto3|3.1.3-r0|x86_64|openssl\napk|py3-six|1.16-r6|noarch\npypi|six|1.16.0||||py3-six\n"
	if d := cmp.Diff(want, short(inv)); d != "" {
		t.Error(d)
	}
}

// TestGoProgram takes the modules of a program that the linker of Go made: this
// test.
func TestGoProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	d := tree(t, map[string]string{"usr/bin/prog": string(b), "usr/bin/cut": string(b[:len(b)/2]), "usr/bin/text": strings.Repeat("x", 1<<17)})
	for _, n := range []string{"prog", "cut", "text"} {
		os.Chmod(fmt.Sprintf("/proc/self/fd/%d/usr/bin/%s", fd(t, d), n), 0o755)
	}
	inv, err := Read(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(inv.Packages, func(p Package) bool {
			return p.Type == "golang" && p.Name == name && p.Version != "" && p.Path == "usr/bin/prog"
		})
	}
	if !has("stdlib") {
		t.Errorf("packages:\n%s", short(inv))
	}
}

// fd finds the descriptor of the directory of a tree.
func fd(t *testing.T, d *image.Dir) uintptr {
	t.Helper()
	var at uintptr
	f, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, n := range names {
		var k uintptr
		fmt.Sscan(n, &k)
		if to, err := os.Readlink("/proc/self/fd/" + n); err == nil && strings.Contains(to, "TestGoProgram") {
			at = k
		}
	}
	return at
}

// TestFormats: what is written is read back, by ours and, for the order of
// bytes, twice the same.
func TestFormats(t *testing.T) {
	inv := read(t, debianImage)
	s := Subject{Name: "debian.sif", Digest: strings.Repeat("ab", 32), Tool: "5.0.0", Created: time.Unix(1700000000, 0)}
	for _, format := range []sif.SBOMFormat{sif.SBOMCycloneDXJSON, sif.SBOMSPDXJSON} {
		var a, b bytes.Buffer
		if err := Encode(&a, inv, s, format); err != nil {
			t.Fatal(err)
		}
		if err := Encode(&b, inv, s, format); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("format %d: two runs differ (%v)", format, err)
		}
		back, err := Decode(&a)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Replace(debianPackages, "Jinja2", "jinja2", 1)
		if d := cmp.Diff(want, short(back)); d != "" {
			t.Errorf("format %d: %s", format, d)
		}
		if back.Distro != inv.Distro || !slices.Equal(back.Gaps, inv.Gaps) {
			t.Errorf("format %d: %+v, gaps %q", format, back.Distro, back.Gaps)
		}
	}
}

// TestHostileDatabases: SC-162, what is too much or makes no sense is a gap, never
// a crash, and takes bounded memory.
func TestHostileDatabases(t *testing.T) {
	var many strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&many, "Package: p%d\nVersion: 1\nStatus: install ok installed\n\n", i)
	}
	for name, c := range map[string]struct {
		files map[string]string
		gap   string
		count int
	}{
		"many":      {map[string]string{"var/lib/dpkg/status": many.String()}, "over 250000 packages", maxPackages},
		"long line": {map[string]string{"var/lib/dpkg/status": "Package: " + strings.Repeat("x", 1<<20) + "\nVersion: 1\nStatus: install ok installed\n\nPackage: ok\nVersion: 1\nStatus: install ok installed\n"}, "without a usable name", 1},
		"escapes":   {map[string]string{"var/lib/dpkg/status": "Package: a\x1b[31m\nVersion: 1\nStatus: install ok installed\n"}, "without a usable name", 0},
		"direction": {map[string]string{"x/node_modules/a/package.json": `{"name":"a\u202eb","version":"1"}`}, "without a usable name", 0},
		"deep json": {map[string]string{"x/package-lock.json": strings.Repeat(`{"dependencies":{"a":`, 20000)}, "package-lock.json", 0},
		"deep toml": {map[string]string{"x/Cargo.lock": "a = " + strings.Repeat("[", 100000)}, "Cargo.lock", 0},
		"large":     {map[string]string{"x/node_modules/a/package.json": strings.Repeat(" ", maxMetadata+1)}, "larger than", 0},
		"rpm":       {map[string]string{"var/lib/rpm/rpmdb.sqlite": "SQLite format 3\x00" + strings.Repeat("\xff", 4096)}, "rpmdb.sqlite", 0},
		"rpm hash":  {map[string]string{"var/lib/rpm/Packages": strings.Repeat("\x61\x15\x06\x00", 4096)}, "Packages", 0},
		"egg":       {map[string]string{"x/a.egg-info": "Name: ../../etc\nVersion: 1\n"}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			inv := read(t, c.files)
			if len(inv.Packages) != c.count || c.gap != "" && !strings.Contains(strings.Join(inv.Gaps, "\n"), c.gap) {
				t.Errorf("%d packages, want %d; gaps %q", len(inv.Packages), c.count, inv.Gaps)
			}
		})
	}
}

// TestCycles: links that lead back, and packages that contain each other, end.
func TestCycles(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("app/node_modules/a/package.json", `{"name":"a","version":"1"}`)
	put("app/node_modules/b/package.json", `{"name":"b","version":"1"}`)
	put("app/package-lock.json", `{"packages":{"node_modules/a":{"version":"1"},"node_modules/a/node_modules/b":{"link":true,"resolved":"node_modules/a"},"node_modules/b":{"version":"1"}}}`)
	for at, to := range map[string]string{"app/node_modules/a/node_modules": "..", "app/node_modules/b/node_modules": "../a", "app/self": ".", "var": "var", "etc": "/etc", "lib": "../../../../lib"} {
		if err := os.Symlink(to, filepath.Join(root, at)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := image.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	inv, err := Read(context.Background(), d)
	if err != nil || len(inv.Packages) != 4 || inv.Distro.ID != "" {
		t.Errorf("%+v, %v", inv, err)
	}
}

// TestHostileBills: a bill of materials of somebody else is hostile too.
func TestHostileBills(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"bomFormat":"CycloneDX","components":5}`, `{"spdxVersion":"SPDX-2.3","packages":{}}`, `{"bomFormat":"X"}`, strings.Repeat(`{"bomFormat":`, 10000)} {
		if _, err := Decode(strings.NewReader(text)); err == nil {
			t.Errorf("%.40q is taken", text)
		}
	}
	inv, err := Decode(strings.NewReader(`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"a","purl":"pkg:npm/a@1\u001b"},{"type":"library","name":"b","purl":"pkg:deb/debian/b@1?arch=amd64&distro=debian-12&upstream=bb%402"},{"type":"library","name":"c"},{"type":"operating-system","name":"x\u001b","version":"1"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := short(inv); got != "deb|b|1|amd64|bb|2\n" || inv.Distro.ID != "debian" || len(inv.Gaps) == 0 {
		t.Errorf("%s%+v %q", got, inv.Distro, inv.Gaps)
	}
}

func FuzzDecode(f *testing.F) {
	inv := &Inventory{Distro: Distro{ID: "debian", Version: "12"}, Packages: []Package{{Type: "deb", Name: "a", Version: "1", Source: "b"}, {Type: "golang", Name: "example.org/x", Version: "1.0.0"}}}
	for _, format := range []sif.SBOMFormat{sif.SBOMCycloneDXJSON, sif.SBOMSPDXJSON} {
		var b bytes.Buffer
		if err := Encode(&b, inv, Subject{Name: "x"}, format); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, p := range inv.Packages {
			if !plainField(p.Name) || !plainField(p.Version) || p.Name == "" {
				t.Errorf("%+v", p)
			}
		}
		if err := Encode(io.Discard, inv, Subject{Name: "x"}, sif.SBOMCycloneDXJSON); err != nil {
			t.Error(err)
		}
	})
}

func FuzzWAL(f *testing.F) {
	f.Add([]byte("\x37\x7f\x06\x82\x00\x2d\xe2\x18\x00\x00\x10\x00"))
	f.Fuzz(func(t *testing.T, data []byte) { applyWAL(nowhere{}, bytes.NewReader(data)) })
}

type nowhere struct{}

func (nowhere) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x03\xe8\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x01a\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{ctx: context.Background(), owned: map[string]string{"x": ""}}
		if h, err := parseHeader(data); err == nil {
			r.addRPM(h, "x")
		}
	})
}

func FuzzSystem(f *testing.F) {
	f.Add([]byte(debianImage["var/lib/dpkg/status"]))
	f.Add([]byte("P:a\nV:1\nF:x\nR:y\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &reader{ctx: context.Background(), owned: map[string]string{}}
		if err := r.readDpkg("x", bytes.NewReader(data)); err != nil {
			t.Error(err)
		}
		if err := r.readApk("x", bytes.NewReader(data)); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(r.inv); err != nil {
			t.Error(err)
		}
	})
}

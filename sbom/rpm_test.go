package sbom

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"singularity/image"
)

// rpmSpec makes a package with an epoch that owns a Python package, one with so
// many files that its header fills many pages, and ten small ones.
func rpmSpec() string {
	var b strings.Builder
	b.WriteString("Name: probe\nVersion: 1.2\nRelease: 3.el9\nEpoch: 2\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n")
	fmt.Fprintf(&b, "%%package -n wide\nSummary: x\n%%description -n wide\nx\n")
	for i := range 10 {
		fmt.Fprintf(&b, "%%package -n small%d\nSummary: x\n%%description -n small%d\nx\n", i, i)
	}
	b.WriteString("%install\nsite=%{buildroot}/usr/lib/python3.9/site-packages/six.dist-info\nmkdir -p $site %{buildroot}/usr/share/wide\nprintf 'Name: six\\nVersion: 1\\n' > $site/METADATA\n" +
		"for i in $(seq 1000); do : > %{buildroot}/usr/share/wide/a-file-with-a-long-name-$i; done\n" +
		"%files\n/usr/lib/python3.9/site-packages/six.dist-info/METADATA\n%files -n wide\n/usr/share/wide\n")
	for i := range 10 {
		fmt.Fprintf(&b, "%%files -n small%d\n", i)
	}
	return b.String()
}

// TestRPM reads databases that rpm and Berkeley DB made, and compares the list with
// rpm's own.
func TestRPM(t *testing.T) {
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		t.Skip("rpmbuild is not installed")
	}
	dir := t.TempDir()
	spec := filepath.Join(dir, "x.spec")
	if err := os.WriteFile(spec, []byte(rpmSpec()), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, nil, "rpmbuild", "--define", "_topdir "+dir, "-bb", spec)
	rpms, _ := filepath.Glob(filepath.Join(dir, "RPMS/noarch/*.rpm"))
	if len(rpms) != 12 {
		t.Fatalf("packages %q", rpms)
	}
	var headers [][]byte
	t.Run("sqlite", func(t *testing.T) {
		root, db := rpmRoot(t)
		define := []string{"--define", "_db_backend sqlite", "--dbpath", db}
		command(t, nil, "rpm", append(define, "--initdb")...)
		command(t, nil, "rpm", slices.Concat(define, []string{"-i", "--justdb", "--nodeps", "--noscripts", "--ignorearch"}, rpms)...)
		headers = checkRPM(t, root, "var/lib/rpm/rpmdb.sqlite", define)
	})
	t.Run("bdb", func(t *testing.T) {
		load, err := exec.LookPath("db5.3_load")
		if err != nil {
			t.Skip("db5.3_load is not installed")
		}
		root, db := rpmRoot(t)
		// The layout of rpm: the number of a header, as a key of four bytes, and the header.
		text := bytes.NewBufferString("VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n")
		fmt.Fprintf(text, " 00000000\n %s\n", hex.EncodeToString([]byte{byte(len(headers)), 0, 0, 0}))
		for i, h := range headers {
			fmt.Fprintf(text, " %s\n %s\n", hex.EncodeToString([]byte{byte(i + 1), 0, 0, 0}), hex.EncodeToString(h))
		}
		text.WriteString("DATA=END\n")
		command(t, text, load, filepath.Join(db, "Packages"))
		checkRPM(t, root, "var/lib/rpm/Packages", []string{"--define", "_db_backend bdb_ro", "--dbpath", db})
	})
}

func command(t *testing.T, in *bytes.Buffer, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	if in != nil {
		cmd.Stdin = in
	}
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, errors.String())
	}
	return string(out)
}

func rpmRoot(t *testing.T) (root, db string) {
	t.Helper()
	root = t.TempDir()
	db = filepath.Join(root, "var/lib/rpm")
	meta := filepath.Join(root, "usr/lib/python3.9/site-packages/six.dist-info")
	for _, d := range []string{db, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(meta, "METADATA"), []byte("Name: six\nVersion: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, db
}

// checkRPM compares what is read with what rpm says, and returns the headers.
func checkRPM(t *testing.T, root, path string, define []string) (headers [][]byte) {
	t.Helper()
	d, err := image.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	inv, err := Read(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range inv.Packages {
		switch {
		case p.Type == "rpm":
			got = append(got, p.Name+" "+p.Version+" "+p.Arch)
		case p.Name != "six" || p.Owner != "probe":
			t.Errorf("beside the packages: %+v", p)
		}
	}
	said := strings.ReplaceAll(command(t, nil, "rpm", append(define, "-qa", "--qf", `%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH}\n`)...), "(none):", "")
	want := strings.Split(strings.TrimSpace(said), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if len(inv.Gaps) > 0 || len(inv.Packages) != 13 || len(want) != 12 || !slices.Equal(got, want) {
		t.Errorf("got %q, rpm says %q, gaps %q", got, want, inv.Gaps)
	}
	r := &reader{ctx: context.Background(), files: d, owned: map[string]string{}}
	err = image.Each(d, maxFiles, func(e image.Entry) error {
		if e.Path != path {
			return nil
		}
		return r.eachHeader(e, func(b []byte) error {
			headers = append(headers, bytes.Clone(b))
			return nil
		})
	})
	if err != nil || len(headers) != 12 {
		t.Fatalf("%d headers, %v", len(headers), err)
	}
	return headers
}

// TestRealRPM reads databases of real systems, which lie in the module of the
// decoders, and compares the list with that of rpm, or of that module's own tests
// where rpm of this host does not know the form.
func TestRealRPM(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/knqyf263/go-rpmdb").Output()
	module := strings.TrimSpace(string(out))
	if err != nil || module == "" {
		t.Skip("the module of the decoders is not here as such: ", err)
	}
	_, err = exec.LookPath("rpm")
	hasRPM := err == nil
	for _, c := range []struct{ system, file, backend string }{
		{"centos5-plain", "Packages", "bdb_ro"}, {"centos7-plain", "Packages", "bdb_ro"}, {"ubi8-s390x", "Packages", "bdb_ro"},
		{"fedora35", "rpmdb.sqlite", "sqlite"}, {"sle15-bci", "Packages.db", ""},
	} {
		t.Run(c.system, func(t *testing.T) {
			root := t.TempDir()
			db := filepath.Join(root, "var/lib/rpm")
			b, err := os.ReadFile(filepath.Join(module, "pkg/testdata", c.system, c.file))
			if err == nil {
				err = os.MkdirAll(db, 0o755)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(db, c.file), b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			switch {
			case c.backend == "":
				want = listed(t, filepath.Join(module, "pkg/rpmdb_testcase_test.go"), "SLE15WithNDB")
			case !hasRPM:
				t.Skip("rpm is not installed")
			default:
				said := command(t, nil, "rpm", "--define", "_db_backend "+c.backend, "--dbpath", db, "-qa", "--qf", `%{NAME} %{VERSION}-%{RELEASE}\n`)
				want = strings.Split(strings.TrimSpace(said), "\n")
			}
			want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, "gpg-pubkey ") })
			d, err := image.OpenDir(root)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			inv, err := Read(context.Background(), d)
			if err != nil || len(inv.Gaps) > 0 {
				t.Fatal(err, inv.Gaps)
			}
			var got []string
			for _, p := range inv.Packages {
				_, version, epoch := strings.Cut(p.Version, ":")
				if !epoch {
					version = p.Version
				}
				got = append(got, p.Name+" "+version)
			}
			slices.Sort(got)
			slices.Sort(want)
			if len(want) < 30 || !slices.Equal(slices.Compact(got), slices.Compact(want)) {
				t.Errorf("got %d: %q\nwant %d: %q", len(got), got, len(want), want)
			}
		})
	}
}

var listedPackage = regexp.MustCompile(`\{intRef\(\d*\), "([^"]+)", "([^"]+)", "([^"]+)", "`)

// listed reads names and versions from the list in a Go file that has a name.
func listed(t *testing.T, path, name string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\t"+name+" = func()")
	rest, _, _ = strings.Cut(rest, "= func()")
	for _, m := range listedPackage.FindAllStringSubmatch(rest, -1) {
		list = append(list, m[1]+" "+m[2]+"-"+m[3])
	}
	return list
}

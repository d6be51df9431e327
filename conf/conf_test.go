package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTable holds each field of Config to exactly one directive.
func TestTable(t *testing.T) {
	c := new(Config)
	v := reflect.ValueOf(c).Elem()
	owner := map[any]string{}
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.Anonymous {
			owner[v.FieldByIndex(f.Index).Addr().Interface()] = f.Name
		}
	}
	if len(owner) != 65 {
		t.Errorf("%d fields, want 65", len(owner))
	}
	names := map[string]bool{}
	for _, d := range Directives() {
		if names[d.Name] {
			t.Errorf("%q stands twice", d.Name)
		}
		names[d.Name] = true
		p := d.Field(c)
		if owner[p] == "" {
			t.Errorf("%q has the field of another directive", d.Name)
		}
		delete(owner, p)
	}
	for _, name := range owner {
		t.Errorf("field %s has no directive", name)
	}
}

func TestDefault(t *testing.T) {
	c := Default()
	if !c.AllowSetuid || c.OCIMode || c.MaxLoopDevices != 256 || c.MountDev != "yes" || c.EnableOverlay != "try" || c.SessiondirMaxSize != 64 ||
		c.RootDefaultCapabilities != "full" || c.DownloadPartSize != 5242880 || c.UserSearchPath != "$PATH:"+searchPath {
		t.Errorf("got %+v", c)
	}
	if diff := cmp.Diff([]string{"/etc/localtime", "/etc/hosts"}, c.BindPaths); diff != "" {
		t.Error(diff)
	}
}

func TestRead(t *testing.T) {
	c, err := Read(strings.NewReader("# comment\n\n  allow setuid=no\t# why\r\nmount dev = minimal\nbind path = /a:/b, /c#d\nbind path =/e\n" +
		"limit container owners =\nunknown thing = x\nimage driver =\nenable underlay = preferred\nmax loop devices = 7\nldconfig path = /sbin/ldconfig\ncni plugin path = a = b"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Read(strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	want.AllowSetuid, want.MountDev, want.EnableUnderlay, want.MaxLoopDevices = false, "minimal", "preferred", 7
	want.BindPaths, want.LdconfigPath, want.CNIPluginPath = []string{"/a:/b", "/c#d", "/e"}, "/sbin/ldconfig", "a = b"
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
	// A file without bind paths has none, whatever the default.
	if c, err := Read(strings.NewReader("")); err != nil || c.BindPaths != nil {
		t.Errorf("bind paths of an empty file: %q, %v", c.BindPaths, err)
	}
}

// TestSample: files that other versions wrote can be read as they are.
func TestSample(t *testing.T) {
	text, err := os.ReadFile("testdata/sample.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range Directives() {
		if d.Name != "require integrity" && d.Name != "run records" && d.Name != "blocked images" && !strings.Contains(string(text), "\n"+d.Name+" =") && !strings.Contains(string(text), "#"+d.Name+" =") &&
			!strings.Contains(string(text), "# "+d.Name+" =") {
			t.Errorf("the sample lacks %q", d.Name)
		}
	}
	c, err := Read(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.LimitContainerPaths, want.AllowNetUsers = []string{"/scratch", "/tmp", "/global"}, []string{"gmk", "singularity"}
	want.CNIConfigurationPath, want.CryptsetupPath, want.GoPath = "/etc/cni/net.d", "/usr/sbin/cryptsetup", "/usr/local/go/bin/go"
	want.LdconfigPath, want.MksquashfsPath, want.UnsquashfsPath = "/usr/sbin/ldconfig", "/usr/bin/mksquashfs", "/usr/bin/unsquashfs"
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	for text, want := range map[string]string{
		"x\n":                   `line 1: "x" is not of the form`,
		"\nallow setuid = Yes":  `line 2: "allow setuid": "Yes" is neither yes nor no`,
		"allow setuid =":        `"" is neither`,
		"mount dev = some":      `"some" is not one of yes, no, minimal`,
		"max loop devices = -1": "not a whole number",
		"max loop devices = 99999999999999999999":   "not a whole number",
		"max loop devices =":                        "not a whole number",
		"go path = bin/go":                          "not an absolute path",
		"mksquashfs mem = 1T":                       "not a size",
		"oci mode = no\noci mode = yes":             `line 2: "oci mode" is set already in line 1`,
		"root search path = /a\x00b":                "zero byte",
		"bind path = " + strings.Repeat("a,", 5000): "more than 4096 words",
		strings.Repeat("#", maxFileSize+1):          "larger than",
	} {
		_, err := Read(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "singularity.conf")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("oci mode = maybe\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "couldn't parse configuration file "+path+": line 1") {
		t.Errorf("bad file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(everyLine())
	f.Add("mount dev = minimal # x\nbind path = /a,/b\n\x00=")
	f.Add("max loop devices = 1\r\nx")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Read(strings.NewReader(text))
		if (c == nil) == (err == nil) {
			t.Errorf("config %v with error %v", c, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	text := everyLine()
	for b.Loop() {
		if _, err := Read(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

// everyLine is a file that sets each directive to its default.
func everyLine() string {
	var b strings.Builder
	for _, d := range Directives() {
		b.WriteString("# of " + d.Name + "\n")
		if d.Default != "" {
			b.WriteString(d.Name + " = " + d.Default + "\n")
		}
	}
	return b.String()
}

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"singularity/conf"
)

func TestDefaultConfig(t *testing.T) {
	c, err := conf.Read(strings.NewReader(defaultConfig()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(conf.Default(), c); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
	for line := range strings.Lines(defaultConfig()) {
		if len(line) > 101 {
			t.Errorf("long line: %s", line)
		}
	}
}

func TestChangeConfig(t *testing.T) {
	for _, row := range []struct {
		name, text string
		change     configChange
		directive  string
		values     []string
		want       string // beginning with ! an error
	}{
		{"set", "# a\nallow setuid = yes  # why\noci mode = no\n", setDirective, "allow setuid", []string{"no"}, "# a\nallow setuid = no # why\noci mode = no\n"},
		{"set at its place", "# Doc.\n# cni plugin path =\n\nx = y\n", setDirective, "cni plugin path", []string{"/a#b"}, "# Doc.\ncni plugin path = /a#b\n\nx = y\n"},
		{"set at the end", "# nothing\n", setDirective, "max loop devices", []string{"7"}, "# nothing\nmax loop devices = 7\n"},
		{"set cures a bad line", "oci mode = maybe\n", setDirective, "oci mode", []string{"yes"}, "oci mode = yes\n"},
		{"a double line", "oci mode = no\noci mode = yes\n", setDirective, "oci mode", []string{"yes"}, "oci mode = yes\n"},
		{"bad value", "\noci mode = no\n", setDirective, "oci mode", []string{"maybe"}, `!line 2: "oci mode": "maybe" is neither yes nor no`},
		{"bad file", "x\n", setDirective, "oci mode", []string{"yes"}, "!line 1"},
		{"two lines", "", setDirective, "go path", []string{"/a\nallow setuid = no"}, "!a value is one line"},
		{"a comment", "", setDirective, "root search path", []string{"/a # b"}, `!it would be read as "/a"`},
		{"unset", "oci mode = yes\n", unsetDirective, "oci mode", nil, "oci mode = no\n"},
		{"unset to nothing", "go path = /bin/go\n", unsetDirective, "go path", nil, "# go path =\n"},
		{"list in front", "a = b\nbind path = /x, /y # both\nbind path = /z\n", setDirective, "bind path", []string{"/q,/x", "/r"},
			"a = b\nbind path = /q\nbind path = /r\nbind path = /x, /y # both\nbind path = /z\n"},
		{"list, there already", "bind path = /x\n", setDirective, "bind path", []string{"/x"}, "bind path = /x\n"},
		{"list, a comment", "", setDirective, "bind path", []string{"/x #y"}, "!it would be read as"},
		{"list, take out", "bind path = /x, /y # both\nbind path = /z\n", unsetDirective, "bind path", []string{"/z", "/x"}, "bind path = /y # both\n"},
		{"list, take all", "bind path = /x\nq = r\nbind path = /z\n", unsetDirective, "bind path", nil, "# bind path =\nq = r\n"},
		{"list, not there", "bind path = /x\n", unsetDirective, "bind path", []string{"/q"}, "!it is not there"},
		{"list, reset", "a = b\nbind path = /x\nq = r\nbind path = /z\n", resetDirective, "bind path", nil, "a = b\nbind path = /etc/localtime\nbind path = /etc/hosts\nq = r\n"},
		{"list, reset from nothing", "# bind path =\n", resetDirective, "bind path", nil, "bind path = /etc/localtime\nbind path = /etc/hosts\n"},
		{"list, reset to nothing", "limit container paths = /x\nq = r\n", resetDirective, "limit container paths", nil, "# limit container paths =\nq = r\n"},
	} {
		d, err := findDirective(row.directive)
		if err != nil {
			t.Fatal(err)
		}
		got, err := changeConfig(row.text, d, row.change, row.values)
		if want, bad := strings.CutPrefix(row.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q %v, want %s", row.name, got, err, want)
			}
			continue
		}
		if err != nil || got != row.want {
			t.Errorf("%s: got %q %v, want %q", row.name, got, err, row.want)
		}
	}
}

// TestChangeEveryDirective: what is set is what is got, and reset and unset bring
// the default file back.
func TestChangeEveryDirective(t *testing.T) {
	for i := range conf.Directives {
		d := &conf.Directives[i]
		if d.Name == "" {
			continue
		}
		value := map[conf.Kind]string{conf.YesNo: "no", conf.Number: "7", conf.AbsPath: "/a b/c", conf.Size: "2G", conf.Text: "some text", conf.List: "/one:/two"}[d.Kind]
		switch {
		case d.Kind == conf.Choice:
			value = d.Allowed[len(d.Allowed)-1]
		case d.Kind == conf.YesNo && d.Default == "no":
			value = "yes"
		}
		text, err := changeConfig(defaultConfig(), d, setDirective, []string{value})
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := conf.Read(strings.NewReader(text))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := directiveValue(d, c); got != value && !strings.HasPrefix(got, value+",") {
			t.Errorf("%s: got %q, want %q", d.Name, got, value)
		}
		for _, change := range []configChange{resetDirective, unsetDirective} {
			var values []string
			if change == unsetDirective && d.Kind == conf.List {
				values = []string{value}
			}
			if back, err := changeConfig(text, d, change, values); err != nil || back != defaultConfig() {
				t.Errorf("%s: change %d does not bring the default back: %v\n%s", d.Name, change, err, cmp.Diff(defaultConfig(), back))
			}
		}
	}
}

func TestFindDirective(t *testing.T) {
	for name, want := range map[string]string{"": "not a valid", "bind": `"bind" is not a valid directive`, "Bind  Path": "not a valid"} {
		if _, err := findDirective(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestChangeSiteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	edit := func(text string) func(string) (string, error) {
		return func(old string) (string, error) { return old + text, nil }
	}
	if err := changeSiteFile("x", path, "new\n", edit("")); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	if err := changeSiteFile("x", path, "", edit("more\n")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	fi, _ := os.Stat(path)
	if err != nil || string(text) != "new\nmore\n" || fi.Mode() != 0o644 {
		t.Errorf("got %q %v %v", text, err, fi.Mode())
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	link := path + ".link"
	os.Symlink(path, link)
	if err := changeSiteFile("x", link, "", edit("!")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a link: %v", err)
	}
}

func FuzzChangeConfig(f *testing.F) {
	f.Add(defaultConfig(), "/a,/b")
	f.Add("bind path = /x # y\nbind path=#\n", "/z #")
	d, err := findDirective("bind path")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		before, err := conf.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		changed, err := changeConfig(text, d, setDirective, []string{value})
		if err != nil {
			return
		}
		after, err := conf.Read(strings.NewReader(changed))
		if err != nil {
			t.Fatalf("a file that cannot be read: %v", err)
		}
		if n := len(after.BindPaths) - len(before.BindPaths); n < 0 {
			t.Errorf("%d values less", -n)
		}
		after.BindPaths, before.BindPaths = nil, nil
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("another directive changed:\n%s", diff)
		}
	})
}

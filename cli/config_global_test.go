package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"singularity/conf"
	"singularity/conf/edit"
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

// TestChangeEveryDirective: what is set is what is got, and reset and unset bring
// the default file back.
func TestChangeEveryDirective(t *testing.T) {
	for _, d := range conf.Directives() {
		value := map[conf.Kind]string{conf.YesNo: "no", conf.Number: "7", conf.AbsPath: "/a b/c", conf.Size: "2G", conf.Text: "some text", conf.List: "/one:/two"}[d.Kind]
		switch {
		case d.Kind == conf.Choice:
			value = d.Allowed[len(d.Allowed)-1]
		case d.Kind == conf.YesNo && d.Default == "no":
			value = "yes"
		}
		text, err := edit.Text(defaultConfig(), &d, edit.Set, []string{value})
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := conf.Read(strings.NewReader(text))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := edit.Value(&d, c); got != value && !strings.HasPrefix(got, value+",") {
			t.Errorf("%s: got %q, want %q", d.Name, got, value)
		}
		for _, change := range []edit.Change{edit.Reset, edit.Unset} {
			var values []string
			if change == edit.Unset && d.Kind == conf.List {
				values = []string{value}
			}
			if back, err := edit.Text(text, &d, change, values); err != nil || back != defaultConfig() {
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

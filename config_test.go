package singularity

import (
	"go/token"
	"go/types"
	"os"
	"reflect"
	"strings"
	"testing"

	"singularity/conf"
	"singularity/conf/directive"
)

// elsewhere are directives for parts that read them by themselves or are not
// built yet: each with the part.
var elsewhere = map[string]string{
	"max loop devices":       "the setuid helper",
	"shared loop devices":    "the setuid helper",
	"allow setuid":           "the setuid helper",
	"allow kernel squashfs":  "the setuid helper",
	"allow kernel extfs":     "the setuid helper",
	"allow net users":        "networks",
	"allow net groups":       "networks",
	"allow net networks":     "networks",
	"allow netns paths":      "networks",
	"cni configuration path": "networks",
	"cni plugin path":        "networks",
}

// TestDirectivesAct: the field of each directive is read somewhere, but for those
// that say that they have no effect, so that nothing an administrator writes is
// taken and then forgotten.
func TestDirectivesAct(t *testing.T) {
	m := &module{fset: token.NewFileSet(), packages: map[string]*types.Package{}, reads: map[types.Object]string{}, t: t}
	m.walk()
	byName := map[string]*types.Var{}
	for _, name := range []string{"Config", "Others"} {
		for f := range m.packages["singularity/conf"].Scope().Lookup(name).Type().Underlying().(*types.Struct).Fields() {
			byName[f.Name()] = f
		}
	}
	for _, d := range conf.Directives() {
		place := m.reads[byName[fieldOf(t, &d)]]
		switch {
		case place == "" && directive.Of(d.Name).Inert == "" && elsewhere[d.Name] == "":
			t.Errorf("%q: nothing reads it, so it has no effect", d.Name)
		case place != "" && directive.Of(d.Name).Inert != "":
			t.Errorf("%q: %s reads it; it is no longer without effect (%s)", d.Name, place, directive.Of(d.Name).Inert)
		case place != "" && elsewhere[d.Name] != "":
			t.Logf("%q: %s reads it; take it off the list", d.Name, place)
		}
	}
	for name := range elsewhere {
		if conf.Find(name) == nil {
			t.Errorf("%q is no directive", name)
		}
	}
}

// fieldOf returns the name of the field of conf.Config that d sets.
func fieldOf(t *testing.T, d *conf.Directive) string {
	c := new(conf.Config)
	v := reflect.ValueOf(c).Elem()
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.Anonymous && v.FieldByIndex(f.Index).Addr().Interface() == d.Field(c) {
			return f.Name
		}
	}
	t.Fatalf("%q has no field", d.Name)
	return ""
}

// TestConfigTable: doc/admin/config.md has a row for each directive, with its
// default and a test that names it.
func TestConfigTable(t *testing.T) {
	text, err := os.ReadFile("doc/admin/config.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) == 5 && strings.HasPrefix(cells[0], "`") {
			rows[strings.Trim(cells[0], "`")] = cells
		}
	}
	for _, d := range conf.Directives() {
		row := rows[d.Name]
		delete(rows, d.Name)
		if row == nil {
			t.Errorf("%q has no row", d.Name)
			continue
		}
		if want := strings.Trim(row[1], "`"); want != d.Default && (want != "none" || d.Default != "") {
			t.Errorf("%q: default %q, want %q", d.Name, want, d.Default)
		}
		switch {
		case directive.Of(d.Name).Inert != "":
			if row[4] != "no effect" {
				t.Errorf("%q: test %q, want \"no effect\"", d.Name, row[4])
			}
		case elsewhere[d.Name] != "" && row[4] == elsewhere[d.Name]:
		default:
			test, err := os.ReadFile(strings.Trim(row[4], "`"))
			if err != nil {
				t.Errorf("%q: %v", d.Name, err)
			} else if !strings.Contains(string(test), d.Name) && !strings.Contains(string(test), fieldOf(t, &d)) {
				t.Errorf("%q: %s does not name it", d.Name, row[4])
			}
		}
	}
	for name := range rows {
		t.Errorf("%q has a row and is no directive", name)
	}
}

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"singularity/conf"
)

// TestSameRules: the helper reads in every file what the other programs read in it,
// as far as it asks for it, and takes no line that they do not take.
func TestSameRules(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "readconf")
	if out, err := exec.Command("go", "build", "-tags=starter", "-o", bin, "./testdata/readconf").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sample, err := os.ReadFile("../../conf/testdata/sample.conf")
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"", string(sample), "allow setuid = no # why\r\n\tbind path=/a:/b, /c#d\nbind path = /e\nmax loop devices = 7\nenable overlay = no\nno such directive = 1",
		"limit container owners = root, ,ada\nlimit container paths =\nmemory fs type = ramfs\nrequire integrity=yes",
		"no assignment", "unknown = \x00", strings.Repeat("#", 1<<20+1), "allow netns paths = " + strings.Repeat("/a,", 5000)}
	for _, d := range conf.Directives() {
		for _, value := range []string{"", "no", "Yes", "7", "-1", "99999999999999999999", "try", "/x, /y", "\x00"} {
			files = append(files, d.Name+" = "+value)
		}
		files = append(files, d.Name+" = "+d.Default+"\n"+d.Name+" = "+d.Default)
	}
	own := helpers(t, bin)
	for _, text := range files {
		cmd := exec.Command(bin)
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := read(text, own); string(out) != want {
			t.Errorf("%.60q: the helper reads\n%s, the others\n%s", text, out, want)
		}
	}
}

// helpers are the directives that the helper knows.
func helpers(t *testing.T, bin string) (names []string) {
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " = ")
		names = append(names, name)
	}
	if len(names) < 20 || len(names) == len(conf.Directives()) {
		t.Fatalf("the helper has %d directives", len(names))
	}
	return names
}

// read is what the other programs read of those directives. The helper does not know
// what others may hold, but ignores them as those of another version.
func read(text string, names []string) string {
	c, err := conf.Read(strings.NewReader(text))
	name, _, _ := conf.Assignment(text)
	if err != nil && conf.Find(name) != nil && !slices.Contains(names, name) && !strings.Contains(text, "\x00") {
		c, err = conf.Read(strings.NewReader(""))
	}
	if err != nil {
		return fmt.Sprintln("error:", err)
	}
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s = %v\n", name, reflect.ValueOf(conf.Find(name).Field(c)).Elem())
	}
	return b.String()
}

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
	got := helpers(t, bin, files)
	own := names(got[0])
	if len(own) < 20 || len(own) == len(conf.Directives()) {
		t.Fatalf("the helper has %d directives", len(own))
	}
	for i, text := range files {
		if want := read(text, own); got[i] != want {
			t.Errorf("%.60q: the helper reads\n%s, the others\n%s", text, got[i], want)
		}
	}
}

// helpers is what the helper reads in each text.
func helpers(t *testing.T, bin string, texts []string) []string {
	cmd := exec.Command(bin)
	cmd.Stdin = strings.NewReader(strings.Join(texts, "\x01") + "\x01")
	out, err := cmd.Output()
	got := strings.SplitAfter(string(out), "\x01")
	if err != nil || len(got) != len(texts)+1 {
		t.Fatalf("%d answers to %d texts: %v", len(got), len(texts), err)
	}
	for i := range got {
		got[i] = strings.TrimSuffix(got[i], "\x01")
	}
	return got
}

// names are the directives of what was read.
func names(text string) (all []string) {
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " = ")
		all = append(all, name)
	}
	return all
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

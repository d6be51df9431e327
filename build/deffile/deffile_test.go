package deffile

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestGood(t *testing.T) {
	files, _ := filepath.Glob("testdata/good/*.def")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		def, err := Parse(filepath.Base(f), data, nil)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		type view struct {
			Text   string
			Stages []Stage
		}
		out, err := json.MarshalIndent(view{string(def.Text), def.Stages}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.TrimSuffix(f, ".def")+".json", append(out, '\n'))
	}
}

func TestBad(t *testing.T) {
	files, _ := filepath.Glob("testdata/bad/*.def")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(filepath.Base(f), data, nil)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: got error %v, want an *Error", f, err)
			continue
		}
		golden(t, strings.TrimSuffix(f, ".def")+".txt", fmt.Appendf(nil, "%v\nhint: %s\n", e, e.Hint))
	}
}

func TestVariables(t *testing.T) {
	data := []byte("Bootstrap: scratch\n%arguments\na=default\nnot a line\n%help\n{{a}} {{ b }} {{ .Go }} {{a b}} {{}}\n")
	def, err := Parse("x", data, map[string]string{"a": "{{ b }}", "b": "two\nlines", "c": "", "d": ""})
	if err != nil {
		t.Fatal(err)
	}
	help, _ := def.Stages[0].Script("help")
	if want := "{{ b }} two\nlines {{ .Go }} {{a b}} {{}}\n"; help.Text != want {
		t.Errorf("got help %q, want %q", help.Text, want)
	}
	if want := "x:4: skipping \"not a line\", which is not NAME=VALUE|Unused build variables: c, d"; strings.Join(def.Warnings, "|") != want {
		t.Errorf("got warnings %q, want %q", def.Warnings, want)
	}
	// The text that is stored needs no variables any more: nothing is left open.
	if !bytes.Contains(def.Text, []byte("two\nlines")) {
		t.Errorf("got text %q, want the values in it", def.Text)
	}
}

func TestLineAfterVariable(t *testing.T) {
	_, err := Parse("x", []byte("Bootstrap: scratch\n%help\n{{a}}\n%oops\n"), map[string]string{"a": "1\n2\n3"})
	if e, ok := errors.AsType[*Error](err); !ok || e.Line != 4 {
		t.Errorf("got %v, want an error in line 4", err)
	}
}

func TestParseArguments(t *testing.T) {
	vars, warnings, err := ParseArguments("f", []byte("# c\n A = 1 \n\nB=x=y\nbad line\n9-=3"))
	if err != nil || len(vars) != 2 || vars["A"] != "1" || vars["B"] != "x=y" || len(warnings) != 2 {
		t.Errorf("got %q %q %v", vars, warnings, err)
	}
	if _, _, err := ParseArgument("no"); err == nil {
		t.Error("got no error for an argument without =")
	}
}

func TestLimits(t *testing.T) {
	for name, text := range map[string]string{
		"bytes":    strings.Repeat("#", MaxSize+1),
		"stages":   strings.Repeat("bootstrap: scratch\n", maxStages+1),
		"sections": "bootstrap: scratch\n" + strings.Repeat("%help\n", maxSections+1),
		"keywords": "bootstrap: scratch\n" + strings.Repeat("from: x\n", maxKeywords+1),
		"expanded": "bootstrap: scratch\n%arguments\na=" + strings.Repeat("x", 1<<20) + "\n%help\n" + strings.Repeat("{{a}}\n", 20),
		"one line": "bootstrap: scratch\n%arguments\na=" + strings.Repeat("x", 1<<20) + "\n%help\n" + strings.Repeat("{{a}}", 20),
	} {
		if _, err := Parse("x", []byte(text), nil); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// What a file costs grows as its size does: text that is collected from many
// lines must not be copied for each.
func TestRepeatedLines(t *testing.T) {
	for name, text := range map[string]string{
		"sections":      "bootstrap: scratch\n%post\n" + strings.Repeat("x\n", 1<<19) + strings.Repeat("%post\nx\n", maxSections-1),
		"app":           "bootstrap: scratch\n%apprun a\n" + strings.Repeat("x\n", 1<<19) + strings.Repeat("%apprun a\nx\n", maxSections-1),
		"continuations": "bootstrap: scratch\nfrom: a" + strings.Repeat("\\\na", 1<<18),
		"warnings":      "bootstrap: scratch\n%arguments\n" + strings.Repeat("x\n", 1<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Parse("f", []byte(text), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(200*len(text)); got > most {
			t.Errorf("%s: %d bytes of text took %d bytes of memory, want at most %d", name, len(text), got, most)
		}
	}
}

func ExampleParse() {
	def, err := Parse("tool.def", []byte("Bootstrap: localimage\nFrom: {{ base }}\n\n%runscript\n    exec tool \"$@\"\n"),
		map[string]string{"base": "debian.sif"})
	if err != nil {
		fmt.Println(err)
		return
	}
	stage := &def.Stages[0]
	script, _ := stage.Script("runscript")
	fmt.Printf("%s %s\n%s", stage.Agent(), stage.Value("from"), script.Text)
	// Output:
	// localimage debian.sif
	//     exec tool "$@"
}

// FuzzParse: SC-089, no definition makes the parser panic, and what it returns is bounded.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*.def")
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("bootstrap: scratch\nfrom: a" + strings.Repeat("\\\na", 99) + strings.Repeat("\n%post\nx\n%apprun a\ny", 99)))
	f.Fuzz(func(t *testing.T, data []byte) {
		def, err := Parse("f", data, map[string]string{"v": "value"})
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Msg == "" {
				t.Errorf("got error %#v, want an *Error with a message", err)
			}
			return
		}
		if len(def.Stages) == 0 || len(def.Text) > MaxSize+1 {
			t.Errorf("got %d stages and %d bytes of text", len(def.Stages), len(def.Text))
		}
		// Text is a fixed point for whoever reads it out of an image.
		if bytes.Contains(def.Text, []byte("{{")) {
			return
		}
		again, err := Parse("f", def.Text, nil)
		if err != nil {
			t.Fatalf("text of a good file does not parse: %v", err)
		}
		if !bytes.Equal(again.Text, def.Text) {
			t.Errorf("got text %q, want %q", again.Text, def.Text)
		}
	})
}

func FuzzArguments(f *testing.F) {
	f.Add([]byte("a=b\n# c\nbad\n x = y z \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, _, err := ParseArguments("f", data)
		if err != nil {
			return
		}
		for k, v := range values {
			if !isVariable(k) || strings.ContainsRune(v, '\n') {
				t.Errorf("got variable %q = %q", k, v)
			}
		}
		for _, l := range Labels(string(data)) {
			if l.Key == "" || strings.ContainsAny(l.Key, " \t\n") || strings.ContainsRune(l.Value, '\n') {
				t.Errorf("got label %q", l)
			}
		}
	})
}

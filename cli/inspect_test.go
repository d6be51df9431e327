package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"singularity/action"
	"singularity/sif"
)

// writeTree writes files below a new directory and returns it.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

var inspectFiles = map[string]string{
	".singularity.d/Singularity":                  "Bootstrap: scratch\n",
	".singularity.d/runscript":                    "#!/bin/sh\necho \"$@\"\n",
	".singularity.d/test":                         "#!/bin/sh\ntrue\n",
	".singularity.d/runscript.help":               "Runs <things> & more.\n",
	".singularity.d/labels.json":                  `{"b":"2","a":"1"}`,
	".singularity.d/env/01-base.sh":               "not shown",
	".singularity.d/env/10-docker2singularity.sh": "export A=1\n",
	".singularity.d/env/90-environment.sh":        "export B=2\n",
	".singularity.d/env/94-appsbase.sh":           "not shown",
	"scif/apps/foo/scif/labels.json":              `{"name":"foo"}`,
	"scif/apps/foo/scif/runscript":                "echo foo\n",
	"scif/apps/foo/scif/env/90-environment.sh":    "export C=3\n",
	"scif/apps/bar/scif/runscript.help":           "bar help",
	"scif/apps/not-an-app":                        "",
}

func TestInspectGolden(t *testing.T) {
	root := writeTree(t, inspectFiles)
	for name, args := range map[string][]string{
		"inspect-default.txt":   {},
		"inspect-scripts.txt":   {"-d", "-r", "-s", "-t", "-H", "-e", "-l", "--list-apps"},
		"inspect-app.txt":       {"--app", "foo", "-r", "-e", "-l"},
		"inspect-app.json":      {"--app", "foo", "-r", "-j"},
		"inspect-apps.json":     {"--list-apps", "--json"},
		"inspect-labels.json":   {"-j"},
		"inspect-all.json":      {"--all", "--app", "ignored"},
		"inspect-env-help.json": {"-j", "-e", "-H"},
	} {
		stdout, stderr, code := call(append(append([]string{"inspect"}, args...), root)...)
		if stderr != "" || code != 0 {
			t.Errorf("%s: status %d, %s", name, code, stderr)
		}
		golden(t, name, stdout)
	}
}

func TestInspectErrors(t *testing.T) {
	root := writeTree(t, map[string]string{".singularity.d/labels.json": "{\"a\":"})
	for want, args := range map[string][]string{
		"FATAL:   Failed to open image /no/such/image: no such file or directory": {"/no/such/image"},
		"/.singularity.d/labels.json: unexpected end of JSON input":               {root},
	} {
		_, stderr, code := call(append([]string{"inspect"}, args...)...)
		if code != 255 || !strings.Contains(stderr, want) {
			t.Errorf("%q: status %d, %s", args, code, stderr)
		}
	}
}

// TestUnknownApp checks that an app which is not there is an answer, not a
// failure.
func TestUnknownApp(t *testing.T) {
	for _, verb := range []string{"inspect", "run-help"} {
		if _, stderr, code := call(verb, "--app", "x", writeTree(t, inspectFiles)); code != 1 || !strings.Contains(stderr, "it has no app \"x\"") {
			t.Errorf("%s: status %d, %s", verb, code, stderr)
		}
	}
}

// TestInspectIsSafeForTerminals writes hostile text to what is taken for a
// terminal, and as JSON (SC-112, SC-164).
func TestInspectIsSafeForTerminals(t *testing.T) {
	const hostile = "\x1b]52;c;x\a\x9b2J\u009b\u202e\x7f\r\U000e0001"
	labels, _ := json.Marshal(map[string]string{"k" + hostile: "v" + hostile})
	root := writeTree(t, map[string]string{".singularity.d/labels.json": string(labels), ".singularity.d/runscript": hostile})
	for _, o := range []inspectOptions{{labels: true, runscript: true}, {all: true}} {
		var out bytes.Buffer
		if err := inspect(&out, root, o, true); err != nil {
			t.Fatal(err)
		}
		for _, c := range "\x1b\a\r\u009b\u202e\x7f" {
			if strings.ContainsRune(out.String(), c) {
				t.Errorf("%+v: %q reaches the terminal: %q", o, c, out.String())
			}
		}
		if o.all && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", out.String())
		}
	}
	// What goes to a file keeps every byte.
	var out bytes.Buffer
	if err := inspect(&out, root, inspectOptions{runscript: true}, false); err != nil || out.String() != hostile+"\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func TestMetadataRoundTrip(t *testing.T) {
	root := writeTree(t, inspectFiles)
	stdout, _, _ := call("inspect", "--all", root)
	m, err := parseMetadata([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := writeJSON(&again, m); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stdout, again.String()); diff != "" {
		t.Error(diff)
	}
	if m, err := parseMetadata([]byte(`{"data":{"attributes":{"apps":{"x":null}}}}`)); err != nil || m.Apps["x"] == nil {
		t.Errorf("an app that is null: %+v, %v", m, err)
	}
	if _, err := parseMetadata([]byte(`[]`)); err == nil {
		t.Error("a list passes for metadata")
	}
}

func TestRunHelp(t *testing.T) {
	root := writeTree(t, inspectFiles)
	for want, args := range map[string][]string{
		"Runs <things> & more.\n": {root},
		"bar help\n":              {"--app", "bar", root},
		"No help sections were defined for this image\n": {writeTree(t, nil)},
	} {
		if stdout, stderr, code := call(append([]string{"run-help"}, args...)...); stdout != want || code != 0 {
			t.Errorf("%q: status %d, %q, %s", args, code, stdout, stderr)
		}
	}
	if _, stderr, code := call("run-help", "/no/such"); code != 255 || !strings.Contains(stderr, "FATAL:   container not found: ") {
		t.Errorf("missing image: status %d, %s", code, stderr)
	}
}

// buildSIF writes a SIF with the given objects besides a squashfs of tree.
func buildSIF(t *testing.T, tree string, in ...sif.Input) string {
	t.Helper()
	squash := squashfsOf(t, tree)
	part := sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}
	data, err := os.Open(squash)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	in = append(in, sif.Input{Type: sif.DataPartition, Name: "root", Group: 1, Extra: part.Extra(), Data: data, Align: 4096})
	path := filepath.Join(t.TempDir(), "image.sif")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := sif.Create(f, sif.CreateOptions{}, in...); err != nil {
		t.Fatal(err)
	}
	return path
}

func squashfsOf(t *testing.T, tree string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.sqfs")
	return runTool(t, path, "mksquashfs", tree, path, "-quiet", "-no-progress", "-all-root")
}

// runTool runs a program that writes the file path.
func runTool(t *testing.T, path string, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("needs " + name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return path
}

// TestInspectKinds shows the same tree in each kind of image.
func TestInspectKinds(t *testing.T) {
	root := writeTree(t, inspectFiles)
	want, _, _ := call("inspect", "--all", root)
	t.Run("squashfs", func(t *testing.T) { wantInspect(t, squashfsOf(t, root), want) })
	t.Run("SIF", func(t *testing.T) { wantInspect(t, buildSIF(t, root), want) })
	t.Run("ext3", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "image.ext3")
		wantInspect(t, runTool(t, path, "mkfs.ext3", "-q", "-d", root, path, "4M"), want)
	})
}

func wantInspect(t *testing.T, path, want string) {
	t.Helper()
	got, stderr, code := call("inspect", "--all", path)
	if diff := cmp.Diff(want, got); code != 0 || diff != "" {
		t.Errorf("status %d, %s, want - got +\n%s", code, stderr, diff)
	}
}

// TestInspectObjects holds the objects of a SIF to count more than its files.
func TestInspectObjects(t *testing.T) {
	root := writeTree(t, inspectFiles)
	meta := `{"data":{"attributes":{"labels":{"from":"object"},"deffile":"old"}},"type":"container"}`
	path := buildSIF(t, root,
		sif.Input{Type: sif.DataDefFile, Name: "def", Group: 1, Data: strings.NewReader("Bootstrap: object\n")},
		sif.Input{Type: sif.DataJSON, Name: "inspect-metadata.json", Group: 1, Data: strings.NewReader(meta)})
	if out, stderr, _ := call("inspect", "-l", "-d", "-r", path); out != "Bootstrap: object\nfrom: object\n" {
		t.Errorf("got %q, %s", out, stderr)
	}
}

func TestInspectRefusesOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("no image"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := call("inspect", path)
	if want := "FATAL:   Failed to open image " + path + ": image format not recognized\n"; code != 255 || stderr != want {
		t.Errorf("status %d, %s", code, stderr)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"data":{"attributes":{"apps":{"x":null},"labels":{"k":"\u001b"}}},"type":"container"}`))
	f.Add([]byte(`{"data":{"attributes":{"environment":{"/e":"\u202e"},"deffile":"x"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(data)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := writeJSON(&out, m); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("%v: %q", err, out.String())
		}
		o := inspectOptions{labels: true, deffile: true, environment: true, listApps: true}
		picked, err := o.pick(m)
		if err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := writeText(&out, o.part(picked), true); err != nil || action.Printable(out.String()) != out.String() {
			t.Errorf("%v: %q", err, out.String())
		}
	})
}

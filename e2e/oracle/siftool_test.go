package oracle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/sylabs/sif/v2/pkg/siftool" // keeps the reference program in go.mod

	"singularity/sif"
)

// tools builds our program and the reference one and returns how to call them.
func tools(t *testing.T) (ours, reference []string) {
	t.Helper()
	dir := t.TempDir()
	build := func(folder, name, pkg string) string {
		c := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg)
		c.Dir = folder
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("cannot build %s: %v\n%s", pkg, err, out)
		}
		return filepath.Join(dir, name)
	}
	ours = []string{build("../..", "singularity-cli", "./cmd/singularity-cli"), "sif"}
	return ours, []string{build(".", "siftool", "github.com/sylabs/sif/v2/cmd/siftool")}
}

func run(t *testing.T, tool []string, args ...string) string {
	t.Helper()
	c := exec.Command(tool[0], append(tool[1:len(tool):len(tool)], args...)...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %q: %v", filepath.Base(tool[0]), args, err)
	}
	return string(out)
}

// show is what a tool prints of an image.
func show(t *testing.T, tool []string, image string, objects []sif.Object) string {
	t.Helper()
	all := run(t, tool, "header", image) + run(t, tool, "list", image)
	for _, o := range objects {
		id := fmt.Sprint(o.ID)
		all += run(t, tool, "info", id, image) + fmt.Sprintf("%x\n", run(t, tool, "dump", id, image))
	}
	return all
}

// TestOutput compares what both programs print, byte for byte.
func TestOutput(t *testing.T) {
	ours, reference := tools(t)
	for _, deterministic := range []bool{false, true} {
		p := newPair(t, deterministic, 0, objects())
		images := map[string]string{"all types": p.file.Name()}
		p = newPair(t, deterministic, 3, nil)
		images["empty"] = p.file.Name()
		for name, image := range images {
			b, err := os.ReadFile(image)
			must(t, err)
			f, err := sif.Open(strings.NewReader(string(b)), int64(len(b)))
			must(t, err)
			got, want := show(t, ours, image, f.Objects()), show(t, reference, image, f.Objects())
			if got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
			}
		}
	}
}

// TestCommands gives both programs the same commands and compares the images
// that come out, but for id and times.
func TestCommands(t *testing.T) {
	ours, reference := tools(t)
	data := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(data, []byte("some data"), 0o600))
	commands := [][]string{
		{"new", "IMAGE"},
		{"add", "IMAGE", data, "--datatype", "1", "--groupid", "1"},
		{"add", "--datatype", "6", "--filename", "x.json", "--groupid", "0xF0000001", "IMAGE", data},
		{"add", "IMAGE", data, "--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2", "--groupid", "1"},
		{"add", "IMAGE", data, "--datatype", "4", "--parttype", "1", "--partfs", "2", "--partarch", "13", "--alignment", "0"},
		{"add", "IMAGE", data, "--datatype", "5", "--signhash", "1", "--signentity", "12045C8C0B1004D058DE4BEDA20C27EE7FF7BA84", "--link", "0xF0000001"},
		{"add", "IMAGE", data, "--datatype", "9", "--sbomformat", "spdx-json", "--link", "3"},
		{"add", "IMAGE", data, "--datatype", "10"},
		{"add", "IMAGE", data, "--datatype", "11", "--groupid", "1"},
		{"add", "IMAGE", data, "--datatype", "8"},
		{"add", "IMAGE", data, "--datatype", "7", "--alignment", "64"},
		{"setprim", "4", "IMAGE"},
		{"del", "1", "IMAGE"},
		{"del", "4", "IMAGE"},
		{"add", "IMAGE", data, "--datatype", "2"},
		{"del", "10", "IMAGE"},
		{"new", "IMAGE"},
	}
	a, b := filepath.Join(t.TempDir(), "a.sif"), filepath.Join(t.TempDir(), "b.sif")
	for _, c := range commands {
		step := strings.Join(c, " ")
		run(t, ours, strings.Split(strings.ReplaceAll(step, "IMAGE", a), " ")...)
		run(t, reference, strings.Split(strings.ReplaceAll(step, "IMAGE", b), " ")...)
		x, y := timeless(t, a), timeless(t, b)
		if x != y {
			t.Fatalf("%s: the images differ (%d and %d bytes)", step, len(x), len(y))
		}
	}
}

// timeless is the image at path without id and times.
func timeless(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	clear(b[48:80])
	for i := range 48 {
		clear(b[4096+585*i:][41:57])
	}
	return string(b)
}

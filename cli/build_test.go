package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"singularity/action"
	"singularity/build"
	"singularity/build/deffile"
)

// TestBuildOptions: SC-088, SC-089, Dockerfiles are refused among the rest.
func TestBuildOptions(t *testing.T) {
	var out bytes.Buffer
	log := &action.Log{Out: &out, Level: action.DefaultLevel}
	file := filepath.Join(t.TempDir(), "args")
	if err := os.WriteFile(file, []byte("A=file\nB=file\nno\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := buildFlags{sandbox: true, args: []string{"A=flag"}, argFiles: []string{file}, binds: []string{"/a:/b:ro,/c"}}
	o, err := f.options(log, "t", "s")
	if err != nil {
		t.Fatal(err)
	}
	if o.Args["A"] != "flag" || o.Args["B"] != "file" || !o.Sandbox || o.Target != "t" || o.Spec != "s" {
		t.Errorf("got %+v", o)
	}
	if len(o.Binds) != 2 || o.Binds[0] != (build.Bind{Source: "/a", Dest: "/b", ReadOnly: true}) || o.Binds[1].Source != "/c" {
		t.Errorf("got binds %+v", o.Binds)
	}
	t.Setenv("SINGULARITY_CACHEDIR", "/c")
	f = buildFlags{
		mounts: []string{"type=bind,src=/a,dst=/b,ro"}, cacheSteps: true, stepsSize: "1g", writableTmpfs: "true",
		squashfsArgs: "-comp zstd -b 1M", compression: "gzip",
	}
	if o, err = f.options(log, "t", "s"); err != nil {
		t.Fatal(err)
	}
	if o.StepCache != "/c/cache/step" || o.StepLimit != 1<<30 || o.TestTmpfs != testTmpfsSize || o.Compression != "zstd" || o.Squashfs.BlockSize != 1<<20 {
		t.Errorf("got %+v", o)
	}
	if len(o.Binds) != 1 || o.Binds[0] != (build.Bind{Source: "/a", Dest: "/b", ReadOnly: true}) {
		t.Errorf("got binds %+v", o.Binds)
	}
	f.remote.disableCache = true
	if o, err = f.options(log, "t", "s"); err != nil || o.StepCache != "" {
		t.Errorf("got a cache of steps in %q with --disable-cache, %v", o.StepCache, err)
	}
	for name, f := range map[string]buildFlags{
		"oci": {refused: refusedFlags{oci: true}}, "layers": {refused: refusedFlags{keepLayers: true}}, "arch": {arch: "vax"},
		"steps": {cacheSteps: true, stepsSize: "much"}, "tmpfs": {writableTmpfs: "much"}, "args": {squashfsArgs: "-e x"}, "mount": {mounts: []string{"type=tmpfs"}},
		"update without sandbox": {update: true},
		"argument":               {args: []string{"x"}},
		"missing file":           {argFiles: []string{"/nonexistent"}},
		"image bind":             {binds: []string{"/a:/b:image-src=/x"}},
	} {
		if _, err := f.options(log, "t", "s"); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestSetFromEnv(t *testing.T) {
	run := func(args ...string) (c *cobra.Command, err error) {
		c = newBuildCommand(&action.Log{}, nil)
		if err := c.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		return c, setFromEnv(c, buildEnv)
	}
	t.Setenv("SINGULARITY_BIND", "/env")
	t.Setenv("SINGULARITY_TMPDIR", " /env ")
	t.Setenv("SINGULARITY_SANDBOX", "1")
	t.Setenv("SINGULARITY_SECTION", "post,files")
	c, err := run("--bind", "/flag", "--tmpdir", "/flag")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"bind": "[/flag,/env]", "tmpdir": "/flag", "sandbox": "true", "section": "[post,files]", "force": "false"} {
		if got := c.Flags().Lookup(name).Value.String(); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	t.Setenv("SINGULARITY_FORCE", "maybe")
	if _, err := run(); err == nil || !strings.HasPrefix(err.Error(), "While parsing environment variables: ") {
		t.Errorf("got %v for a bad boolean", err)
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&action.Log{Out: &out, Level: action.DefaultLevel}, true)
	p.show(build.Progress{Phase: "Packing", Bytes: 1})
	p.drawn = p.drawn.Add(-time.Minute)
	p.show(build.Progress{Phase: "Packing", Bytes: 5 << 20})
	p.Info("note")
	if want := eraseLine + "Packing: 5 MiB in 0.0 s" + eraseLine + "INFO:    note\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	p = newProgress(&action.Log{Out: &out, Level: action.DefaultLevel}, false)
	p.show(build.Progress{Phase: "Packing", Bytes: 1})
	p.start = p.start.Add(-2 * time.Second)
	p.show(build.Progress{Phase: "Packing", Bytes: 5 << 20, Done: true})
	if want := "INFO:    Packing: 5 MiB in 2.0 s\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestEvents(t *testing.T) {
	t.Setenv(ownersVariable, "real")
	t.Setenv(umaskVariable, "22")
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	var out, messages bytes.Buffer
	e := newEvents(&out)
	p := newProgress(&action.Log{Out: &messages, Level: action.DefaultLevel}, false)
	p.events = e
	p.Info("hello")
	p.show(build.Progress{Phase: "Packing", Bytes: 1})
	p.show(build.Progress{Phase: "Packing", Bytes: 2}) // too soon
	p.show(build.Progress{Phase: "Packing", Bytes: 3, Done: true})
	err := e.end("t.sif", action.Fatal(&deffile.Error{File: "f", Line: 2, Column: 3, Msg: "wrong"}, "cure"))
	if err == nil {
		t.Error("the error is lost")
	}
	if e.end("t.sif", nil) != nil || e.end("t.sif", exitStatus(137)) == nil {
		t.Error("the end changed the result")
	}
	want := `{"event":"message","level":"info","text":"hello"}
{"event":"progress","phase":"Packing","bytes":1}
{"event":"progress","phase":"Packing","bytes":3,"done":true}
{"event":"end","ok":false,"target":"t.sif","error":"f:2:3: wrong","hint":"cure","file":"f","line":2,"column":3}
{"event":"end","ok":true,"target":"t.sif"}
{"event":"end","ok":false,"target":"t.sif","error":"the build was killed"}
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	// A process that started the one that builds says nothing that it said.
	out.Reset()
	t.Setenv(ownersVariable, "")
	_ = e.end("t.sif", nil)
	_ = e.end("t.sif", exitStatus(255))
	if out.Len() > 0 {
		t.Errorf("got %q", out.String())
	}
}

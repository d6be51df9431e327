package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/provenance"
	"singularity/sif"
)

// TestStages copies between stages by the rules for links.
func TestStages(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	secret := h.write("secret", "of the host")
	def := strings.Replace(busybox(t), "Bootstrap: scratch\n", "Bootstrap: scratch\nStage: devel\n", 1) + `
%setup
    cd "$SINGULARITY_ROOTFS"
    mkdir -p src/sub opt
    echo one > src/one; echo two > src/sub/two; chown 5:6 src/sub/two; chmod 4750 src/sub/two
    touch -d @1000000000 src/one
    ln -s one src/link; ln -s /src/one src/absolute; ln -s src dirlink
    ln -s ` + secret + ` out; ln -s ../../../../../../../..` + secret + ` src/out
    echo top > top; ln -s /top opt/top; mkfifo src/fifo
%post
    echo built > /built
Bootstrap: scratch
Stage: final
%files from devel
    /built
    top /a/renamed
    /opt/top /deref
    /src /
    dirlink /throughlink
    src/*e /globbed/
%files
    ` + secret + ` /given
`
	if err := h.build("box", def, func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatalf("%v\n%s", err, h.out.String())
	}
	got := runShell(t, filepath.Join(h.dir, "box"), `for f in built a/renamed deref src/one src/sub/two throughlink/one globbed/one globbed/absolute given; do
		echo "$f $(stat -c '%F %u:%g %a' $f) $(cat $f)"; done
	for f in src/link src/absolute src/out; do echo "$f $(readlink $f)"; done
	stat -c '%Y' src/one; test -p src/fifo && echo fifo`)
	want := `built regular file 0:0 644 built
a/renamed regular file 0:0 644 top
deref regular file 0:0 644 top
src/one regular file 0:0 644 one
src/sub/two regular file 5:6 4750 two
throughlink/one regular file 0:0 644 one
globbed/one regular file 0:0 644 one
globbed/absolute regular file 0:0 644 one
given regular file 0:0 644 of the host
src/link one
src/absolute /src/one
src/out ../../../../../../../..` + secret + `
1000000000
fifo
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// A link that leads out of the stage leads to nothing.
	bad := strings.Replace(def, "    /built\n", "    /out /stolen\n", 1)
	if err := h.build("bad", bad, func(o *Options) { o.Sandbox = true }); err == nil || !strings.Contains(err.Error(), `cannot copy "/out"`) {
		t.Errorf("got %v for a link out of the stage", err)
	}
}

// TestStageFilesStay tests that a link of the image to be does not lead copies
// out of it (SC-088).
func TestStageFilesStay(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	outside := filepath.Join(h.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	def := `Bootstrap: scratch
Stage: a
%setup
    echo x > $SINGULARITY_ROOTFS/x; mkdir $SINGULARITY_ROOTFS/d; echo y > $SINGULARITY_ROOTFS/d/y
Bootstrap: localimage
From: ` + filepath.Join(h.dir, "base") + `
%files from a
    /x /evil/x
    /d/ /evil
    /x /file
`
	base := "Bootstrap: scratch\n%setup\nln -s " + outside + " $SINGULARITY_ROOTFS/evil; ln -s " + outside + "/file $SINGULARITY_ROOTFS/file; mkdir -p $SINGULARITY_ROOTFS" + outside + "\n"
	if err := h.build("base", base, func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatal(err)
	}
	if err := h.build("box", def, func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("the build wrote %v outside the image", names)
	}
	if data, _ := os.ReadFile(filepath.Join(h.dir, "box", outside, "x")); string(data) != "x\n" {
		t.Errorf("got %q through the link, inside the image", data)
	}
}

func TestApps(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	h.write("tool", "#!/bin/sh\necho tool\n")
	def := busybox(t) + `
%post
    OUTER=1
%appinstall foo
    test "$OUTER" = 1
    test "$PWD" = /scif/apps/foo
    test "$SCIF_APPNAME" = foo
    echo installed > made
    CHANGED=1
%appinstall my-app
    test -z "$CHANGED"
    case "$PATH" in *foo*) exit 1;; esac
    pwd > where
%appfiles foo
    ` + h.dir + `/tool bin/
    ` + h.dir + `/tool
%appenv foo
    export FOO=1
%applabels foo
    Version 2
%apprun foo
    echo run
%appstart foo
    echo start
%apptest foo
    exit 0
%apphelp foo
    Help of foo.
`
	if err := h.build("out.sif", def); err != nil {
		t.Fatalf("%v\n%s", err, h.out.String())
	}
	s, r := h.image("out.sif")
	for path, want := range map[string]string{
		"/scif/apps/foo/made": "installed\n", "/scif/apps/foo/bin/tool": "#!/bin/sh\necho tool\n", "/scif/apps/foo/tool": "#!/bin/sh\necho tool\n",
		"/scif/apps/foo/scif/runscript": "#!/bin/sh\n\n    echo run\n", "/scif/apps/foo/scif/test": "#!/bin/sh\n\n    exit 0\n",
		"/scif/apps/foo/scif/runscript.help": "    Help of foo.\n", "/scif/apps/foo/scif/startscript": "#!/bin/sh\n\n    echo start\n",
		"/scif/apps/foo/scif/env/90-environment.sh": "#!/bin/sh\n    export FOO=1\n",
		"/scif/apps/my-app/where":                   "/scif/apps/my-app\n",
	} {
		if got := h.read(r, path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if got := h.read(r, "/scif/apps/foo/scif/labels.json"); !strings.Contains(got, `"Version": "2"`) || !strings.Contains(got, `"SCIF_APP_NAME": "foo"`) {
		t.Errorf("got labels %s", got)
	}
	base := h.read(r, "/.singularity.d/env/94-appsbase.sh")
	for _, want := range []string{"SCIF_APPROOT_foo=/scif/apps/foo\n", "SCIF_APPDATA_my_app=/scif/data/my-app\n", "SCIF_APPRUN_foo=/scif/apps/foo/scif/runscript\n", "SCIF_APPENV_foo="} {
		if !strings.Contains(base, "export "+want) {
			t.Errorf("got no %q in\n%s", want, base)
		}
	}
	if strings.Contains(base, "SCIF_APPRUN_my_app") {
		t.Error("an app without a runscript has a variable for it")
	}
	list := listing(t, r)
	for _, want := range []string{"/scif/data/foo/input", "/scif/data/my-app/output", "/scif/apps/my-app/lib"} {
		if !strings.Contains(list, "040755 0:0 "+want+"\n") {
			t.Errorf("got no %s", want)
		}
	}
	for _, o := range s.Objects() {
		if o.Name != "inspect-metadata.json" {
			continue
		}
		data, err := s.ReadAll(o)
		if err != nil || !bytes.Contains(data, []byte(`"foo": {`)) || !bytes.Contains(data, []byte("Help of foo")) {
			t.Errorf("got metadata %s, %v", data, err)
		}
	}
}

// cacheBuild builds with a step cache and returns the log.
func (h *harness) cacheBuild(target, def string, change ...func(*Options)) string {
	h.t.Helper()
	h.log = &testLog{}
	h.out.Reset()
	err := h.build(target, def, append(change, func(o *Options) {
		o.StepCache = filepath.Join(h.dir, "cache")
		o.Force = true
		o.Env = append(o.Env, "SOURCE_DATE_EPOCH=1700000000")
	})...)
	if err != nil {
		h.t.Fatalf("%v\n%s%s", err, h.log, h.out.String())
	}
	return h.log.String()
}

// TestCachedSteps builds the same again: %post does not run, and the image is
// the same byte for byte. Then every input is changed in turn.
func TestCachedSteps(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	if err := h.build("base.sif", busybox(t)); err != nil {
		t.Fatal(err)
	}
	counter := filepath.Join(h.dir, "ran")
	h.write("input", "one")
	h.write("more", "of a directory")
	def := "Bootstrap: localimage\nFrom: " + h.dir + "/base.sif\n%files\n" + h.dir + `/input /input
    ` + h.dir + `/more /bin
%post
    test -f /bin/more; cat /input > /copy; echo label value >> $SINGULARITY_LABELS
    echo "export A=1" >> $SINGULARITY_ENVIRONMENT
%runscript
    echo run
`
	count := func(o *Options) {
		run := o.Run
		o.Run = func(ctx context.Context, s RunSpec) error {
			if len(s.Args) > 0 && s.Args[len(s.Args)-1] == postScript {
				f, _ := os.OpenFile(counter, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				f.WriteString("x")
				f.Close()
			}
			return run(ctx, s)
		}
	}
	ran := func() int { data, _ := os.ReadFile(counter); return len(data) }
	h.cacheBuild("first.sif", def, count)
	if ran() != 1 {
		t.Fatalf("%%post ran %d times in the first build", ran())
	}
	log := h.cacheBuild("second.sif", def, count)
	if ran() != 1 || !strings.Contains(log, "Using the cached result of post") {
		t.Errorf("%%post ran again\n%s", log)
	}
	first, _ := os.ReadFile(filepath.Join(h.dir, "first.sif"))
	second, _ := os.ReadFile(filepath.Join(h.dir, "second.sif"))
	if len(first) == 0 || !bytes.Equal(first, second) {
		t.Error("the image from the cache is another one")
	}
	// A change below %post does not need it again, and is in the image.
	h.cacheBuild("run.sif", strings.Replace(def, "echo run", "echo other", 1), count)
	_, r := h.image("run.sif")
	if ran() != 1 || !strings.Contains(h.read(r, "/.singularity.d/runscript"), "other") || h.read(r, "/copy") != "one" {
		t.Error("a change of %runscript ran the post, or is not in the image")
	}
	n := 1
	changed := func(what, def string, change ...func(*Options)) {
		t.Helper()
		h.cacheBuild("changed.sif", def, append([]func(*Options){count}, change...)...)
		if n++; ran() != n {
			t.Errorf("%s: %%post did not run", what)
			n = ran()
		}
	}
	changed("text of %post", strings.Replace(def, "cat /input", "cat  /input", 1))
	changed("arguments of %post", strings.Replace(def, "%post\n", "%post -u\n", 1))
	h.write("input", "two")
	changed("content of a file", def)
	_, r = h.image("changed.sif")
	if got := h.read(r, "/copy"); got != "two" {
		t.Errorf("got %q of a file that was changed", got)
	}
	if err := os.Chmod(filepath.Join(h.dir, "input"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed("mode of a file", def)
	changed("place of a file", strings.Replace(def, "/input\n", "/input2\n    "+h.dir+"/input /input\n", 1))
	changed("a bind", def, func(o *Options) { o.Binds = []Bind{{Source: "/dev", Dest: "/dev"}} })
	changed("kind of root", def, func(o *Options) { o.Owners = MappedRoot })
	changed("permissions", def, func(o *Options) { o.FixPerms = true })
	changed("an app", def+"%appinstall x\ntrue\n")
	// SC-087: another base under the same name.
	if err := h.build("base.sif", busybox(t)+"    echo new > $SINGULARITY_ROOTFS/new\n", func(o *Options) { o.Force = true }); err != nil {
		t.Fatal(err)
	}
	changed("base image", def)
	_, r = h.image("changed.sif")
	if h.read(r, "/new") != "new\n" {
		t.Error("the old base image was used")
	}
	before := n
	h.cacheBuild("changed.sif", def, count)
	// Signatures are asked for even if nothing of the base is needed.
	signed := strings.Replace(def, "%files", "Fingerprints: "+strings.Repeat("AB", 20)+"\n%files", 1)
	changed("fingerprints", signed, func(o *Options) {
		o.Verify = func(context.Context, string, []string) ([]string, error) { return nil, nil }
	})
	refuse := func(o *Options) {
		o.StepCache, o.Force = filepath.Join(h.dir, "cache"), true
		o.Env = append(o.Env, "SOURCE_DATE_EPOCH=1700000000")
	}
	if err := h.build("changed.sif", signed, refuse); err == nil || !strings.Contains(err.Error(), "as Fingerprints demands") {
		t.Errorf("got %v for a base without signatures", err)
	}
	before = n
	if ran() != before {
		t.Error("the same definition again ran the post")
	}
	// A damaged entry is not used.
	entries, _ := filepath.Glob(filepath.Join(h.dir, "cache/*.step"))
	for _, e := range entries {
		f, err := os.OpenFile(e, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte("damage"), 200)
		f.Close()
	}
	log = h.cacheBuild("changed.sif", def, count)
	if ran() != before+1 || !strings.Contains(log, "WARNING: Not using the cached result") {
		t.Errorf("a damaged entry was used\n%s", log)
	}
}

// TestCachedBlocks divides %post, and changes its end.
func TestCachedBlocks(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	def := busybox(t) + `
%post
    echo first; echo 1 >> /log; echo a 1 >> $SINGULARITY_LABELS
    #%step second part
    echo second; echo 2 >> /log
    #%step
    echo third; echo 3 >> /log
`
	h.cacheBuild("a.sif", def)
	h.cacheBuild("b.sif", strings.Replace(def, "echo third", "echo fourth", 1))
	if out := h.out.String(); strings.Contains(out, "+ echo second") || !strings.Contains(out, "+ echo fourth") {
		t.Errorf("got %s", out)
	}
	_, r := h.image("b.sif")
	if got := h.read(r, "/log"); got != "1\n2\n3\n" {
		t.Errorf("got log %q", got)
	}
	if got := h.read(r, "/.singularity.d/labels.json"); !strings.Contains(got, `"a": "1"`) {
		t.Errorf("the label of a cached part is lost: %s", got)
	}
	// %setup runs each time, and what it made counts.
	log := h.cacheBuild("c.sif", def)
	if !strings.Contains(log, "Running setup scriptlet") || !strings.Contains(log, "Using the cached result of post step (step 3 of 3)") {
		t.Errorf("got %s", log)
	}
	h.cacheBuild("d.sif", strings.Replace(def, "%post", "    echo more > $SINGULARITY_ROOTFS/more\n%post", 1))
	if out := h.out.String(); !strings.Contains(out, "+ echo first") {
		t.Error("a change of what the setup made was not seen")
	}
}

func TestProvenance(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	h.write("input", "hello")
	if err := h.build("base.sif", busybox(t)); err != nil {
		t.Fatal(err)
	}
	def := "Bootstrap: localimage\nFrom: " + h.dir + "/base.sif\n%files\n" + h.dir + "/input /in\n"
	if err := h.build("out.sif", def, func(o *Options) {
		o.Verify = func(_ context.Context, path string, _ []string) ([]string, error) { return []string{"ABCD"}, nil }
	}); err != nil {
		t.Fatal(err)
	}
	s, _ := h.image("out.sif")
	o, ok := s.Named(sif.DataJSON, provenance.Object)
	if !ok {
		t.Fatal("no provenance")
	}
	data, err := s.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	v, err := provenance.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Check(s); err != nil {
		t.Error(err)
	}
	base, _ := h.image("base.sif")
	if err := v.Check(base); !errors.Is(err, provenance.ErrOther) {
		t.Errorf("the statement is about another image too: %v", err)
	}
	type dependency struct {
		Name        string
		Digest      map[string]string
		Annotations struct {
			Agent, Source string
			Signers       []string
			Provenance    struct{ PredicateType string }
		}
	}
	var p struct {
		Predicate struct {
			BuildDefinition struct {
				ExternalParameters   struct{ Arch string }
				ResolvedDependencies []dependency
			}
			RunDetails struct{ Builder struct{ ID string } }
		}
	}
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	sum := strings.Fields(runShell(t, h.dir, "sha256sum base.sif"))[0]
	d := p.Predicate.BuildDefinition
	if len(d.ResolvedDependencies) != 2 || d.ExternalParameters.Arch == "" || p.Predicate.RunDetails.Builder.ID != provenance.LocalBuilder {
		t.Fatalf("got %s", data)
	}
	if src := d.ResolvedDependencies[0]; src.Digest["sha256"] != sum || src.Annotations.Agent != "localimage" || len(src.Annotations.Signers) != 1 || src.Annotations.Provenance.PredicateType != provenance.PredicateType {
		t.Errorf("got source %+v", src)
	}
	if file := d.ResolvedDependencies[1]; file.Name != "/in" || file.Annotations.Source != h.dir+"/input" || file.Digest["sha256"] != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
		t.Errorf("got file %+v", file)
	}
}

// TestFingerprints tests that a base image that does not verify ends the build
// where the definition demands it, and only there.
func TestFingerprints(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	if err := h.build("base.sif", busybox(t)); err != nil {
		t.Fatal(err)
	}
	def := "Bootstrap: localimage\nFrom: " + h.dir + "/base.sif\n"
	if err := h.build("warned.sif", def); err != nil || !strings.Contains(h.log.String(), "could not be verified, but build will continue") {
		t.Errorf("got %v\n%s", err, h.log)
	}
	def += "Fingerprints: " + strings.Repeat("AB", 20) + "\n"
	if err := h.build("refused.sif", def); err == nil || !strings.Contains(err.Error(), "as Fingerprints demands") {
		t.Errorf("got %v without keys", err)
	}
	if err := h.build("box", busybox(t), func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatal(err)
	}
	if err := h.build("refused.sif", strings.Replace(def, "base.sif", "box", 1)); err == nil || !strings.Contains(err.Error(), "only a SIF has signatures") {
		t.Errorf("got %v for a sandbox", err)
	}
}

func TestMksquashfsArgs(t *testing.T) {
	comp, o, _, err := MksquashfsArgs("-comp zstd -Xcompression-level 9 -b 256K -processors 2 -all-root -no-progress")
	if err != nil || comp != "zstd" || o != (Squashfs{Level: 9, BlockSize: 256 << 10, Workers: 2, AllRoot: true}) {
		t.Errorf("got %q %+v %v", comp, o, err)
	}
	if _, _, notes, err := MksquashfsArgs("-no-duplicates"); err != nil || len(notes) != 1 {
		t.Errorf("got %q, %v", notes, err)
	}
	for _, s := range []string{"-comp", "-comp lzma", "-b x", "-b 9999999M", "-e secret", "/etc"} {
		if _, _, _, err := MksquashfsArgs(s); err == nil {
			t.Errorf("%q: got no error", s)
		}
	}
}

func FuzzMksquashfsArgs(f *testing.F) {
	f.Add("-comp zstd -b 1M")
	f.Add("-b -1K -processors 0")
	f.Fuzz(func(t *testing.T, s string) {
		_, o, _, err := MksquashfsArgs(s)
		if err == nil && (o.Level < 0 || o.BlockSize < 0 || o.Workers < 0) {
			t.Errorf("got %+v of %q", o, s)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("*/x")
	f.Add("../../[a-")
	dir := f.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "in/x"), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "in/out")); err != nil {
		f.Fatal(err)
	}
	root, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(t *testing.T, pattern string) {
		found, err := globTree(root, pattern)
		if err != nil {
			return
		}
		for _, p := range found {
			// Security: the link leads to the root of the tree, not of the host.
			if base := filepath.Base(p); base != "x" && base != "out" && base != "/" {
				t.Errorf("%q stands for %q", pattern, p)
			}
		}
	})
}

package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"singularity/sif"
	"singularity/squashfs"
)

// testLog keeps messages.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) add(level, msg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(level + msg + "\n")
}
func (l *testLog) Info(msg string)    { l.add("INFO: ", msg) }
func (l *testLog) Warning(msg string) { l.add("WARNING: ", msg) }
func (l *testLog) Verbose(msg string) { l.add("VERBOSE: ", msg) }
func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// chroot is a Runner of the simplest kind. It mounts the generated files in a
// mount namespace of its own.
func chroot(ctx context.Context, s RunSpec) error {
	script := "set -e; mount --make-rprivate /; mount --rbind \"$1\" \"$1\"\n"
	for i, f := range s.Files {
		p := filepath.Join(filepath.Dir(s.Rootfs), fmt.Sprintf("file%d", i))
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			return err
		}
		script += fmt.Sprintf("mount --bind %q \"$1%s\"\n", p, f.Path)
	}
	if !s.Writable {
		script += "mount -o remount,bind,ro \"$1\"\n"
	}
	script += "root=$1; shift; exec chroot \"$root\" /bin/env -i \"$@\""
	args := append(append([]string{"-m", "sh", "-c", script, "sh", s.Rootfs}, s.Env...), s.Args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Stdout, cmd.Stderr = s.Stdout, s.Stderr
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return &ExitError{Code: e.ExitCode()}
	}
	return err
}

// harness is a directory to build in.
type harness struct {
	t    *testing.T
	dir  string
	temp string
	log  *testLog
	out  bytes.Buffer
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, dir: t.TempDir(), log: &testLog{}}
	h.temp = filepath.Join(h.dir, "tmp")
	if err := os.Mkdir(h.temp, 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *harness) write(name, text string) string {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// build builds the definition def to the file or directory named target.
func (h *harness) build(target, def string, change ...func(*Options)) error {
	h.t.Helper()
	o := Options{
		Target: filepath.Join(h.dir, target), Spec: h.write("def", def), TempDir: h.temp, Version: "1.2.3",
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=/root"},
		Run: chroot, Log: h.log, Stdout: &h.out, Stderr: &h.out, Umask: 0o022,
	}
	for _, c := range change {
		c(&o)
	}
	err := Build(context.Background(), o)
	h.clean()
	return err
}

// clean checks that nothing temporary is left.
func (h *harness) clean() {
	h.t.Helper()
	for _, dir := range []string{h.dir, h.temp} {
		names, _ := filepath.Glob(filepath.Join(dir, ".build*"))
		more, _ := filepath.Glob(filepath.Join(dir, "build-*"))
		if names = append(names, more...); len(names) > 0 {
			h.t.Errorf("left behind: %q", names)
		}
	}
}

// image opens a SIF and its root file system.
func (h *harness) image(target string) (*sif.File, *squashfs.Reader) {
	h.t.Helper()
	f, err := os.Open(filepath.Join(h.dir, target))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	info, _ := f.Stat()
	s, err := sif.Open(f, info.Size())
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := s.Primary()
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := squashfs.Open(s.Reader(p), p.Size, squashfs.ReaderOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return s, r
}

// listing describes every file of an image.
func listing(t *testing.T, r *squashfs.Reader) string {
	t.Helper()
	var b strings.Builder
	err := r.Each(func(path string, in *squashfs.Inode) error {
		fmt.Fprintf(&b, "%06o %d:%d /%s", in.Mode, in.UID, in.GID, path)
		if in.IsSymlink() {
			target, _ := r.Readlink(in)
			b.WriteString(" -> " + target)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (h *harness) read(r *squashfs.Reader, path string) string {
	h.t.Helper()
	data, err := r.ReadFile(path, 1<<20)
	if err != nil {
		h.t.Errorf("%s: %v", path, err)
	}
	return string(data)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare")
	}
}

// busybox is a definition whose image can run scripts.
func busybox(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if out, err := exec.Command(p, "ldd", p).CombinedOutput(); err == nil || len(out) > 0 {
			return "Bootstrap: scratch\n%setup\nmkdir -p \"$SINGULARITY_ROOTFS/bin\"\ncp " + p +
				" \"$SINGULARITY_ROOTFS/bin/busybox\"\nfor a in sh env cat ls rm ln mkdir touch chmod id; do ln -s busybox \"$SINGULARITY_ROOTFS/bin/$a\"; done\n"
		}
	}
	t.Skip("needs busybox")
	return ""
}

func TestScratch(t *testing.T) {
	h := newHarness(t)
	h.write("tool.py", "#!/usr/bin/python3\n")
	if err := h.build("out.sif", `Bootstrap: scratch
%files
    `+h.dir+`/tool.py /opt/bin/
%environment
    export TOOL=1
%runscript
    exec tool "$@"
%startscript -e
    exec sleep 1
%help
    Some help.
%labels
    Author Some One
    org.label-schema.build-arch mine
`); err != nil {
		t.Fatal(err)
	}
	s, r := h.image("out.sif")
	want := strings.TrimLeft(`
040755 0:0 /
120777 0:0 /.exec -> .singularity.d/actions/exec
120777 0:0 /.run -> .singularity.d/actions/run
120777 0:0 /.shell -> .singularity.d/actions/shell
040755 0:0 /.singularity.d
100644 0:0 /.singularity.d/Singularity
040755 0:0 /.singularity.d/actions
100755 0:0 /.singularity.d/actions/exec
100755 0:0 /.singularity.d/actions/run
100755 0:0 /.singularity.d/actions/shell
100755 0:0 /.singularity.d/actions/start
100755 0:0 /.singularity.d/actions/test
040755 0:0 /.singularity.d/env
100644 0:0 /.singularity.d/env/01-base.sh
100644 0:0 /.singularity.d/env/90-environment.sh
100644 0:0 /.singularity.d/env/99-base.sh
100644 0:0 /.singularity.d/env/99-runtimevars.sh
100644 0:0 /.singularity.d/labels.json
040755 0:0 /.singularity.d/libs
100755 0:0 /.singularity.d/runscript
100644 0:0 /.singularity.d/runscript.help
100755 0:0 /.singularity.d/startscript
120777 0:0 /.test -> .singularity.d/actions/test
040755 0:0 /dev
120777 0:0 /environment -> .singularity.d/env/90-environment.sh
040755 0:0 /etc
100644 0:0 /etc/hosts
100644 0:0 /etc/resolv.conf
040755 0:0 /home
040755 0:0 /opt
040755 0:0 /opt/bin
100644 0:0 /opt/bin/tool.py
040755 0:0 /proc
040700 0:0 /root
120777 0:0 /singularity -> .singularity.d/runscript
040755 0:0 /sys
041777 0:0 /tmp
040755 0:0 /var
041777 0:0 /var/tmp
`, "\n")
	if got := listing(t, r); got != want && os.Geteuid() == 0 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for path, want := range map[string]string{
		"/.singularity.d/runscript":                 "#!/bin/sh\n\n    exec tool \"$@\"\n",
		"/.singularity.d/startscript":               "#!/bin/sh -e\n\n    exec sleep 1\n",
		"/.singularity.d/env/90-environment.sh":     envHeader + "    export TOOL=1\n",
		"/.singularity.d/runscript.help":            "    Some help.\n",
		"/opt/bin/tool.py":                          "#!/usr/bin/python3\n",
		"/.singularity.d/../.singularity.d/libs/..": "",
	} {
		if want == "" {
			continue
		}
		if got := h.read(r, path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(h.read(r, "/.singularity.d/labels.json")), &labels); err != nil {
		t.Fatal(err)
	}
	if labels["Author"] != "Some One" || labels["org.label-schema.build-arch"] == "mine" ||
		labels["org.label-schema.usage.singularity.deffile.bootstrap"] != "scratch" || labels["org.label-schema.usage.singularity.version"] != "1.2.3" {
		t.Errorf("got labels %q", labels)
	}
	if !strings.Contains(h.log.String(), `WARNING: Label "org.label-schema.build-arch" is`) {
		t.Errorf("got no warning of a label in use:\n%s", h.log)
	}
	kinds := ""
	for _, o := range s.Objects() {
		kinds += o.Type.String() + " " + o.Name + ","
	}
	if kinds != "Def.FILE ,JSON.Generic inspect-metadata.json,FS ,JSON.Generic provenance.json," {
		t.Errorf("got objects %q", kinds)
	}
	info, _ := os.Stat(filepath.Join(h.dir, "out.sif"))
	if info.Mode().Perm() != 0o755 {
		t.Errorf("got mode %v, want 0755", info.Mode())
	}
	if head := s.Header().LaunchScript; !strings.HasPrefix(head, "#!/usr/bin/env run-singularity") {
		t.Errorf("got launch script %q", head)
	}
}

func TestPostAndTest(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	def := busybox(t) + `%post
    echo "export FROM_POST=1" >> "$SINGULARITY_ENVIRONMENT"
    echo "from post" >> "$SINGULARITY_LABELS"
    test -s /etc/hosts
    test "$PWD" = / && test -z "$HOST_VARIABLE"
    ls -a / > /listing
%labels
    Author Me
%test
    test "$FROM_POST" = 1 && ! touch /x 2>/dev/null
`
	if err := h.build("out.sif", def, func(o *Options) { o.Env = append(o.Env, "HOST_VARIABLE=1") }); err != nil {
		t.Fatalf("%v\n%s", err, h.out.String())
	}
	_, r := h.image("out.sif")
	if got := h.read(r, "/.singularity.d/env/91-environment.sh"); got != "export FROM_POST=1\n" {
		t.Errorf("got environment %q", got)
	}
	if got := h.read(r, "/.singularity.d/labels.json"); !strings.Contains(got, `"from": "post"`) {
		t.Errorf("got labels %s", got)
	}
	// SC-082: neither temporary names nor the host's files are in the image.
	for _, l := range strings.Split(listing(t, r), "\n") {
		for _, bad := range []string{"build", "post", "tmp/"} {
			if strings.Contains(l, bad) {
				t.Errorf("the image holds %q", l)
			}
		}
	}
	if got := h.read(r, "/etc/hosts"); got != "" {
		t.Errorf("the image holds the host's /etc/hosts: %q", got)
	}
	// SC-098: what runs on the host is named before it does.
	log := h.log.String()
	warning, running := strings.Index(log, "WARNING: %setup of "), strings.Index(log, "Running setup scriptlet")
	if warning < 0 || running < warning {
		t.Errorf("got no warning of %%setup before it ran:\n%s", log)
	}
	want := []string{"Starting build...", "Running setup scriptlet", "Running post scriptlet", "Adding testscript", "Adding labels", "Running testscript", "Creating SIF file...", "Build complete: "}
	at := 0
	for _, w := range want {
		i := strings.Index(log[at:], "INFO: "+w)
		if i < 0 {
			t.Fatalf("got no %q in its place:\n%s", w, log)
		}
		at += i
	}
}

func TestSections(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	def := "Bootstrap: scratch\n%setup\nexit 3\n%pre\nexit 3\n%help\ntext\n"
	if err := h.build("a.sif", def, func(o *Options) { o.Sections = []string{"help"} }); err != nil {
		t.Error(err)
	}
	if err := h.build("b.sif", def, func(o *Options) { o.Sections = []string{"none"} }); err != nil {
		t.Error(err)
	}
	for _, s := range [][]string{{"all", "help"}, {"helo"}} {
		if err := h.build("c.sif", def, func(o *Options) { o.Sections = s }); err == nil {
			t.Errorf("got no error for sections %q", s)
		}
	}
}

func TestDeterminism(t *testing.T) {
	var sums [2][]byte
	for i := range sums {
		h := newHarness(t)
		h.write("b", strings.Repeat("text ", 100000))
		def := "Bootstrap: scratch\n%files\n{{dir}}/b /a\n%help\nx\n"
		err := h.build("out.sif", def, func(o *Options) {
			o.Args = map[string]string{"dir": "."}
			o.Env = append(o.Env, "SOURCE_DATE_EPOCH=1700000000")
			o.Spec = filepath.Join(h.dir, "def")
			o.Args["dir"] = "/proc/self/cwd"
			t.Chdir(h.dir)
		})
		if err != nil {
			t.Fatal(err)
		}
		if sums[i], err = os.ReadFile(filepath.Join(h.dir, "out.sif")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(sums[0], sums[1]) {
		t.Error("two builds of the same input differ")
	}
}

func TestLocalImage(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	base := busybox(t) + `    mkdir "$SINGULARITY_ROOTFS/data"
    cd "$SINGULARITY_ROOTFS/data"
    echo one > one; ln one two; chown 12:34 one; chmod 4711 one
    mkfifo fifo; mknod null c 1 3
    truncate -s 5M sparse; echo end >> sparse
    mkdir closed; echo x > closed/x; chmod 0 closed; touch -d @1000000000 closed
%environment
    export BASE=1
%runscript
    echo base
%labels
    Base yes
    Keep old
`
	if err := h.build("base.sif", base); err != nil {
		t.Fatal(err)
	}
	if err := h.build("box", base, func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatal(err)
	}
	s, baseImage := h.image("base.sif")
	part, _ := s.Primary()
	f, err := os.Create(filepath.Join(h.dir, "base.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, s.Reader(part)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	sources := []string{"base.sif", "base.squashfs", "box"}
	if _, err := exec.LookPath("mkfs.ext3"); err == nil {
		sources = append(sources, "base.ext3")
		runShell(t, h.dir, "truncate -s 32M base.ext3; mkfs.ext3 -q -d box base.ext3")
	}
	want := listing(t, baseImage)
	for _, src := range sources {
		child := "Bootstrap: localimage\nFrom: " + filepath.Join(h.dir, src) + "\n%environment\nexport CHILD=1\n%labels\nKeep new\n"
		if err := h.build("child.sif", child, func(o *Options) { o.Force = src == "box" }); err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		_, r := h.image("child.sif")
		got := strings.Replace(listing(t, r), "040755 0:0 /.singularity.d/bootstrap_history\n100644 0:0 /.singularity.d/bootstrap_history/Singularity0\n", "", 1)
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", src, got, want)
		}
		if env := h.read(r, "/.singularity.d/env/90-environment.sh"); !strings.HasSuffix(env, "export BASE=1\nexport CHILD=1\n") {
			t.Errorf("%s: got environment %q", src, env)
		}
		if script := h.read(r, "/.singularity.d/runscript"); !strings.Contains(script, "echo base") {
			t.Errorf("%s: got runscript %q", src, script)
		}
		keep := "old"
		if src == "box" {
			keep = "new" // --force
		}
		if labels := h.read(r, "/.singularity.d/labels.json"); !strings.Contains(labels, `"Base": "yes"`) || !strings.Contains(labels, `"Keep": "`+keep+`"`) {
			t.Errorf("%s: got labels %s", src, labels)
		}
		in, err := r.Walk("/data/closed", true)
		if err != nil || in.ModTime != 1000000000 {
			t.Errorf("%s: got %+v, %v for a directory's time", src, in, err)
		}
		one, _ := r.Walk("/data/one", true)
		two, _ := r.Walk("/data/two", true)
		if one == nil || two == nil || one.Number != two.Number || one.UID != 12 || one.GID != 34 {
			t.Errorf("%s: the hard link or its owner is lost", src)
		}
		if got := h.read(r, "/data/closed/x"); got != "x\n" {
			t.Errorf("%s: got %q", src, got)
		}
		os.Remove(filepath.Join(h.dir, "child.sif"))
	}
	// The image as specification, and without owners.
	err = h.build("copy", "", func(o *Options) {
		o.Spec, o.Sandbox, o.Owners = filepath.Join(h.dir, "base.sif"), true, SingleID
	})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(h.dir, "copy/data/one"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 || info.Mode()&os.ModeSetuid == 0 {
		t.Errorf("got %v, %v", info, err)
	}
	// Holes stay holes.
	if info, err := os.Stat(filepath.Join(h.dir, "copy/data/sparse")); err != nil || info.Sys().(*syscall.Stat_t).Blocks > 4096 {
		t.Errorf("got a sparse file of %v, %v", info, err)
	}
	if text, _ := os.ReadFile(filepath.Join(h.dir, "copy/.singularity.d/Singularity")); !strings.HasPrefix(string(text), "bootstrap: localimage\n") {
		t.Errorf("got definition %q", text)
	}
}

func TestExistingTargets(t *testing.T) {
	h := newHarness(t)
	def := "Bootstrap: scratch\n"
	force := func(o *Options) { o.Force = true }
	sandbox := func(o *Options) { o.Sandbox = true }
	answer := func(yes bool) func(*Options) {
		return func(o *Options) { o.Confirm = func(string) bool { return yes } }
	}
	steps := []struct {
		name   string
		change []func(*Options)
		ok     bool
	}{
		{"new file", nil, true},
		{"file again", nil, false},
		{"answer no", []func(*Options){answer(false)}, false},
		{"answer yes", []func(*Options){answer(true)}, true},
		{"force", []func(*Options){force}, true},
		{"sandbox over file", []func(*Options){sandbox}, false},
		{"sandbox over file, force", []func(*Options){sandbox, force}, true},
		{"sandbox over sandbox", []func(*Options){sandbox, answer(true)}, true},
		{"file over sandbox", []func(*Options){answer(true)}, true},
	}
	for _, s := range steps {
		err := h.build("t", def, s.change...)
		if (err == nil) != s.ok {
			t.Errorf("%s: got %v", s.name, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "docs/a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.build("docs", def, sandbox, answer(true)); err == nil || !strings.Contains(err.Error(), "not a sandbox") {
		t.Errorf("a directory of other things: got %v", err)
	}
	if err := h.build("docs", def, sandbox, force, func(o *Options) { o.Env = append(o.Env, "HOME="+filepath.Join(h.dir, "docs/a")) }); err == nil {
		t.Error("replaced the parent of the home directory")
	}
	if err := h.build("docs", def, sandbox, force); err != nil {
		t.Error(err)
	}
	if err := h.build("none/t", def); err == nil {
		t.Error("got no error for a target in a directory that is not there")
	}
}

func TestUpdate(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	sandbox := func(o *Options) { o.Sandbox = true }
	update := func(o *Options) { o.Update = true }
	if err := h.build("box", busybox(t), sandbox); err != nil {
		t.Fatal(err)
	}
	def := "Bootstrap: localimage\nFrom: /not/used\n%post\necho 1 > /new\n"
	if err := h.build("box", def, sandbox, update); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"new", "bin/busybox"} {
		if _, err := os.Stat(filepath.Join(h.dir, "box", name)); err != nil {
			t.Error(err)
		}
	}
	if err := h.build("other", def, sandbox, update); err == nil {
		t.Error("updated a sandbox that is not there")
	}
}

func TestFiles(t *testing.T) {
	h := newHarness(t)
	runShell(t, h.dir, `mkdir -p src/sub; echo a > src/a.txt; echo b > src/b.txt; echo "q" > "src/with blank"
		ln -s ../a.txt src/sub/link; ln -s nowhere src/dangling; chmod 750 src/sub; chmod 640 src/a.txt; ln -s sub src/dirlink`)
	src := h.dir + "/src/"
	def := "Bootstrap: scratch\n%files\n" + src + "*.txt /many\n" + src + "a.txt /one\n" + src + "a.txt /dir/\n\"" + src + "with blank\" \"/with blank\"\n" +
		src + "sub /tree\n" + src + "sub /tree\n" + src + "dirlink\n" + src + "a.txt ../../up\n"
	if err := h.build("out.sif", def); err != nil {
		t.Fatal(err)
	}
	_, r := h.image("out.sif")
	for path, want := range map[string]string{
		"/many/a.txt": "a\n", "/many/b.txt": "b\n", "/one": "a\n", "/dir/a.txt": "a\n", "/with blank": "q\n",
		"/tree/link": "a\n", "/tree/sub/link": "a\n", src + "dirlink/link": "a\n", "/up": "a\n",
	} {
		if got := h.read(r, path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if in, err := r.Walk("/tree/link", false); err != nil || !in.IsRegular() || in.Mode&0o777 != 0o640 {
		t.Errorf("got %+v, %v: want links followed and modes kept", in, err)
	}
	if err := h.build("bad.sif", "Bootstrap: scratch\n%files\n"+src+"dangling /x\n"); err == nil {
		t.Error("got no error for a link that leads nowhere")
	}
}

// SC-080, SC-081, SC-083: the directory of a build has a name nobody can guess
// and is closed to others from the start, with the setuid files in it.
func TestOpenDirectoryIsPrivate(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	seen := 0
	err := h.build("out.sif", busybox(t)+"%post\ntrue\n", func(o *Options) {
		o.Run = func(ctx context.Context, s RunSpec) error {
			info, err := os.Stat(filepath.Dir(s.Rootfs))
			if err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("got %v, %v for the build directory, want mode 0700", info, err)
			}
			seen++
			return nil
		}
	})
	if err != nil || seen != 1 {
		t.Errorf("got %v after %d runs", err, seen)
	}
}

func TestStaleDirectories(t *testing.T) {
	h := newHarness(t)
	runShell(t, h.temp, `mkdir -m 700 build-temp-old build-temp-new build-temp-locked build-kept-old; mkdir -m 755 build-temp-other
		mkdir -p build-temp-old/rootfs/a; chmod 0 build-temp-old/rootfs/a; touch -d @1000000000 build-temp-o* build-temp-locked build-kept-old`)
	lock, err := lockDir(filepath.Join(h.temp, "build-temp-locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	removeStale(h.temp, "build-temp-")
	if got := runShell(t, h.temp, "ls"); got != "build-kept-old\nbuild-temp-locked\nbuild-temp-new\nbuild-temp-other\n" {
		t.Errorf("got %q left", got)
	}
}

func TestBuildDate(t *testing.T) {
	for seconds, want := range map[int64]string{1700000000: "Tuesday_14_November_2023_22:13:20_UTC", 5: "Thursday_1_January_1970_0:0:5_UTC"} {
		if got := buildDate(time.Unix(seconds, 0).UTC()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestArch(t *testing.T) {
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for arch, machine := range map[string]string{"arm64": "\xb7\x00", "riscv64": "\xf3\x00", "386": "\x03\x00"} {
		elf := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + machine
		if err := os.WriteFile(filepath.Join(dir, "prog"), []byte(elf), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := detectArch(root); got != arch {
			t.Errorf("got %q, want %q", got, arch)
		}
	}
}

package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
)

type testLog struct{ lines []string }

func (l *testLog) Info(s string)    { l.lines = append(l.lines, "I "+s) }
func (l *testLog) Warning(s string) { l.lines = append(l.lines, "W "+s) }
func (l *testLog) Verbose(s string) { l.lines = append(l.lines, "V "+s) }

func stage(t *testing.T, text string) *deffile.Stage {
	t.Helper()
	def, err := deffile.Parse("x.def", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &def.Stages[0]
}

func TestNew(t *testing.T) {
	_, err := New(stage(t, "Bootstrap: shub\nFrom: debian\n"), Config{})
	if e, ok := errors.AsType[*UnsupportedError](err); !ok || e.Agent != "shub" || e.Line != 1 {
		t.Errorf("got %v", err)
	}
	if _, err := New(stage(t, "Bootstrap: localimage\nFrom: x\nFingerprints: ABC\n"), Config{}); err == nil {
		t.Error("what is no fingerprint was taken for one")
	}
	var got string
	base := filepath.Join(t.TempDir(), "base")
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	var origin Origin
	s, err := New(stage(t, "Bootstrap: LocalImage\nFrom: "+base+"\n"), Config{
		Extract: func(_ context.Context, path, rootfs string) error {
			real, err := os.Readlink(path)
			got = real + " " + rootfs
			return err
		},
		Digest: func(context.Context, string) (string, error) { return "sha256:1", nil },
		Record: func(o Origin) { origin = o },
	})
	if err != nil || s.Fetch(context.Background(), "/r") != nil || got != base+" /r" || origin.Digest != "sha256:1" || origin.URI != base {
		t.Errorf("got %q, %+v, %v", got, origin, err)
	}
}

// TestOptionLikeValues holds off values that a bootstrap tool would take for
// options or for more than one word (SC-090).
func TestOptionLikeValues(t *testing.T) {
	good := debootstrap{suite: "bookworm", mirror: "http://deb.debian.org/debian", include: []string{"python3", "g++"}}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for _, d := range []debootstrap{
		{suite: "--setup-hook=id", mirror: good.mirror},
		{suite: "../x", mirror: good.mirror},
		{suite: "a b", mirror: good.mirror},
		{suite: "bookworm", mirror: "--help"},
		{suite: "bookworm", mirror: "ext::sh -c id"},
		{suite: "bookworm", mirror: "/etc/passwd"},
		{suite: "bookworm", mirror: "deb [trusted=yes] http://x ./"},
		{suite: "bookworm", mirror: good.mirror, include: []string{"--customize-hook=id"}},
	} {
		if err := d.check(); err == nil {
			t.Errorf("got no error for %+v", d)
		}
	}
}

func TestArguments(t *testing.T) {
	made, err := newDebootstrap(stage(t, "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://m/\nInclude: a, b c\n"), Config{Include: []string{"d"}})
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*debootstrap)
	args := d.mmdebstrap("mmdebstrap", "/r")
	if !slices.Contains(args, "--include=a,b,c,d") || !slices.Equal(args[len(args)-3:], []string{"bookworm", "/r", "http://m/"}) {
		t.Errorf("got %q", args)
	}
	args = d.debootstrap("debootstrap", "/r")
	if !slices.Contains(args, "--include=apt,a,b,c,d") || !slices.Equal(args[len(args)-3:], []string{"bookworm", "/r", "http://m/"}) {
		t.Errorf("got %q", args)
	}
}

func TestOutput(t *testing.T) {
	log := &testLog{}
	d := debootstrap{c: Config{Log: log}}
	err := run(context.Background(), []string{"/bin/sh", "-c", "echo 'I: working'; echo 'I: Retrieving x'; echo detail; printf 'E: broken'; exit 3"}, nil, d.line)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "E: broken") {
		t.Errorf("got error %v", err)
	}
	if want := []string{"I working", "V I: Retrieving x", "V detail", "V E: broken"}; !slices.Equal(log.lines, want) {
		t.Errorf("got %q, want %q", log.lines, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = run(ctx, []string{"/bin/sh", "-c", "echo go; while :; do :; done"}, nil, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after an interrupt", err)
	}
}

func TestMissingTool(t *testing.T) {
	t.Setenv("PATH", "")
	if p, ok := findTool("surely-no-such-tool"); ok {
		t.Errorf("found %q", p)
	}
	if _, ok := findTool("env"); !ok {
		t.Error("found no env in the usual places")
	}
}

func TestTidyAndDevices(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	undo, err := bindDevices(dir)
	if err != nil {
		undo()
		t.Skip("needs to mount: " + err.Error())
	}
	null := filepath.Join(dir, "dev/null")
	info, err := os.Stat(null)
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("got %v, %v for /dev/null", info, err)
	}
	undo()
	undo()
	if err := unix.Unmount(null, unix.MNT_DETACH); err == nil {
		t.Error("a device was still mounted")
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc/apt/apt.conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap", "etc/keep"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tidyDevices(dir, "etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap"); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*/*"))
	if want := []string{filepath.Join(dir, "etc/apt"), filepath.Join(dir, "etc/keep")}; !slices.Equal(left, want) {
		t.Errorf("got %q left, want %q", left, want)
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/dev/null"); err != nil {
		t.Fatal("the host's /dev/null is gone")
	}
}

package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/build/source"
	"singularity/host"
)

// TestHostileBase builds on an image whose links lead to files of the host, by
// the names that a build writes to (SC-038, SC-066).
func TestHostileBase(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	if err := h.build("box", busybox(t), func(o *Options) { o.Sandbox = true }); err != nil {
		t.Fatal(err)
	}
	h.write("file", "data")
	out := filepath.Join(h.dir, "outside")
	runShell(t, h.dir, `mkdir outside outside/env; echo "secret label" > outside/secret; o=$PWD/outside; cd box
		rm -rf .singularity.d etc; ln -s $o .singularity.d; mkdir realetc; ln -s /realetc etc; mkdir inside
		ln -s $o/hosts realetc/hosts; ln -s ../../../../../../../../../../$o/resolv realetc/resolv.conf
		ln -s $o/post .post.script; ln -s $o/secret .build.labels; ln -s /inside dirlink; ln -s $o/new inside/file
		ln -s $o deep`)
	before := runShell(t, out, "find . -printf '%p %m %s %T@\n'")
	err := h.build("child", "Bootstrap: localimage\nFrom: "+h.dir+"/box\n%files\n"+h.dir+"/file /dirlink/\n"+h.dir+"/file /deep/x/y\n%environment\nA=1\n"+
		"%post\nln -s "+out+"/secret /.build.labels\nrm -rf /.singularity.d/env; ln -s "+out+"/env /.singularity.d/env\nln -s "+out+"/l /.singularity.d/labels.json\n", func(o *Options) { o.Sandbox = true })
	if err == nil || !strings.Contains(err.Error(), "/deep/x/y") {
		t.Errorf("got %v for a copy below a link that leads nowhere", err)
	}
	err = h.build("child", "Bootstrap: localimage\nFrom: "+h.dir+"/box\n%files\n"+h.dir+"/file /dirlink/other\n%environment\nA=1\n"+
		"%post\nln -s "+out+"/secret /.build.labels\nrm -rf /.singularity.d/env; ln -s "+out+"/env /.singularity.d/env\nln -s "+out+"/l /.singularity.d/labels.json\n", func(o *Options) {
		o.Sandbox = true
		// This runner would follow links on the host.
		o.Run = func(ctx context.Context, s RunSpec) error { s.Files = nil; return chroot(ctx, s) }
	})
	if err != nil {
		t.Errorf("%v\n%s", err, h.out.String())
	}
	if after := runShell(t, out, "find . -printf '%p %m %s %T@\n'"); after != before {
		t.Errorf("the build changed files outside the image:\n%s\nbefore:\n%s", after, before)
	}
	if data, _ := os.ReadFile(filepath.Join(h.dir, "child/inside/other")); string(data) != "data" {
		t.Errorf("got %q through a link inside the image (build: %v)", data, err)
	}
	if labels, _ := os.ReadFile(filepath.Join(h.dir, "child/.singularity.d/labels.json")); strings.Contains(string(labels), "secret") {
		t.Error("a file of the host became a label")
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	base := busybox(t)
	secret := h.write("keep", "old")
	mounted := filepath.Join(h.dir, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("mounted/precious", "data")
	for name, c := range map[string]struct {
		def    string
		change func(*Options)
		want   func(error) bool
	}{
		"post": {base + "%post\nmkdir -p /a/b; chmod 0 /a/b /a; exit 7\n", nil, func(err error) bool {
			s, ok := errors.AsType[*ScriptError](err)
			e, ok2 := errors.AsType[*ExitError](err)
			return ok && ok2 && s.Section == "post" && e.Code == 7
		}},
		"setup leaves a mount": {base + "    mkdir $SINGULARITY_ROOTFS/m; mount --bind " + mounted + " $SINGULARITY_ROOTFS/m; exit 1\n", nil, func(err error) bool { return err != nil }},
		"test":                 {base + "%test\nexit 9\n", nil, func(err error) bool { return strings.Contains(err.Error(), "%test failed: exit status 9") }},
		"no shell":             {"Bootstrap: scratch\n%post\ntrue\n", nil, func(err error) bool { return strings.Contains(err.Error(), "no /bin/sh") }},
		"no file":              {"Bootstrap: scratch\n%files\n/nonexistent/x\n", nil, func(err error) bool { return strings.Contains(err.Error(), "def:3: cannot copy") }},
		"no base":              {"Bootstrap: localimage\nFrom: /nonexistent.sif\n", nil, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
		"agent": {"Bootstrap: shub\nFrom: debian\n", nil, func(err error) bool {
			_, ok := errors.AsType[*source.UnsupportedError](err)
			return ok
		}},
		"definition": {"Bootstrap: scratch\n%foot\n", nil, func(err error) bool {
			e, ok := errors.AsType[*deffile.Error](err)
			return ok && e.Line == 2
		}},
		"stages": {"Bootstrap: scratch\nStage: a\nBootstrap: scratch\n%files from a\n/x\n", nil, func(err error) bool {
			return strings.Contains(err.Error(), `def:5: cannot copy "/x": no such file in stage "a"`)
		}},
		"apps":     {base + "%appinstall x\nfalse\n", nil, func(err error) bool { return strings.Contains(err.Error(), "%post failed") }},
		"uri":      {base, func(o *Options) { o.Spec = "shub://debian" }, func(err error) bool { return strings.Contains(err.Error(), "not part of this version") }},
		"codec":    {base, func(o *Options) { o.Compression = "lzma" }, func(err error) bool { return strings.Contains(err.Error(), "unknown compression") }},
		"cancel":   {base + "%post\ntouch /x; while :; do :; done\n", func(o *Options) { o.Run = cancelling(o) }, func(err error) bool { return errors.Is(err, context.Canceled) }},
		"no spec":  {base, func(o *Options) { o.Spec = "/nonexistent" }, func(err error) bool { return errors.Is(err, os.ErrNotExist) }},
		"existing": {base, func(o *Options) { o.Target = secret }, func(err error) bool { _, ok := errors.AsType[*ExistsError](err); return ok }},
	} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			change := func(o *Options) {
				if c.change != nil {
					c.change(o)
				}
			}
			err := h.build("never", c.def, change)
			if err == nil || !c.want(err) {
				t.Errorf("got error %v", err)
			}
			err = h.build("never", c.def, change, func(o *Options) { o.Sandbox = true })
			if err == nil || !c.want(err) {
				t.Errorf("sandbox: got error %v", err)
			}
			if _, err := os.Lstat(filepath.Join(h.dir, "never")); err == nil {
				t.Error("the target exists")
			}
		})
	}
	if data, err := os.ReadFile(filepath.Join(mounted, "precious")); string(data) != "data" {
		t.Errorf("a file behind a forgotten mount is gone: %v", err)
	}
}

// cancelling returns a Runner that is interrupted while the program runs.
func cancelling(o *Options) Runner {
	return func(ctx context.Context, s RunSpec) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(chroot(ctx, s), context.Canceled)
	}
}

func TestInterrupt(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := Build(ctx, Options{Target: filepath.Join(h.dir, "x"), Spec: h.write("def", "Bootstrap: scratch\n"), TempDir: h.temp, Log: h.log, Run: chroot})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h.clean()
}

func TestDiskFull(t *testing.T) {
	needRoot(t)
	h := newHarness(t)
	small := filepath.Join(h.dir, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("needs to mount a tmpfs")
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i*i>>7) ^ byte(i>>3)
	}
	h.write("big", string(data))
	def := "Bootstrap: scratch\n%files\n" + h.dir + "/big /big\n"
	err := h.build("out.sif", def, func(o *Options) { o.TempDir = small })
	e, ok := errors.AsType[*host.SpaceError](err)
	if !ok || e.Use != host.Temporary || e.Dir != small || e.Kind != "tmpfs" {
		t.Errorf("full temporary directory: got %v", err)
	}
	err = h.build("small/out.sif", def, func(o *Options) { o.Compression = "none" })
	if e, ok = errors.AsType[*host.SpaceError](err); !ok || e.Use != host.Target {
		t.Errorf("full target directory: got %v", err)
	}
	if names, _ := os.ReadDir(small); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	// A mount where nothing can be executed is refused at once.
	if err := unix.Mount("", small, "", unix.MS_REMOUNT|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	if err := h.build("out.sif", def, func(o *Options) { o.TempDir = small }); err == nil || !strings.Contains(err.Error(), "noexec") {
		t.Errorf("noexec: got %v", err)
	}
}

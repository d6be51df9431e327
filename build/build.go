// Package build makes an image: a definition file, or another image, goes in;
// a SIF file or a sandbox directory comes out.
//
// Build runs as uid 0 with all capabilities, in mount namespace of its own: the
// host's root, or root of a user namespace that the caller made. Owners tells
// which, as it decides whose the files in the image can be. It never starts a
// program out of the image by itself: %post and %test go through
// Options.Run, which runs a program in a container.
//
//	definition → for each stage: %pre (host) → source (base system) → %files from
//	another stage → %setup, %files (host) → %post (container) → metadata in
//	/.singularity.d → %test (container)
//	→ the last stage as squashfs in a SIF
//
// The writer of the definition is trusted with what root of that namespace may
// do. The root file system is not, once anything from elsewhere is in it: every
// path in it is opened by linux/safepath or by descriptors, so a link in it
// never leads to a file of the host.
//
// Everything is made in a directory of mode 0700 that is removed at the end,
// whatever happens; the image gets its name by the last step, a rename. With
// SOURCE_DATE_EPOCH set the same input makes the same bytes.
//
// Files: build.go (the order of things), steps.go (what is kept for later
// builds), options.go, bundle.go (temporary directories), script.go (%pre,
// %setup, %post, %test), files.go and stagefiles.go (%files), apps.go (SCIF
// apps), metadata.go and inspect.go (/.singularity.d), provenance.go, extract.go
// (images to directories), oci.go (layers), tree.go (walks), pack.go and assemble.go (directory
// to SIF), compress.go, target.go (names and what is there already), arch.go,
// data.go (data containers), skeleton/ (scripts that every image holds).
package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"singularity/build/deffile"
	"singularity/build/source"
	"singularity/build/stepcache"
)

// builder is one build.
type builder struct {
	o   Options
	def *deffile.Definition
	// fromFile tells that def is a file, not made up for an image.
	fromFile bool
	target   target
	bundle   *bundle
	cache    *stepcache.Cache // nil without
	stages   []*stageRoot     // those begun so far; the last one becomes the image

	// The stage that is built.
	stage   *deffile.Stage
	inPlace bool     // it changes the sandbox that is there
	root    *os.File // of the image to be
	arch    string
	labels  map[string]string
	inspect []byte   // JSON for the SIF object inspect-metadata.json
	base    *layered // nil unless the base system came as layers
	sandbox *os.File // the base system, if it goes into the image from where it is
	memory  bool     // root file systems are in memory from now on
	plain   *os.File // in memory: the root file system before encryption, if its packages are listed
}

// stageRoot is the root file system of a stage.
type stageRoot struct {
	name   string // "" for none
	root   *os.File
	origin stageOrigin
}

// Build makes the image that o describes. After an error or when ctx ends
// there is no target, or the old one is untouched. The errors that a caller may
// want to tell apart are *deffile.Error, *source.MissingToolError,
// *source.UnsupportedError, *ScriptError, *host.SpaceError and *ExistsError.
func Build(ctx context.Context, o Options) (err error) {
	b := &builder{o: o}
	if err := b.readSpec(); err != nil {
		return err
	}
	if err := b.checkTarget(); err != nil {
		return err
	}
	b.o.Log.Info("Starting build...")
	if err := b.open(); err != nil {
		return b.explain(err)
	}
	defer func() {
		if closeErr := b.close(); err == nil {
			err = closeErr
		}
	}()
	b.warnOwners()
	b.openCache()
	for i := range b.def.Stages {
		if err := b.buildStage(ctx, i); err != nil {
			return b.stopped(ctx, err)
		}
	}
	if err := b.finish(ctx); err != nil {
		return b.stopped(ctx, err)
	}
	b.o.Log.Info("Build complete: " + o.Target)
	return nil
}

// stopped says why the build ends with err.
func (b *builder) stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("build interrupted: %w", ctx.Err())
	}
	return b.explain(err)
}

// buildStage makes the root file system of a stage.
func (b *builder) buildStage(ctx context.Context, i int) error {
	if err := b.enter(i); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.fill, b.describe, b.test} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// enter makes the stage with number i the one that is built.
func (b *builder) enter(i int) error {
	b.stage = &b.def.Stages[i]
	b.labels, b.inspect, b.arch = nil, nil, ""
	if err := b.base.close(); err != nil {
		return err
	}
	b.base = nil
	if b.sandbox != nil {
		b.sandbox.Close()
		b.sandbox = nil
	}
	b.bundle.rootfs = filepath.Join(b.bundle.dir, "rootfs")
	if last := len(b.def.Stages) - 1; i < last {
		b.bundle.rootfs = filepath.Join(b.bundle.dir, fmt.Sprintf("stage%d", i))
	} else if b.inPlace = b.o.Update && !b.o.Force; b.inPlace {
		b.bundle.rootfs = b.target.path
	}
	name := b.stage.Name()
	if len(b.def.Stages) > 1 {
		b.o.Log.Info(fmt.Sprintf("Building stage %d of %d %s", i+1, len(b.def.Stages), name))
	}
	err := b.openRoot()
	if err == nil {
		b.stages = append(b.stages, &stageRoot{name: name, root: b.root, origin: stageOrigin{Name: name}})
	}
	return err
}

// origin is what the provenance tells of the stage that is built.
func (b *builder) origin() *stageOrigin { return &b.stages[len(b.stages)-1].origin }

// fill makes the content of the stage: the base system and what the
// definition puts on top.
func (b *builder) fill(ctx context.Context) error {
	if err := b.hostScript(ctx, "pre"); err != nil {
		return err
	}
	return b.take(ctx, b.steps())
}

// describe writes the metadata, and reads what %post left of it.
func (b *builder) describe(context.Context) error {
	if err := b.readLabels(); err != nil {
		return err
	}
	// %post may have removed or replaced anything.
	if err := b.layout(); err != nil {
		return err
	}
	b.arch = b.detectArch()
	return b.metadata()
}

// newSource returns the source of a stage.
func (b *builder) newSource(s *deffile.Stage) (source.Source, error) {
	return source.New(s, source.Config{
		Log: b.o.Log, Env: b.o.Env, Extract: b.extract, OCI: b.fillOCI, Registries: b.o.OpenImage != nil, FetchImage: b.o.FetchImage, Digest: digestOf, Verify: b.verify, Run: b.runTool,
		Quiet:   !b.fromFile,
		Record:  func(o source.Origin) { b.origin().Source = o },
		WorkDir: b.workDir,
		Include: strings.FieldsFunc(b.o.getenv("INCLUDE"), func(r rune) bool { return r == ' ' || r == ',' }),
	})
}

// bootstrap lets the agent of the stage fill the root file system.
func (b *builder) bootstrap(ctx context.Context) error {
	src, err := b.newSource(b.stage)
	if err != nil {
		return err
	}
	b.origin().Source = source.Origin{Agent: b.stage.Agent()}
	if err := src.Fetch(ctx, b.bundle.rootfs); err != nil {
		return err
	}
	// A tool may have changed what mkdir gave.
	return b.root.Chmod(0o755)
}

// finish turns the root file system into the target.
func (b *builder) finish(ctx context.Context) error {
	if err := unmountBelow(b.bundle.rootfs); err != nil {
		return err
	}
	switch {
	case b.inPlace:
		return nil
	case b.o.Sandbox:
		b.o.Log.Info("Creating sandbox directory...")
		return b.target.place(b.bundle.rootfs)
	}
	b.o.Log.Info("Creating SIF file...")
	return b.assemble(ctx)
}

func (b *builder) warnOwners() {
	if b.o.Owners == SingleID {
		b.o.Log.Info("No subordinate ids: every file in the image will be owned by root")
	}
}

// wants tells whether a section is to be built.
func (b *builder) wants(section string) bool {
	s := b.o.Sections
	return len(s) == 0 || slices.Contains(s, "all") || slices.Contains(s, section)
}

// script returns a section of the stage that has text and is to be built.
func (b *builder) script(name string) (deffile.Section, bool) {
	s, ok := b.stage.Script(name)
	return s, ok && b.wants(name)
}

// Package build makes an image: a definition file, or another image, goes in;
// a SIF file or a sandbox directory comes out.
//
// Build runs as uid 0 with all capabilities, in mount namespace of its own: the
// host's root, or root of a user namespace that the caller made. Owners tells
// which, as it decides whose the files in the image can be. It never starts a
// program out of the image by itself: %post and %test go through
// Options.Run, which runs a program in a container.
//
//	definition → source (base system) → %setup, %files (host) → %post (container)
//	→ metadata in /.singularity.d → %test (container) → squashfs in a SIF
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
// Files: build.go (the steps), options.go, bundle.go (temporary directories),
// script.go (%pre, %setup, %post, %test), files.go (%files), metadata.go and
// inspect.go (/.singularity.d), extract.go (images to directories), oci.go
// (layers to an image or a directory), tree.go
// (directories to directories), pack.go and assemble.go (directory to SIF),
// target.go (names and what is there already), arch.go, skeleton/ (scripts
// that every image holds).
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"singularity/build/deffile"
	"singularity/build/source"
)

// builder is one build.
type builder struct {
	o       Options
	def     *deffile.Definition // one stage
	stage   *deffile.Stage
	target  target
	bundle  *bundle
	root    *os.File // of the image to be
	arch    string
	labels  map[string]string
	inspect []byte   // JSON for the SIF object inspect-metadata.json
	base    *layered // nil unless the base system came as layers
}

// Build makes the image that o describes. After an error or when ctx ends
// there is no target, or the old one is untouched. The errors that a caller may
// want to tell apart are *deffile.Error, *source.MissingToolError,
// *source.UnsupportedError, *ScriptError, *SpaceError and *ExistsError.
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
	for _, step := range []func(context.Context) error{b.fill, b.describe, b.test, b.finish} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("build interrupted: %w", ctx.Err())
			}
			return b.explain(err)
		}
	}
	b.o.Log.Info("Build complete: " + o.Target)
	return nil
}

// fill makes the content of the image: the base system and what the
// definition puts on top.
func (b *builder) fill(ctx context.Context) error {
	b.warnOwners()
	if err := b.hostScript(ctx, "pre"); err != nil {
		return err
	}
	if !b.o.Update || b.o.Force {
		if err := b.bootstrap(ctx); err != nil {
			return err
		}
	}
	if err := b.layout(); err != nil {
		return err
	}
	if err := b.hostScript(ctx, "setup"); err != nil {
		return err
	}
	if err := b.files(ctx); err != nil {
		return err
	}
	if b.o.FixPerms {
		if err := fixPerms(b.root); err != nil {
			return err
		}
	}
	b.arch = b.detectArch()
	return b.post(ctx)
}

// describe writes the metadata, and reads what %post left of it.
func (b *builder) describe(context.Context) error {
	// %post may have removed or replaced anything.
	if err := b.layout(); err != nil {
		return err
	}
	b.arch = b.detectArch()
	return b.metadata()
}

// bootstrap lets the agent of the stage fill the root file system.
func (b *builder) bootstrap(ctx context.Context) error {
	src, err := source.New(b.stage, source.Config{
		Log: b.o.Log, Env: b.o.Env, Extract: b.extract, OCI: b.fillOCI, Registries: b.o.OpenImage != nil, FetchImage: b.o.FetchImage,
		Include: strings.FieldsFunc(b.o.getenv("INCLUDE"), func(r rune) bool { return r == ' ' || r == ',' }),
	})
	if err != nil {
		return err
	}
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
	case b.o.Update && !b.o.Force:
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

// refuse names what the definition asks for and this version cannot build.
func refuse(d *deffile.Definition) error {
	unbuilt := func(line int, what string) error {
		return fmt.Errorf("line %d: %s are not part of this version", line, what)
	}
	if len(d.Stages) > 1 {
		return unbuilt(d.Stages[1].Line, "definitions of several stages")
	}
	s := &d.Stages[0]
	for _, f := range s.Files {
		if f.From != "" {
			return unbuilt(f.Line, "%files sections with \"from\"")
		}
	}
	if len(s.Apps) > 0 {
		return errors.New("the sections of app \"" + s.Apps[0].Name + "\": apps are not part of this version")
	}
	return nil
}

package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
	"singularity/image"
)

// maxSpecSize bounds what is read to tell a definition file.
const maxSpecSize = deffile.MaxSize

// uri is how the address of an image begins.
var uri = regexp.MustCompile(`^(library|docker|docker-daemon|docker-archive|oci|oci-archive|oras|shub):|^[a-z][a-z0-9+.-]*://`)

// readSpec finds out what to build from.
func (b *builder) readSpec() error {
	if err := checkSections(b.o.Sections); err != nil {
		return err
	}
	if _, err := b.writerOptions(); err != nil {
		return err
	}
	spec := b.o.Spec
	info, err := os.Stat(spec)
	switch {
	case err != nil && uri.MatchString(spec) && errors.Is(err, fs.ErrNotExist):
		return b.readURI(spec)
	case err != nil:
		return fmt.Errorf("cannot read the build specification: %w", err)
	}
	isImage := info.IsDir()
	if !isImage {
		im, err := image.Open(spec)
		switch {
		case err == nil:
			im.Close()
			isImage = true
		case !errors.Is(err, image.ErrFormat):
			return fmt.Errorf("cannot open %q: %w", spec, err)
		}
	}
	if isImage {
		if b.o.Update {
			return errors.New("cannot update a sandbox from an image: a definition file is needed")
		}
		b.def, err = localImage(spec)
	} else {
		b.fromFile = true
		b.def, err = b.readDefinition(info)
	}
	if err != nil {
		return err
	}
	return b.checkSources()
}

// readURI builds from an image that a scheme says how to get.
func (b *builder) readURI(spec string) error {
	scheme, rest, _ := strings.Cut(spec, ":")
	from := strings.TrimPrefix(rest, "//")
	if scheme == "http" || scheme == "https" {
		from = spec
	}
	if b.o.Update {
		return errors.New("cannot update a sandbox from an image: a definition file is needed")
	}
	var err error
	if b.def, err = oneLine(scheme, from); err != nil {
		return err
	}
	return b.checkSources()
}

// checkSources shows the warnings about the definition, and refuses agents that
// cannot do what the headers ask for.
func (b *builder) checkSources() error {
	for _, w := range b.def.Warnings {
		b.o.Log.Warning(w)
	}
	for i := range b.def.Stages {
		// A late refusal would waste the work of %pre, and of the stages above.
		if _, err := b.newSource(&b.def.Stages[i]); err != nil {
			return fmt.Errorf("cannot build %q: %w", b.o.Spec, err)
		}
	}
	return nil
}

func (b *builder) readDefinition(info fs.FileInfo) (*deffile.Definition, error) {
	if !info.Mode().IsRegular() && info.Mode()&fs.ModeNamedPipe == 0 {
		return nil, fmt.Errorf("cannot read %q: neither a file nor a directory", b.o.Spec)
	}
	f, err := os.Open(b.o.Spec)
	if err != nil {
		return nil, fmt.Errorf("cannot read the definition file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpecSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the definition file: %w", err)
	}
	return deffile.Parse(b.o.Spec, data, b.o.Args)
}

// target is where the image goes.
type target struct {
	path string
	old  bool // something is there, to be replaced
}

// ExistsError says that the target is there already and nobody agreed to
// replace it.
type ExistsError struct{ Target string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("While checking build target: build target '%s' already exists. Use --force if you want to overwrite it", filepath.Base(e.Target))
}

// checkTarget looks at what is under the name of the target before any work is
// done.
func (b *builder) checkTarget() error {
	if strings.Contains(b.o.Target, "://") {
		return fmt.Errorf("cannot build to %q: the target is a path", b.o.Target)
	}
	path, err := filepath.Abs(b.o.Target)
	if err != nil {
		return err
	}
	b.target.path = path
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if b.o.Update {
			return fmt.Errorf("cannot update %q: no such sandbox", b.o.Target)
		}
		return b.checkParent()
	case err != nil:
		return fmt.Errorf("cannot use the build target: %w", err)
	}
	b.target.old = true
	if err := b.checkOld(info); err != nil {
		return err
	}
	if !b.o.Update && !b.o.Force {
		if b.o.Confirm == nil || !b.o.Confirm(fmt.Sprintf("Build target '%s' already exists and will be deleted during the build process. Do you want to continue?", b.o.Target)) {
			return &ExistsError{b.o.Target}
		}
	}
	return b.checkParent()
}

// checkOld refuses to replace what looks precious.
func (b *builder) checkOld(info fs.FileInfo) error {
	path := b.target.path
	if b.o.Update && (!b.o.Sandbox || !info.IsDir()) {
		return fmt.Errorf("cannot update %q: only a sandbox directory can be, with --sandbox", b.o.Target)
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("cannot replace %q: neither a file nor a directory", b.o.Target)
		}
		return nil
	}
	for _, dir := range []string{b.o.getenv("HOME"), workingDir()} {
		if dir != "" && within(dir, path) {
			return fmt.Errorf("cannot replace %q: %q is in it", b.o.Target, dir)
		}
	}
	if b.o.Force && !b.o.Update {
		return nil
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	for _, n := range []string{".singularity.d", "dev", "proc", "sys"} {
		if _, err := os.Lstat(filepath.Join(path, n)); err != nil {
			return fmt.Errorf("cannot replace the directory %q: it is not empty, and not a sandbox as it has no %q", b.o.Target, n)
		}
	}
	return nil
}

func workingDir() string {
	dir, _ := os.Getwd() // none is as good as a removed one
	return dir
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func (b *builder) checkParent() error {
	dir := filepath.Dir(b.target.path)
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use the build target: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("cannot use the build target: %q is not a directory", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("cannot write to %q: %w", dir, err)
	}
	return nil
}

// place gives made, a file or directory on the target's file system, the name
// of the target, and removes what had it.
func (t *target) place(made string) error {
	if !t.old {
		err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, t.path, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cannot place the image: something appeared under the name %q during the build", t.path)
		}
	}
	info, err := os.Lstat(t.path)
	newInfo, newErr := os.Lstat(made)
	if newErr != nil {
		return newErr
	}
	if err != nil || !info.IsDir() && !newInfo.IsDir() {
		return os.Rename(made, t.path)
	}
	aside, err := os.MkdirTemp(filepath.Dir(t.path), ".build-old-")
	if err != nil {
		return err
	}
	old := filepath.Join(aside, "old")
	if err := os.Rename(t.path, old); err != nil {
		os.Remove(aside)
		return err
	}
	if err := os.Rename(made, t.path); err != nil {
		// Back to how it was: the caller has still the old image.
		return errors.Join(err, os.Rename(old, t.path), os.Remove(aside))
	}
	return removeTree(aside)
}

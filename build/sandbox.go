package build

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/image"
	"singularity/squashfs"
)

// A sandbox that becomes a SIF without any script is not copied first: the root
// file system of the build gets only its frame, the directories and links at the
// top and what is in .singularity.d, where the build writes. The image gets the
// frame, and the rest from where it is.

// readInPlace tells whether im is such a sandbox, and keeps it.
func (b *builder) readInPlace(im *image.Image, name string) (bool, error) {
	if im.Kind != image.Sandbox || !b.streams() {
		return false, nil
	}
	var st unix.Stat_t
	if unix.Fstatat(int(im.File.Fd()), "scif", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return false, nil // the build looks into apps
	}
	// The image must not grow while it is read.
	real, err := filepath.EvalSymlinks(name)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return false, err
	}
	for _, place := range []string{b.target.path, b.bundle.dir} {
		if dir, err := filepath.EvalSymlinks(filepath.Dir(place)); err != nil || dir == real || strings.HasPrefix(dir, strings.TrimSuffix(real, "/")+"/") {
			return false, nil
		}
	}
	b.sandbox, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", im.File.Fd()))
	return err == nil, err
}

// inFrame tells whether a path belongs to the frame.
func inFrame(at string, mode uint32) bool {
	top, _, below := strings.Cut(at, "/")
	if top == metaDir {
		return true
	}
	for _, p := range points {
		if at == p.name {
			return true // otherwise the build would make it
		}
	}
	kind := mode & unix.S_IFMT
	return !below && (kind == unix.S_IFDIR || kind == unix.S_IFLNK)
}

// skipFrame leaves out a path, and all below it.
func skipFrame(mode uint32) error {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return fs.SkipDir
	}
	return nil
}

// emitSandbox adds what is not in the frame to the image.
func (b *builder) emitSandbox(ctx context.Context, w *squashfs.Writer, o PackOptions) (PackTotals, error) {
	// inRoot tells whether the frame has a name at the top, and whether that is a
	// directory.
	inRoot := func(at string) (found, dir bool) {
		if at == "" || strings.Contains(at, "/") {
			return at == "", true
		}
		var st unix.Stat_t
		err := unix.Fstatat(int(b.root.Fd()), at, &st, unix.AT_SYMLINK_NOFOLLOW)
		return err == nil, st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	o.Exclude = func(at string, dir bool) bool {
		found, isDir := inRoot(at)
		return at == metaDir || found && !(dir && isDir)
	}
	o.Present = func(at string) bool {
		found, isDir := inRoot(at)
		return found && isDir
	}
	return PackTree(ctx, b.sandbox, w, o)
}

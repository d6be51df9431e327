package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"singularity/host"
	"singularity/linux/safepath"
	"singularity/oci"
	"singularity/oci/unpack"
	"singularity/squashfs"
)

// layered is a base system that came as layers.
type layered struct {
	source *oci.Source
	arch   string
	// tree goes from the layers to the image without a copy on disk; nil if it
	// was unpacked. What the build adds is in the root file system all the same.
	tree *unpack.Tree
	img  *oci.Image // open as long as tree is needed
}

func (l *layered) close() error {
	if l == nil || l.img == nil {
		return nil
	}
	return l.img.Close()
}

// fillOCI is what the agents of layered images do.
func (b *builder) fillOCI(ctx context.Context, ref, rootfs string) error {
	img, err := b.openImage(ctx, ref)
	if err != nil {
		return err
	}
	b.base = &layered{img: img}
	if b.base.source, err = img.Source(); err != nil {
		return fmt.Errorf("cannot use %q: %w", ref, err)
	}
	if err := b.checkLayers(ref); err != nil {
		return err
	}
	o := &b.origin().Source
	o.URI, o.Digest = ref, b.base.source.Digest
	tree, err := unpack.Read(ctx, b.base.source.Layers, unpack.DefaultLimits())
	if err != nil {
		return fmt.Errorf("cannot use %q: %w", ref, err)
	}
	if b.streams() && !tree.Has(metaDir) {
		b.base.tree = tree
		b.base.arch = ociArch(b.base.source)
	} else if err := b.unpack(ctx, tree, rootfs); err != nil {
		return fmt.Errorf("cannot unpack %q: %w", ref, err)
	}
	b.o.Log.Verbose(fmt.Sprintf("Image %s of %d layers", b.base.source.Digest, len(b.base.source.Layers)))
	return b.ociMetadata(rootfs)
}

// checkLayers refuses an image of layers for which there is no room, before any
// of them is fetched. What comes from a registry is kept until the image is made.
// An image that is made of nothing else has about the size of its layers if they
// are compressed, and hardly ever less than half of it.
func (b *builder) checkLayers(ref string) error {
	var stored, image int64
	seen := map[string]bool{}
	for _, l := range b.base.source.Layers {
		if seen[l.DiffID] {
			continue
		}
		seen[l.DiffID] = true
		size := min(max(l.Size, 0), 1<<50)
		stored += size
		if image += size / 2; l.Digest == "" || l.Digest == l.DiffID {
			image -= size/2 - size/16
		}
	}
	if _, _, here := oci.Split(ref); !here {
		if err := host.CheckRoom(host.Temporary, b.tempDir(), stored); err != nil {
			return err
		}
	}
	if !b.streams() {
		return nil
	}
	return host.CheckFile(host.Target, filepath.Dir(b.target.path), image)
}

// tempDir is where large temporary files go.
func (b *builder) tempDir() string { return host.TempDir(b.o.TempDir, b.o.getenv("TMPDIR")) }

// openImage opens an image here, or lets the caller's function open one that is
// elsewhere.
func (b *builder) openImage(ctx context.Context, ref string) (*oci.Image, error) {
	p, err := oci.ParsePlatform(b.o.Arch, b.o.Platform)
	if err != nil {
		return nil, err
	}
	temp := b.tempDir()
	if _, _, here := oci.Split(ref); !here && b.o.OpenImage != nil {
		img, err := b.o.OpenImage(ctx, ref, p)
		if err == nil {
			img.KeepIn(temp)
		}
		return img, err
	}
	return oci.Open(ctx, ref, oci.Options{Platform: &p, DockerHost: b.o.DockerHost, TempDir: temp, Getenv: b.o.getenv})
}

// NeedsNoRoot tells that the build is one from an image of layers alone, which
// become a file: anybody can do that, without a user namespace too.
func (o *Options) NeedsNoRoot() bool {
	_, _, ok := oci.Split(o.Spec)
	_, err := os.Lstat(o.Spec)
	return ok && err != nil && !o.Sandbox
}

// fromLayers tells whether the base system of the stage comes as layers.
func (b *builder) fromLayers() bool {
	_, _, ok := oci.Split(b.stage.Agent() + ":")
	return ok || b.stage.Agent() == "docker"
}

// streams tells whether nothing of the build needs the files of the base system
// on disk.
func (b *builder) streams() bool {
	if b.o.Sandbox || b.o.FixPerms || len(b.def.Stages) > 1 || len(b.stage.Files) > 0 || len(b.stage.Apps) > 0 {
		return false
	}
	for _, name := range []string{"setup", "post", "test"} {
		if _, ok := b.script(name); ok && !(name == "test" && b.o.NoTest) {
			return false
		}
	}
	return true
}

// ociArch is the architecture of an image as its configuration names it.
func ociArch(s *oci.Source) string {
	if s.Config.Architecture == "" {
		return oci.HostPlatform().Architecture
	}
	return s.Config.Architecture
}

// ociMetadata writes what the configuration of the image says into the place
// where a definition's sections go on from.
func (b *builder) ociMetadata(rootfs string) error {
	root, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	meta, err := realDir(root, metaDir)
	if err != nil {
		return err
	}
	defer meta.Close()
	env, err := realDir(meta, "env")
	if err != nil {
		return err
	}
	defer env.Close()
	c := &b.base.source.Config.Config
	if err := replace(env, "10-docker2singularity.sh", []byte(oci.Environment(c)), 0o644); err != nil {
		return err
	}
	if err := replace(meta, "runscript", []byte(oci.Runscript(c)), 0o755); err != nil {
		return err
	}
	if len(c.Labels) == 0 {
		return nil
	}
	labels, err := json.Marshal(c.Labels)
	if err != nil {
		return err
	}
	return replace(meta, "labels.json", labels, 0o644)
}

// emit adds the layers to an image that holds what the build made already: what
// the layers have stays as it is there.
func (b *builder) emit(ctx context.Context, w *squashfs.Writer, modTime uint32, progress func(int64)) error {
	if b.base == nil || b.base.tree == nil {
		return nil
	}
	return b.base.tree.Emit(ctx, w, unpack.EmitOptions{ModTime: int64(modTime), Progress: progress})
}

// unpack makes the files of a tree in the directory rootfs.
func (b *builder) unpack(ctx context.Context, tree *unpack.Tree, rootfs string) error {
	_, size := tree.Files()
	if err := b.checkRoom(size, rootfs); err != nil {
		return err
	}
	x, err := newExtractor(ctx, b, rootfs)
	if err != nil {
		return err
	}
	s := &treeSink{x: x, buf: make([]byte, extractChunk)}
	modTime := time.Now().Unix()
	if t, ok := b.o.sourceDate(); ok {
		modTime = min(t, math.MaxUint32)
	}
	err = tree.Emit(x.ctx, s, unpack.EmitOptions{ModTime: modTime})
	if err == nil {
		err = s.finish()
	}
	s.dir.close()
	if closeErr := x.close(); !errors.Is(err, closeErr) {
		err = errors.Join(err, closeErr)
	}
	if err == nil {
		x.report()
	}
	return err
}

// treeSink makes the files of a merged tree in a directory.
//
// Security: the tree has no link on the way to any file, as it is merged before
// the first one is made, and each directory here is made by the extractor
// itself, in a directory that nobody else reaches. Every step works in an open
// directory and follows no link (SC-073 to SC-078).
type treeSink struct {
	x    *extractor
	dirs []node // whose attributes are set at the end, since a mode may forbid to write
	dir  parentDir
	buf  []byte
}

// parentDir is the directory that was used last.
type parentDir struct {
	path string
	f    *os.File
}

func (p *parentDir) close() {
	if p.f != nil {
		p.f.Close()
		p.f = nil
	}
}

func (s *treeSink) parent(name string) (*os.File, error) {
	if s.dir.f == nil || s.dir.path != name {
		s.dir.close()
		f, err := safepath.Open(s.x.root, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		s.dir = parentDir{name, f}
	}
	return s.dir.f, nil
}

// Add implements unpack.Sink.
func (s *treeSink) Add(e squashfs.Entry, content io.Reader) error {
	n := node{path: e.Path, mode: e.Mode, uid: e.UID, gid: e.GID, rdev: e.Rdev, sec: e.ModTime, size: e.Size, target: e.Target}
	for _, a := range e.Xattrs {
		n.addXattr(a.Name, a.Value)
	}
	if e.Mode&squashfs.ModeType == squashfs.ModeDir && e.Hardlink == "" {
		s.dirs = append(s.dirs, n)
	}
	if e.Path == "" {
		return nil
	}
	dir, err := s.parent(path.Dir(e.Path))
	if err == nil {
		err = s.make(dir, path.Base(e.Path), &n, e.Hardlink, content)
	}
	if err != nil {
		return fmt.Errorf("cannot extract %q: %w", e.Path, err)
	}
	return nil
}

func (s *treeSink) make(dir *os.File, name string, n *node, link string, content io.Reader) error {
	fd := int(dir.Fd())
	if link != "" {
		from, err := safepath.Open(s.x.root, path.Dir(link), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer from.Close()
		err = unix.Linkat(int(from.Fd()), path.Base(link), fd, name, 0)
		if errors.Is(err, unix.ENOENT) && (n.mode&unix.S_IFMT == unix.S_IFCHR || n.mode&unix.S_IFMT == unix.S_IFBLK) {
			return nil // a device that was left out
		}
		return err
	}
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return unix.Mkdirat(fd, name, 0o700)
	case unix.S_IFREG:
		return s.regular(fd, name, n, content)
	case unix.S_IFLNK:
		if err := unix.Symlinkat(n.target, fd, name); err != nil {
			return err
		}
		return s.x.nameAttributes(fd, name, *n)
	}
	_, err := s.x.special(fd, name, *n)
	return err
}

// regular makes a file, with holes where it is zero.
func (s *treeSink) regular(dir int, name string, n *node, content io.Reader) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), n.path)
	defer f.Close()
	end := int64(0)
	for off := int64(0); off < n.size; {
		b := s.buf[:min(int64(len(s.buf)), n.size-off)]
		if _, err := io.ReadFull(content, b); err != nil {
			return err
		}
		off += int64(len(b))
		if !allZero(b) {
			if _, err := f.WriteAt(b, off-int64(len(b))); err != nil {
				return err
			}
			end = off
		}
		s.x.count(int64(len(b)))
	}
	if end < n.size {
		if err := f.Truncate(n.size); err != nil {
			return err
		}
	}
	return s.x.attributes(f, *n)
}

// finish sets the attributes of directories, the deepest first.
func (s *treeSink) finish() error {
	for _, n := range slices.Backward(s.dirs) {
		f, err := safepath.Open(s.x.root, n.path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		err = s.x.attributes(f, n)
		f.Close()
		if err != nil {
			return fmt.Errorf("cannot extract %q: %w", n.path, err)
		}
	}
	return nil
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/host"
	"singularity/image"
	"singularity/squashfs"
)

const (
	extractWriters = 4       // goroutines that write files
	extractAhead   = 64      // files that are open and wait for one
	extractChunk   = 1 << 20 // bytes written at a time
)

// extract unpacks the image at path, of any kind, into the directory rootfs.
func (b *builder) extract(ctx context.Context, name, rootfs string) error {
	im, err := image.Open(name)
	if real, e := os.Readlink(name); e == nil && strings.HasPrefix(name, "/proc/self/fd/") {
		name = real // for people
	}
	if err != nil {
		return fmt.Errorf("cannot open the image %q: %w", name, err)
	}
	defer im.Close()
	if err := b.unlock(im); err != nil {
		return fmt.Errorf("cannot open the image %q: %w", name, err)
	}
	if err := b.checkRoom(im.Size, rootfs); err != nil {
		return err
	}
	x, err := newExtractor(ctx, b, rootfs)
	if err != nil {
		return err
	}
	if x.frame, err = b.readInPlace(im, name); err != nil {
		return errors.Join(err, x.close())
	}
	b.o.Log.Verbose(fmt.Sprintf("Extracting the %v %q", im.Kind, name))
	err = x.image(im)
	if closeErr := x.close(); !errors.Is(err, closeErr) { // image may have met the same failure
		err = errors.Join(err, closeErr)
	}
	if err != nil {
		return fmt.Errorf("cannot extract the image %q: %w", name, err)
	}
	x.report()
	return nil
}

// checkRoom refuses at once what cannot fit: the content of an image needs
// about as much space as the image, and mostly several times that.
func (b *builder) checkRoom(size int64, dir string) error {
	if b.memory {
		return nil // the file system in memory tells by itself
	}
	use := host.Temporary
	if b.o.Sandbox {
		use = host.Target
	}
	return host.CheckRoom(use, filepath.Dir(filepath.Dir(dir)), size)
}

// node is a file to make.
type node struct {
	path       string // from the root, "" for the root itself
	mode       uint32 // type and permissions
	uid, gid   uint32
	rdev       uint32 // in the kernel's 32-bit form
	sec, nsec  int64  // time of modification
	size       int64
	target     string // of a symbolic link
	xattrs     map[string][]byte
	link       uint64 // equal for the names of one file, 0 if it has but one
	content    io.ReaderAt
	closeAfter io.Closer // may be nil
}

// extractor makes files below an empty directory that nobody else reaches.
//
// Security: the image says what names and links there are. Each step works in
// an open directory that the extractor itself has made, creates what is not
// there and follows no link, so nothing outside is touched: a link in the place
// of a directory, or two files of one name, end the extraction.
type extractor struct {
	ctx    context.Context
	cancel context.CancelFunc
	b      *builder
	root   *os.File
	frame  bool // only what a build changes: see sandbox.go
	open   []openDir
	links  map[uint64]string
	work   chan extractFile
	wait   sync.WaitGroup
	reader io.Closer // of the image, which the writers use; may be nil

	mu      sync.Mutex
	err     error // the first of the writers
	bytes   int64
	owners  int // files whose owner could not be set
	devices int // device nodes left out
	xattrs  int // attributes left out
}

// openDir is a directory that is being filled.
type openDir struct {
	node node
	f    *os.File
}

// extractFile is a file on its way to a writer.
type extractFile struct {
	node node
	f    *os.File
}

func newExtractor(ctx context.Context, b *builder, rootfs string) (*extractor, error) {
	root, err := os.Open(rootfs)
	if err != nil {
		return nil, err
	}
	x := &extractor{b: b, root: root, links: map[uint64]string{}, work: make(chan extractFile, extractAhead)}
	x.ctx, x.cancel = context.WithCancel(ctx)
	for range extractWriters {
		x.wait.Go(x.write)
	}
	return x, nil
}

// close waits for the writers and returns what stopped the extraction.
func (x *extractor) close() error {
	var err error
	if x.failure() == nil {
		err = x.leave(0)
	}
	close(x.work)
	x.wait.Wait()
	for _, d := range x.open {
		d.f.Close()
	}
	x.root.Close()
	if x.reader != nil {
		err = errors.Join(err, x.reader.Close())
	}
	first := x.failure()
	x.cancel()
	if first != nil {
		return first
	}
	x.b.o.progressDone("Extracting", x.bytes)
	return err
}

func (x *extractor) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err
	}
	return x.ctx.Err()
}

func (x *extractor) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = err
	}
	x.cancel()
}

// report tells what the new root file system lacks.
func (x *extractor) report() {
	if x.owners > 0 {
		x.b.o.Log.Warning(fmt.Sprintf("%d files have owners without a subordinate id and belong to root now", x.owners))
	}
	if x.devices > 0 {
		x.b.o.Log.Verbose(fmt.Sprintf("%d device nodes are left out", x.devices))
	}
	if x.xattrs > 0 {
		x.b.o.Log.Verbose(fmt.Sprintf("%d extended attributes are left out", x.xattrs))
	}
}

func (x *extractor) image(im *image.Image) error {
	part := io.NewSectionReader(im.File, im.Off, im.Size)
	if im.Plain != nil {
		part = im.Plain
	}
	switch {
	case im.Kind == image.Sandbox:
		return x.sandbox(im.File)
	case im.Format == image.FormatSquashfs || im.Plain != nil:
		r, err := squashfs.Open(part, part.Size(), squashfs.ReaderOptions{})
		if err != nil {
			return err
		}
		x.reader = r
		if err := x.checkNeed(r); err != nil {
			return err
		}
		return r.Each(func(name string, in *squashfs.Inode) error { return x.squashfs(r, name, in) })
	case im.Format == image.FormatExt:
		r, err := extfs.Open(part, im.Size)
		if err != nil {
			return err
		}
		return r.Tree(func(name string, in *extfs.Inode) error { return x.extfs(r, name, in) })
	}
	return image.ErrLocked
}

// unlock opens an encrypted image.
//
// Security: from here on the build works in memory, so that the files of the image
// lie on disk in the result alone, as the user wants it: encrypted, or in clear.
func (b *builder) unlock(im *image.Image) error {
	if !im.Format.Encrypted() {
		return nil
	}
	if b.o.Unlock == nil {
		return image.ErrLocked
	}
	if b.cache != nil {
		return errors.New("its files would lie in the cache of steps in clear: build without --cache-steps")
	}
	var err error
	if im.Plain, err = b.o.Unlock(im); err != nil {
		return err
	}
	if !b.o.Sandbox && !b.inPlace {
		b.memory = true
		return b.rootInMemory()
	}
	return nil
}

// checkNeed warns of an image whose files may not fit, before any is written. It
// is no reason to refuse: what is zero in them takes no space.
func (x *extractor) checkNeed(r *squashfs.Reader) error {
	var need int64
	seen := map[uint32]bool{}
	err := r.Each(func(_ string, in *squashfs.Inode) error {
		if in.IsRegular() && !seen[in.Number] {
			seen[in.Number] = in.Nlink > 1
			need = min(need+min((in.Size+4095)&^4095, math.MaxInt64/2), math.MaxInt64/2)
		}
		return x.ctx.Err()
	})
	if e, ok := errors.AsType[*host.SpaceError](x.b.checkRoom(need, x.root.Name())); ok {
		x.b.o.Log.Warning(fmt.Sprintf("The files of the image take up to %d MiB, and the file system of %q (%s) has %d MiB free", need>>20, e.Dir, e.Kind, e.Free>>20))
	}
	return err
}

func (x *extractor) squashfs(r *squashfs.Reader, name string, in *squashfs.Inode) error {
	n := node{path: name, mode: in.Mode, uid: in.UID, gid: in.GID, rdev: in.Rdev, sec: in.ModTime, size: in.Size}
	if in.Nlink > 1 && !in.IsDir() {
		n.link = uint64(in.Number)
	}
	var err error
	switch {
	case in.IsRegular():
		n.content, err = r.File(in.Ref)
	case in.IsSymlink():
		n.target, err = r.Readlink(in)
	}
	if err != nil {
		return err
	}
	list, err := r.Xattrs(in)
	for _, a := range list {
		n.addXattr(a.Name, a.Value)
	}
	if err != nil {
		return err
	}
	return x.add(n)
}

// extContent reads a file of an ext image.
type extContent struct {
	r  *extfs.FS
	in *extfs.Inode
}

func (c extContent) ReadAt(p []byte, off int64) (int, error) { return c.r.ReadAt(c.in, p, off) }

func (x *extractor) extfs(r *extfs.FS, name string, in *extfs.Inode) error {
	if name == "." {
		name = ""
	}
	if name == "lost+found" || strings.HasPrefix(name, "lost+found/") {
		return nil // the file system's own
	}
	n := node{path: name, mode: in.Mode, uid: in.UID, gid: in.GID, rdev: in.Rdev,
		sec: in.ModTime.Sec, nsec: int64(in.ModTime.Nsec), size: in.Size, content: extContent{r, in}}
	if in.Nlink > 1 && !in.IsDir() {
		n.link = uint64(in.Number)
	}
	var err error
	if in.IsSymlink() {
		n.target, err = r.Readlink(in)
	}
	if err != nil {
		return err
	}
	list, err := r.Xattrs(in)
	for _, a := range list {
		n.addXattr(a.Name, a.Value)
	}
	if err != nil {
		return err
	}
	return x.add(n)
}

// addXattr keeps an attribute that means the same on every system. Security:
// trusted.* steers overlays, and other security.* the policy of this host.
func (n *node) addXattr(name string, value []byte) {
	if !strings.HasPrefix(name, "user.") && name != capabilityXattr {
		return
	}
	if n.xattrs == nil {
		n.xattrs = map[string][]byte{}
	}
	n.xattrs[name] = value
}

// add makes one file; directories come before their content.
func (x *extractor) add(n node) error {
	if err := x.failure(); err != nil {
		return err
	}
	if n.path == "" {
		x.open = append(x.open, openDir{n, x.root})
		return nil
	}
	dir, err := x.enter(path.Dir(n.path))
	if err != nil {
		return err
	}
	name := path.Base(n.path)
	if name == "." || name == ".." || name == "/" || strings.ContainsRune(name, 0) || path.Clean(n.path) != n.path {
		return fmt.Errorf("the image has the impossible name %q", n.path)
	}
	if err := x.make(dir, name, n); err != nil {
		return &fs.PathError{Op: "extract", Path: n.path, Err: err}
	}
	return nil
}

// enter closes directories until dir is the one that is open.
func (x *extractor) enter(dir string) (*os.File, error) {
	if dir == "." {
		dir = ""
	}
	for i := len(x.open) - 1; i >= 0; i-- {
		if x.open[i].node.path == dir {
			return x.open[i].f, x.leave(i + 1)
		}
	}
	return nil, fmt.Errorf("the image has files in %q before that directory", dir)
}

// leave finishes the open directories from number keep on.
func (x *extractor) leave(keep int) error {
	for len(x.open) > keep {
		d := x.open[len(x.open)-1]
		x.open = x.open[:len(x.open)-1]
		err := x.attributes(d.f, d.node)
		if d.f != x.root {
			d.f.Close()
		}
		if err != nil {
			return &fs.PathError{Op: "extract", Path: d.node.path, Err: err}
		}
	}
	return nil
}

// make creates name in the open directory dir.
func (x *extractor) make(dir *os.File, name string, n node) error {
	fd := int(dir.Fd())
	if first, ok := x.links[n.link]; ok && n.link != 0 {
		return unix.Linkat(int(x.root.Fd()), first, fd, name, 0)
	}
	var err error
	switch n.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if len(x.open) > maxDepth {
			return fmt.Errorf("more than %d directories within each other", maxDepth)
		}
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			return err
		}
		f, err := openAt(dir, name, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		x.open = append(x.open, openDir{n, f})
		return nil
	case unix.S_IFREG:
		err = x.regular(fd, name, n)
	case unix.S_IFLNK:
		if err = unix.Symlinkat(n.target, fd, name); err == nil {
			err = x.nameAttributes(fd, name, n)
		}
	default:
		var made bool
		if made, err = x.special(fd, name, n); !made {
			return err
		}
	}
	if err == nil && n.link != 0 {
		x.links[n.link] = n.path
	}
	return err
}

// regular creates a file and leaves its content to a writer.
func (x *extractor) regular(dir int, name string, n node) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	select {
	case x.work <- extractFile{n, os.NewFile(uintptr(fd), n.path)}:
		return nil
	case <-x.ctx.Done():
		unix.Close(fd)
		return x.failure()
	}
}

// special makes a device node, a FIFO or a socket; false if it is left out.
func (x *extractor) special(dir int, name string, n node) (bool, error) {
	dev := unix.Mkdev(n.rdev>>8&0xfff, n.rdev&0xff|n.rdev>>12&^0xff)
	err := unix.Mknodat(dir, name, n.mode&unix.S_IFMT|0o600, int(dev))
	isDevice := n.mode&unix.S_IFMT == unix.S_IFCHR || n.mode&unix.S_IFMT == unix.S_IFBLK
	if isDevice {
		// A user namespace cannot make one, or a filter only says it did; the
		// runtime brings its own /dev.
		var st unix.Stat_t
		if errors.Is(err, unix.EPERM) || err == nil && unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			x.devices++
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	if err := x.nameAttributes(dir, name, n); err != nil {
		return true, err
	}
	// The name is new and no link.
	return true, unix.Fchmodat(dir, name, n.mode&0o7777, 0)
}

// write is the body of a writer goroutine.
func (x *extractor) write() {
	buf := make([]byte, extractChunk)
	for w := range x.work {
		if x.failure() == nil {
			err := x.content(w, buf)
			if err == nil {
				err = x.attributes(w.f, w.node)
			}
			if err != nil {
				x.fail(&fs.PathError{Op: "extract", Path: w.node.path, Err: err})
			}
		}
		if err := w.f.Close(); err != nil {
			x.fail(err)
		}
		if w.node.closeAfter != nil {
			w.node.closeAfter.Close()
		}
	}
}

// content copies a file, leaving holes where it is zero.
func (x *extractor) content(w extractFile, buf []byte) error {
	end := int64(0)
	for off := int64(0); off < w.node.size; {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		n, err := w.node.content.ReadAt(buf[:min(int64(len(buf)), w.node.size-off)], off)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if !allZero(buf[:n]) {
			if _, err := w.f.WriteAt(buf[:n], off); err != nil {
				return err
			}
			end = off + int64(n)
		}
		off += int64(n)
		x.count(int64(n))
	}
	if end < w.node.size {
		return w.f.Truncate(w.node.size)
	}
	return nil
}

func (x *extractor) count(n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bytes += n
	x.b.o.progress("Extracting", x.bytes, 0)
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// owner applies set to the owner of n, unless files have none of their own.
// Linux drops setuid bits and capabilities on a change of owner, so it is first.
func (x *extractor) owner(n node, set func(uid, gid int) error) error {
	if x.b.o.Owners == SingleID {
		return nil
	}
	err := set(int(n.uid), int(n.gid))
	if errors.Is(err, unix.EINVAL) && x.b.o.Owners == MappedRoot {
		x.mu.Lock()
		x.owners++
		x.mu.Unlock()
		return nil
	}
	return err
}

// attributes sets everything about an open file but its content.
func (x *extractor) attributes(f *os.File, n node) error {
	fd := int(f.Fd())
	if err := x.owner(n, func(uid, gid int) error { return unix.Fchown(fd, uid, gid) }); err != nil {
		return err
	}
	for name, value := range n.xattrs {
		err := unix.Fsetxattr(fd, name, value, 0)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
			x.mu.Lock()
			x.xattrs++
			x.mu.Unlock()
			continue
		}
		if err != nil {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	if err := unix.Fchmod(fd, n.mode&0o7777); err != nil {
		return err
	}
	// By the open file: its name may be out of reach by now.
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), n.times(), 0)
}

// nameAttributes sets the owner and time of what cannot be opened.
func (x *extractor) nameAttributes(dir int, name string, n node) error {
	err := x.owner(n, func(uid, gid int) error { return unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, n.times(), unix.AT_SYMLINK_NOFOLLOW)
}

func (n *node) times() []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.sec, Nsec: n.nsec}}
}

// sandbox copies a directory tree.
func (x *extractor) sandbox(root *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return err
	}
	if err := x.add(statNode("", &st)); err != nil {
		return err
	}
	own, err := x.root.Stat()
	if err != nil {
		return err
	}
	return walkTree(root, func(dir *os.File, name, at string, st *unix.Stat_t) error {
		n := statNode(at, st)
		if x.frame && !inFrame(at, st.Mode) {
			return skipFrame(st.Mode)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFDIR:
			f, err := openAt(dir, name, 0)
			if err != nil {
				return err
			}
			if info, err := f.Stat(); err == nil && os.SameFile(info, own) {
				f.Close()
				return fs.SkipDir // the copy itself
			}
			if err := readXattrs(f, &n); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
				f.Close()
				if err != nil {
					return err
				}
				break
			}
			if _, again := x.links[n.link]; again && n.link != 0 {
				f.Close()
				break
			}
			n.content, n.closeAfter = f, f
		case unix.S_IFLNK:
			var err error
			if n.target, err = readLinkAt(dir, name); err != nil {
				return err
			}
		case unix.S_IFSOCK:
			return nil
		}
		return x.add(n)
	})
}

func statNode(at string, st *unix.Stat_t) node {
	n := node{path: at, mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size, sec: st.Mtim.Sec, nsec: st.Mtim.Nsec,
		rdev: unix.Major(st.Rdev)<<8 | unix.Minor(st.Rdev)&0xff | unix.Minor(st.Rdev)&^0xff<<12}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		n.link = st.Dev<<40 ^ st.Ino
	}
	return n
}

// readXattrs reads the attributes of an open file that an image can hold.
func readXattrs(f *os.File, n *node) error {
	buf := make([]byte, 64<<10) // the kernel's limit
	k, err := unix.Flistxattr(int(f.Fd()), buf)
	if err != nil || k == 0 {
		return nil // a file system without attributes
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:k]), "\x00"), "\x00") {
		k, err := unix.Fgetxattr(int(f.Fd()), name, buf)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
		n.addXattr(name, append([]byte{}, buf[:k]...))
	}
	return nil
}

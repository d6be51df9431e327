package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

const (
	packAhead     = 64        // entries that are opened and read ahead
	packReaders   = 4         // goroutines that do so
	packSmallSize = 128 << 10 // files up to this size are read ahead whole
	packHintSize  = 4 << 20   // bytes of a larger file that the kernel is asked to read ahead
)

// PackOptions say what PackTree takes from a tree, and as whose.
type PackOptions struct {
	AllRoot        bool                                           // every owner becomes 0:0
	Owner          func(uid, gid uint32) (u, g uint32, err error) // translates owners; nil leaves them. Not called with AllRoot
	Exclude        func(path string, dir bool) bool               // leaves out a path (relative to the root) and all below it; nil takes all
	Present        func(path string) bool                         // leaves out a directory that w has already, but not what is below it; nil adds all
	CrossMounts    bool                                           // follow into file systems mounted in the tree; otherwise their mount points are packed as empty directories
	SecurityXattrs bool                                           // take all security.* attributes, not security.capability alone
	CapabilityV2   bool                                           // turn capabilities bound to one user namespace into plain ones
	Progress       func(files int, bytes int64)                   // called with running totals, from one goroutine, often
}

// PackTotals counts what PackTree did.
type PackTotals struct {
	Files   int   // entries of every type
	Bytes   int64 // contents of regular files, holes included
	Sockets int   // sockets left out: they mean nothing without their process
	Xattrs  int   // attributes left out, for example POSIX access lists, which squashfs cannot hold
}

// PackTree adds the tree below the directory root to w, in sorted order, so that
// the same tree makes the same image. Files are read ahead by several
// goroutines. The caller closes w, or aborts it after an error.
//
// Security: the tree may be changed by others while it is read. Each step opens
// one name below an open directory and follows no symbolic link, and what is
// open is compared with what was listed, so nothing outside the tree is packed.
func PackTree(ctx context.Context, root *os.File, w *squashfs.Writer, o PackOptions) (PackTotals, error) {
	inner, cancel := context.WithCancel(ctx)
	p := &packer{ctx: inner, w: w, o: o, order: make(chan *packItem, packAhead), fetch: make(chan *packItem, packAhead),
		spare: make(chan []byte, packAhead), links: map[packKey]string{}}
	var readers sync.WaitGroup
	for range packReaders {
		readers.Go(p.read)
	}
	readers.Go(func() {
		defer close(p.order)
		defer close(p.fetch)
		p.walkRoot(int(root.Fd()))
	})
	var err error
	for it := range p.order {
		if it.ready != nil {
			<-it.ready
		}
		if err == nil {
			err = p.add(it)
		}
		if err != nil {
			cancel() // and go on, to release what is open
		}
		p.release(it)
	}
	if err == nil {
		// The walk may have ended early, with nothing left in order.
		err = ctx.Err()
	}
	cancel()
	readers.Wait()
	p.totals.Xattrs = int(p.xattrs.Load())
	return p.totals, err
}

// packer is one run of PackTree.
type packer struct {
	ctx    context.Context
	w      *squashfs.Writer
	o      PackOptions
	order  chan *packItem // entries in sorted order
	fetch  chan *packItem // those of them that have to be opened
	spare  chan []byte    // buffers of packSmallSize to use again
	xattrs atomic.Int64
	totals PackTotals
	links  map[packKey]string // first path of each file with several names
	mount  uint64             // mount or device of the root
}

// packKey tells files apart.
type packKey struct {
	major, minor uint32
	ino          uint64
}

// packItem is one entry on its way from the walk to the writer.
type packItem struct {
	entry squashfs.Entry
	stat  unix.Statx_t
	dir   *packDir // holds name; nil for the root
	name  string
	ready chan struct{} // closed by a reader goroutine; nil if nothing is read
	small []byte        // contents of a small file
	file  *packFile     // a larger one
	err   error
}

// packDir is an open directory, shared by the walk and the entries that are
// still to be opened.
type packDir struct {
	fd   int
	refs atomic.Int32
}

func (d *packDir) release() {
	if d.refs.Add(-1) == 0 {
		unix.Close(d.fd)
	}
}

// send puts an item in order; false if the run has ended.
func (p *packer) send(it *packItem) bool {
	if it.ready != nil {
		it.dir.refs.Add(1)
	}
	select {
	case p.order <- it:
	case <-p.ctx.Done():
		if it.ready != nil {
			it.dir.release()
		}
		return false
	}
	if it.ready != nil {
		p.fetch <- it // the readers never wait for anything but files
	}
	return true
}

func (p *packer) walkRoot(fd int) {
	it := &packItem{}
	fd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		it.dir = &packDir{fd: fd}
		it.dir.refs.Store(1)
		defer it.dir.release()
		it.stat, err = packStat(fd, "", unix.AT_EMPTY_PATH)
	}
	if err == nil {
		p.mount = packMount(&it.stat)
		err = p.describe(it)
	}
	if err == nil {
		it.entry.Xattrs, err = p.readXattrs(fd)
	}
	it.err = err
	if p.send(it) && err == nil {
		p.walk(it.dir, "")
	}
}

// walk sends all entries below dir; false if the run has ended.
func (p *packer) walk(dir *packDir, at string) bool {
	names, err := packNames(dir.fd)
	if err != nil {
		p.send(&packItem{err: fmt.Errorf("cannot list %q: %w", at, err)})
		return false
	}
	for _, name := range names {
		if !p.walkName(dir, name, path.Join(at, name)) {
			return false
		}
	}
	return true
}

func (p *packer) walkName(dir *packDir, name, at string) bool {
	it := &packItem{dir: dir, name: name}
	it.entry.Path = at
	it.stat, it.err = packStat(dir.fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	if it.err != nil {
		it.err = fmt.Errorf("cannot read the attributes of %q: %w", at, it.err)
		p.send(it)
		return false
	}
	kind := it.stat.Mode & unix.S_IFMT
	if p.o.Exclude != nil && p.o.Exclude(at, kind == unix.S_IFDIR) {
		return true
	}
	if it.err = p.describe(it); it.err != nil {
		p.send(it)
		return false
	}
	switch kind {
	case unix.S_IFDIR:
		return p.walkDir(it)
	case unix.S_IFREG:
		if it.entry.Hardlink == "" {
			it.ready = make(chan struct{})
		}
	}
	return p.send(it)
}

func (p *packer) walkDir(it *packItem) bool {
	foreign := packMount(&it.stat) != p.mount && !p.o.CrossMounts
	if foreign {
		return p.send(it)
	}
	fd, err := p.open(it, unix.O_DIRECTORY)
	if err == nil {
		it.entry.Xattrs, err = p.readXattrs(fd)
	}
	if err != nil {
		it.err = fmt.Errorf("cannot open %q: %w", it.entry.Path, err)
	}
	sub := &packDir{fd: fd}
	sub.refs.Store(1)
	if fd >= 0 {
		defer sub.release()
	}
	return p.send(it) && it.err == nil && p.walk(sub, it.entry.Path)
}

// describe fills the entry of it from its attributes, but for what has to be
// opened. It keeps sockets for add to count.
func (p *packer) describe(it *packItem) error {
	s, e := &it.stat, &it.entry
	e.Mode, e.UID, e.GID, e.ModTime = uint32(s.Mode), s.Uid, s.Gid, s.Mtime.Sec
	switch {
	case p.o.AllRoot:
		e.UID, e.GID = 0, 0
	case p.o.Owner != nil:
		var err error
		if e.UID, e.GID, err = p.o.Owner(s.Uid, s.Gid); err != nil {
			return fmt.Errorf("cannot pack %q: %w", e.Path, err)
		}
	}
	kind := s.Mode & unix.S_IFMT
	if s.Nlink > 1 && kind != unix.S_IFDIR {
		key := packKey{s.Dev_major, s.Dev_minor, s.Ino}
		if first, ok := p.links[key]; ok {
			e.Hardlink = first
			return nil
		}
		p.links[key] = e.Path
	}
	switch kind {
	case unix.S_IFLNK:
		target, err := packReadlink(it.dir.fd, it.name, s.Size)
		if err != nil {
			return fmt.Errorf("cannot read the symbolic link %q: %w", e.Path, err)
		}
		e.Target = target
	case unix.S_IFCHR, unix.S_IFBLK:
		if s.Rdev_major >= 1<<12 || s.Rdev_minor >= 1<<20 {
			return fmt.Errorf("cannot pack device %q: %d:%d is not within 12 and 20 bits", e.Path, s.Rdev_major, s.Rdev_minor)
		}
		e.Rdev = s.Rdev_major<<8 | s.Rdev_minor&0xff | s.Rdev_minor&^0xff<<12
	}
	return nil
}

// open opens what it names, and makes sure that it is what was listed.
func (p *packer) open(it *packItem, flags int) (int, error) {
	fd, err := unix.Openat(it.dir.fd, it.name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, err
	}
	s, err := packStat(fd, "", unix.AT_EMPTY_PATH)
	if err == nil && (s.Ino != it.stat.Ino || s.Dev_major != it.stat.Dev_major || s.Dev_minor != it.stat.Dev_minor || (s.Mode^it.stat.Mode)&unix.S_IFMT != 0) {
		err = errors.New("it was replaced during the walk")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	it.stat = s
	return fd, nil
}

// read is the body of a reader goroutine.
func (p *packer) read() {
	for it := range p.fetch {
		if p.ctx.Err() == nil {
			if err := p.readFile(it); err != nil {
				it.err = fmt.Errorf("cannot read %q: %w", it.entry.Path, err)
			}
		}
		it.dir.release()
		close(it.ready)
	}
}

// readFile opens a regular file, and reads it if it is small.
func (p *packer) readFile(it *packItem) error {
	fd, err := p.open(it, 0)
	if err != nil {
		return err
	}
	size := int64(min(it.stat.Size, math.MaxInt64))
	it.entry.Size = size
	f := &packFile{p: p, fd: fd, size: size, holes: int64(it.stat.Blocks) < size/512}
	if it.entry.Xattrs, err = p.readXattrs(fd); err != nil || size > packSmallSize {
		it.file = f
		// A hint only: without it reading is slower, not wrong.
		_ = unix.Fadvise(fd, 0, packHintSize, unix.FADV_WILLNEED)
		return err
	}
	defer unix.Close(fd)
	var b []byte
	select {
	case b = <-p.spare:
	default:
		b = make([]byte, packSmallSize)
	}
	it.small = b[:size]
	_, err = io.ReadFull(f, it.small)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("it shrank from %d bytes: %w", size, io.ErrUnexpectedEOF)
	}
	return err
}

// release gives back what an item holds.
func (p *packer) release(it *packItem) {
	if it.file != nil {
		unix.Close(it.file.fd)
	}
	if it.small != nil {
		select {
		case p.spare <- it.small[:packSmallSize]:
		default:
		}
	}
}

// add gives an item to the writer.
func (p *packer) add(it *packItem) error {
	if it.err != nil {
		return it.err
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if it.stat.Mode&unix.S_IFMT == unix.S_IFSOCK {
		p.totals.Sockets++
		return nil
	}
	if p.o.Present != nil && it.stat.Mode&unix.S_IFMT == unix.S_IFDIR && p.o.Present(it.entry.Path) {
		return nil
	}
	var content io.Reader
	switch {
	case it.file != nil:
		content = it.file
	case it.small != nil:
		content = bytes.NewReader(it.small)
		p.totals.Bytes += int64(len(it.small))
	}
	if err := p.w.Add(it.entry, content); err != nil {
		return err
	}
	p.totals.Files++
	p.progress(0)
	return nil
}

func (p *packer) progress(n int64) {
	p.totals.Bytes += n
	if p.o.Progress != nil {
		p.o.Progress(p.totals.Files, p.totals.Bytes)
	}
}

// packFile reads a file and knows its holes.
type packFile struct {
	p     *packer
	fd    int
	pos   int64
	size  int64
	holes bool  // fewer bytes are allocated than the size tells
	data  int64 // no hole begins before this offset
}

// Read implements io.Reader.
func (f *packFile) Read(b []byte) (int, error) {
	// Before the read: an error beside a full block would be passed over.
	if err := f.p.ctx.Err(); err != nil {
		return 0, err
	}
	for {
		n, err := unix.Pread(f.fd, b, f.pos)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n == 0 && len(b) > 0 {
			return 0, io.EOF
		}
		f.advance(int64(n))
		return n, nil
	}
}

func (f *packFile) advance(n int64) {
	f.pos += n
	if f.size > packSmallSize { // others are counted when they are added
		f.p.progress(n)
	}
}

// SkipHole implements squashfs.SparseReader.
func (f *packFile) SkipHole(unit int64) (int64, error) {
	if !f.holes || f.pos < f.data || f.pos >= f.size {
		return 0, nil
	}
	next, err := unix.Seek(f.fd, f.pos, unix.SEEK_DATA)
	if err == unix.ENXIO {
		next, err = f.size, nil // no data up to the end
	}
	if err != nil {
		f.holes = false // a file system that does not tell
		return 0, nil
	}
	units := (min(next, f.size) - f.pos) / unit
	if units > 0 {
		f.advance(units * unit)
		return units, nil
	}
	if f.data, err = unix.Seek(f.fd, next, unix.SEEK_HOLE); err != nil {
		f.data = f.size
	}
	return 0, nil
}

// packStat reads attributes in one call with the mount they belong to.
func packStat(dir int, name string, flags int) (s unix.Statx_t, err error) {
	err = unix.Statx(dir, name, flags|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &s)
	return s, err
}

// packMount tells mounts apart. Kernels before 5.8 do not say; there the device
// of a directory has to do (that of a file differs within one overlay).
func packMount(s *unix.Statx_t) uint64 {
	if s.Mask&unix.STATX_MNT_ID != 0 {
		return s.Mnt_id
	}
	return uint64(s.Dev_major)<<32 | uint64(s.Dev_minor)
}

// packNames returns the names in an open directory, sorted.
func packNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

func packReadlink(dir int, name string, size uint64) (string, error) {
	for n := max(int(min(size, unix.PathMax)), 64) + 1; ; n *= 2 {
		b := make([]byte, n)
		k, err := unix.Readlinkat(dir, name, b)
		if err != nil || k < n {
			return string(b[:max(k, 0)]), err
		}
	}
}

const (
	capabilityXattr  = "security.capability"
	capabilityV2     = 0x02000000 // revision in the high byte of the first word
	capabilityV3     = 0x03000000
	capabilityV2Size = 20 // the third revision adds the id of a namespace's root
)

// readXattrs returns the attributes of an open file that the options ask for.
func (p *packer) readXattrs(fd int) ([]squashfs.Xattr, error) {
	names, err := packXattr(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if err != nil || len(names) == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			err = nil
		}
		return nil, err
	}
	var list []squashfs.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		switch {
		case strings.HasPrefix(name, "user."), name == capabilityXattr:
		case strings.HasPrefix(name, "security.") && p.o.SecurityXattrs:
		default:
			p.xattrs.Add(1)
			continue
		}
		value, err := packXattr(func(b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("extended attribute %q: %w", name, err)
		}
		if name == capabilityXattr && p.o.CapabilityV2 {
			value = packCapability(value)
		}
		list = append(list, squashfs.Xattr{Name: name, Value: value})
	}
	return list, nil
}

// packXattr calls get with a buffer that is large enough.
func packXattr(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := get(small[:])
	if err == nil {
		return bytes.Clone(small[:n]), nil
	}
	if err != unix.ERANGE {
		return nil, err
	}
	b := make([]byte, 64<<10) // the kernel's limit for lists and values
	if n, err = get(b); err != nil {
		return nil, err
	}
	return b[:n], nil
}

// packCapability turns the third revision of a capability into the second.
func packCapability(v []byte) []byte {
	if len(v) != capabilityV2Size+4 || v[3] != capabilityV3>>24 {
		return v
	}
	v = bytes.Clone(v[:capabilityV2Size])
	v[3] = capabilityV2 >> 24
	return v
}

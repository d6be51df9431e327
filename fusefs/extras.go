package fusefs

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"syscall"
)

// Bits of the mode that tell a file's type, as in stat(2).
const (
	modeType    = 0o170000
	modeSymlink = 0o120000
	modeRegular = 0o100000
	modeDir     = 0o040000
)

// Extra is a file that the server adds to the tree.
//
// A directory, or a regular file with neither Content nor Load, is a place to
// bind onto: if the tree has a file of that type there, it stays. A regular file
// with Content that is not nil (empty counts) or with Load, and a link, take the
// place of what the tree has. Directories that are missing on the way are made.
//
// Links of the tree and of earlier extras are followed inside the tree, the
// last component included unless the extra itself is a link: an extra at
// /var/run/x lands in /run if /var/run is a link to it.
type Extra struct {
	Path     string
	Mode     uint32 // type (directory, regular or link) and permissions
	UID, GID uint32 // owner, if Config keeps owners as stored
	Content  []byte // of a regular file
	// Load makes the content of a regular file when somebody first looks for
	// its name or lists its directory; most programs never do. With nil what
	// the tree has there stays. It is called at most once, by a goroutine of
	// the server.
	Load   func() []byte `json:"-"`
	Target string        // of a link
}

// synthetic marks the ids of extras; what is below it is the index in
// overlay.nodes.
const synthetic = 1 << 62

const (
	maxLinks  = 40
	maxPath   = 4096
	maxName   = 255
	maxExtras = 4096
)

// overlay is the tree together with the extras. It does not change once the
// server is made, but for contents that are still to be loaded.
type overlay struct {
	fs    FS
	nodes []node
	dirs  map[uint64]*layer // directories, of either kind, that hold extras
}

// node is one extra, or a directory on the way to one.
type node struct {
	attr    Attr
	content []byte
	target  string
	load    func() []byte // nil: the content is there
	once    *sync.Once
}

// exists loads the content if that is still to be done, and reports whether
// the extra is there at all.
func (n *node) exists() bool {
	if n.load == nil {
		return true
	}
	n.once.Do(func() {
		n.content = n.load()
		n.attr.Size = int64(len(n.content))
	})
	return n.content != nil
}

// layer is what the extras put into one directory.
type layer struct {
	ids   map[string]uint64
	names []string // sorted
}

func newOverlay(fs FS, extras []Extra) (*overlay, error) {
	o := &overlay{fs: fs, dirs: map[uint64]*layer{}}
	if len(extras) > maxExtras {
		return nil, fmt.Errorf("cannot add %d files to the image: at most %d", len(extras), maxExtras)
	}
	for i := range extras {
		if err := o.add(&extras[i]); err != nil {
			return nil, fmt.Errorf("cannot add %q to the image: %w", extras[i].Path, err)
		}
	}
	for _, l := range o.dirs {
		sort.Strings(l.names)
	}
	return o, nil
}

func (o *overlay) add(x *Extra) error {
	kind := x.Mode & modeType
	if kind != modeDir && kind != modeRegular && kind != modeSymlink {
		return fmt.Errorf("mode %#o is not that of a directory, a regular file or a link", x.Mode)
	}
	w := walk{o: o, stack: []uint64{o.fs.Root()}, make: true, uid: x.UID, gid: x.GID}
	name, id, err := w.run(x.Path, kind != modeSymlink)
	if err != nil {
		return err
	}
	if name == "" { // the path ends in a directory
		if kind == modeDir {
			return nil
		}
		return syscall.EISDIR
	}
	replaces := kind == modeSymlink || x.Content != nil || x.Load != nil
	if id != 0 {
		var a Attr
		if err := o.attr(id, &a); err != nil {
			return err
		}
		if a.Mode&modeType == modeDir {
			if kind == modeDir {
				return nil
			}
			return syscall.EISDIR
		}
		if kind == modeDir {
			return syscall.ENOTDIR
		}
		if !replaces {
			return nil
		}
	}
	n := node{attr: Attr{Mode: x.Mode & 0o177777, Nlink: 1, UID: x.UID, GID: x.GID}, content: x.Content, target: x.Target}
	n.attr.Size = int64(len(x.Content))
	if kind == modeRegular && x.Content == nil && x.Load != nil {
		n.load, n.once = x.Load, new(sync.Once)
	}
	if kind == modeSymlink {
		if x.Target == "" || len(x.Target) >= maxPath || strings.IndexByte(x.Target, 0) >= 0 {
			return fmt.Errorf("link target %q is not valid", x.Target)
		}
		n.attr.Size = int64(len(x.Target))
	}
	o.insert(w.here(), name, n)
	return nil
}

// insert puts a node in a directory and returns its id.
func (o *overlay) insert(dir uint64, name string, n node) uint64 {
	id := synthetic | uint64(len(o.nodes))
	// Far from the numbers of common images, and fit for 32-bit programs.
	n.attr.Ino = 0xf0000000 + uint64(len(o.nodes))
	if n.attr.Mode&modeType == modeDir {
		n.attr.Nlink = 2
	}
	o.nodes = append(o.nodes, n)
	l := o.dirs[dir]
	if l == nil {
		l = &layer{ids: map[string]uint64{}}
		o.dirs[dir] = l
	}
	if _, ok := l.ids[name]; !ok {
		l.names = append(l.names, name)
	}
	l.ids[name] = id
	return id
}

// node returns the extra with an id, or nil for a file of the image.
func (o *overlay) node(id uint64) *node {
	if i := id &^ synthetic; id&synthetic != 0 && i < uint64(len(o.nodes)) {
		return &o.nodes[i]
	}
	return nil
}

func (o *overlay) attr(id uint64, a *Attr) error {
	if n := o.node(id); n != nil {
		*a = n.attr
		return nil
	}
	return o.fs.Attr(id, a)
}

// extra finds an extra in a directory's layer, which may be nil.
func (o *overlay) extra(l *layer, name string) (uint64, bool) {
	if l == nil {
		return 0, false
	}
	id, ok := l.ids[name]
	return id, ok && o.node(id).exists()
}

func (o *overlay) lookup(dir uint64, name string) (uint64, bool, error) {
	if id, ok := o.extra(o.dirs[dir], name); ok {
		return id, true, nil
	}
	if n := o.node(dir); n != nil {
		if n.attr.Mode&modeType != modeDir {
			return 0, false, syscall.ENOTDIR
		}
		return 0, false, nil
	}
	return o.fs.Lookup(dir, name)
}

func (o *overlay) readlink(id uint64) (string, error) {
	if n := o.node(id); n != nil {
		if n.attr.Mode&modeType != modeSymlink {
			return "", syscall.EINVAL
		}
		return n.target, nil
	}
	return o.fs.Readlink(id)
}

// extraCookie is the first position of extras in a directory, behind all names
// that an image can have.
const extraCookie = 1 << 40

// readDir calls emit for names from position from on, with the position that
// follows each.
func (o *overlay) readDir(dir, from uint64, emit func(e Dirent, next uint64) bool) error {
	l, n := o.dirs[dir], o.node(dir)
	if n != nil && n.attr.Mode&modeType != modeDir {
		return syscall.ENOTDIR
	}
	more := true
	if n == nil && from < extraCookie {
		next := from
		err := o.fs.ReadDir(dir, int(from), func(e Dirent) bool {
			next++
			if _, hidden := o.extra(l, e.Name); hidden {
				return true
			}
			more = emit(e, next)
			return more
		})
		if err != nil {
			return err
		}
	}
	if l == nil || !more {
		return nil
	}
	i := 0
	if from >= extraCookie {
		i = int(min(from-extraCookie, uint64(len(l.names))))
	}
	for ; i < len(l.names); i++ {
		id, ok := o.extra(l, l.names[i])
		if !ok {
			continue
		}
		a := &o.node(id).attr
		if !emit(Dirent{l.names[i], id, a.Ino, a.Mode}, extraCookie+uint64(i)+1) {
			break
		}
	}
	return nil
}

// walk resolves a path as if the tree were the root directory.
type walk struct {
	o        *overlay
	stack    []uint64 // the directories from the root to here
	make     bool     // make directories that are missing
	uid, gid uint32
	links    int
}

func (w *walk) here() uint64 { return w.stack[len(w.stack)-1] }

// run resolves path. It leaves the directory of the last component on top of
// the stack and returns that component's name and id, 0 if it does not exist.
// The name is empty if the path ends in "/", "." or ".." or is empty.
func (w *walk) run(path string, followLast bool) (string, uint64, error) {
	if len(path) > maxPath || strings.IndexByte(path, 0) >= 0 {
		return "", 0, syscall.EINVAL
	}
	rest := strings.TrimRight(path, "/")
	for {
		rest = strings.TrimLeft(rest, "/")
		name, after, more := strings.Cut(rest, "/")
		rest = after
		switch name {
		case "..":
			if len(w.stack) > 1 {
				w.stack = w.stack[:len(w.stack)-1]
			}
			fallthrough
		case "", ".":
			if !more {
				return "", 0, nil
			}
			continue
		}
		if len(name) > maxName {
			return "", 0, syscall.ENAMETOOLONG
		}
		id, ok, err := w.o.lookup(w.here(), name)
		if err != nil {
			return "", 0, err
		}
		var a Attr
		if ok {
			if err := w.o.attr(id, &a); err != nil {
				return "", 0, err
			}
		}
		switch {
		case ok && a.Mode&modeType == modeSymlink && (more || followLast):
			if rest, err = w.follow(id, rest, more); err != nil {
				return "", 0, err
			}
		case !more && ok:
			return name, id, nil
		case !more:
			return name, 0, nil
		case ok && a.Mode&modeType != modeDir:
			return "", 0, syscall.ENOTDIR
		case ok:
			w.stack = append(w.stack, id)
		case w.make:
			n := node{attr: Attr{Mode: modeDir | 0o755, UID: w.uid, GID: w.gid}}
			w.stack = append(w.stack, w.o.insert(w.here(), name, n))
		default:
			return "", 0, syscall.ENOENT
		}
	}
}

// follow returns what is left to resolve after the link id.
func (w *walk) follow(id uint64, rest string, more bool) (string, error) {
	target, err := w.o.readlink(id)
	if err != nil {
		return "", err
	}
	if w.links++; w.links > maxLinks || len(target)+len(rest) > maxPath {
		return "", syscall.ELOOP
	}
	if strings.HasPrefix(target, "/") {
		w.stack = w.stack[:1]
	}
	if more {
		return target + "/" + rest, nil
	}
	return strings.TrimRight(target, "/"), nil
}

// resolve returns the id of the file at path, with links followed.
func (o *overlay) resolve(path string) (uint64, error) {
	w := walk{o: o, stack: []uint64{o.fs.Root()}}
	name, id, err := w.run(path, true)
	if err != nil {
		return 0, err
	}
	if name == "" {
		return w.here(), nil
	}
	if id == 0 {
		return 0, syscall.ENOENT
	}
	return id, nil
}

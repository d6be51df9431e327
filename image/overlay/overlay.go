// Package overlay makes the file systems that are overlays of containers: ext3
// to write to, with the program mke2fs of e2fsprogs, and squashfs made of what
// an ext3 one holds.
//
// An ext3 overlay has two directories, upper with what the container changed,
// and work for the kernel. A squashfs overlay is the content of upper itself, in
// the form that the kernel knows: a whiteout is a character device 0:0, an opaque
// directory has an attribute.
package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/squashfs"
)

// Options say what an ext3 overlay is like.
type Options struct {
	Size   int64    // bytes
	Sparse bool     // take no space on the disk yet
	Dirs   []string // directories to make in it, as paths of the container
	// UID and GID own everything in it.
	UID, GID int
	TempDir  string // for what mke2fs reads; "" means the system's
}

// MinSize is the smallest ext3 overlay, in bytes.
const MinSize = 64 << 20

// maxSharedID is the largest id that every container maps. A directory of a
// larger one is open to all.
const maxSharedID = 65535

// Create makes an ext3 overlay in the empty file f.
func Create(f *os.File, o Options) error {
	if o.Size < MinSize {
		return fmt.Errorf("the size of an overlay is at least %d MiB", MinSize>>20)
	}
	seed, err := os.MkdirTemp(o.TempDir, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(seed)
	if err := fill(seed, o); err != nil {
		return err
	}
	if err := f.Truncate(o.Size); err != nil {
		return err
	}
	if !o.Sparse {
		// Beforehand, so that a full disk is found now and not in a container.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, o.Size); err != nil && err != unix.EOPNOTSUPP {
			return &os.PathError{Op: "allocate", Path: f.Name(), Err: err}
		}
	}
	if err := mke2fs(f, seed, o); err != nil {
		return err
	}
	return f.Sync()
}

// fill makes the directories that mke2fs copies.
func fill(seed string, o Options) error {
	perm := os.FileMode(0o755)
	if o.UID > maxSharedID || o.GID > maxSharedID {
		perm = 0o777
	}
	list := []string{"upper", "work"}
	for _, d := range o.Dirs {
		at := "upper"
		for _, name := range strings.Split(strings.Trim(filepath.Clean("/"+d), "/"), "/") {
			if name == "" {
				return fmt.Errorf("cannot create the directory %q in an overlay: it is there already", d)
			}
			at += "/" + name
			list = append(list, at)
		}
	}
	for _, d := range list {
		path := filepath.Join(seed, d)
		if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := os.Chmod(path, perm); err != nil {
			return err
		}
		if err := os.Lchown(path, o.UID, o.GID); err != nil {
			return err
		}
	}
	return nil
}

// mke2fs runs the program of that name on f.
func mke2fs(f *os.File, seed string, o Options) error {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"} {
		tool := dir + "/mke2fs"
		if unix.Access(tool, unix.X_OK) != nil {
			continue
		}
		// The file is the descriptor 3 of the program, whatever happens to
		// its name meanwhile.
		c := exec.Command(tool, "-q", "-F", "-t", "ext3", "-m", "0", "-E", "nodiscard,root_owner="+strconv.Itoa(o.UID)+":"+strconv.Itoa(o.GID), "-d", seed, "/proc/self/fd/3")
		c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
		c.ExtraFiles = []*os.File{f}
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", tool, err, bytes.TrimSpace(out))
		}
		return nil
	}
	return &MissingError{Tool: "mke2fs", Package: "e2fsprogs"}
}

// MissingError says that a program of the system is not installed.
type MissingError struct{ Tool, Package string }

func (e *MissingError) Error() string { return "cannot find the program " + e.Tool }

// The forms of what an overlay hides. The first of each is the kernel's.
const (
	whiteoutPrefix = ".wh."
	opaqueFile     = ".wh..wh..opq"
	opaqueFile2    = ".wh..opq"
)

var opaqueNames = [...]string{"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"}

// Seal writes what the ext3 overlay e holds as a squashfs to w, with digest to find
// equal contents (see squashfs.WriterOptions), and returns its
// size.
func Seal(w io.WriterAt, e *extfs.FS, digest func([]byte) [squashfs.DigestSize]byte) (int64, error) {
	out, err := squashfs.NewWriter(w, squashfs.WriterOptions{Digest: digest})
	if err != nil {
		return 0, err
	}
	s := &sealer{e: e, out: out, opaque: map[string]bool{}, links: map[uint32]string{}}
	prefix := ""
	if in, err := e.Walk("/upper", false); err == nil && in.IsDir() {
		prefix = "upper"
	}
	err = e.Tree(func(path string, in *extfs.Inode) error { return s.note(strip(path, prefix), in) })
	if err == nil {
		err = e.Tree(func(path string, in *extfs.Inode) error { return s.add(strip(path, prefix), in) })
	}
	if err != nil {
		out.Abort()
		return 0, err
	}
	return out.Close()
}

// strip returns path as seen from the directory prefix, "." for that itself and
// "" for what is not in it.
func strip(path, prefix string) string {
	if prefix == "" {
		if path == "lost+found" || strings.HasPrefix(path, "lost+found/") {
			return ""
		}
		return path
	}
	if path == prefix {
		return "."
	}
	rest, ok := strings.CutPrefix(path, prefix+"/")
	if !ok {
		return ""
	}
	return rest
}

type sealer struct {
	e      *extfs.FS
	out    *squashfs.Writer
	opaque map[string]bool   // directories
	links  map[uint32]string // the first name of a file with several
}

// note finds the opaque directories, which a file in them may mark.
func (s *sealer) note(path string, in *extfs.Inode) error {
	dir, name := split(path)
	if name == opaqueFile || name == opaqueFile2 {
		s.opaque[dir] = true
	}
	return nil
}

func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ".", path
	}
	return path[:i], path[i+1:]
}

func (s *sealer) add(path string, in *extfs.Inode) error {
	dir, name := split(path)
	if path == "" || name == opaqueFile || name == opaqueFile2 {
		return nil
	}
	entry := squashfs.Entry{Path: path, Mode: in.Mode, UID: in.UID, GID: in.GID, ModTime: in.ModTime.Sec, Size: in.Size, Rdev: in.Rdev}
	if hidden, ok := strings.CutPrefix(name, whiteoutPrefix); ok && hidden != "" {
		entry.Path = strings.TrimPrefix(dir+"/"+hidden, "./")
		entry.Mode, entry.Size, entry.Rdev = unix.S_IFCHR, 0, 0
		return s.out.Add(entry, nil)
	}
	if !in.IsDir() && in.Nlink > 1 {
		if first, ok := s.links[in.Number]; ok {
			entry.Hardlink = first
			return s.out.Add(entry, nil)
		}
		s.links[in.Number] = path
	}
	var err error
	if entry.Xattrs, err = s.xattrs(path, in); err != nil {
		return err
	}
	if in.IsSymlink() {
		if entry.Target, err = s.e.Readlink(in); err != nil {
			return err
		}
	}
	if !in.IsRegular() {
		entry.Size = 0
		return s.out.Add(entry, nil)
	}
	return s.out.Add(entry, io.NewSectionReader(readerAt{s.e, in}, 0, in.Size))
}

// xattrs returns the attributes of a file, with those that make a directory
// opaque under every name that a kernel asks for.
func (s *sealer) xattrs(path string, in *extfs.Inode) ([]squashfs.Xattr, error) {
	list, err := s.e.Xattrs(in)
	if err != nil {
		return nil, err
	}
	opaque := s.opaque[path]
	var out []squashfs.Xattr
	for _, x := range list {
		mark := false
		for _, n := range opaqueNames {
			mark = mark || n == x.Name
		}
		if mark {
			opaque = opaque || string(x.Value) == "y"
			continue
		}
		out = append(out, squashfs.Xattr{Name: x.Name, Value: x.Value})
	}
	if opaque && in.IsDir() {
		for _, n := range opaqueNames[:2] {
			out = append(out, squashfs.Xattr{Name: n, Value: []byte("y")})
		}
	}
	return out, nil
}

type readerAt struct {
	e  *extfs.FS
	in *extfs.Inode
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.e.ReadAt(r.in, p, off) }

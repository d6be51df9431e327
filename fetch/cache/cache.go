// Package cache keeps fetched images as plain files, named by their content.
//
//	ROOT                  ${SINGULARITY_CACHEDIR:-~/.singularity}/cache, mode 0700
//	ROOT/TYPE/sha256.HEX  an image; TYPE is library, oras, oci-tmp, net or shub
//	ROOT/TYPE/tmp_NAME... one that is being written
//	ROOT/lease/TYPE.NAME  who writes it
//	ROOT/ref/NAME         which image a reference named lately
//
// In goes a name and a function that makes the file, out comes the path of a
// whole file. There is no daemon, no database and no lock of the kernel: the
// root may be a directory that many hosts share. A file gets its name by rename
// after it is on disk, so nobody ever sees a part of it, whenever anybody is
// killed. Every file may be deleted at any time. A lease only saves work: it
// makes one of many starters write while the others wait; were there two, both
// would write the same.
//
// The root and the folders in it must belong to the user, and are closed to
// others. List and Clean know our files by folder, name, kind and owner, and
// touch no others.
//
// Files: cache.go (entries), lease.go, list.go (what is there, cleaning,
// eviction).
package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/fetch/recent"
	"singularity/host"
)

// Types are the folders that hold images, and blob, which holds a layout.
var Types = []string{"library", "oci-tmp", "oci-sif", "shub", "oras", "net", "blob"}

// DefaultSize is what a cache may hold if nobody says so.
const DefaultSize = 20 << 30

// Cache is a cache on disk.
type Cache struct {
	Root string
	// Size is how many bytes it may hold; 0: no limit. Images used within
	// KeepTime stay in any case.
	Size int64
	// Evicted is told about each image that had to go; may be nil.
	Evicted func(e Entry)
	// Silence and Poll are those of leases; 0: the defaults.
	Silence, Poll time.Duration
}

// OwnerError says that the cache is somebody else's.
type OwnerError struct {
	Path string
	UID  int
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("cannot use the cache: %q belongs to uid %d, not to you", e.Path, e.UID)
}

// Open opens the cache at root and makes what is missing of it.
func Open(root string) (*Cache, error) {
	c := &Cache{Root: root, Size: DefaultSize}
	if err := os.MkdirAll(filepath.Dir(root), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the cache: %w", err)
	}
	if err := ownDir(root); err != nil {
		return nil, err
	}
	// A directory that says so is left out by backups: bford.info/cachedir.
	tag := filepath.Join(root, "CACHEDIR.TAG")
	if _, err := os.Lstat(tag); errors.Is(err, fs.ErrNotExist) {
		os.WriteFile(tag, []byte("Signature: 8a477f597d28d172789f06886806bc55\n# The cache of singularity.\n"), 0o600)
	}
	return c, nil
}

// ownDir makes sure that path is a directory of ours that is closed to others.
//
// Security: in a folder that others may write to, they could exchange images.
func ownDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make the cache: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the cache: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return &OwnerError{Path: path, UID: int(st.Uid)}
	}
	if st.Mode&0o077 != 0 {
		if err := unix.Fchmod(fd, 0o700); err != nil {
			return fmt.Errorf("cannot close the cache to others: %w", err)
		}
	}
	return nil
}

// Others are folders of the same root that other packages keep, which list and
// clean show as well: hot blocks and steps of builds. They have size caps of their
// own.
var Others = []string{"hot", "step"}

// isOther tells whether a file of one of these folders has a name that they give.
func isOther(kind, name string) bool {
	name, ok := strings.CutSuffix(name, "."+kind)
	return ok && (len(name) == 32 || len(name) == 64) && strings.Trim(name, "0123456789abcdef") == ""
}

// isName tells whether s is a name that entries have.
func isName(s string) bool {
	s = strings.TrimPrefix(s, "sha256.")
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Path returns where the entry is or would be.
func (c *Cache) Path(kind, name string) string { return filepath.Join(c.Root, kind, name) }

// Find returns the path of an entry that is there, and "" if it is not. It
// counts as a use of the entry.
func (c *Cache) Find(kind, name string) string {
	if !isName(name) {
		return ""
	}
	path := c.Path(kind, name)
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		return ""
	}
	recent.Touch(path)
	return path
}

// Make returns the path of an entry and lets write make it if it is missing.
// Of many callers, on any number of hosts, one writes and the others wait for
// it; waiting, which may be nil, is called once with the host that writes.
//
// The file that write gets may hold the beginning of what a writer that died
// had written before; write checks the whole content.
func (c *Cache) Make(ctx context.Context, kind, name string, waiting func(host string), write func(f *os.File) error) (string, error) {
	if !isName(name) {
		return "", fmt.Errorf("cannot cache %q: it is no digest", name)
	}
	for _, d := range []string{kind, "lease"} {
		if err := ownDir(filepath.Join(c.Root, d)); err != nil {
			return "", err
		}
	}
	l := &lease{path: filepath.Join(c.Root, "lease", kind+"."+name), silence: c.Silence, poll: c.Poll}
	for {
		if path := c.Find(kind, name); path != "" {
			return path, nil
		}
		got, err := l.take(ctx, waiting, func() bool { return c.Find(kind, name) != "" })
		if err != nil {
			return "", err
		}
		if got {
			break
		}
	}
	defer l.release()
	// Somebody may have been done between the look and the lease.
	if path := c.Find(kind, name); path != "" {
		return path, nil
	}
	if err := c.write(ctx, l, kind, name, write); err != nil {
		return "", err
	}
	c.evict(name)
	return c.Path(kind, name), nil
}

// write makes the entry, with the lease l.
func (c *Cache) write(ctx context.Context, l *lease, kind, name string, write func(f *os.File) error) error {
	dir := filepath.Join(c.Root, kind)
	f, err := c.temporary(dir, name, l)
	if err != nil {
		return err
	}
	defer f.Close()
	stop := l.keep()
	err = write(f)
	stop()
	if err != nil {
		// What is there may serve the next try, unless it is nothing.
		if fi, e := f.Stat(); e != nil || fi.Size() == 0 || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			os.Remove(f.Name())
		}
		return err
	}
	if err := settle(f.Name()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("cannot write to the cache: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("cannot write to the cache: %w", err)
	}
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// settle brings the file at path, which write may have exchanged for another, to
// disk.
func settle(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o700), f.Sync(), f.Close())
}

// temporary opens the file to write into: that of a writer that is dead for
// sure, or else a new one.
//
// Security: a writer that is only thought to be dead could go on writing into
// a file after its digest was checked.
func (c *Cache) temporary(dir, name string, l *lease) (*os.File, error) {
	path := filepath.Join(dir, "tmp_"+name+"_"+l.nonce)
	if old := c.abandoned(dir, name, l); old != "" && os.Rename(old, path) == nil {
		if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0); err == nil {
			return f, nil
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write to the cache: %w", err)
	}
	return f, nil
}

// abandoned returns a file that a writer of this host left, which is not alive,
// and removes further ones.
func (c *Cache) abandoned(dir, name string, l *lease) string {
	list, _ := filepath.Glob(filepath.Join(dir, "tmp_"+name+"_*"))
	found := ""
	for _, path := range list {
		nonce := path[strings.LastIndexByte(path, '_')+1:]
		if !deadHere(nonce) {
			continue
		}
		if found != "" {
			os.Remove(found)
		}
		found = path
	}
	return found
}

// Copy writes the file at src to dst, whole or not at all: dst is replaced by
// rename if replace is set, and must not exist otherwise.
func Copy(src, dst string, mode fs.FileMode, replace bool) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return Place(dst, mode, replace, func(out *os.File) error {
		if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
			return nil
		}
		if fi, err := in.Stat(); err == nil {
			if err := host.CheckFile(host.Target, filepath.Dir(dst), fi.Size()); err != nil {
				return err
			}
		}
		_, err := io.Copy(out, in)
		return err
	})
}

// Place lets write make the content of a file that then appears at dst, whole
// or not at all.
func Place(dst string, mode fs.FileMode, replace bool, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(dst), ".tmp_pull_")
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", dst, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := settle(f.Name()); err != nil {
		return fmt.Errorf("cannot write %q: %w", dst, err)
	}
	if err := os.Chmod(f.Name(), mode); err != nil {
		return fmt.Errorf("cannot write %q: %w", dst, err)
	}
	if replace {
		err = os.Rename(f.Name(), dst)
	} else if err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, dst, unix.RENAME_NOREPLACE); err == unix.EINVAL || err == unix.ENOSYS {
		// Some network file systems have no such rename.
		err = os.Link(f.Name(), dst)
	}
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", dst, err)
	}
	return nil
}

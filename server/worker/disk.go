package worker

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what a build may make.
const (
	maxFiles   = 2_000_000
	maxEntries = 200_000 // of an archive of files
	maxRatio   = 200     // of what it unpacks to
	reserve    = 512 << 20
)

// limits bounds the processes that follow. Counts of processes are for all in
// the user namespaces below, as this one is their owner.
func (in *inside) limits() error {
	l := in.spec.Limits
	set := func(resource int, n uint64) error {
		var old unix.Rlimit
		if err := unix.Getrlimit(resource, &old); err != nil {
			return err
		}
		n = min(n, old.Max)
		return unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n})
	}
	err := errors.Join(set(unix.RLIMIT_NPROC, uint64(l.PIDs)), set(unix.RLIMIT_FSIZE, uint64(l.Disk)), set(unix.RLIMIT_CORE, 0), set(unix.RLIMIT_NOFILE, 65536),
		set(unix.RLIMIT_MEMLOCK, 1<<20), set(unix.RLIMIT_MSGQUEUE, 1<<20))
	if !in.spec.Grouped {
		err = errors.Join(err, set(unix.RLIMIT_DATA, uint64(l.Memory)))
	}
	if err != nil {
		return fmt.Errorf("cannot limit a build: %w", err)
	}
	return nil
}

// watchDisk ends the sandbox when the build has written too much. What is open
// and has no name counts as well.
func (in *inside) watchDisk() {
	limit := in.spec.Limits.Disk
	for {
		begun := time.Now()
		used, files := diskUse(insideDir)
		if used+namelessUse() > limit || files > maxFiles {
			in.stop("disk")
		}
		var st unix.Statfs_t
		if err := unix.Statfs(insideDir, &st); err == nil && st.Bavail*uint64(st.Bsize) < reserve {
			in.stop("full")
		}
		time.Sleep(max(200*time.Millisecond, 10*time.Since(begun)))
	}
}

func diskUse(dir string) (bytes int64, files int) {
	filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(name, &st) == nil {
			bytes += st.Blocks * 512
			files++
		}
		return nil
	})
	return bytes, files
}

// namelessUse is what processes hold open that was deleted.
func namelessUse() (bytes int64) {
	seen := map[[2]uint64]bool{}
	list, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, name := range list {
		var st unix.Stat_t
		if unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 || seen[[2]uint64{st.Dev, st.Ino}] {
			continue
		}
		seen[[2]uint64{st.Dev, st.Ino}] = true
		bytes += st.Blocks * 512
	}
	return bytes
}

// unpack unpacks the files that the client sent, in the sandbox and before
// anything else runs there.
func (in *inside) unpack() error {
	name := insideDir + "/context.tar.gz"
	if !in.spec.Unpack {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	limit := min(in.spec.UnpackLimit*5, in.spec.Limits.Disk, max(st.Size(), 1<<20)*maxRatio)
	root, err := os.OpenRoot(insideDir + "/context")
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unpackContext(f, root, limit); err != nil {
		return fmt.Errorf("the files of the build cannot be used: %w", err)
	}
	return os.Remove(name)
}

// unpackContext unpacks directories and regular files of a gzipped tar, and
// refuses anything else: a client's archive has nothing else.
func unpackContext(r io.Reader, root *os.Root, limit int64) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	t := tar.NewReader(&counted{r: z, left: limit})
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n >= maxEntries {
			return fmt.Errorf("more than %d files", maxEntries)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if name == "." || name == "" {
			continue
		}
		if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00") || len(name) > 4096 {
			return fmt.Errorf("the name %.200q is not allowed", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(root, name, h, t)
		default:
			err = fmt.Errorf("%.200q is neither a file nor a directory", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o755|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if err == nil && !h.ModTime.IsZero() {
		err = root.Chtimes(name, h.ModTime, h.ModTime)
	}
	return err
}

// counted ends what unpacks to too much.
type counted struct {
	r    io.Reader
	left int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errors.New("it unpacks to too much")
	}
	return n, err
}

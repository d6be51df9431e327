package watch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/advisory"
)

// copyName is the directory with the copy of the advisories, below that of the service:
// each content under its SHA-256, and a list of the files that have them.
const (
	copyName = "advisories"
	listName = "files"
)

// fileStamp tells states of a file apart.
type fileStamp struct {
	Dev, Ino          uint64
	Size              int64
	Modified, Changed int64 // nanoseconds
}

func stampOf(st *unix.Stat_t) fileStamp {
	return fileStamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// settled is the time after a change in which another one may leave all times as they
// are, as file systems count time in steps.
const settled = 2 * time.Second

// seenFile is a file of the operator's as it was seen. Until it is settled it is another
// one at each look.
type seenFile struct {
	Path  string // from the directory on
	Stamp fileStamp
	Look  int64 // zero if it is settled
}

// look lists the files of a directory, or a file by itself, in a fixed order.
func look(path string, now time.Time) ([]seenFile, error) {
	// The directory may be named by a link, which points to another one some day.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	list := []seenFile{}
	err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && p != real:
			return nil // it goes away just now
		case err != nil:
			return err
		case !d.Type().IsRegular() || p != real && !advisory.IsSource(p):
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cannot look at %q: %w", p, err)
		}
		f := seenFile{Path: strings.TrimPrefix(strings.TrimPrefix(p, real), "/"), Stamp: stampOf(&st)}
		if f.Path == "" {
			f.Path = filepath.Base(path)
		}
		if now.UnixNano()-f.Stamp.Changed < int64(settled) {
			f.Look = now.UnixNano()
		}
		list = append(list, f)
		return nil
	})
	return list, err
}

// copied is a file of the operator's whose content is here.
type copied struct {
	Seen   seenFile
	Digest string
}

// mirrorCopy is the copy of the operator's files. A content has its name when it is whole,
// and the list is replaced at once, so that a crash leaves the copy from before.
type mirrorCopy struct {
	dir   string
	files map[string]copied // by path
}

func (c *mirrorCopy) path(digest string) string {
	return filepath.Join(c.dir, digest[:2], digest[2:])
}

// open reads the list, and tells when it was made. Contents that were damaged by a crash
// are not in it, so that they are brought again; what the list does not name goes.
func (c *mirrorCopy) open(ctx context.Context) (time.Time, error) {
	c.files = map[string]copied{}
	f, err := os.Open(filepath.Join(c.dir, listName))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, os.RemoveAll(c.dir)
	}
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	var list []copied
	if err := json.NewDecoder(f).Decode(&list); err != nil {
		return time.Time{}, fmt.Errorf("cannot read %q: %w", f.Name(), err)
	}
	for _, v := range list {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		if len(v.Digest) == 2*sha256.Size && c.whole(v.Digest) {
			c.files[v.Seen.Path] = v
		}
	}
	return st.ModTime(), c.sweep()
}

// whole tells whether a content is what its name says.
func (c *mirrorCopy) whole(digest string) bool {
	f, err := os.Open(c.path(digest))
	if err != nil {
		return false
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == digest
}

// sweep removes contents that no file has.
func (c *mirrorCopy) sweep() error {
	used := digestsOf(c.files)
	return filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p == filepath.Join(c.dir, listName) {
			return err
		}
		if used[filepath.Base(filepath.Dir(p))+filepath.Base(p)] {
			return nil
		}
		return os.Remove(p)
	})
}

func digestsOf(files map[string]copied) map[string]bool {
	used := make(map[string]bool, len(files))
	for _, v := range files {
		used[v.Digest] = true
	}
	return used
}

// bring copies the contents that are new among the files that were seen below from, and
// returns all files.
func (c *mirrorCopy) bring(ctx context.Context, from string, seen []seenFile) (map[string]copied, error) {
	st, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	// A name that is replaced by a pipe just now must not make this wait.
	const flags = os.O_RDONLY | unix.O_NONBLOCK
	open := func(string) (*os.File, error) { return os.OpenFile(from, flags, 0) }
	if st.IsDir() {
		root, err := os.OpenRoot(from)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		open = func(p string) (*os.File, error) { return root.OpenFile(p, flags, 0) }
	}
	files := make(map[string]copied, len(seen))
	for _, s := range seen {
		if old, ok := c.files[s.Path]; ok && old.Seen == s && s.Look == 0 {
			files[s.Path] = old
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := c.bringOne(open, s)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was replaced just now
		}
		if err != nil {
			return nil, errors.Join(err, c.drop(files))
		}
		files[s.Path] = v
	}
	return files, nil
}

// bringOne copies a file.
func (c *mirrorCopy) bringOne(open func(string) (*os.File, error), s seenFile) (copied, error) {
	r, err := open(s.Path)
	if err != nil {
		return copied{}, err
	}
	defer r.Close()
	if st, err := r.Stat(); err != nil {
		return copied{}, err
	} else if !st.Mode().IsRegular() {
		return copied{}, fs.ErrNotExist
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return copied{}, err
	}
	w, err := os.CreateTemp(c.dir, "new-*")
	if err != nil {
		return copied{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(w, sum), r)
	if err = errors.Join(err, w.Close()); err == nil {
		v := copied{s, hex.EncodeToString(sum.Sum(nil))}
		if err = c.place(w.Name(), v.Digest); err == nil {
			return v, nil
		}
	}
	return copied{}, errors.Join(err, os.Remove(w.Name()))
}

// place gives a content its name.
func (c *mirrorCopy) place(temporary, digest string) error {
	err := os.Rename(temporary, c.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(filepath.Dir(c.path(digest)), 0o700); err != nil {
			return err
		}
		err = os.Rename(temporary, c.path(digest))
	}
	return err
}

// sources are files for package advisory.
func (c *mirrorCopy) sources(files map[string]copied) []advisory.Source {
	list := make([]advisory.Source, 0, len(files))
	for name, v := range files {
		list = append(list, advisory.Source{Name: name, Stamp: v.Digest, Open: func() (*os.File, error) { return os.Open(c.path(v.Digest)) }})
	}
	return list
}

// keep makes files those of the copy.
func (c *mirrorCopy) keep(files map[string]copied) error {
	list := make([]copied, 0, len(files))
	for _, v := range files {
		list = append(list, v)
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	w, err := os.CreateTemp(c.dir, "new-*")
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Sync(), w.Close()); err == nil {
		err = os.Rename(w.Name(), filepath.Join(c.dir, listName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(w.Name()))
	}
	old := c.files
	c.files = files
	return c.drop(old)
}

// drop removes those contents of files that the copy does not have.
func (c *mirrorCopy) drop(files map[string]copied) error {
	var failed error
	used := digestsOf(c.files)
	for _, v := range files {
		if used[v.Digest] {
			continue
		}
		if err := os.Remove(c.path(v.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

package image

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

// maxDepth bounds how deep Each descends in trees that tell no cycles.
const maxDepth = 256

// Content is the bytes of an open file.
type Content interface {
	io.ReaderAt
	io.Closer
}

// Entry is a file or directory that Each has come to.
type Entry struct {
	Path string      // from the root, without a slash in front
	Mode fs.FileMode // type and permissions
	Size int64       // bytes, of a regular file

	open func() (Content, error)
}

// Open opens the content of a regular file.
func (e Entry) Open() (Content, error) { return e.open() }

// Each calls fn for every file below the root of f, a directory before what is
// in it; links are shown, never followed. An error of fn ends the walk and is
// returned; fs.SkipDir for a directory leaves its content out. Over limit
// entries are an error.
func Each(f Files, limit int, fn func(Entry) error) error {
	count := 0
	counted := func(e Entry) error {
		if count++; count > limit {
			return fmt.Errorf("the image has over %d files", limit)
		}
		return fn(e)
	}
	if s, ok := f.(squashTree); ok {
		return s.each(counted)
	}
	if l, ok := f.(Layers); ok {
		return l.each(counted)
	}
	return eachByPath(f, "", maxDepth, counted)
}

func (t squashTree) each(fn func(Entry) error) error {
	return t.r.Each(func(path string, in *squashfs.Inode) error {
		if path == "" {
			return nil
		}
		ref := in.Ref
		return fn(Entry{Path: path, Mode: fileMode(in.Mode), Size: in.Size, open: func() (Content, error) {
			c, err := t.r.File(ref)
			if err != nil {
				return nil, err
			}
			return unowned{c}, nil
		}})
	})
}

// eachByPath walks a tree that has nothing faster than looking up names.
func eachByPath(f Files, dir string, depth int, fn func(Entry) error) error {
	if depth == 0 {
		return fmt.Errorf("cannot walk %q: directories are nested too deeply", dir)
	}
	names, err := f.ReadDir("/" + dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := strings.TrimPrefix(dir+"/"+name, "/")
		mode, _, err := f.Lstat("/" + path)
		if err != nil {
			return err
		}
		e := Entry{Path: path, Mode: mode}
		if mode.IsRegular() {
			st, err := f.Stat("/" + path)
			if err != nil {
				return err
			}
			e.Size = st.Size
			e.open = func() (Content, error) { return openByPath(f, path, st.Size) }
		}
		err = fn(e)
		if err == fs.SkipDir && mode.IsDir() {
			continue
		}
		if err == nil && mode.IsDir() {
			err = eachByPath(f, path, depth-1, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// maxWhole bounds the files that are read whole, where a tree cannot do better.
const maxWhole = 256 << 20

func openByPath(f Files, path string, size int64) (Content, error) {
	if d, ok := f.(*Dir); ok {
		return d.open("/"+path, unix.S_IFREG)
	}
	b, err := f.ReadFile("/"+path, min(size, maxWhole))
	if err != nil {
		return nil, err
	}
	return unowned{bytes.NewReader(b)}, nil
}

// unowned is a content that holds nothing to give back.
type unowned struct{ io.ReaderAt }

func (unowned) Close() error { return nil }

package image

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"singularity/extfs"
	"singularity/squashfs"
)

// Layers is the tree of an image that is stored as layers, the top one first: paths are
// found as in a Union, and Each walks every layer once.
type Layers struct{ Union }

// NewLayers puts trees above one another, the top one first. One with a directory upper
// and a directory work is what a writable overlay left: its files are in upper.
func NewLayers(list ...Files) Layers {
	var l Layers
	for _, f := range list {
		at := UnionLayer{Files: f}
		if isDir(f, "/upper") && isDir(f, "/work") {
			at.Dir = "/upper"
		}
		l.Union = append(l.Union, at)
	}
	return l
}

func isDir(f Files, p string) bool {
	mode, _, err := f.Lstat(p)
	return err == nil && mode.IsDir()
}

// opaquer is a tree whose attributes tell which directories hide what is below.
type opaquer interface{ opaque(p string) bool }

// opaque tells whether a directory hides what layers below have in it.
func (l *UnionLayer) opaque(dir string) bool {
	if _, _, err := l.Files.Lstat(l.Dir + dir + "/.wh..wh..opq"); err == nil {
		return true
	}
	f, ok := l.Files.(opaquer)
	return ok && f.opaque(l.Dir+dir)
}

// isOpaque tells whether an attribute is that of an opaque directory: of overlayfs, or of
// what does the same without privileges.
func isOpaque(name string, value []byte) bool {
	switch name {
	case "trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque":
		return string(value) == "y"
	}
	return false
}

func (t squashTree) opaque(p string) bool {
	in, err := t.r.Walk(p, false)
	if err != nil || !in.IsDir() {
		return false
	}
	list, err := t.r.Xattrs(in)
	return err == nil && slices.ContainsFunc(list, func(x squashfs.Xattr) bool { return isOpaque(x.Name, x.Value) })
}

func (t extTree) opaque(p string) bool {
	in, err := t.f.Walk(p, false)
	if err != nil || !in.IsDir() {
		return false
	}
	list, err := t.f.Xattrs(in)
	return err == nil && slices.ContainsFunc(list, func(x extfs.Xattr) bool { return isOpaque(x.Name, x.Value) })
}

// each calls f for every file of one layer, with its path in the union.
func (l *UnionLayer) each(fn func(Entry) error) error {
	if s, ok := l.Files.(squashTree); ok && l.Dir == "" {
		return s.each(fn)
	}
	prefix := strings.TrimPrefix(l.Dir, "/")
	return eachByPath(l.Files, prefix, maxDepth, func(e Entry) error {
		e.Path = strings.TrimPrefix(strings.TrimPrefix(e.Path, prefix), "/")
		return fn(e)
	})
}

// covering is what layers above hide of those below, by paths.
type covering struct {
	shown map[string]bool // true for directories
	gone  map[string]bool // by whiteouts
	cut   map[string]bool // directories that are opaque
}

// each walks the layers from the top. Files of lower ones that are hidden are left out; a
// directory comes once, before what is in it in any layer.
func (l Layers) each(fn func(Entry) error) error {
	c := covering{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for i := range l.Union {
		layer := &l.Union[i]
		var gone, cut []string
		last := i == len(l.Union)-1
		err := layer.each(func(e Entry) error {
			dir, name := path.Split(e.Path)
			hidden, whiteout := strings.CutPrefix(name, ".wh.")
			switch {
			case whiteout && hidden != ".wh..opq" && e.Mode.IsRegular():
				gone = append(gone, dir+hidden)
				return nil
			case whiteout:
				return nil // what opaque asks for
			case e.Mode&fs.ModeCharDevice != 0 && !last:
				gone = append(gone, e.Path)
				return nil
			}
			return c.visit(layer, e, &cut, fn)
		})
		if err != nil {
			return err
		}
		if layer.opaque("") {
			return nil
		}
		for _, p := range gone {
			c.gone[p] = true
		}
		for _, p := range cut {
			c.cut[p] = true
		}
	}
	return nil
}

// visit shows a file of a layer unless layers above hide it.
func (c *covering) visit(layer *UnionLayer, e Entry, cut *[]string, fn func(Entry) error) error {
	skip := error(nil)
	if e.Mode.IsDir() {
		skip = fs.SkipDir
	}
	dir, above := c.shown[e.Path]
	if c.gone[e.Path] || above && !(dir && e.Mode.IsDir()) {
		return skip
	}
	if c.cut[e.Path] {
		return skip
	}
	if e.Mode.IsDir() && layer.opaque("/"+e.Path) {
		*cut = append(*cut, e.Path)
	}
	if above {
		return nil
	}
	c.shown[e.Path] = e.Mode.IsDir()
	return fn(e)
}

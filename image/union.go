package image

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// UnionLayer is one tree of a Union: all of Files, or the directory Dir in it.
type UnionLayer struct {
	Files
	Dir string // "" or "/upper"
}

// Union shows trees one above the other, the top one first, as a container sees
// them. A character device or a file .wh.NAME in a layer but the last hides what
// is below; an opaque directory has a file .wh..wh..opq, or the attribute by which
// overlayfs knows it.
type Union []UnionLayer

// whiteout tells whether layer l hides p from the layers below.
func (l *UnionLayer) whiteout(p string) bool {
	if mode, _, err := l.Files.Lstat(l.Dir + p); err == nil && mode&fs.ModeCharDevice != 0 {
		return true
	}
	dir, name := path.Split(p)
	_, _, err := l.Files.Lstat(l.Dir + dir + ".wh." + name)
	return err == nil
}

// covers tells whether l hides p though it does not hold it: by a whiteout, an
// opaque directory or something that is no directory on the way.
func (l *UnionLayer) covers(p string) bool {
	if l.whiteout(p) {
		return true
	}
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if l.whiteout(dir) {
			return true
		}
		mode, _, err := l.Files.Lstat(l.Dir + dir)
		if err != nil {
			continue
		}
		if !mode.IsDir() {
			return true
		}
		if l.opaque(dir) {
			return true
		}
	}
	return l.opaque("")
}

// find returns the layer that shows p, whose parent directories are no links.
func (u Union) find(p string) (*UnionLayer, fs.FileMode, string, error) {
	for i := range u {
		l := &u[i]
		mode, target, err := l.Files.Lstat(l.Dir + p)
		last := i == len(u)-1
		if err == nil && (last || mode&fs.ModeCharDevice == 0) {
			return l, mode, target, nil
		}
		if !last && l.covers(p) {
			break
		}
	}
	return nil, 0, "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
}

// Lstat returns the type of p and the target of a link.
func (u Union) Lstat(p string) (fs.FileMode, string, error) {
	_, mode, target, err := u.find(p)
	return mode, target, err
}

// resolve returns the layer that shows p, and p with all links followed.
func (u Union) resolve(p string) (*UnionLayer, string, error) {
	at, _, ok := NewResolver(u).Resolve(p)
	if !ok {
		return nil, "", &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	l, _, _, err := u.find(at)
	return l, at, err
}

// ReadFile returns the content of a regular file of at most limit bytes.
func (u Union) ReadFile(p string, limit int64) ([]byte, error) {
	l, at, err := u.resolve(p)
	if err != nil {
		return nil, err
	}
	return l.Files.ReadFile(l.Dir+at, limit)
}

// Stat tells what p is, after following links.
func (u Union) Stat(p string) (Stat, error) {
	l, at, err := u.resolve(p)
	if err != nil {
		return Stat{}, err
	}
	return l.Files.Stat(l.Dir + at)
}

// ReadDir returns the names in a directory, sorted.
func (u Union) ReadDir(p string) ([]string, error) {
	_, at, err := u.resolve(p)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var first error
	for i := range u {
		names, err := u[i].Files.ReadDir(u[i].Dir + at)
		if err != nil && first == nil {
			first = err
		}
		for _, n := range names {
			seen[n] = true
		}
	}
	var out []string
	for n := range seen {
		if strings.HasPrefix(n, ".wh.") {
			continue
		}
		if _, _, err := u.Lstat(path.Join(at, n)); err == nil {
			out = append(out, n)
		}
	}
	if len(seen) == 0 && first != nil {
		return nil, first
	}
	slices.Sort(out)
	return out, nil
}

package image

import (
	"io/fs"
	"path"
	"strings"
)

// maxLinks is how many symbolic links a path may lead through.
const maxLinks = 40

// Linker looks at one path of an image, of which no component but the last may
// be a symbolic link.
type Linker interface {
	// Lstat returns the type of path, and the target of a symbolic link.
	Lstat(path string) (fs.FileMode, string, error)
}

// Resolver follows the paths of one image as the kernel would with the image as
// its root. What is missing is kept as it stands, so that the result tells
// where a mount point must be made. It is for one goroutine.
type Resolver struct {
	l    Linker
	seen map[string]entry
}

type entry struct {
	mode   fs.FileMode
	target string
	ok     bool
}

// NewResolver returns a resolver of the image behind l.
func NewResolver(l Linker) *Resolver { return &Resolver{l: l, seen: map[string]entry{}} }

func (r *Resolver) lstat(p string) entry {
	e, ok := r.seen[p]
	if !ok {
		mode, target, err := r.l.Lstat(p)
		e = entry{mode, target, err == nil}
		r.seen[p] = e
	}
	return e
}

// Resolve returns where p leads, as an absolute path without links, and its
// mode. The last result is false if nothing is there.
func (r *Resolver) Resolve(p string) (string, fs.FileMode, bool) {
	rest := strings.Split(path.Clean("/" + p)[1:], "/")
	at, mode := "/", fs.ModeDir
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			mode = fs.ModeDir
			continue
		}
		next := path.Join(at, name)
		e := r.lstat(next)
		if !e.ok {
			return path.Join(next, path.Join(rest...)), 0, false
		}
		if e.mode&fs.ModeSymlink == 0 {
			at, mode = next, e.mode
			continue
		}
		if links++; links > maxLinks {
			return path.Join(next, path.Join(rest...)), 0, false
		}
		if strings.HasPrefix(e.target, "/") {
			at, mode = "/", fs.ModeDir
		}
		rest = append(strings.Split(strings.Trim(e.target, "/"), "/"), rest...)
	}
	return at, mode, true
}

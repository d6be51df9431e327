package fusefs

import "strings"

// Layer returns fs as the kernel's overlay wants a lower layer: what another
// program has written as the file ".wh.NAME" is a whiteout, a character device
// 0:0 called NAME; a directory with a file ".wh..wh..opq" or with any of the
// attributes that mean so is opaque; and no such file is visible itself.
func Layer(fs FS) FS { return layerFS{fs} }

type layerFS struct{ FS }

const (
	whiteoutPrefix = ".wh."
	opaqueFile     = ".wh..wh..opq"
	// whiteoutMark is set in the number of a file that is shown as a whiteout.
	whiteoutMark = 1 << 61
	modeChar     = 0o020000
)

// opaqueNames are what makes a directory opaque: to the kernel in the first
// namespace, to the kernel in another, and to fuse-overlayfs.
var opaqueNames = [...]string{"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"}

func (l layerFS) Attr(id uint64, a *Attr) error {
	err := l.FS.Attr(id&^whiteoutMark, a)
	if id&whiteoutMark != 0 {
		a.Mode, a.Size, a.Rdev, a.Nlink = modeChar, 0, 0, 1
	}
	return err
}

func (l layerFS) Lookup(dir uint64, name string) (uint64, bool, error) {
	if strings.HasPrefix(name, whiteoutPrefix) {
		return 0, false, nil
	}
	id, ok, err := l.FS.Lookup(dir, name)
	if ok || err != nil || len(name)+len(whiteoutPrefix) > maxName {
		return id, ok, err
	}
	id, ok, err = l.FS.Lookup(dir, whiteoutPrefix+name)
	return id | whiteoutMark, ok, err
}

// ReadDir counts only what it shows.
func (l layerFS) ReadDir(dir uint64, from int, emit func(Dirent) bool) error {
	n := 0
	return l.FS.ReadDir(dir, 0, func(e Dirent) bool {
		if name, ok := strings.CutPrefix(e.Name, whiteoutPrefix); ok {
			if strings.HasPrefix(name, ".wh.") || name == ".opq" {
				return true
			}
			if _, both, err := l.FS.Lookup(dir, name); name == "" || both || err != nil {
				return true
			}
			e = Dirent{name, e.ID | whiteoutMark, e.Ino, modeChar}
		}
		if n++; n <= from {
			return true
		}
		return emit(e)
	})
}

func (l layerFS) Xattrs(id uint64) ([]Xattr, error) {
	if id&whiteoutMark != 0 {
		return nil, nil
	}
	list, err := l.FS.Xattrs(id)
	if err != nil {
		return nil, err
	}
	var a Attr
	if err := l.FS.Attr(id, &a); err != nil || a.Mode&modeType != modeDir {
		return list, err
	}
	_, opaque, err := l.FS.Lookup(id, opaqueFile)
	if err != nil {
		return nil, err
	}
	var out []Xattr
	for _, x := range list {
		if isOpaqueName(x.Name) {
			opaque = opaque || string(x.Value) == "y"
			continue
		}
		out = append(out, x)
	}
	if opaque {
		for _, n := range opaqueNames {
			// Listed, they would be copied with the directory, which not
			// everybody may do.
			out = append(out, Xattr{Name: n, Value: []byte("y"), Hidden: true})
		}
	}
	return out, nil
}

func isOpaqueName(name string) bool {
	for _, n := range opaqueNames {
		if n == name {
			return true
		}
	}
	return false
}

// Stat says that files may have attributes, since opaque directories do.
func (l layerFS) Stat() Stat {
	st := l.FS.Stat()
	st.HasXattrs = true
	return st
}

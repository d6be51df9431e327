package unpack

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"singularity/squashfs"
)

// node is a file, directory or other node of the tree. Its size counts: there
// is one for each entry.
type node struct {
	mode, uid, gid uint32
	rdev           uint32
	layer, pruned  int32 // pruned: 1 + the layer that has taken away all that is lower
	modTime        int64
	size           int64
	text           string // target of a symbolic link; once the tree is whole, the path of a file
	xattrs         []squashfs.Xattr
	children       map[string]child // of a directory
}

// child is a name in a directory, given by an entry of a layer.
type child struct {
	n     *node
	layer int32
}

// impliedTime is the time of a directory that no entry names.
const impliedTime = math.MinInt64

func newDir() *node {
	return &node{mode: squashfs.ModeDir | 0o755, modTime: impliedTime, children: map[string]child{}}
}

func (n *node) isDir() bool { return n.children != nil }

func (n *node) isLink() bool { return n.mode&squashfs.ModeType == squashfs.ModeSymlink }

// apply changes the tree as an entry of a layer asks for.
func (t *Tree) apply(layer int32, seq int, e *squashfs.Entry) error {
	dir, name := path.Split(e.Path)
	if len(name) > maxNameSize {
		return fmt.Errorf("cannot add %q: a name has %d bytes, more than %d: %w", e.Path, len(name), maxNameSize, ErrLimit)
	}
	if strings.HasPrefix(name, whiteout) {
		return t.applyWhiteout(layer, dir, name)
	}
	n := &node{mode: e.Mode, uid: e.UID, gid: e.GID, rdev: e.Rdev, layer: layer, modTime: e.ModTime, size: e.Size, text: e.Target, xattrs: e.Xattrs}
	if e.Mode&squashfs.ModeType == squashfs.ModeDir && e.Hardlink == "" {
		n.children = map[string]child{}
	}
	if e.Path == "" {
		// Security: a link as the root would lead what follows elsewhere (SC-073).
		if !n.isDir() {
			return fmt.Errorf("cannot add an entry named as the root that is no directory")
		}
		t.root.take(n)
		return nil
	}
	parent, err := t.dir(dir, layer, true)
	if err != nil {
		return err
	}
	if e.Hardlink != "" {
		return t.link(layer, parent, name, e)
	}
	if n.mode&squashfs.ModeType == squashfs.ModeRegular {
		// Security: a few bytes of archive can announce a hole of many terabytes.
		if n.size < 0 || n.size > t.limits.Size-t.size {
			return fmt.Errorf("cannot add %q: the files of the image have more than %d bytes: %w", e.Path, t.limits.Size, ErrLimit)
		}
		t.size += n.size
		if t.stored >= 0 && t.size > t.limits.FreeSize && t.size/t.limits.Ratio > t.stored {
			return fmt.Errorf("cannot add %q: the files of the image have more than %d times the %d bytes of its layers: %w", e.Path, t.limits.Ratio, t.stored, ErrLimit)
		}
		if n.size > 0 {
			t.files[layer] = append(t.files[layer], fileRef{seq, n})
		}
	}
	parent.put(name, child{n, layer})
	return nil
}

// put gives a node a name. A directory that is there stays, with new attributes.
func (n *node) put(name string, c child) {
	if old, ok := n.children[name]; ok && old.n.isDir() && c.n.isDir() {
		old.n.take(c.n)
		c.n = old.n
	} else if !ok {
		name = strings.Clone(name) // the path of an entry is one long string
	}
	n.children[name] = c
}

// take gives a directory the attributes of another.
func (n *node) take(from *node) {
	n.mode, n.uid, n.gid, n.modTime, n.layer, n.xattrs = from.mode, from.uid, from.gid, from.modTime, from.layer, from.xattrs
}

// link gives a node of this or a lower layer another name.
func (t *Tree) link(layer int32, parent *node, name string, e *squashfs.Entry) error {
	dir, base := path.Split(e.Hardlink)
	from, err := t.dir(dir, layer, false)
	if err != nil {
		return err
	}
	var n *node
	if from != nil {
		n = from.children[base].n
	}
	if n == nil || n.isDir() {
		return fmt.Errorf("cannot link %q to %q: no such file is in this or a lower layer", e.Path, e.Hardlink)
	}
	if _, ok := t.linked[n]; !ok {
		t.linked[n] = ""
	}
	parent.put(name, child{n, layer})
	return nil
}

// applyWhiteout takes away what lower layers have.
func (t *Tree) applyWhiteout(layer int32, dir, name string) error {
	target := strings.TrimPrefix(name, whiteout)
	if name != opaque && strings.HasPrefix(name, whiteoutMeta) {
		return nil // a note of a storage driver to itself
	}
	if target == "" || target == "." || target == ".." {
		return fmt.Errorf("cannot use the whiteout %q: it names no file", path.Join(dir, name))
	}
	parent, err := t.dir(dir, layer, false)
	if err != nil || parent == nil {
		return err
	}
	if name == opaque {
		parent.prune(layer)
		return nil
	}
	if c, ok := parent.children[target]; ok && !c.prune(layer) {
		delete(parent.children, target)
	}
	return nil
}

// prune takes away what layers below layer have put in a directory. What a
// layer has pruned once holds nothing lower any more, so a layer full of
// whiteouts costs no more than what it removes.
func (n *node) prune(layer int32) {
	if n.pruned == layer+1 {
		return
	}
	n.pruned = layer + 1
	for name, c := range n.children {
		if !c.prune(layer) {
			delete(n.children, name)
		}
	}
}

// prune tells whether the name stays.
func (c child) prune(layer int32) bool {
	if c.n.isDir() {
		c.n.prune(layer)
	}
	return c.layer == layer || len(c.n.children) > 0
}

// dir returns the directory at a path, with symbolic links followed as if the
// tree were the whole file system. With create missing ones are made;
// otherwise nil says that it is missing.
func (t *Tree) dir(name string, layer int32, create bool) (*node, error) {
	at := []*node{t.root}
	rest := name
	for links := 0; rest != ""; {
		part, more, _ := strings.Cut(rest, "/")
		rest = more
		// Security: links to links to long paths would make a few entries cost hours.
		if t.steps++; t.steps > maxSteps {
			return nil, fmt.Errorf("the paths of the image are longer than %d names together: %w", maxSteps, ErrLimit)
		}
		here := at[len(at)-1]
		switch part {
		case "", ".":
			continue
		case "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		c, ok := here.children[part]
		switch {
		case !ok && !create:
			return nil, nil
		case !ok:
			if err := t.implied(here, part, layer, len(at), name); err != nil {
				return nil, err
			}
			at = append(at, here.children[part].n)
		case c.n.isDir():
			at = append(at, c.n)
		case c.n.isLink():
			if links++; links > maxLinks {
				return nil, fmt.Errorf("cannot follow %q: more than %d symbolic links", name, maxLinks)
			}
			if path.IsAbs(c.n.text) {
				at = at[:1]
			}
			rest = c.n.text + "/" + rest
			t.steps += len(rest) / stepSize
		case create:
			return nil, fmt.Errorf("cannot add files below %q: %q is no directory", name, part)
		default:
			return nil, nil
		}
	}
	// One more fits below it.
	if create && len(at) > maxDepth {
		return nil, tooDeep(name)
	}
	return at[len(at)-1], nil
}

// implied makes a directory that no entry has named yet.
func (t *Tree) implied(parent *node, name string, layer int32, depth int, whole string) error {
	if depth > maxDepth {
		return tooDeep(whole)
	}
	if len(name) > maxNameSize {
		return fmt.Errorf("cannot add %q: a name has more than %d bytes: %w", whole, maxNameSize, ErrLimit)
	}
	if strings.HasPrefix(name, whiteout) {
		return fmt.Errorf("cannot add files below %q: a whiteout is no directory", whole)
	}
	if err := t.count(1); err != nil {
		return err
	}
	n := newDir()
	n.layer = layer
	parent.put(name, child{n, layer})
	return nil
}

func tooDeep(name string) error {
	return fmt.Errorf("cannot add %q: more than %d directories within each other: %w", name, maxDepth, ErrLimit)
}

// names returns the names of children, sorted.
func names(children map[string]child) []string {
	names := make([]string, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// finish gives every file with contents its path, the first by the order of
// names. Files without one are not in the tree any more.
func (t *Tree) finish() {
	_ = t.walk(func(at string, n *node) error {
		if n.hasContent() && n.text == "" {
			n.text = at
		}
		return nil
	})
}

func (n *node) hasContent() bool {
	return n.mode&squashfs.ModeType == squashfs.ModeRegular && n.size > 0
}

// walk calls visit for every name in the tree, directories before their
// children, in the order of names.
func (t *Tree) walk(visit func(at string, n *node) error) error {
	return t.root.walk("", false, visit)
}

// walk is Tree.walk; with drop each name is given up behind its visit.
func (n *node) walk(at string, drop bool, visit func(at string, n *node) error) error {
	if err := visit(at, n); err != nil {
		return err
	}
	children := n.children
	if drop {
		n.children = nil
	}
	for _, name := range names(children) {
		c := children[name].n
		if drop {
			delete(children, name)
		}
		if err := c.walk(path.Join(at, name), drop, visit); err != nil {
			return err
		}
	}
	return nil
}

// Has tells whether there is something at a path, a link on the way or at its
// end not followed.
func (t *Tree) Has(name string) bool {
	n := t.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if n = n.children[part].n; n == nil {
			return false
		}
	}
	return true
}

// Files returns the number of names in the tree, and Size the bytes of all
// contents in it.
func (t *Tree) Files() (files int, size int64) {
	_ = t.walk(func(at string, n *node) error {
		files++
		if n.hasContent() && n.text == at {
			size += n.size
		}
		return nil
	})
	return files, size
}

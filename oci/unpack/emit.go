package unpack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"singularity/squashfs"
)

// EmitOptions are the choices of Emit.
type EmitOptions struct {
	ModTime  int64             // seconds since the epoch: of directories that no entry names
	Progress func(bytes int64) // called with the bytes of contents so far; may be nil
}

// Emit gives the tree to sink and compares the digests of all layers. What sink
// got can be trusted only if the error is nil. The tree is gone afterwards: with
// millions of files, there is no memory for it and for what sink makes of it.
func (t *Tree) Emit(ctx context.Context, sink Sink, o EmitOptions) error {
	if err := t.emitEmpty(ctx, sink, &o); err != nil {
		return err
	}
	done := int64(0)
	for i := range t.layers {
		if err := t.emitLayer(ctx, i, sink, &o, &done); err != nil {
			return fmt.Errorf("cannot read layer %d (%s): %w", i+1, t.layers[i].name(), err)
		}
	}
	for _, x := range t.names {
		if err := sink.Add(squashfs.Entry{Path: x.path, Mode: x.n.mode, Hardlink: x.n.text}, nil); err != nil {
			return err
		}
	}
	return nil
}

// emitEmpty adds everything that has no contents, and leaves of the tree the
// files that have some.
func (t *Tree) emitEmpty(ctx context.Context, sink Sink, o *EmitOptions) error {
	root := t.root
	t.root = newDir()
	return root.walk("", true, func(at string, n *node) error {
		if n.hasContent() {
			if n.text != at {
				t.names = append(t.names, extraName{at, n})
			}
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		e := n.entry(at, o)
		if first, ok := t.linked[n]; ok {
			if first != "" {
				e.Hardlink = first
			} else {
				t.linked[n] = at
			}
		}
		return sink.Add(e, nil)
	})
}

func (n *node) entry(at string, o *EmitOptions) squashfs.Entry {
	e := squashfs.Entry{Path: at, Mode: n.mode, UID: n.uid, GID: n.gid, ModTime: n.modTime, Rdev: n.rdev, Size: n.size, Xattrs: n.xattrs}
	if e.ModTime == impliedTime {
		e.ModTime = o.ModTime
	}
	if n.isLink() {
		e.Target = n.text
	}
	return e
}

// emitLayer is the second pass over a layer.
func (t *Tree) emitLayer(ctx context.Context, layer int, sink Sink, o *EmitOptions, done *int64) error {
	v, err := openVerified(ctx, &t.layers[layer], t.limits)
	if err != nil {
		return err
	}
	defer v.Close()
	sum := sha256.New()
	tr := tar.NewReader(v)
	files := t.files[layer]
	for seq := 0; ; seq++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("it is no whole tar archive: %w", err)
		}
		addHeader(sum, h)
		if len(files) == 0 || files[0].seq != seq {
			continue
		}
		n := files[0].n
		files[0].n = nil // what sink makes of it takes its place
		files = files[1:]
		if n.text == "" {
			continue // a higher layer has something else there
		}
		// Security: the digest of the headers tells of a difference only at the end.
		if h.Size != n.size {
			return errChanged
		}
		if err := sink.Add(n.entry(n.text, o), tr); err != nil {
			return err
		}
		if *done += n.size; o.Progress != nil {
			o.Progress(*done)
		}
	}
	if err := v.Verify(); err != nil {
		return err
	}
	if t.headers[layer] != [sha256.Size]byte(sum.Sum(nil)) || len(files) > 0 {
		return errChanged
	}
	return nil
}

var errChanged = fmt.Errorf("it changed between two readings: %w", ErrDigest)

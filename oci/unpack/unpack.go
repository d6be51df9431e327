// Package unpack merges the layers of an OCI image into one tree and hands it
// on, file by file, without a copy of it on disk and without any privilege.
//
// In: layers, from the lowest to the highest, each a tar archive as it is
// stored: plain, or compressed by gzip or zstd. Out: entries for a Sink, which
// squashfs.Writer is one of: directories first, then what has no contents, then
// the files in the order of the layers.
//
//	Read  every layer once, for its headers: which file of which layer is in
//	      the tree at the end is known then. A plain layer that can be read
//	      at any place is only skipped through.
//	Emit  every layer once more, for the contents. Now the digests are taken.
//
// The result of unpacking layer after layer as the image specification says
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md) is what
// comes out: whiteouts and opaque directories take away what lower layers have,
// wherever in their layer they stand; a directory keeps its children when a
// higher layer names it again; hard links reach into lower layers; a symbolic
// link on the way to an entry is followed inside the tree. Owners, modes, times,
// devices and the attributes user.* and security.capability are kept.
//
// Trust: the layers are an enemy's. Names are only ever names in a tree in
// memory: "..", a root that is no directory and links in circles are errors,
// absolute names and links begin at the root of the tree. Counts, sizes, the
// depth, the work of following links and how much more comes out of a compressed
// layer than went in are bounded by Limits. Nothing is believed until Emit has
// returned: only then the digests have been compared, so a caller gives the
// result its name afterwards. A layer that changes between the two passes is
// found out.
//
// Files: unpack.go (what goes in and comes out), merge.go (the tree), stream.go
// (bytes of a layer), emit.go (the second pass).
package unpack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"singularity/squashfs"
)

// ErrLimit is wrapped by the error of an image that exceeds a limit.
var ErrLimit = errors.New("limit exceeded")

// ErrDigest is wrapped by the error of a layer that is not what the image names.
var ErrDigest = errors.New("digest mismatch")

// Limits bound what an image may cost.
type Limits struct {
	Layers  int   // number of layers
	Entries int   // headers in all layers, and directories made on the way
	Size    int64 // bytes of all contents, holes included, and of each layer
	// Ratio bounds the bytes that come out of one byte of a compressed layer,
	// once more than FreeSize bytes have come out of it.
	Ratio    int64
	FreeSize int64
}

// DefaultLimits are far above any image that is of use.
func DefaultLimits() Limits {
	return Limits{Layers: 1024, Entries: 1 << 21, Size: 1 << 40, Ratio: 200, FreeSize: 4 << 30}
}

const (
	maxDepth     = 500     // directories within each other, as in package build
	maxLinks     = 40      // symbolic links on the way to one entry, as in the kernel
	maxLinkSize  = 4095    // bytes of a link's target, as in the kernel
	maxSteps     = 1 << 28 // names looked up for all entries together
	stepSize     = 64      // bytes of a path that cost as much as a name
	maxNameSize  = 255
	whiteout     = ".wh."
	whiteoutMeta = ".wh..wh."
	opaque       = ".wh..wh..opq"
)

// Layer is a layer as it is stored.
type Layer struct {
	DiffID string // "sha256:" and the digest of the archive, uncompressed
	Digest string // the same of the stored bytes; "" if nobody named it
	Size   int64  // of the stored bytes; -1 if not known
	// Open returns the stored bytes. Where they can be read at any place the
	// result is an io.ReaderAt too, and Size is known.
	Open func() (io.ReadCloser, error)
}

// Sink takes the entries of a tree, as squashfs.Writer does.
type Sink interface {
	Add(e squashfs.Entry, content io.Reader) error
}

// Tree is what the layers give together.
type Tree struct {
	layers  []Layer
	limits  Limits
	root    *node
	files   [][]fileRef         // with contents, for each layer in its order
	headers [][sha256.Size]byte // digest of the headers of each layer
	entries int                 // so far
	size    int64               // so far, of all contents
	stored  int64               // bytes of all layers; -1 if not known
	steps   int                 // so far
	// linked has every node that an entry gave a further name; in Emit, the
	// path that it was added under.
	linked map[*node]string
	names  []extraName // of files with contents, once Emit has seen the tree
}

// extraName is a further name of a file.
type extraName struct {
	path string
	n    *node
}

// fileRef is where the contents of a file are: behind header seq of a layer.
type fileRef struct {
	seq int
	n   *node
}

// Read reads the headers of layers and merges them.
func Read(ctx context.Context, layers []Layer, limits Limits) (*Tree, error) {
	t := &Tree{layers: layers, limits: limits, root: newDir(), files: make([][]fileRef, len(layers)),
		headers: make([][sha256.Size]byte, len(layers)), linked: map[*node]string{}}
	for _, l := range layers {
		if l.Size < 0 || t.stored < 0 {
			t.stored = -1
			break
		}
		t.stored += l.Size
	}
	if len(layers) > limits.Layers {
		return nil, fmt.Errorf("the image has %d layers, more than %d: %w", len(layers), limits.Layers, ErrLimit)
	}
	for i := range layers {
		if err := t.readLayer(ctx, i); err != nil {
			return nil, fmt.Errorf("cannot read layer %d (%s): %w", i+1, layers[i].name(), err)
		}
	}
	t.finish()
	return t, nil
}

func (l *Layer) name() string {
	if l.Digest != "" {
		return l.Digest
	}
	return l.DiffID
}

// readLayer is the first pass over a layer.
func (t *Tree) readLayer(ctx context.Context, layer int) error {
	r, err := openHeaders(ctx, &t.layers[layer], t.limits)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	tr := tar.NewReader(r)
	for seq := 0; ; seq++ {
		e, ok, err := t.next(tr, sum)
		if err == io.EOF {
			break
		}
		if err == nil && ok {
			err = t.apply(int32(layer), seq, &e)
		}
		if err != nil {
			return err
		}
	}
	t.headers[layer] = [sha256.Size]byte(sum.Sum(nil))
	return nil
}

// next reads a header, counts it and adds it to the digest of the headers.
func (t *Tree) next(tr *tar.Reader, sum hash.Hash) (e squashfs.Entry, ok bool, err error) {
	h, err := tr.Next()
	if err != nil {
		if err != io.EOF {
			err = fmt.Errorf("it is no whole tar archive: %w", err)
		}
		return e, false, err
	}
	if err := t.count(1); err != nil {
		return e, false, err
	}
	addHeader(sum, h)
	e, ok, err = squashfs.TarEntry(h)
	if err != nil || !ok {
		return e, false, err
	}
	if strings.IndexByte(e.Path, 0) >= 0 || strings.IndexByte(e.Hardlink, 0) >= 0 {
		return e, false, fmt.Errorf("cannot add %q: the name contains a NUL", e.Path)
	}
	if len(e.Target) > maxLinkSize {
		return e, false, fmt.Errorf("cannot add %q: the target of the link has more than %d bytes: %w", e.Path, maxLinkSize, ErrLimit)
	}
	e.Xattrs = keepXattrs(e.Xattrs)
	return e, true, nil
}

// count counts entries.
func (t *Tree) count(n int) error {
	if t.entries += n; t.entries > t.limits.Entries {
		return fmt.Errorf("the image has more than %d entries: %w", t.limits.Entries, ErrLimit)
	}
	return nil
}

// addHeader adds to sum what decides where an entry goes and what it is.
func addHeader(sum hash.Hash, h *tar.Header) {
	b := make([]byte, 0, 256)
	for _, s := range []string{h.Name, h.Linkname} {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(append(b, ':'), s...)
	}
	for _, n := range []int64{int64(h.Typeflag), h.Size, h.Mode, int64(h.Uid), int64(h.Gid), h.ModTime.Unix(), h.Devmajor, h.Devminor} {
		b = append(strconv.AppendInt(b, n, 10), ' ')
	}
	sum.Write(b)
}

// keepXattrs returns the attributes that mean the same on every system.
// Security: trusted.* steers overlays, and other security.* the policy of a host.
func keepXattrs(list []squashfs.Xattr) []squashfs.Xattr {
	var kept []squashfs.Xattr
	for _, a := range list {
		if strings.HasPrefix(a.Name, "user.") || a.Name == "security.capability" {
			kept = append(kept, a)
		}
	}
	return kept
}

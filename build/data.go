package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"singularity/sif"
	"singularity/squashfs"
)

// Media types of a data container: an OCI artifact whose one layer is a
// squashfs.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	emptyType    = "application/vnd.oci.empty.v1+json"
	squashType   = "application/vnd.sylabs.image.layer.v1.squashfs"
	dataType     = "application/vnd.sylabs.data-container.v1"
)

// dataSlots is how many objects a data container can hold: the four that it has
// and a few more.
const dataSlots = 8

// DataOptions say how a data container is made.
type DataOptions struct {
	AllRoot bool   // every owner becomes root, as an ordinary user's image has it
	Time    *int64 // fixed time in seconds since 1970 for reproducible images, or nil
	Umask   int
}

// ociDescriptor points to a blob.
type ociDescriptor struct {
	MediaType    string     `json:"mediaType"`
	Size         int64      `json:"size"`
	Digest       sif.Digest `json:"digest"`
	ArtifactType string     `json:"artifactType,omitempty"`
}

type ociManifest struct {
	Version      int             `json:"schemaVersion"`
	MediaType    string          `json:"mediaType"`
	ArtifactType string          `json:"artifactType"`
	Config       ociDescriptor   `json:"config"`
	Layers       []ociDescriptor `json:"layers"`
}

type ociIndex struct {
	Version   int             `json:"schemaVersion"`
	MediaType string          `json:"mediaType"`
	Manifests []ociDescriptor `json:"manifests"`
}

// PackageData makes the OCI-SIF image out with the content of the directory
// src. It never overwrites: out appears whole and on disk, or not at all.
func PackageData(ctx context.Context, src, out string, o DataOptions) (err error) {
	if _, err := os.Lstat(out); err == nil {
		return &os.PathError{Op: "create", Path: out, Err: fs.ErrExist}
	}
	root, err := os.OpenFile(src, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	dir := filepath.Dir(out)
	layer, err := os.CreateTemp(dir, ".data-*.sqfs")
	if err != nil {
		return err
	}
	defer layer.Close()
	if err := os.Remove(layer.Name()); err != nil {
		return err
	}
	if err := packData(ctx, root, layer, o); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".data-*.sif")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := writeData(ctx, f, layer); err != nil {
		return err
	}
	if err := f.Chmod(os.FileMode(0o755 &^ o.Umask)); err != nil {
		return err
	}
	return placeNew(f.Name(), out)
}

// packData writes the tree as squashfs.
func packData(ctx context.Context, root, layer *os.File, o DataOptions) error {
	wo := squashfs.WriterOptions{Compression: squashfs.Gzip, ModTime: uint32(min(time.Now().Unix(), math.MaxUint32))}
	if o.Time != nil {
		wo.ModTime, wo.MaxModTime = uint32(*o.Time), o.Time
	}
	wo.Digest = sha256.Sum256
	w, err := squashfs.NewWriter(layer, wo)
	if err != nil {
		return err
	}
	if _, err := PackTree(ctx, root, w, PackOptions{AllRoot: o.AllRoot, CrossMounts: true}); err != nil {
		w.Abort()
		return err
	}
	size, err := w.Close()
	if err != nil {
		return err
	}
	return layer.Truncate(size)
}

// writeData writes the image: layer, configuration, manifest, index.
func writeData(ctx context.Context, f, layer *os.File) error {
	whole := func() io.Reader { return readerUntil{ctx, io.NewSectionReader(layer, 0, math.MaxInt64)} }
	ld, err := describeBlob(squashType, whole())
	if err != nil {
		return err
	}
	empty := []byte("{}")
	config, _ := describeBlob(emptyType, bytes.NewReader(empty))
	manifest, err := json.Marshal(ociManifest{2, manifestType, dataType, config, []ociDescriptor{ld}})
	if err != nil {
		return err
	}
	md, _ := describeBlob(manifestType, bytes.NewReader(manifest))
	md.ArtifactType = dataType
	index, err := json.Marshal(ociIndex{2, indexType, []ociDescriptor{md}})
	if err != nil {
		return err
	}
	id, _ := describeBlob(indexType, bytes.NewReader(index))
	blob := func(d ociDescriptor, r io.Reader) sif.Input {
		return sif.Input{Type: sif.DataOCIBlob, Group: sif.DefaultGroup, Extra: d.Digest.Extra(), Data: r}
	}
	root := blob(id, bytes.NewReader(index))
	root.Type = sif.DataOCIRootIndex
	_, err = sif.Create(f, sif.CreateOptions{Deterministic: true, Slots: dataSlots},
		blob(ld, whole()), blob(config, bytes.NewReader(empty)), blob(md, bytes.NewReader(manifest)), root)
	return err
}

// describeBlob reads a blob to its end.
func describeBlob(mediaType string, r io.Reader) (ociDescriptor, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return ociDescriptor{MediaType: mediaType, Size: n, Digest: sif.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil)))}, err
}

// readerUntil reads until ctx is done.
type readerUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readerUntil) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// placeNew gives a file the name to, which nothing may have yet.
func placeNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // not on this file system
		if err = os.Link(from, to); err == nil {
			return os.Remove(from)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		err = fs.ErrExist
	}
	return &os.PathError{Op: "create", Path: to, Err: err}
}

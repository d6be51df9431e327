package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/oci/document"
	"singularity/oci/unpack"
)

const (
	refAnnotation = "org.opencontainers.image.ref.name"
	maxNested     = 4 // indexes within each other
)

func openLayout(_ context.Context, name string, o *Options) (*Image, error) {
	dir, ref := splitPath(name)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%q is no directory; an archive of a layout is named oci-archive:%s", dir, name)
	}
	img, err := readLayout(dirStore{dir}, dir, ref, o)
	if err != nil {
		return nil, err
	}
	return NewImage(img), nil
}

func openArchive(ctx context.Context, name string, o *Options) (*Image, error) {
	file, ref := splitPath(name)
	s, err := openTarFile(ctx, file, o)
	if err != nil {
		return nil, err
	}
	img, err := readLayout(s, file, ref, o)
	if err != nil {
		s.Close()
		return nil, err
	}
	return NewImage(img, s), nil
}

func openTarFile(ctx context.Context, file string, o *Options) (*tarStore, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	s, err := openTar(ctx, f, o.limits())
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// readLayout finds the image in a layout that a reference and a platform name.
func readLayout(s store, name, ref string, o *Options) (*image, error) {
	data, err := readDocument(s, "index.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q is no OCI image layout, it holds no index.json: %w", name, ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(data, "")
	if err != nil {
		return nil, fmt.Errorf("cannot use index.json of %q: %w", name, err)
	}
	list, err := named(index.Manifests, ref, name)
	if err != nil {
		return nil, err
	}
	for range maxNested {
		d, err := choose(list, o.platform())
		if err != nil {
			return nil, fmt.Errorf("cannot use %q: %w", name, err)
		}
		data, err := blob(s, d)
		if err != nil {
			return nil, err
		}
		if d.MediaType != types.OCIImageIndex && d.MediaType != types.DockerManifestList {
			return readManifest(s, data, d, o)
		}
		nested, err := parseIndex(data, d.MediaType)
		if err != nil {
			return nil, fmt.Errorf("cannot use the index %s: %w", d.Digest, err)
		}
		list = nested.Manifests
	}
	return nil, fmt.Errorf("more than %d indexes within each other: %w", maxNested, unpack.ErrLimit)
}

func (o *Options) platform() Platform {
	if o.Platform == nil {
		return HostPlatform()
	}
	return *o.Platform
}

// named returns the descriptors that a reference names, all without one.
func named(list []v1.Descriptor, ref, name string) ([]v1.Descriptor, error) {
	var names []string
	for _, d := range list {
		if n := d.Annotations[refAnnotation]; n != "" {
			names = append(names, fmt.Sprintf("%q", n))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if ref == "" {
		if len(names) > 1 {
			return nil, fmt.Errorf("%q holds several images: name one of %s behind a colon", name, strings.Join(names, ", "))
		}
		return list, nil
	}
	ref = strings.TrimPrefix(ref, "@")
	var found []v1.Descriptor
	for _, d := range list {
		if d.Annotations[refAnnotation] == ref || d.Digest.String() == ref {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		holds := "no names at all"
		if len(names) > 0 {
			holds = strings.Join(names, ", ")
		}
		return nil, fmt.Errorf("%q holds no image %q; it holds %s", name, ref, holds)
	}
	return found, nil
}

func parseIndex(data []byte, mt types.MediaType) (*v1.IndexManifest, error) {
	if err := document.Check(data, string(mt), true); err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFormat)
	}
	if len(index.Manifests) > maxManifests {
		return nil, fmt.Errorf("it names more than %d manifests: %w", maxManifests, unpack.ErrLimit)
	}
	return index, nil
}

// blobName is where a layout keeps what a digest names. Security: the digest
// comes from a document and becomes a path (SC-130).
func blobName(h v1.Hash) (string, error) {
	if err := checkHash(h); err != nil {
		return "", err
	}
	return path.Join("blobs", h.Algorithm, h.Hex), nil
}

// blob reads a document and compares its digest.
func blob(s store, d v1.Descriptor) ([]byte, error) {
	name, err := blobName(d.Digest)
	if err != nil {
		return nil, err
	}
	data, err := readDocument(s, name)
	if err != nil {
		return nil, err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); sum != d.Digest.Hex || d.Size != int64(len(data)) {
		return nil, fmt.Errorf("%q is not what its digest and size say: %w", name, unpack.ErrDigest)
	}
	return data, nil
}

// readManifest makes the image of a manifest.
func readManifest(s store, data []byte, d v1.Descriptor, o *Options) (*image, error) {
	if err := document.Check(data, string(d.MediaType), false); err != nil {
		return nil, fmt.Errorf("cannot use the manifest %s: %w", d.Digest, err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("cannot use the manifest %s: %w: %w", d.Digest, err, ErrFormat)
	}
	if mt := m.Config.MediaType; mt != types.OCIConfigJSON && mt != types.DockerConfigJSON {
		return nil, fmt.Errorf("it is an artifact whose configuration has the type %q, and no image", mt)
	}
	img := &image{manifest: m, rawManifest: data, digest: d.Digest, mediaType: d.MediaType}
	if img.rawConfig, err = blob(s, m.Config); err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the image: %w", err)
	}
	if err := img.parseConfig(o); err != nil {
		return nil, err
	}
	if err := checkDiffIDs(img.config, len(m.Layers)); err != nil {
		return nil, err
	}
	for i, l := range m.Layers {
		name, err := blobName(l.Digest)
		if err == nil {
			err = checkLayerType(l.MediaType)
		}
		if err == nil {
			_, err = s.size(name)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use layer %d: %w", i+1, err)
		}
		img.layers = append(img.layers, &layer{store: s, name: name, desc: l, diffID: img.config.RootFS.DiffIDs[i]})
	}
	return img, nil
}

package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/oci/unpack"
)

// image implements v1.Image.
type image struct {
	rawConfig []byte
	config    *v1.ConfigFile
	layers    []*layer

	// A "docker save" archive has no manifest; it is made when somebody asks.
	mu          sync.Mutex
	manifest    *v1.Manifest
	rawManifest []byte
	digest      v1.Hash
	mediaType   types.MediaType
}

// parseConfig reads the configuration and compares its platform.
func (i *image) parseConfig(o *Options) error {
	var err error
	if i.config, err = v1.ParseConfigFile(bytes.NewReader(i.rawConfig)); err != nil {
		return fmt.Errorf("cannot use the configuration of the image: %w: %w", err, ErrFormat)
	}
	return checkPlatform(i.config, o.platform())
}

// source fills s without taking the digests of layers.
func (i *image) source(s *Source) error {
	s.Digest = i.digest.String()
	if i.digest.Hex == "" {
		s.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(i.rawConfig))
	}
	for _, l := range i.layers {
		size, err := l.store.size(l.name)
		if err != nil {
			return err
		}
		u := unpack.Layer{DiffID: l.diffID.String(), Size: size, Open: l.Compressed}
		if l.desc.Digest.Hex != "" {
			u.Digest, u.Size = l.desc.Digest.String(), l.desc.Size
		}
		if u.Size != size {
			return fmt.Errorf("layer %s has %d bytes, not %d: %w", l.diffID, size, u.Size, unpack.ErrDigest)
		}
		s.Layers = append(s.Layers, u)
	}
	return nil
}

// Layers implements v1.Image.
func (i *image) Layers() ([]v1.Layer, error) {
	list := make([]v1.Layer, len(i.layers))
	for n, l := range i.layers {
		list[n] = l
	}
	return list, nil
}

// MediaType implements v1.Image.
func (i *image) MediaType() (types.MediaType, error) {
	if i.mediaType == "" {
		return types.DockerManifestSchema2, nil
	}
	return i.mediaType, nil
}

// Size implements v1.Image.
func (i *image) Size() (int64, error) {
	raw, err := i.RawManifest()
	return int64(len(raw)), err
}

// ConfigName implements v1.Image.
func (i *image) ConfigName() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(i.rawConfig))
	return h, err
}

// ConfigFile implements v1.Image.
func (i *image) ConfigFile() (*v1.ConfigFile, error) { return i.config.DeepCopy(), nil }

// RawConfigFile implements v1.Image.
func (i *image) RawConfigFile() ([]byte, error) { return bytes.Clone(i.rawConfig), nil }

// Digest implements v1.Image.
func (i *image) Digest() (v1.Hash, error) {
	if i.digest.Hex != "" {
		return i.digest, nil
	}
	raw, err := i.RawManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	h, _, err := v1.SHA256(bytes.NewReader(raw))
	return h, err
}

// Manifest implements v1.Image.
func (i *image) Manifest() (*v1.Manifest, error) {
	raw, err := i.RawManifest()
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(raw))
}

// RawManifest implements v1.Image.
func (i *image) RawManifest() ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.rawManifest != nil {
		return i.rawManifest, nil
	}
	name, err := i.ConfigName()
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(i.rawConfig)), Digest: name}}
	for _, l := range i.layers {
		d, err := l.describe()
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	i.rawManifest, err = json.Marshal(m)
	return i.rawManifest, err
}

// LayerByDigest implements v1.Image.
func (i *image) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	for _, l := range i.layers {
		if d, err := l.Digest(); err == nil && d == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// LayerByDiffID implements v1.Image.
func (i *image) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	for _, l := range i.layers {
		if l.diffID == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// layer implements v1.Layer.
type layer struct {
	store  store
	name   string // of the member
	diffID v1.Hash
	mu     sync.Mutex
	desc   v1.Descriptor // without digest until somebody asks, if no manifest has one
}

// describe returns the descriptor of the layer as it is stored.
func (l *layer) describe() (v1.Descriptor, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.desc.Digest.Hex != "" {
		return l.desc, nil
	}
	r, _, err := l.store.open(l.name)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer r.Close()
	h, size, err := v1.SHA256(r)
	if err != nil {
		return v1.Descriptor{}, err
	}
	l.desc = v1.Descriptor{MediaType: types.DockerLayer, Size: size, Digest: h}
	if h == l.diffID {
		l.desc.MediaType = types.DockerUncompressedLayer
	}
	return l.desc, nil
}

// Digest implements v1.Layer.
func (l *layer) Digest() (v1.Hash, error) {
	d, err := l.describe()
	return d.Digest, err
}

// DiffID implements v1.Layer.
func (l *layer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Compressed implements v1.Layer: the layer as it is stored.
func (l *layer) Compressed() (io.ReadCloser, error) {
	r, _, err := l.store.open(l.name)
	return r, err
}

// Uncompressed implements v1.Layer.
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	plain, _, err := unpack.Decompress(r, unpack.DefaultLimits())
	if err != nil {
		r.Close()
		return nil, err
	}
	return &decompressed{plain, r}, nil
}

// decompressed closes what it reads from, too.
type decompressed struct {
	io.ReadCloser
	below io.Closer
}

func (d *decompressed) Close() error {
	d.ReadCloser.Close()
	return d.below.Close()
}

// Size implements v1.Layer.
func (l *layer) Size() (int64, error) {
	d, err := l.describe()
	return d.Size, err
}

// MediaType implements v1.Layer.
func (l *layer) MediaType() (types.MediaType, error) {
	d, err := l.describe()
	return d.MediaType, err
}

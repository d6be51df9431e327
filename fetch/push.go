package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/host"
	"singularity/oci"
	"singularity/oci/registry"
)

// PushLayers stores an image of layers in a registry, and returns the
// digest of its manifest. An image that has a manifest keeps it, and so its
// digest; one of "docker save" gets one, and its layers are compressed. Where the
// image cannot be read at any place, one layer at a time is kept in dir.
func PushLayers(ctx context.Context, p *registry.Push, img *oci.Image, dir string, progress func(what string) func(done, total int64)) (string, error) {
	manifest, mediaType, err := img.Stored()
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for n, l := range layers {
		d, err := pushLayer(ctx, p, img, l, dir, progress(fmt.Sprintf("layer %d of %d", n+1, len(layers))))
		if err != nil {
			return "", err
		}
		m.Layers = append(m.Layers, d)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return "", err
	}
	hash, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return "", err
	}
	m.Config = v1.Descriptor{MediaType: types.OCIConfigJSON, Size: size, Digest: hash}
	if err := p.Blob(ctx, bytes.NewReader(config), hash.String(), size, nil); err != nil {
		return "", err
	}
	if manifest == nil {
		if manifest, err = json.Marshal(m); err != nil {
			return "", err
		}
		mediaType = types.OCIManifestSchema1
	}
	return p.Manifest(ctx, string(mediaType), manifest)
}

func pushLayer(ctx context.Context, p *registry.Push, img *oci.Image, l v1.Layer, dir string, progress func(done, total int64)) (v1.Descriptor, error) {
	size, err := l.Size()
	if err != nil {
		return v1.Descriptor{}, err
	}
	packed, err := img.Pack(ctx, l, dir)
	if err != nil {
		return v1.Descriptor{}, host.ExplainSpace(err, host.Temporary, dir, size)
	}
	defer packed.Close()
	return packed.Descriptor, p.Blob(ctx, packed, packed.Digest.String(), packed.Size, progress)
}

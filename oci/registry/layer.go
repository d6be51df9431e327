package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/client/transfer"
)

// loggedIn returns a client whose requests have the right to act (pull, or
// push and pull) on the repository of s.
func (s *session) loggedIn(ctx context.Context, act string) (*http.Client, error) {
	t, err := transport.NewWithContext(ctx, s.repo.Registry, s.auth, s.rt, []string{s.repo.Scope(act)})
	if err != nil {
		return nil, err
	}
	return transfer.NewClient(t), nil
}

// url returns the address of a resource of the repository. The transport below
// makes it http where that is allowed and the registry speaks nothing else.
func (s *session) url(rest string) string {
	return "https://" + s.repo.RegistryStr() + "/v2/" + s.repo.RepositoryStr() + "/" + rest
}

// blob describes the download of a blob.
func (s *session) blob(client *http.Client, d v1.Descriptor) (*transfer.Download, error) {
	if err := checkDigest(d.Digest); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, errors.New("the registry announces a negative size")
	}
	return &transfer.Download{Client: client, URL: s.url("blobs/" + d.Digest.String()), Size: d.Size, Digest: d.Digest.Hex, Used: s.used}, nil
}

// resuming wraps an image so that the reading of its layers goes on where a
// connection breaks off.
func (c *Client) resuming(ctx context.Context, s *session, inner v1.Image) (v1.Image, error) {
	client, err := s.loggedIn(ctx, transport.PullScope)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&image{Image: inner, ctx: ctx, s: s, client: client})
}

type image struct {
	v1.Image
	ctx    context.Context
	s      *session
	client *http.Client
}

// LayerByDigest implements partial.CompressedImageCore.
func (i *image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := i.Manifest()
	if err != nil {
		return nil, err
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest == h {
			return &layer{Descriptor: d, image: i}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

type layer struct {
	v1.Descriptor
	image *image
}

// Digest implements partial.CompressedLayer.
func (l *layer) Digest() (v1.Hash, error) { return l.Descriptor.Digest, nil }

// Size implements partial.CompressedLayer.
func (l *layer) Size() (int64, error) { return l.Descriptor.Size, nil }

// MediaType implements partial.CompressedLayer.
func (l *layer) MediaType() (types.MediaType, error) { return l.Descriptor.MediaType, nil }

// Compressed implements partial.CompressedLayer.
func (l *layer) Compressed() (io.ReadCloser, error) {
	d, err := l.image.s.blob(l.image.client, l.Descriptor)
	if err != nil {
		return nil, err
	}
	return d.Open(l.image.ctx), nil
}

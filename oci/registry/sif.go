package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"singularity/client/transfer"
)

// The media types of a SIF image in a registry.
const (
	sifConfigType = "application/vnd.sylabs.sif.config.v1+json"
	sifLayerType  = "application/vnd.sylabs.sif.layer.v1.sif"
)

// sifLayerTypes are those that images have which were pushed long ago, too.
var sifLayerTypes = []string{sifLayerType, "application/vnd.sylabs.sif.layer.tar", "appliciation/vnd.sylabs.sif.layer.tar"}

// ErrNotSIF says that what is at a reference is no SIF image.
var ErrNotSIF = errors.New("it is not a SIF image")

// SIF is a SIF image in a registry.
type SIF struct {
	Digest   string // of the file: sha256:HEX
	Size     int64
	Manifest string // the digest of its manifest

	s    *session
	desc v1.Descriptor
	ref  string
}

// FindSIF looks up the SIF image at a tag, or at the digest of a manifest if
// there is one. Where several are at one tag, arch chooses.
func (c *Client) FindSIF(ctx context.Context, repository, tag, digest, arch string) (*SIF, error) {
	var found *SIF
	ref := fullName(repository, tag, digest)
	err := c.each(ctx, "pull", ref, repository, func(s *session) error {
		d, err := s.get(ctx, s.reference(tag, digest), "")
		if err != nil {
			return err
		}
		if d.MediaType.IsIndex() {
			if d, err = s.choose(ctx, d, v1.Platform{OS: "linux", Architecture: arch}); err != nil {
				return err
			}
		}
		found, err = sifOf(d.Manifest)
		if err != nil {
			return err
		}
		found.s, found.ref, found.Manifest = s, ref, d.Digest.String()
		return nil
	})
	return found, err
}

// sifOf reads the manifest of a SIF image.
func sifOf(manifest []byte) (*SIF, error) {
	m, err := v1.ParseManifest(bytes.NewReader(manifest))
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != 1 {
		return nil, fmt.Errorf("%w: it has %d layers, want one", ErrNotSIF, len(m.Layers))
	}
	l := m.Layers[0]
	known := false
	for _, t := range sifLayerTypes {
		known = known || string(l.MediaType) == t
	}
	switch {
	case !known:
		return nil, fmt.Errorf("%w: its layer is of the type %q", ErrNotSIF, l.MediaType)
	case checkDigest(l.Digest) != nil:
		return nil, checkDigest(l.Digest)
	case l.Size <= 0 || l.Size > transfer.MaxSize:
		return nil, fmt.Errorf("the registry announces a size of %d bytes", l.Size)
	}
	// Names and addresses in the manifest mean nothing here.
	return &SIF{Digest: l.Digest.String(), Size: l.Size, desc: l}, nil
}

// To fetches the image into f, which may hold the beginning of it.
func (i *SIF) To(ctx context.Context, f *os.File, progress func(done, total int64)) error {
	err := func() error {
		client, err := i.s.loggedIn(ctx, transport.PullScope)
		if err != nil {
			return err
		}
		d, err := i.s.blob(client, i.desc)
		if err != nil {
			return err
		}
		d.Progress = progress
		_, err = d.To(ctx, f)
		return err
	}()
	if err != nil {
		return &Error{Verb: "pull", Ref: i.ref, Err: i.s.explain(err)}
	}
	return nil
}

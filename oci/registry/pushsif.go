package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/client/transfer"
	"singularity/oci/document"
	"singularity/sif"
)

const (
	// maxSIFs bounds the images of one index that a push adds to.
	maxSIFs = 64
	// maxMerges is how often a push looks again whether others pushed meanwhile.
	maxMerges = 8
	// headSize is how much of a SIF tells its architecture.
	headSize = 128
)

// NewSIF is a SIF image to be pushed.
type NewSIF struct {
	SIF
	Arch  string // as GOARCH spells it; sif.UnknownArch if it does not say
	Title string // for people
}

// PushSIF stores a SIF image, whose digest and size are known, at the tag. SIF
// images for other architectures that are there stay: an index holds them all,
// as FindSIF chooses one. It returns the digest of the manifest, and the
// architectures that are at the tag now.
func (p *Push) PushSIF(ctx context.Context, r io.ReaderAt, i NewSIF, progress func(done, total int64)) (digest string, archs []string, err error) {
	mine, text, err := i.manifest()
	if err != nil {
		return "", nil, err
	}
	if err = p.Blob(ctx, r, i.Digest, i.Size, progress); err != nil {
		return "", nil, err
	}
	if err = p.Blob(ctx, bytes.NewReader(emptyConfig), digestOf(emptyConfig), int64(len(emptyConfig)), nil); err != nil {
		return "", nil, err
	}
	archs, err = p.merge(ctx, mine, text)
	return mine.Digest.String(), archs, p.fail(err)
}

var emptyConfig = []byte("{}")

// manifest describes the image, and its manifest, as an index does.
func (i *NewSIF) manifest() (v1.Descriptor, []byte, error) {
	layer, err := v1.NewHash(i.Digest)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	config, err := v1.NewHash(digestOf(emptyConfig))
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	text, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: sifConfigType, Size: int64(len(emptyConfig)), Digest: config},
		Layers: []v1.Descriptor{{MediaType: sifLayerType, Size: i.Size, Digest: layer, Annotations: map[string]string{"org.opencontainers.image.title": i.Title}}},
	})
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	d, err := entry(text, i.Arch)
	return d, text, err
}

// entry is what an index says about the manifest of a SIF image.
func entry(manifest []byte, arch string) (v1.Descriptor, error) {
	h, err := v1.NewHash(digestOf(manifest))
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: h, ArtifactType: sifConfigType,
		Platform: &v1.Platform{OS: "linux", Architecture: arch}}, err
}

// merge puts a manifest at the tag, beside what is there for other architectures.
//
// A registry cannot change a tag only if it is still what it was. Of two that
// push at once one may overwrite the other, so each looks again after as long as
// the other one may take between its look and its change, and adds itself to what
// is there then.
func (p *Push) merge(ctx context.Context, mine v1.Descriptor, text []byte) ([]string, error) {
	for range maxMerges {
		begin := time.Now()
		others, _, err := p.tagged(ctx)
		if err == nil {
			err = p.putBeside(ctx, others, mine, text)
		}
		if err == nil {
			err = transfer.Pause(ctx, 2*time.Since(begin))
		}
		if err != nil {
			return nil, err
		}
		if list, there, err := p.tagged(ctx, mine.Digest); there || err != nil {
			return archsOf(list), err
		}
	}
	return nil, errors.New("the registry does not show at this tag what was pushed to it")
}

// putBeside stores a manifest at the tag, or an index that names it with others.
func (p *Push) putBeside(ctx context.Context, others []v1.Descriptor, mine v1.Descriptor, text []byte) error {
	others, err := without(others, mine)
	if err != nil {
		return err
	}
	if len(others) == 0 {
		return p.put(ctx, p.tag, string(types.OCIManifestSchema1), text)
	}
	return p.putIndex(ctx, append(others, mine), text)
}

// putIndex stores one manifest and the index that names it with others.
func (p *Push) putIndex(ctx context.Context, list []v1.Descriptor, text []byte) error {
	if err := p.put(ctx, digestOf(text), string(types.OCIManifestSchema1), text); err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b v1.Descriptor) int {
		return bytes.Compare([]byte(a.Platform.Architecture), []byte(b.Platform.Architecture))
	})
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list})
	if err != nil {
		return err
	}
	return p.put(ctx, p.tag, string(types.OCIImageIndex), index)
}

// without leaves out the image that mine replaces.
func without(list []v1.Descriptor, mine v1.Descriptor) ([]v1.Descriptor, error) {
	var rest []v1.Descriptor
	for _, d := range list {
		if d.Platform.Architecture != mine.Platform.Architecture {
			rest = append(rest, d)
		}
	}
	if len(rest) > 0 && mine.Platform.Architecture == sif.UnknownArch {
		return nil, fmt.Errorf("the image does not say its architecture, and the tag holds images for %v", archsOf(rest))
	}
	return rest, nil
}

func archsOf(list []v1.Descriptor) []string {
	var names []string
	for _, d := range list {
		names = append(names, d.Platform.Architecture)
	}
	return names
}

// tagged returns the SIF images at the tag: none where nothing is or where
// anything else is, which a push replaces. there tells whether one of them has
// the digest want.
func (p *Push) tagged(ctx context.Context, want ...v1.Hash) (list []v1.Descriptor, there bool, err error) {
	text, index, err := p.get(ctx, p.tag)
	if err != nil || text == nil {
		return nil, false, err
	}
	if !index {
		d, err := p.sifEntry(ctx, text, "")
		if d == nil || err != nil {
			return nil, false, err
		}
		return []v1.Descriptor{*d}, slices.Contains(want, d.Digest), nil
	}
	m, err := v1.ParseIndexManifest(bytes.NewReader(text))
	if err != nil || len(m.Manifests) > maxSIFs {
		return nil, false, err
	}
	for _, e := range m.Manifests {
		if e.Platform == nil || checkDigest(e.Digest) != nil {
			return nil, false, nil
		}
		text, index, err := p.get(ctx, e.Digest.String())
		if err != nil {
			return nil, false, err
		}
		if text == nil || index || digestOf(text) != e.Digest.String() {
			return nil, false, nil
		}
		d, err := p.sifEntry(ctx, text, e.Platform.Architecture)
		if d == nil || err != nil {
			return nil, false, err
		}
		list = append(list, *d)
		there = there || slices.Contains(want, d.Digest)
	}
	return list, there, nil
}

// sifEntry describes the SIF image of a manifest; nil if it is of something
// else. Without arch it looks into the image.
func (p *Push) sifEntry(ctx context.Context, manifest []byte, arch string) (*v1.Descriptor, error) {
	i, err := sifOf(manifest)
	if err != nil {
		return nil, nil
	}
	if arch == "" {
		head, err := p.head(ctx, i)
		if err != nil {
			return nil, err
		}
		arch = sif.ArchOf(head)
	}
	d, err := entry(manifest, arch)
	return &d, err
}

// head reads the first bytes of an image.
func (p *Push) head(ctx context.Context, i *SIF) ([]byte, error) {
	res, err := p.do(ctx, http.MethodGet, p.s.url("blobs/"+i.Digest), nil, 0, http.Header{"Range": {fmt.Sprintf("bytes=0-%d", headSize-1)}})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		b := make([]byte, headSize)
		n, err := io.ReadFull(res.Body, b)
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			err = nil
		}
		return b[:n], err
	case http.StatusNotFound:
		return nil, nil // a manifest without its image: nobody can miss it
	}
	return nil, transfer.NewStatusError(res, p.s.used)
}

// get reads the manifest or index at a tag or digest; none if there is none.
func (p *Push) get(ctx context.Context, at string) (text []byte, index bool, err error) {
	accept := http.Header{"Accept": {string(types.OCIImageIndex), string(types.OCIManifestSchema1), string(types.DockerManifestList), string(types.DockerManifestSchema2)}}
	res, err := p.do(ctx, http.MethodGet, p.s.url("manifests/"+at), nil, 0, accept)
	if err != nil {
		return nil, false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, false, nil
	}
	if res.StatusCode != http.StatusOK {
		return nil, false, transfer.NewStatusError(res, p.s.used)
	}
	if text, err = io.ReadAll(io.LimitReader(res.Body, document.MaxSize+1)); err != nil {
		return nil, false, err
	}
	if len(text) > document.MaxSize {
		return nil, false, fmt.Errorf("the registry sends a manifest of more than %d bytes", document.MaxSize)
	}
	mt := types.MediaType(res.Header.Get("Content-Type"))
	if document.Check(text, string(mt), mt.IsIndex()) != nil {
		return nil, false, nil // nothing that could be added to
	}
	return text, mt.IsIndex(), nil
}

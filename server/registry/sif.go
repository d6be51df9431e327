package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"

	"singularity/server/library"
	"singularity/server/store"
)

// The config of an artifact that needs none.
const (
	emptyConfig = "{}"
	emptySHA256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
)

// index is an answer that is an image index.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"` // never absent
}

func (i index) write(w http.ResponseWriter) {
	text, err := json.Marshal(i)
	if err != nil {
		panic(err) // plain data
	}
	w.WriteHeader(http.StatusOK)
	w.Write(text)
}

// ofSIF makes the manifest of an image of the library: the same bytes each time,
// so that it has a digest without being stored.
func ofSIF(k library.Repository, i library.SIF) (text []byte, digest string) {
	d := document{SchemaVersion: 2, MediaType: typeManifest, ArtifactType: typeSIF,
		Config: &descriptor{MediaType: typeEmpty, Digest: "sha256:" + emptySHA256, Size: int64(len(emptyConfig))},
		Layers: []descriptor{{MediaType: typeSIF, Digest: "sha256:" + i.SHA256, Size: i.Size, Annotations: map[string]string{"org.opencontainers.image.title": path.Base(k.Path) + ".sif"}}}}
	text, err := json.Marshal(d)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(text)
	return text, "sha256:" + hex.EncodeToString(sum[:])
}

// sifManifest returns the manifest of an image with a tag. Of several
// architectures amd64 is the one that clients get who ask for none.
func (s *Service) sifManifest(ctx context.Context, k library.Repository, is func(i library.SIF, digest string) bool) ([]byte, string, string, error) {
	list, err := s.lib.Tagged(ctx, k.ID)
	if err != nil {
		return nil, "", "", err
	}
	slices.SortFunc(list, func(a, b library.SIF) int {
		if (a.Arch == "amd64") != (b.Arch == "amd64") {
			if a.Arch == "amd64" {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Arch+"/"+a.Tag, b.Arch+"/"+b.Tag)
	})
	for _, i := range list {
		if text, digest := ofSIF(k, i); is(i, digest) {
			return text, typeManifest, digest, nil
		}
	}
	return nil, "", "", errManifestUnknown
}

// addSIF makes an image of the library of a blob, which from then on is visible
// and counted as that.
func (s *Service) addSIF(ctx context.Context, k library.Repository, sha256 string) error {
	if err := s.lib.AddSIF(ctx, k.ID, sha256); err != nil {
		return err
	}
	l, err := s.links.Get(ctx, key(k.ID, sha256))
	if err == nil {
		err = s.dropLink(ctx, k.Entity, l.Key, l.Value.Size)
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// sifRemoved follows an image that was deleted in the library: the manifests that
// came with it go, so that it is not to be had here any more (SC-140).
func (s *Service) sifRemoved(ctx context.Context, container, sha256 string) error {
	for m, err := range s.manifests.All(ctx, store.Query{Index: "names", Equal: key(container, sha256)}) {
		if err != nil {
			return err
		}
		if m.Value.SIF != sha256 {
			continue
		}
		if err := s.removeManifest(ctx, container, m); err != nil {
			return err
		}
	}
	l, err := s.links.Get(ctx, key(container, sha256))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if n, err := s.manifests.Count(ctx, store.Query{Index: "names", Equal: key(container, sha256)}); n > 0 || err != nil {
		return err
	}
	return s.dropLink(ctx, l.Value.Entity, l.Key, l.Value.Size)
}

package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
)

// The bounds of a manifest.
const (
	maxManifest    = 4 << 20
	maxNamed       = 10_000 // blobs or manifests in it
	maxAnnotations = 64 << 10
)

const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeEmpty          = "application/vnd.oci.empty.v1+json"
	typeSIF            = "application/vnd.sylabs.sif.layer.v1.sif"
)

var errManifestUnknown = &fault{http.StatusNotFound, "MANIFEST_UNKNOWN", "there is no such manifest in this repository"}

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// document is a manifest or an index.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitempty"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func invalid(format string, args ...any) *fault {
	return faultf(http.StatusBadRequest, "MANIFEST_INVALID", format, args...)
}

// parseManifest reads a manifest of a media type.
func parseManifest(text []byte, mediaType string) (manifest, error) {
	m := manifest{Size: int64(len(text)), MediaType: mediaType}
	sum := sha256.Sum256(text)
	m.SHA256 = hex.EncodeToString(sum[:])
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return m, invalid("the manifest is no JSON of a manifest")
	}
	if d.MediaType != "" && d.MediaType != mediaType {
		return m, invalid("the manifest is a %.100q, and came as a %.100q", d.MediaType, mediaType)
	}
	if d.SchemaVersion != 2 {
		return m, invalid("schemaVersion is %d, not 2", d.SchemaVersion)
	}
	var err error
	switch mediaType {
	case typeManifest, typeDockerManifest:
		err = m.readManifest(&d)
	case typeIndex, typeDockerList:
		err = m.readIndex(&d)
	default:
		err = invalid("%.100q is no type of a manifest here", mediaType)
	}
	if err != nil {
		return m, err
	}
	if d.Subject != nil {
		if m.Subject, err = parseDigest(d.Subject.Digest); err != nil {
			return m, invalid("the subject has no digest")
		}
		size := 0
		for k, v := range d.Annotations {
			size += len(k) + len(v)
		}
		if size > maxAnnotations {
			return m, invalid("more than %d bytes of annotations", maxAnnotations)
		}
		m.Annotations = d.Annotations
	}
	m.ArtifactType = d.ArtifactType
	if m.ArtifactType == "" && d.Config != nil {
		m.ArtifactType = d.Config.MediaType
	}
	if len(m.ArtifactType) > 256 {
		return m, invalid("the type of the artifact is too long")
	}
	return m, nil
}

func (m *manifest) readManifest(d *document) error {
	if d.Config == nil || len(d.Layers) >= maxNamed || len(d.Manifests) > 0 {
		return invalid("a manifest has a config and up to %d layers", maxNamed)
	}
	for i, b := range append([]descriptor{*d.Config}, d.Layers...) {
		sha, err := parseDigest(b.Digest)
		if err != nil || b.Size < 0 {
			return invalid("the digest of blob %d of the manifest is not valid", i)
		}
		if len(b.URLs) > 0 {
			continue // it is somewhere else, and nothing here goes there
		}
		if !slices.Contains(m.Blobs, sha) {
			m.Blobs = append(m.Blobs, sha)
		}
	}
	if len(d.Layers) == 1 && d.Layers[0].MediaType == typeSIF && len(d.Layers[0].URLs) == 0 {
		m.SIF, _ = parseDigest(d.Layers[0].Digest)
	}
	return nil
}

func (m *manifest) readIndex(d *document) error {
	if d.Config != nil || len(d.Layers) > 0 || len(d.Manifests) > maxNamed {
		return invalid("an index has up to %d manifests, and nothing else", maxNamed)
	}
	for i, b := range d.Manifests {
		sha, err := parseDigest(b.Digest)
		if err != nil {
			return invalid("the digest of manifest %d of the index is not valid", i)
		}
		m.Manifests = append(m.Manifests, sha)
	}
	return nil
}

var tagName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

func (s *Service) putManifest(r *request) error {
	ctx := r.Context()
	if !auth.From(ctx).Known() {
		return errUnauthorized
	}
	k, err := s.lib.Ensure(ctx, r.name)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, maxManifest))
	if err != nil {
		return err
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return invalid("the request has no type of a manifest")
	}
	m, err := parseManifest(text, mediaType)
	if err != nil {
		return err
	}
	digest := "sha256:" + m.SHA256
	tag := ""
	if digestName.MatchString(r.ref) {
		if r.ref != digest {
			return faultf(http.StatusBadRequest, "DIGEST_INVALID", "the manifest has the digest %s", digest)
		}
	} else if tag = r.ref; !tagName.MatchString(tag) {
		return faultf(http.StatusBadRequest, "MANIFEST_INVALID", "%.140q is neither a tag nor a digest", tag)
	}
	if err := s.complete(ctx, k, &m); err != nil {
		return err
	}
	if m.SIF != "" {
		if err := s.addSIF(ctx, k, m.SIF); err != nil {
			return err
		}
	}
	if err := s.addManifest(ctx, k, m, text); err != nil {
		return err
	}
	if tag != "" {
		if err := s.lib.SetTag(ctx, k.ID, tag, digest, m.SIF != ""); err != nil {
			return err
		}
		if m.SIF != "" {
			if err := s.lib.TagSIF(ctx, k.ID, m.SIF, tag); err != nil {
				return err
			}
		}
	}
	s.auth.Audit(ctx, "manifest.push", k.Path+":"+r.ref, nil, map[string]string{"digest": digest})
	r.location("/manifests/" + digest)
	r.w.Header().Set("Docker-Content-Digest", digest)
	if m.Subject != "" {
		r.w.Header().Set("OCI-Subject", "sha256:"+m.Subject)
	}
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

// complete refuses a manifest with a blob that is not in the repository.
func (s *Service) complete(ctx context.Context, k library.Repository, m *manifest) error {
	for _, b := range m.Blobs {
		if _, err := s.sizeOf(ctx, k, b); err != nil {
			if errors.Is(err, error(errBlobUnknown)) {
				err = faultf(http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "the blob sha256:%s of the manifest is not in this repository", b)
			}
			return err
		}
	}
	return nil
}

// addManifest stores a manifest: first its bytes.
func (s *Service) addManifest(ctx context.Context, k library.Repository, m manifest, text []byte) error {
	if _, err := s.manifests.Get(ctx, key(k.ID, m.SHA256)); err == nil || !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if _, err := s.blobs.Put(ctx, library.BlobName(m.SHA256), bytes.NewReader(text), store.Content{Size: m.Size, SHA256: m.SHA256}); err != nil {
		return err
	}
	m.Container, m.At = k.ID, s.now().UTC()
	if _, err := s.manifests.Insert(ctx, key(k.ID, m.SHA256), m); err != nil && !errors.Is(err, store.ErrExists) {
		return err
	}
	here, err := s.lib.Secured(ctx, m.SHA256)
	if err == nil && !here {
		err = errors.Join(faultf(http.StatusConflict, "MANIFEST_INVALID", "the manifest was removed meanwhile: push again"), s.manifests.Delete(ctx, key(k.ID, m.SHA256), 0))
	}
	return err
}

func (s *Service) getManifest(r *request) error {
	ctx := r.Context()
	k, err := s.lib.Repository(ctx, auth.Read, r.name)
	if err != nil {
		return err
	}
	text, mediaType, digest, err := s.find(ctx, k, r.ref)
	if err != nil {
		return err
	}
	h := r.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Docker-Content-Digest", digest)
	h.Set("ETag", strconv.Quote(digest))
	h.Set("Cache-Control", "private, no-store")
	r.w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		r.w.Write(text)
	}
	return nil
}

// find returns the manifest at a tag or digest: one that was pushed, or one made
// of an image of the library.
func (s *Service) find(ctx context.Context, k library.Repository, ref string) (text []byte, mediaType, digest string, err error) {
	digest = ref
	if !digestName.MatchString(ref) {
		if !tagName.MatchString(ref) {
			return nil, "", "", errManifestUnknown
		}
		if digest = k.Tags[ref]; digest == "" {
			return s.sifManifest(ctx, k, func(i library.SIF, _ string) bool { return i.Tag == ref })
		}
	}
	sha, err := parseDigest(digest)
	if err != nil {
		return nil, "", "", err
	}
	m, err := s.manifests.Get(ctx, key(k.ID, sha))
	if errors.Is(err, store.ErrNotFound) {
		return s.sifManifest(ctx, k, func(_ library.SIF, d string) bool { return d == digest })
	}
	if err != nil {
		return nil, "", "", err
	}
	b, err := s.blobs.Open(ctx, library.BlobName(sha))
	if err != nil {
		return nil, "", "", err
	}
	defer b.Close()
	text, err = io.ReadAll(io.LimitReader(b, maxManifest))
	return text, m.Value.MediaType, digest, err
}

func (s *Service) deleteManifest(r *request) error {
	ctx := r.Context()
	if err := s.lib.CanDelete(r.w); err != nil {
		return err
	}
	k, err := s.lib.Repository(ctx, auth.Delete, r.name)
	if err != nil {
		return err
	}
	if !digestName.MatchString(r.ref) {
		return s.deleteTag(r, k)
	}
	sha, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	m, err := s.manifests.Get(ctx, key(k.ID, sha))
	if errors.Is(err, store.ErrNotFound) {
		return errManifestUnknown
	}
	if err != nil {
		return err
	}
	err = s.removeManifest(ctx, k.ID, m)
	if err == nil && m.Value.SIF != "" {
		err = s.lib.RemoveSIF(ctx, k.ID, m.Value.SIF)
	}
	s.auth.Audit(ctx, "manifest.delete", k.Path, err, map[string]string{"digest": r.ref})
	if err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

// removeManifest takes the tags of a manifest first: none leads to nothing.
func (s *Service) removeManifest(ctx context.Context, container string, m store.Item[manifest]) error {
	if _, err := s.lib.DropTags(ctx, container, func(_, digest string) bool { return digest == "sha256:"+m.Value.SHA256 }); err != nil {
		return err
	}
	if err := s.manifests.Delete(ctx, m.Key, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

func (s *Service) deleteTag(r *request, k library.Repository) error {
	ctx := r.Context()
	n, err := s.lib.DropTags(ctx, k.ID, func(tag, _ string) bool { return tag == r.ref })
	if err == nil && n == 0 {
		err = errManifestUnknown
	}
	s.auth.Audit(ctx, "tag.delete", k.Path+":"+r.ref, err, nil)
	if err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

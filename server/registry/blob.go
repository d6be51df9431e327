package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
)

func key(container, sha256 string) string { return container + "/" + sha256 }

// holds tells the library that a content is needed.
func (s *Service) holds(ctx context.Context, sha256 string) (bool, error) {
	n, err := s.links.Count(ctx, store.Query{Index: "blob", Equal: sha256})
	if err == nil && n == 0 {
		n, err = s.manifests.Count(ctx, store.Query{Index: "blob", Equal: sha256})
	}
	return n > 0, err
}

// inUse counts the blobs of an entity.
func (s *Service) inUse(ctx context.Context, entity string) (int64, error) {
	var sum int64
	for l, err := range s.links.All(ctx, store.Query{Index: "entity", Equal: entity}) {
		if err != nil {
			return 0, err
		}
		sum += l.Value.Size
	}
	return sum, nil
}

var errBlobUnknown = &fault{http.StatusNotFound, "BLOB_UNKNOWN", "there is no such blob in this repository"}

// sizeOf tells the size of a blob that is visible in a repository.
func (s *Service) sizeOf(ctx context.Context, k library.Repository, sha256 string) (int64, error) {
	l, err := s.links.Get(ctx, key(k.ID, sha256))
	if err == nil {
		return l.Value.Size, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if sha256 == emptySHA256 { // the config of every image of the library
		list, err := s.lib.Tagged(ctx, k.ID)
		if err == nil && len(list) == 0 {
			err = errBlobUnknown
		}
		return int64(len(emptyConfig)), err
	}
	size, err := s.lib.Has(ctx, k.ID, sha256)
	if errors.Is(err, store.ErrNotFound) {
		err = errBlobUnknown
	}
	return size, err
}

func (s *Service) getBlob(r *request) error {
	ctx := r.Context()
	k, err := s.lib.Repository(ctx, auth.Read, r.name)
	if err != nil {
		return err
	}
	sha, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	if _, err := s.sizeOf(ctx, k, sha); err != nil {
		return err
	}
	if err := s.lib.Serves(ctx, k.ID, sha); err != nil {
		return err
	}
	var content io.ReadSeeker = strings.NewReader(emptyConfig)
	if sha != emptySHA256 {
		b, err := s.blobs.Open(ctx, library.BlobName(sha))
		if err != nil {
			return err
		}
		defer b.Close()
		content = b
	}
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range")
	}
	h := r.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", "sha256:"+sha)
	h.Set("ETag", strconv.Quote("sha256:"+sha))
	h.Set("Cache-Control", "private, no-store")
	http.ServeContent(r.w, r.Request, "", time.Time{}, content)
	return nil
}

// addLink shows a blob that is here in a repository.
func (s *Service) addLink(ctx context.Context, k library.Repository, sha256 string, size int64) error {
	if _, err := s.links.Get(ctx, key(k.ID, sha256)); err == nil {
		return nil
	}
	err := s.lib.Charge(ctx, k.Entity, size, func() error {
		_, err := s.links.Insert(ctx, key(k.ID, sha256), link{k.ID, k.Entity, sha256, size, s.now().UTC()})
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return nil // another request was first, and it counted
	}
	if err != nil {
		return err
	}
	here, err := s.lib.Secured(ctx, sha256)
	if err == nil && !here {
		err = errors.Join(faultf(http.StatusConflict, "BLOB_UPLOAD_INVALID", "the content was removed meanwhile: push again"), s.dropLink(ctx, k.Entity, key(k.ID, sha256), size))
	}
	return err
}

func (s *Service) dropLink(ctx context.Context, entity, key string, size int64) error {
	return s.lib.Charge(ctx, entity, -size, func() error { return s.links.Delete(ctx, key, 0) })
}

func (s *Service) deleteBlob(r *request) error {
	ctx := r.Context()
	if err := s.lib.CanDelete(r.w); err != nil {
		return err
	}
	k, err := s.lib.Repository(ctx, auth.Delete, r.name)
	if err != nil {
		return err
	}
	sha, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	l, err := s.links.Get(ctx, key(k.ID, sha))
	if errors.Is(err, store.ErrNotFound) {
		return errBlobUnknown
	}
	if err != nil {
		return err
	}
	if n, err := s.manifests.Count(ctx, store.Query{Index: "names", Equal: key(k.ID, sha)}); err != nil || n > 0 {
		return errors.Join(err, faultf(http.StatusMethodNotAllowed, "DENIED", "a manifest needs this blob: delete that first"))
	}
	if err := s.dropLink(ctx, k.Entity, l.Key, l.Value.Size); err != nil {
		return err
	}
	s.auth.Audit(ctx, "blob.delete", k.Path, nil, map[string]string{"digest": r.ref})
	r.w.WriteHeader(http.StatusAccepted)
	return nil
}

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/store"
)

const (
	maxUploads = 64 // of a user
	uploadLife = 24 * time.Hour
)

var errUploadUnknown = &fault{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "there is no such upload: it has ended or was given up"}

func (s *Service) startUpload(r *request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if !c.Known() {
		return errUnauthorized // whatever the repository: clients log in then
	}
	k, err := s.lib.Ensure(ctx, r.name)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if mount := q.Get("mount"); mount != "" {
		if done, err := s.mount(r, k, mount, q.Get("from")); done || err != nil {
			return err
		}
	}
	n, err := s.uploads.Count(ctx, store.Query{Index: "user", Equal: c.ID})
	if err != nil {
		return err
	}
	if n >= maxUploads {
		return faultf(http.StatusTooManyRequests, "TOOMANYREQUESTS", "%d uploads of yours have not ended", n)
	}
	u, err := s.blobs.Start(ctx, store.Plan{Size: -1})
	if err != nil {
		return err
	}
	if _, err := s.uploads.Insert(ctx, u.ID, upload{k.ID, c.ID, s.now().Add(uploadLife)}); err != nil {
		return errors.Join(err, s.blobs.Abort(context.WithoutCancel(ctx), u.ID))
	}
	if digest := q.Get("digest"); digest != "" {
		return s.finish(r, k, u, digest)
	}
	s.accepted(r, u)
	return nil
}

// mount shows a blob of another repository in this one.
//
// Security: only a blob that the caller may read there (SC-139); if not, the
// answer is the one for a blob that does not exist.
func (s *Service) mount(r *request, k library.Repository, digest, from string) (bool, error) {
	ctx := r.Context()
	sha, err := parseDigest(digest)
	if err != nil {
		return false, err
	}
	if from == "" {
		return false, nil
	}
	other, err := s.lib.Repository(ctx, auth.Read, from)
	if err != nil {
		return false, nil
	}
	size, err := s.sizeOf(ctx, other, sha)
	if err != nil || sha == emptySHA256 {
		return false, nil
	}
	if err := s.addLink(ctx, k, sha, size); err != nil {
		return false, err
	}
	r.location("/blobs/" + digest)
	r.w.Header().Set("Docker-Content-Digest", digest)
	r.w.WriteHeader(http.StatusCreated)
	return true, nil
}

// accepted answers that an upload goes on.
func (s *Service) accepted(r *request, u store.Upload) {
	s.progress(r, u)
	r.w.WriteHeader(http.StatusAccepted)
}

func (s *Service) progress(r *request, u store.Upload) {
	r.location("/blobs/uploads/" + u.ID)
	r.w.Header().Set("Docker-Upload-Uuid", u.ID)
	r.w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.Size-1)))
	r.w.Header().Set("Content-Length", "0")
}

var uploadID = regexp.MustCompile(`^[0-9a-f]{24}$`)

// uploadFor returns an upload of the caller to the repository of the path.
func (s *Service) uploadFor(r *request) (library.Repository, store.Upload, error) {
	ctx := r.Context()
	k, err := s.lib.Repository(ctx, auth.Create, r.name)
	if err != nil {
		return k, store.Upload{}, err
	}
	if !uploadID.MatchString(r.ref) {
		return k, store.Upload{}, errUploadUnknown
	}
	i, err := s.uploads.Get(ctx, r.ref)
	if errors.Is(err, store.ErrNotFound) || err == nil && (i.Value.Container != k.ID || i.Value.User != auth.From(ctx).ID) {
		return k, store.Upload{}, errUploadUnknown
	}
	if err != nil {
		return k, store.Upload{}, err
	}
	u, err := s.blobs.Upload(ctx, r.ref)
	if errors.Is(err, store.ErrNotFound) {
		err = errUploadUnknown
	}
	return k, u, err
}

func (s *Service) uploadStatus(r *request) error {
	_, u, err := s.uploadFor(r)
	if err != nil {
		return err
	}
	s.progress(r, u)
	r.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) abortUpload(r *request) error {
	_, u, err := s.uploadFor(r)
	if err != nil {
		return err
	}
	if err := s.abort(r.Context(), u.ID); err != nil {
		return err
	}
	r.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) abort(ctx context.Context, id string) error {
	if err := s.blobs.Abort(ctx, id); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := s.uploads.Delete(ctx, id, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

var contentRange = regexp.MustCompile(`^([0-9]{1,18})-([0-9]{1,18})$`)

// append stores the body of a request behind what has come.
func (s *Service) append(r *request, u store.Upload) error {
	want := store.Content{Size: r.ContentLength}
	if text := r.Header.Get("Content-Range"); text != "" {
		m := contentRange.FindStringSubmatch(text)
		if m == nil {
			return faultf(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "%.60q is no range: FIRST-LAST is wanted", text)
		}
		first, _ := strconv.ParseInt(m[1], 10, 64)
		last, _ := strconv.ParseInt(m[2], 10, 64)
		if first != u.Size || last < first || want.Size >= 0 && want.Size != last-first+1 {
			s.progress(r, u)
			return faultf(http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "%d bytes have come, so the next part does not begin at %d", u.Size, first)
		}
		want.Size = last - first + 1
	}
	body := http.MaxBytesReader(r.w, r.Body, s.lib.MaxImage()-u.Size)
	_, err := s.blobs.PutPart(r.Context(), u.ID, len(u.Parts)+1, body, want)
	return err
}

func (s *Service) patchUpload(r *request) error {
	_, u, err := s.uploadFor(r)
	if err != nil {
		return err
	}
	if err := s.append(r, u); err != nil {
		return err
	}
	if u, err = s.blobs.Upload(r.Context(), u.ID); err != nil {
		return err
	}
	s.accepted(r, u)
	return nil
}

func (s *Service) endUpload(r *request) error {
	k, u, err := s.uploadFor(r)
	if err != nil {
		return err
	}
	return s.finish(r, k, u, r.URL.Query().Get("digest"))
}

// finish stores the rest that comes with the request and makes it all a blob of
// the repository.
func (s *Service) finish(r *request, k library.Repository, u store.Upload, digest string) error {
	ctx := r.Context()
	sha, err := parseDigest(digest)
	if err != nil {
		return err
	}
	if r.ContentLength != 0 {
		if err := s.append(r, u); err != nil {
			return err
		}
	}
	info, err := s.blobs.Complete(ctx, u.ID, library.BlobName(sha), store.Content{Size: -1, SHA256: sha})
	if err != nil {
		if errors.Is(err, store.ErrContent) {
			err = errors.Join(faultf(http.StatusBadRequest, "DIGEST_INVALID", "the content has not the digest %s", digest), s.abort(ctx, u.ID))
		}
		return err
	}
	if err := s.addLink(ctx, k, sha, info.Size); err != nil {
		return errors.Join(err, s.lib.Free(context.WithoutCancel(ctx), sha))
	}
	if err := s.uploads.Delete(ctx, u.ID, 0); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	r.location("/blobs/" + digest)
	r.w.Header().Set("Docker-Content-Digest", digest)
	r.w.WriteHeader(http.StatusCreated)
	return nil
}

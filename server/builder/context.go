package builder

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

const (
	contextLife = 24 * time.Hour // of files that no build waits for
	uploadTime  = time.Hour      // for an announced archive to come
)

// buildContext is an archive of files for builds of one account. That another
// account has the same is told to nobody.
type buildContext struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Digest  string    `json:"digest"` // hexadecimal
	Size    int64     `json:"size"`
	Secret  []byte    `json:"secret"` // SHA-256 of what the address of the upload has
	Arrived bool      `json:"arrived,omitempty"`
	Until   time.Time `json:"until"`
}

var contextIndexes = []store.Index[buildContext]{
	{Name: "until", Of: func(c *buildContext) []string { return []string{stamp(c.Until)} }},
}

// contextKey is the key of an account's archive.
func contextKey(user, digest string) string { return user + "-" + digest }

func contextBlob(user, digest string) string { return "contexts/" + user + "/" + digest }

// announceContext tells where to send an archive, or nothing if it is here.
func (s *Service) announceContext(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	var in api.ContextRequest
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if err := s.mayBuild(ctx, c); err != nil {
		return err
	}
	digest, ok := strings.CutPrefix(strings.ToLower(in.Digest), "sha256.")
	if !ok || !hexDigest.MatchString("sha256."+digest) {
		return route.Errorf(http.StatusBadRequest, "%.100q is no digest: sha256. and 64 hexadecimal digits are wanted", in.Digest)
	}
	if in.Size <= 0 {
		return route.Errorf(http.StatusBadRequest, "an archive has more than %d bytes", in.Size)
	}
	if in.Size > s.o.MaxContext {
		return route.Errorf(http.StatusRequestEntityTooLarge, "the files of a build have at most %d bytes here, packed", s.o.MaxContext)
	}
	key := contextKey(c.ID, digest)
	old, err := s.contexts.Get(ctx, key)
	if err == nil && old.Value.Arrived {
		if _, err := s.touch(ctx, key); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	secret := rand.Text()
	sum := sha256.Sum256([]byte(secret))
	fresh := buildContext{ID: store.NewID(), User: c.ID, Digest: digest, Size: in.Size, Secret: sum[:], Until: s.now().Add(uploadTime).UTC()}
	if err == nil {
		_, err = s.contexts.Update(ctx, key, func(b *buildContext) error {
			if !b.Arrived {
				*b = fresh
			}
			return nil
		})
	} else if errors.Is(err, store.ErrNotFound) {
		_, err = s.contexts.Insert(ctx, key, fresh)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Location", s.o.URL+"/v1/build-context-upload/"+key+"?sig="+secret)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// touch keeps an archive for another day.
func (s *Service) touch(ctx context.Context, key string) (store.Item[buildContext], error) {
	return s.contexts.Update(ctx, key, func(b *buildContext) error {
		b.Until = s.now().Add(contextLife).UTC()
		return nil
	})
}

// receiveContext takes the archive, at an address that only its owner knows.
func (s *Service) receiveContext(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	w.Header().Set("Referrer-Policy", "no-referrer")
	key := r.PathValue("id")
	b, err := s.contexts.Get(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	sum := sha256.Sum256([]byte(r.URL.Query().Get("sig")))
	if err != nil || subtle.ConstantTimeCompare(sum[:], b.Value.Secret) != 1 || s.now().After(b.Value.Until) {
		return route.Errorf(http.StatusForbidden, "this address is not valid or has ended")
	}
	if r.ContentLength < 0 {
		return route.Errorf(http.StatusLengthRequired, "the size of the archive must come first")
	}
	if r.ContentLength != b.Value.Size {
		return route.Errorf(http.StatusUnprocessableEntity, "%d bytes were announced, and %d come", b.Value.Size, r.ContentLength)
	}
	if _, err := s.blobs.Put(ctx, contextBlob(b.Value.User, b.Value.Digest), r.Body, store.Content{Size: b.Value.Size, SHA256: b.Value.Digest}); err != nil {
		return err
	}
	_, err = s.contexts.Update(ctx, key, func(b *buildContext) error {
		b.Arrived, b.Until = true, s.now().Add(contextLife).UTC()
		return nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// useContext returns the key of an archive of the caller that is here.
func (s *Service) useContext(ctx context.Context, c auth.Caller, digest string) (string, error) {
	if !hexDigest.MatchString(digest) {
		return "", route.Errorf(http.StatusBadRequest, "contextDigest is no digest")
	}
	key := contextKey(c.ID, strings.TrimPrefix(digest, "sha256."))
	b, err := s.touch(ctx, key)
	if errors.Is(err, store.ErrNotFound) || err == nil && !b.Value.Arrived {
		return "", route.Errorf(http.StatusBadRequest, "the files of the build are not here: send them first")
	}
	return key, err
}

func (s *Service) deleteContext(w http.ResponseWriter, r *http.Request) error {
	c := auth.From(r.Context())
	if err := c.Require(auth.Build); err != nil {
		return err
	}
	digest := r.PathValue("digest")
	if !hexDigest.MatchString(digest) {
		return c.NotFound()
	}
	b, err := s.contexts.Get(r.Context(), contextKey(c.ID, strings.TrimPrefix(digest, "sha256.")))
	if errors.Is(err, store.ErrNotFound) {
		return c.NotFound()
	}
	if err == nil {
		err = s.freeContext(r.Context(), b)
	}
	if err != nil {
		return err
	}
	route.Data(w, "deleted")
	return nil
}

// freeContext removes an archive, unless a build waits for it.
func (s *Service) freeContext(ctx context.Context, b store.Item[buildContext]) error {
	n, err := s.jobs.Count(ctx, store.Query{Index: "context", Equal: b.Key})
	if err != nil {
		return err
	}
	if n > 0 {
		_, err := s.touch(ctx, b.Key)
		return err
	}
	// The record first: a build that begins to name the archive now is refused,
	// or has touched the record, and it stays.
	if err := s.contexts.Delete(ctx, b.Key, b.Rev); err != nil {
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	if err := s.blobs.Delete(ctx, contextBlob(b.Value.User, b.Value.Digest)); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// sendContext gives a worker the files of its job.
func (s *Service) sendContext(w http.ResponseWriter, r *http.Request) error {
	j, err := s.held(r.Context(), r.PathValue("id"), fenceOf(r))
	if err != nil {
		return err
	}
	b, err := s.contexts.Get(r.Context(), j.Context)
	if err != nil {
		return err
	}
	blob, err := s.blobs.Open(r.Context(), contextBlob(b.Value.User, b.Value.Digest))
	if err != nil {
		return err
	}
	defer blob.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(blob.Info().Size, 10))
	control := http.NewResponseController(w)
	buf := make([]byte, 1<<20)
	for {
		n, err := blob.Read(buf)
		if n > 0 {
			control.SetWriteDeadline(time.Now().Add(time.Minute))
			if _, err := w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		if err != nil {
			return nil // a short answer is seen by its length
		}
	}
}

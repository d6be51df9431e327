package library

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// condemned marks a content that is being freed. An image may begin to name it
// at the same moment. The one who frees marks it and looks for images then; the
// one who names it writes the image and looks for the mark then: one of them at
// least sees the other.
type condemned struct {
	Expires time.Time `json:"expires"`
}

// The times of a mark: who frees does so at once or not at all.
const (
	markLife = 10 * time.Minute
	freeTime = time.Minute
)

// needed tells whether something names a content.
func (s *Service) needed(ctx context.Context, hash string) (bool, error) {
	n, err := s.images.Count(ctx, store.Query{Index: "blob", Equal: hash})
	if err != nil || n > 0 {
		return true, err
	}
	for _, h := range s.holders {
		if yes, err := h(ctx, hash); yes || err != nil {
			return true, err
		}
	}
	return false, nil
}

// free removes a content that nothing names, and tells whether it did.
func (s *Service) free(ctx context.Context, hash string) (bool, error) {
	begun := s.now()
	_, err := s.condemned.Insert(ctx, hash, condemned{Expires: begun.Add(markLife)})
	if errors.Is(err, store.ErrExists) {
		return false, nil // another one does
	}
	if err != nil {
		return false, err
	}
	defer s.condemned.Delete(context.WithoutCancel(ctx), hash, 0)
	if yes, err := s.needed(ctx, hash); yes || err != nil || s.now().Sub(begun) > freeTime {
		return false, err
	}
	if err := s.blobs.Delete(ctx, BlobName(hash)); err != nil && !missing(err) {
		return false, err
	}
	for _, f := range s.freed {
		if err := f(ctx, hash); err != nil {
			return true, err
		}
	}
	return true, nil
}

// secure looks, after an image has begun to name a content, whether that was
// freed at the same moment. If so the image is as before the upload.
func (s *Service) secure(ctx context.Context, i store.Item[image]) error {
	here, err := s.Secured(ctx, i.Value.Hash)
	if err != nil || here {
		return err
	}
	err = s.charge(ctx, i.Value.Entity, -i.Value.Content.Size, func() error {
		_, err := s.images.Update(ctx, i.Key, func(i *image) error {
			i.Uploaded, i.Content, i.Fingerprints = false, content{}, nil
			return nil
		})
		return err
	})
	return errors.Join(route.Errorf(http.StatusConflict, "the content was removed meanwhile: push again"), err)
}

// Secured tells, after something has begun to name a content, whether it is
// still there and stays.
func (s *Service) Secured(ctx context.Context, hash string) (bool, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := s.condemned.Get(ctx, hash)
		if missing(err) {
			break
		}
		if err != nil {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
	_, err := s.blobs.Stat(ctx, BlobName(hash))
	if missing(err) {
		return false, nil
	}
	return err == nil, err
}

// fresh is how long a content is left alone that nothing names: its image may be
// about to.
const fresh = time.Hour

// Collect frees contents that nothing names; if dry, it only counts them.
func (s *Service) Collect(ctx context.Context, dry bool) (count int, freed int64, err error) {
	for b, err := range s.blobs.List(ctx, "sha256/") {
		if err != nil {
			return count, freed, err
		}
		if s.now().Sub(b.Modified) < fresh {
			continue
		}
		hash := strings.TrimPrefix(b.Name, "sha256/")
		yes, err := s.needed(ctx, hash)
		if err != nil {
			return count, freed, err
		}
		if !yes && !dry {
			if yes, err = s.free(ctx, hash); err != nil {
				return count, freed, err
			}
			yes = !yes
		}
		if !yes {
			count++
			freed += b.Size
		}
	}
	return count, freed, nil
}

// Purge ends what was deleted longer ago than it can be restored, and records of
// images whose content never came.
func (s *Service) Purge(ctx context.Context) error {
	end := stamp(s.now().Add(-s.o.Undo))
	for i, err := range s.images.All(ctx, store.Query{Index: "deleted", To: end}) {
		if err != nil {
			return err
		}
		if err := s.images.Delete(ctx, i.Key, i.Rev); err != nil && !missing(err) && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	for k, err := range s.containers.All(ctx, store.Query{Index: "deleted", To: end}) {
		if err != nil {
			return err
		}
		// A crash may have come between the container and its images.
		if err := s.empty(ctx, &k.Value, ""); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
		if n, err := s.images.Count(ctx, store.Query{Index: "bin", Equal: k.Key}); err != nil || n > 0 {
			continue // their turn comes
		}
		if err := s.containers.Delete(ctx, k.Key, k.Rev); err != nil && !missing(err) {
			return err
		}
	}
	end = stamp(s.now().Add(-2 * uploadLife))
	for i, err := range s.images.All(ctx, store.Query{Index: "pending", To: end}) {
		if err != nil {
			return err
		}
		if err := s.images.Delete(ctx, i.Key, i.Rev); err != nil && !missing(err) && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

// Sweep does what is due: counters at each call, the rest once an hour.
func (s *Service) Sweep(ctx context.Context) error {
	err := s.Flush(ctx)
	s.wakeRejudge() // for what failed before
	s.mu.Lock()
	due := s.now().Sub(s.swept) >= time.Hour
	if due {
		s.swept = s.now()
	}
	s.mu.Unlock()
	if !due {
		return err
	}
	err = errors.Join(err, s.retainAll(ctx), s.Purge(ctx))
	_, _, collected := s.Collect(ctx, false)
	return errors.Join(err, collected)
}

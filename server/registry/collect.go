package registry

import (
	"context"
	"errors"
	"time"

	"singularity/server/store"
)

// fresh is how long a blob is left alone that no manifest names: one may be on
// its way.
const fresh = 24 * time.Hour

// Sweep takes blobs out of repositories where no manifest names them, once an
// hour.
func (s *Service) Sweep(ctx context.Context) error {
	s.mu.Lock()
	due := s.now().Sub(s.swept) >= time.Hour
	if due {
		s.swept = s.now()
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	for l, err := range s.links.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		if s.now().Sub(l.Value.At) < fresh {
			continue
		}
		n, err := s.manifests.Count(ctx, store.Query{Index: "names", Equal: l.Key})
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		if err := s.dropLink(ctx, l.Value.Entity, l.Key, l.Value.Size); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

package library

import (
	"context"
	"net/http"
	"sync"

	"singularity/api"
	"singularity/server/route"
	"singularity/server/store"
)

// tallies keeps what each entity has in use. The images say it; the number is
// kept in memory if this is the one process that changes them, else in a record.
type tallies struct {
	mu sync.Mutex
	of map[string]*tally
}

type tally struct {
	mu    sync.Mutex
	known bool
	bytes int64
}

func (t *tallies) get(entity string) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]*tally{}
	}
	if t.of[entity] == nil {
		t.of[entity] = &tally{}
	}
	return t.of[entity]
}

// load counts, if need be. The caller holds the lock.
func (t *tally) load(ctx context.Context, s *Service, entity string) error {
	if t.known {
		return nil
	}
	var err error
	t.bytes, err = s.count(ctx, entity)
	t.known = err == nil
	return err
}

// count adds up what an entity has in use.
func (s *Service) count(ctx context.Context, entity string) (int64, error) {
	var bytes int64
	for i, err := range s.images.All(ctx, store.Query{Index: "charged", Equal: entity}) {
		if err != nil {
			return 0, err
		}
		bytes += i.Value.Content.Size
	}
	for _, c := range s.counters {
		n, err := c(ctx, entity)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}

// charge carries out commit, which makes add bytes count for the entity, or
// refuses. Two that would both fit, but not together, come one after the other.
func (s *Service) charge(ctx context.Context, entity string, add int64, commit func() error) error {
	t := s.tallies.get(entity)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.o.Shared {
		return s.chargeShared(ctx, entity, add, commit)
	}
	if err := t.load(ctx, s, entity); err != nil {
		return err
	}
	if add > 0 {
		if err := s.fits(ctx, entity, t.bytes, add); err != nil {
			return err
		}
	}
	// A write that failed may have happened: the images will say.
	t.known = false
	if err := commit(); err != nil {
		return err
	}
	t.known = true
	t.bytes += add
	return nil
}

func (s *Service) fits(ctx context.Context, entity string, used, add int64) error {
	limit, err := s.quota(ctx, entity)
	if err != nil {
		return err
	}
	if limit > 0 && add > limit-used {
		return route.Errorf(http.StatusInsufficientStorage, "Upload would exceed quota: %d of %d bytes are in use, and this needs %d", used, limit, add)
	}
	return nil
}

// room refuses an upload that would not fit.
func (s *Service) room(ctx context.Context, entity string, add int64) error {
	used, err := s.usage(ctx, entity)
	if err != nil {
		return err
	}
	return s.fits(ctx, entity, used, add)
}

func (s *Service) usage(ctx context.Context, entity string) (int64, error) {
	t := s.tallies.get(entity)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.o.Shared {
		return s.usageShared(ctx, entity)
	}
	err := t.load(ctx, s, entity)
	return t.bytes, err
}

func (s *Service) quota(ctx context.Context, id string) (int64, error) {
	e, err := s.entities.Get(ctx, id)
	if err != nil {
		return 0, err
	}
	if e.Value.Quota != nil {
		return *e.Value.Quota, nil
	}
	return s.o.Quota, nil
}

// Quota tells what the entity with that name may store and does.
func (s *Service) Quota(ctx context.Context, name string) (api.Quota, error) {
	e, err := s.entities.Find(ctx, "name", name)
	if err != nil {
		return api.Quota{}, err
	}
	return s.quotaOf(ctx, e.Value.ID)
}

func (s *Service) quotaOf(ctx context.Context, entity string) (q api.Quota, err error) {
	if q.Total, err = s.quota(ctx, entity); err == nil {
		q.Usage, err = s.usage(ctx, entity)
	}
	return q, err
}

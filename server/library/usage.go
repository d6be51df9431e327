package library

import (
	"context"
	"errors"
	"time"

	"singularity/server/store"
)

// usage is what an entity has in use, for several processes. Who changes it
// writes its mark first and the number afterwards; a mark whose time is over is
// of a process that died, and the images say the number.
type usage struct {
	Bytes int64     `json:"bytes"`
	By    string    `json:"by,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// usageLife is longer than the few writes of a change take, repeated or not.
const usageLife = time.Minute

// chargeShared is charge for several processes. The caller holds the lock that
// keeps this one's changes apart.
func (s *Service) chargeShared(ctx context.Context, entity string, add int64, commit func() error) error {
	mark := store.NewID()
	i, err := s.mark(ctx, entity, mark, add)
	if err != nil {
		return err
	}
	if err := commit(); err != nil {
		// A write that failed may have happened: the next one counts.
		_, e := s.usages.Update(context.WithoutCancel(ctx), entity, func(u *usage) error {
			if u.By == mark {
				u.Until = time.Time{}
			}
			return nil
		})
		return errors.Join(err, e)
	}
	i.Value.Bytes, i.Value.By, i.Value.Until = i.Value.Bytes+add, "", time.Time{}
	_, err = s.usages.Replace(context.WithoutCancel(ctx), i)
	if errors.Is(err, store.ErrConflict) {
		// It took longer than its mark, and somebody counted without it.
		_, err = s.usages.Update(context.WithoutCancel(ctx), entity, func(u *usage) error {
			if u.By == "" {
				u.By, u.Until = mark, time.Time{}
			}
			return nil
		})
	}
	return err
}

// mark takes the number of an entity for a change that fits.
func (s *Service) mark(ctx context.Context, entity, mark string, add int64) (store.Item[usage], error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		i, err := s.usages.Get(ctx, entity)
		fresh := missing(err)
		if err != nil && !fresh {
			return i, err
		}
		if i.Value.By != "" && s.now().Before(i.Value.Until) {
			select {
			case <-ctx.Done():
				return i, ctx.Err()
			case <-tick.C:
			}
			continue
		}
		if fresh || i.Value.By != "" {
			if i.Value.Bytes, err = s.count(ctx, entity); err != nil {
				return i, err
			}
		}
		if add > 0 {
			if err := s.fits(ctx, entity, i.Value.Bytes, add); err != nil {
				return i, err
			}
		}
		i.Value.By, i.Value.Until = mark, s.now().Add(usageLife).UTC()
		if fresh {
			i, err = s.usages.Insert(ctx, entity, i.Value)
		} else {
			i, err = s.usages.Replace(ctx, i)
		}
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) && !missing(err) {
			return i, err
		}
	}
}

// usageShared tells the number; during a change, the one before.
func (s *Service) usageShared(ctx context.Context, entity string) (int64, error) {
	i, err := s.usages.Get(ctx, entity)
	if missing(err) || err == nil && i.Value.By != "" && !s.now().Before(i.Value.Until) {
		return s.count(ctx, entity)
	}
	return i.Value.Bytes, err
}

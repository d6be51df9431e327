package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"singularity/server/store"
)

func missing(err error) bool { return errors.Is(err, store.ErrNotFound) }

// put writes a record, whatever was there.
func put[T any](ctx context.Context, c *store.Collection[T], key string, v T) error {
	for {
		_, err := c.Update(ctx, key, func(old *T) error { *old = v; return nil })
		if !missing(err) {
			return err
		}
		if _, err = c.Insert(ctx, key, v); !errors.Is(err, store.ErrExists) {
			return err
		}
	}
}

// sharedBucket is the bucket of a caller for all servers of a site.
type sharedBucket struct {
	Left   float64   `json:"left"`
	At     time.Time `json:"at"`
	Forget time.Time `json:"forget"`
}

// lease is what a server has taken out of a shared bucket and not used yet. A
// twentieth of the limit is taken at a time: so the records are asked for one
// request in many where many are allowed, and for each where few are. What is
// left over expires: servers together never allow more than one would.
type lease struct {
	left  int
	until time.Time
}

const (
	leaseShare = 20
	leaseLife  = 5 * time.Second
)

func openBuckets(ctx context.Context, r store.Records) (*store.Collection[sharedBucket], error) {
	return store.Open(ctx, r, "server_rates", store.Options[sharedBucket]{Expires: func(b *sharedBucket) time.Time { return b.Forget }})
}

// takeShared takes one request of a caller, out of the lease or a new one.
func (l *rates) takeShared(ctx context.Context, k bucketKey, limit float64) (time.Duration, error) {
	now := l.now()
	l.mu.Lock()
	if old, ok := l.leases[k]; ok && old.left > 0 && now.Before(old.until) {
		old.left--
		l.mu.Unlock()
		return 0, nil
	}
	l.mu.Unlock()
	got, wait, err := l.borrow(ctx, k, limit)
	if err != nil || wait > 0 {
		return wait, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.leases) >= maxBuckets {
		clear(l.leases)
	}
	l.leases[k] = &lease{left: got - 1, until: now.Add(leaseLife)}
	return 0, nil
}

// borrow takes out of the shared bucket.
func (l *rates) borrow(ctx context.Context, k bucketKey, limit float64) (got int, wait time.Duration, err error) {
	key, full := fmt.Sprintf("%d/%s", k.class, k.who), span(k.class)
	ask := max(1, int(limit)/leaseShare)
	for {
		now := l.now().UTC()
		i, err := l.shared.Get(ctx, key)
		fresh := missing(err)
		if err != nil && !fresh {
			return 0, 0, err
		}
		b := &i.Value
		if fresh {
			*b = sharedBucket{Left: limit, At: now}
		}
		b.Left = min(limit, b.Left+float64(max(0, now.Sub(b.At)))/float64(full)*limit)
		b.At, b.Forget = now, now.Add(2*full)
		if b.Left < 1 {
			return 0, time.Duration((1 - b.Left) / limit * float64(full)), nil
		}
		got = min(ask, int(b.Left))
		b.Left -= float64(got)
		if fresh {
			_, err = l.shared.Insert(ctx, key, *b)
		} else {
			_, err = l.shared.Replace(ctx, i)
		}
		if err == nil {
			return got, 0, nil
		}
		if !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrConflict) && !missing(err) || ctx.Err() != nil {
			return 0, 0, err
		}
	}
}

package s3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"singularity/server/store"
)

// rest is what may have to be removed from a time on: objects, or all below a
// beginning, but those that the blob of that name has.
type rest struct {
	Name   string    `json:"name"`
	Keys   []string  `json:"keys,omitempty"`
	Prefix string    `json:"prefix,omitempty"`
	Due    time.Time `json:"due"`
}

const (
	putLife  = 48 * time.Hour // for which bytes may take to arrive
	readLife = time.Hour      // for who reads what was deleted
)

// discard notes that the objects under an id have to go after a time.
func (b *Blobs) discard(ctx context.Context, name, id string, keys []string, life time.Duration) error {
	return b.note(ctx, id, rest{Name: name, Keys: keys, Due: b.now().Add(life).UTC()})
}

func (b *Blobs) note(ctx context.Context, id string, r rest) error {
	if len(r.Keys) == 0 && r.Prefix == "" {
		return nil
	}
	for {
		_, err := b.rests.Insert(ctx, id, r)
		if !errors.Is(err, store.ErrExists) {
			return err
		}
		_, err = b.rests.Update(ctx, id, func(old *rest) error {
			old.Due = r.Due
			old.Keys = append(old.Keys, r.Keys...)
			slices.Sort(old.Keys)
			old.Keys = slices.Compact(old.Keys)
			if r.Prefix != "" {
				old.Prefix = r.Prefix
			}
			return nil
		})
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
}

// kept forgets a rest whose objects a blob has. If that fails Sweep finds the
// blob and forgets it.
func (b *Blobs) kept(ctx context.Context, id string) {
	b.rests.Delete(context.WithoutCancel(ctx), id, 0)
}

// Sweep removes the rests that are due.
func (b *Blobs) Sweep(ctx context.Context) (int64, error) {
	var count int64
	for i, err := range b.rests.All(ctx, store.Query{Index: "due", To: stamp(b.now())}) {
		if err != nil {
			return count, err
		}
		n, err := b.sweep(ctx, i)
		count += n
		if err != nil {
			return count, fmt.Errorf("cannot remove the rest %s: %w", i.Key, err)
		}
	}
	return count, nil
}

func (b *Blobs) sweep(ctx context.Context, i store.Item[rest]) (count int64, err error) {
	keys := i.Value.Keys
	if i.Value.Prefix != "" {
		more, err := b.listing(ctx, i.Value.Prefix)
		if err != nil {
			return 0, err
		}
		keys = append(keys, more...)
	}
	var used []string
	if i.Value.Name != "" {
		n, err := b.names.Get(ctx, i.Value.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return 0, err
		}
		used = n.Value.keys()
	}
	for _, key := range keys {
		if slices.Contains(used, key) {
			continue
		}
		if err := b.removeObject(ctx, key); err != nil {
			return count, err
		}
		count++
	}
	// One that was noted again meanwhile stays.
	if err := b.rests.Delete(ctx, i.Key, i.Rev); err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
		return count, err
	}
	return count, nil
}

package library

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singularity/server/store"
)

// TestSharedQuota: two processes together let no more in than the quota, and a
// process that died in a change is counted by the images.
func TestSharedQuota(t *testing.T) {
	one := newSite(t, Options{Shared: true, Quota: 1000})
	two := openSite(t, one.store, one.store.Records, one.store.Blobs, Options{Shared: true, Quota: 1000})
	ctx := t.Context()
	e, err := one.lib.entities.Insert(ctx, store.NewID(), entity{ID: "e", Name: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	// What counts is an image, so commit makes one.
	add := func(s *Service) error {
		return s.charge(ctx, e.Key, 90, func() error {
			id := store.NewID()
			_, err := s.images.Insert(ctx, id, image{ID: id, Hash: id, Container: id, Entity: e.Key, Uploaded: true, Content: content{Size: 90}})
			return err
		})
	}
	var done atomic.Int64
	var group sync.WaitGroup
	for _, s := range []*Service{one.lib, two.lib} {
		for range 2 {
			group.Go(func() {
				for range 5 {
					if add(s) == nil {
						done.Add(1)
					}
				}
			})
		}
	}
	group.Wait()
	used, err := two.lib.usage(ctx, e.Key)
	counted, e2 := one.lib.count(ctx, e.Key)
	if done.Load() != 11 || used != 990 || counted != used || err != nil || e2 != nil {
		t.Fatalf("%d images went in, %d bytes are charged and %d are there, %v %v", done.Load(), used, counted, err, e2)
	}
	// A change that fails, perhaps after its write.
	broken := errors.New("broken")
	if err := one.lib.charge(ctx, e.Key, -90, func() error { return broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if used, err := two.lib.usage(ctx, e.Key); used != 990 || err != nil {
		t.Errorf("%d after a change that failed, %v", used, err)
	}
	// A process that died while it changed the number.
	if _, err := one.lib.usages.Update(ctx, e.Key, func(u *usage) error { u.Bytes, u.By, u.Until = 5, "dead", time.Now().Add(time.Hour); return nil }); err != nil {
		t.Fatal(err)
	}
	two.skew = 2 * time.Hour
	if err := two.lib.charge(ctx, e.Key, 10, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if used, err := two.lib.usage(ctx, e.Key); used != 1000 || err != nil {
		t.Errorf("%d after a dead process, %v", used, err)
	}
}

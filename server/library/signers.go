package library

import (
	"context"
	"errors"
	"slices"
	"strings"

	"singularity/api"
	"singularity/server/store"
)

// Who has signed an image is found out when it comes, and again when a key that
// it may be signed by changes. While that is to do, nobody is told that the key
// has signed anything: a revocation holds from the moment that it is known.

// rejudge says that the images of a key have to be looked at. It outlives a crash.
type rejudge struct {
	IDs  []string `json:"ids"`  // fingerprints of the key and its sub-keys
	Turn int      `json:"turn"` // so that each change is another revision
}

// changing is a key of which images have to be looked at.
type changing struct {
	running int   // changes that go on
	changes int64 // that have ended
}

// judgement says by whose keys an image is signed, and after how many changes of
// keys that was found.
type judgement struct {
	prints []string
	after  int64
}

func (s *Service) loadRejudged(ctx context.Context) error {
	for i, err := range s.rejudged.All(ctx, store.Query{}) {
		if err != nil {
			return err
		}
		s.changing[i.Key] = &changing{}
	}
	return nil
}

// KeyChanging has to be called before a key changes, with its fingerprint and
// those of its sub-keys, and what it returns after that, whether it did or not.
func (s *Service) KeyChanging(ctx context.Context, ids ...string) (done func(), err error) {
	noted, err := s.noteChanging(ctx, ids)
	if err != nil {
		return nil, err
	}
	return func() {
		s.mu.Lock()
		s.changes++ // an image that comes now is looked at again
		if noted {
			s.changing[ids[0]].running--
			s.changing[ids[0]].changes++
		}
		s.mu.Unlock()
		s.wakeRejudge()
	}, nil
}

func (s *Service) wakeRejudge() {
	select {
	case s.rejudging <- struct{}{}:
	default: // it is awake
	}
}

// noteChanging writes down that the images of a key have to be looked at, if there
// are any.
func (s *Service) noteChanging(ctx context.Context, ids []string) (bool, error) {
	n := int64(0)
	for _, id := range ids {
		more, err := s.images.Count(ctx, store.Query{Index: "signer", Equal: id})
		if err != nil {
			return false, err
		}
		n += more
	}
	if n == 0 {
		return false, nil
	}
	s.mu.Lock()
	c := s.changing[ids[0]]
	if c == nil {
		c = &changing{}
		s.changing[ids[0]] = c
	}
	c.running++
	s.mu.Unlock()
	_, err := s.rejudged.Insert(ctx, ids[0], rejudge{IDs: ids})
	if errors.Is(err, store.ErrExists) {
		_, err = s.rejudged.Update(ctx, ids[0], func(r *rejudge) error { r.IDs = ids; r.Turn++; return nil })
		if missing(err) { // it was done at this moment
			_, err = s.rejudged.Insert(ctx, ids[0], rejudge{IDs: ids})
		}
	}
	if err != nil {
		s.mu.Lock()
		c.running--
		s.mu.Unlock()
	}
	return err == nil, err
}

// keyChanges counts the changes of keys until now.
func (s *Service) keyChanges() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// certain leaves out the keys whose images have to be looked at.
func (s *Service) certain(prints []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.changing) == 0 {
		return prints
	}
	return slices.DeleteFunc(slices.Clone(prints), func(f string) bool { return s.changing[f] != nil })
}

// shown is an image as others see it.
func (s *Service) shown(i *image, k *container) api.Image {
	a := i.answer(k)
	a.Fingerprints = s.certain(a.Fingerprints)
	return a
}

// Rejudge looks at the images of changed keys whenever there are some, until ctx
// ends.
func (s *Service) Rejudge(ctx context.Context, failed func(error)) {
	for {
		if err := s.rejudgeAll(ctx); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.rejudging:
		}
	}
}

func (s *Service) rejudgeAll(ctx context.Context) error {
	var failed error
	for r, err := range s.rejudged.All(ctx, store.Query{}) {
		if err != nil {
			return errors.Join(failed, err)
		}
		s.mu.Lock()
		var before changing
		if c := s.changing[r.Key]; c != nil {
			before = *c
		}
		s.mu.Unlock()
		if before.running > 0 {
			continue // its end calls us
		}
		err = s.Reverify(ctx, r.Value.IDs...)
		if err == nil {
			err = s.settle(ctx, r, before)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// settle ends the work on a key, unless it changed meanwhile: then the end of that
// change calls us.
func (s *Service) settle(ctx context.Context, r store.Item[rejudge], before changing) error {
	err := s.rejudged.Delete(ctx, r.Key, r.Rev)
	if errors.Is(err, store.ErrConflict) || missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.changing[r.Key]; c != nil && *c == before {
		delete(s.changing, r.Key)
	}
	return nil
}

// Reverify looks anew who has signed the images that name a key as their signer,
// or were found to be signed by it.
func (s *Service) Reverify(ctx context.Context, ids ...string) error {
	if s.o.Fingerprints == nil {
		return nil
	}
	for _, id := range ids {
		for i, err := range s.images.All(ctx, store.Query{Index: "signer", Equal: strings.ToUpper(id)}) {
			if err != nil {
				return err
			}
			if err := s.reverify(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) reverify(ctx context.Context, i store.Item[image]) error {
	_, j, err := s.examine(ctx, i.Value.Hash)
	if missing(err) {
		return nil // deleted meanwhile
	}
	if err != nil || slices.Equal(j.prints, i.Value.Fingerprints) {
		return err
	}
	_, err = s.images.Update(ctx, i.Key, func(i *image) error { i.Fingerprints = j.prints; return nil })
	if missing(err) {
		err = nil
	}
	return err
}

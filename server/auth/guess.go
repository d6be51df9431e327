package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"singularity/server/store"
)

// sharedAttempts are the failed log-ins from an address to all processes.
type sharedAttempts struct {
	Begun  time.Time `json:"begun"`
	Failed int       `json:"failed"`
	Forget time.Time `json:"forget"`
}

// guessTime bounds what counting adds to a log-in. It goes on when the client
// goes away, as an attacker's does.
const guessTime = 5 * time.Second

func guessKey(a netip.Addr) string { return network(a).String() }

// checkShared says whether the address may try. If that cannot be told it may
// not.
func (g *guesses) checkShared(a netip.Addr, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.Background(), guessTime)
	defer cancel()
	i, err := g.shared.Get(ctx, guessKey(a))
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return err
	case now.Sub(i.Value.Begun) < time.Minute && i.Value.Failed >= g.limit:
		return errGuesses
	}
	return nil
}

// failedShared counts. A count that cannot be written lets an attacker try once
// more, at a server whose storage fails.
func (g *guesses) failedShared(a netip.Addr, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), guessTime)
	defer cancel()
	fresh := sharedAttempts{Begun: now.UTC(), Failed: 1, Forget: now.Add(2 * time.Minute).UTC()}
	for {
		_, err := g.shared.Update(ctx, guessKey(a), func(t *sharedAttempts) error {
			if now.Sub(t.Begun) >= time.Minute {
				*t = fresh
				return nil
			}
			t.Failed++
			return nil
		})
		if !isNotFound(err) {
			return
		}
		if _, err = g.shared.Insert(ctx, guessKey(a), fresh); !errors.Is(err, store.ErrExists) {
			return
		}
	}
}

package auth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// link lets whoever has it set the password of an account, once. Its key in the
// store is the SHA-256 of its secret.
type link struct {
	User    string    `json:"user"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// AddLink makes a one-time link for the account, in place of older ones, and
// returns its address.
func (s *Service) AddLink(ctx context.Context, user string, life time.Duration) (string, error) {
	for l, err := range s.links.All(ctx, store.Query{Index: "user", Equal: user}) {
		if err != nil {
			return "", err
		}
		if err := s.links.Delete(ctx, l.Key, 0); err != nil && !isNotFound(err) {
			return "", err
		}
	}
	now, secret := s.now().UTC(), randomText(43)
	if _, err := s.links.Insert(ctx, sessionKey(secret), link{user, now, now.Add(life)}); err != nil {
		return "", err
	}
	return s.url("/auth/setup?code=" + secret), nil
}

var errLink = route.Errorf(http.StatusNotFound, "this link has been used or has expired: ask an administrator for another")

// linkFor returns the account that a link is for, and leaves the link.
func (s *Service) linkFor(ctx context.Context, secret string) (Account, error) {
	i, err := s.links.Get(ctx, sessionKey(secret))
	if isNotFound(err) {
		return Account{}, errLink
	}
	if err != nil {
		return Account{}, err
	}
	a, err := s.AccountByID(ctx, i.Value.User)
	if isNotFound(err) || err == nil && !a.Active() {
		return Account{}, errLink
	}
	return a, err
}

// useLink sets the password by a link and uses it up: of two that try at once,
// one does.
func (s *Service) useLink(ctx context.Context, secret, password string) (Account, error) {
	a, err := s.linkFor(ctx, secret)
	if err != nil {
		return a, err
	}
	if err := checkPassword(password, a.Name); err != nil {
		return a, err
	}
	if err := s.links.Delete(ctx, sessionKey(secret), 0); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			err = errLink
		}
		return a, err
	}
	return a, s.SetPassword(ctx, a.ID, password)
}

// FirstAdmin makes the account of the first administrator, without any password
// (SC-153), and a link to set one. While nobody has used such a link each start
// makes a new one; afterwards there is none.
func (s *Service) FirstAdmin(ctx context.Context) (string, error) {
	if has, err := s.hasAdmin(ctx); err != nil || has {
		return "", err
	}
	a, err := s.Account(ctx, "admin")
	if isNotFound(err) {
		a, err = s.AddAccount(ctx, Account{Kind: User, Name: "admin", RealName: "Administrator", Admin: true})
		if err != nil { // another process may have made it at the same moment
			if other, e := s.Account(ctx, "admin"); e == nil {
				a, err = other, nil
			}
		}
	}
	if err != nil {
		return "", err
	}
	if !a.Admin || !a.Active() {
		return "", nil
	}
	return s.AddLink(ctx, a.ID, 24*time.Hour)
}

package auth

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"singularity/server/store"
)

// What a provider said about somebody at a log-in holds for some minutes. After
// that the provider is asked again, when the account is used next: who was taken
// out of a group there is out of it here (SC-143).
const (
	confirmLife = 5 * time.Minute
	confirmTime = 5 * time.Second // for an answer
	confirmWait = 30 * time.Second
)

// assurance is the right to ask a provider about an account.
type assurance struct {
	Provider string    `json:"provider"`
	Token    []byte    `json:"token"` // the refresh token, sealed with what only the configuration knows
	At       time.Time `json:"at"`    // when the provider said something last
}

// confirmation is what is known of an account without asking the storage.
type confirmation struct {
	mu      sync.Mutex
	next    time.Time // when to ask again
	distant bool      // the provider did not answer: nothing that it said holds
}

// confirm asks the provider about an account, if it is time. It tells whether what
// the provider said before holds.
func (s *Service) confirm(ctx context.Context, a Account) (bool, error) {
	if len(a.Identities) == 0 || len(s.providers) == 0 {
		return true, nil
	}
	v, _ := s.confirmed.LoadOrStore(a.ID, &confirmation{})
	c := v.(*confirmation)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.now().Before(c.next) {
		return !c.distant, nil
	}
	i, err := s.assurances.Get(ctx, a.ID)
	if isNotFound(err) {
		c.next, c.distant = s.now().Add(confirmLife), false
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if left := i.Value.At.Add(confirmLife); s.now().Before(left) {
		c.next, c.distant = left, false
		return true, nil
	}
	return s.ask(ctx, c, a, i)
}

// ask asks the provider now.
func (s *Service) ask(ctx context.Context, c *confirmation, a Account, i store.Item[assurance]) (bool, error) {
	// The answer counts for all who use the account, whether this request waits
	// for it or not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTime)
	defer cancel()
	var said claims
	var fresh string
	err := errEnded
	p := s.providers[i.Value.Provider]
	if p != nil {
		said, fresh, err = p.refreshed(ctx, i.Value.Token)
	}
	if err == nil && !slices.Contains(a.Identities, p.Issuer+" "+said.Subject) {
		err = errEnded // an answer about somebody else
	}
	switch {
	case errors.Is(err, errEnded):
		s.Audit(With(ctx, Caller{Name: a.Name}), "provider.ended", a.Name, nil, map[string]string{"way": i.Value.Provider})
		if err := s.assurances.Delete(ctx, a.ID, 0); err != nil && !isNotFound(err) {
			return false, err
		}
		c.next, c.distant = s.now().Add(confirmLife), false
		return true, s.forgetProvided(ctx, a.ID, i.Value.Provider)
	case err != nil:
		// Security: fail closed. Who makes the provider unreachable keeps nobody in
		// a group.
		c.next, c.distant = s.now().Add(confirmWait), true
		return false, nil
	}
	if _, err := s.follow(ctx, p, a.ID, said); err != nil {
		return false, err
	}
	if err := s.assure(ctx, p, a.ID, fresh); err != nil {
		return false, err
	}
	c.next, c.distant = s.now().Add(confirmLife), false
	return true, nil
}

// assure keeps the right to ask about an account, or forgets it if the provider
// gave none.
func (s *Service) assure(ctx context.Context, p *provider, id, refresh string) error {
	if refresh == "" {
		err := s.assurances.Delete(ctx, id, 0)
		if isNotFound(err) {
			err = nil
		}
		return err
	}
	v := assurance{Provider: p.Name, Token: p.seal(refresh), At: s.now().UTC()}
	_, err := s.assurances.Insert(ctx, id, v)
	if errors.Is(err, store.ErrExists) {
		_, err = s.assurances.Update(ctx, id, func(old *assurance) error { *old = v; return nil })
	}
	if c, ok := s.confirmed.Load(id); ok && err == nil && ctx.Value(logInKey{}) != nil {
		c := c.(*confirmation)
		c.mu.Lock()
		c.next, c.distant = time.Time{}, false
		c.mu.Unlock()
	}
	return err
}

// logInKey marks a log-in, which holds no confirmation.
type logInKey struct{}

// forgetProvided takes what a provider gave an account.
func (s *Service) forgetProvided(ctx context.Context, id, name string) error {
	p := s.providers[name]
	if p == nil { // it is in the configuration no longer
		p = &provider{Provider: Provider{Name: name}}
	}
	_, err := s.follow(ctx, p, id, claims{})
	return err
}

// follow gives an account the groups that a provider names, and the rights of an
// administrator if one of them has them.
func (s *Service) follow(ctx context.Context, p *provider, id string, c claims) (Account, error) {
	if !c.Verified {
		c.Email = ""
	}
	a, err := s.UpdateAccount(ctx, id, func(a *Account) error {
		a.Email = cmp.Or(c.Email, a.Email)
		if p.AdminGroup != "" {
			a.Admin = slices.Contains(c.groups, p.AdminGroup)
		}
		return nil
	})
	if err != nil {
		return a, err
	}
	return a, s.syncGroups(ctx, p, id, c.groups)
}

// errEnded says that a provider takes somebody for logged in no longer.
var errEnded = errors.New("the provider has ended the log-in")

// refreshed asks what a provider says about somebody now.
func (p *provider) refreshed(ctx context.Context, sealed []byte) (claims, string, error) {
	old, err := p.open(sealed)
	if err != nil {
		return claims{}, "", errEnded // the secret of the client is another
	}
	c, found, err := p.config(ctx)
	if err != nil {
		return claims{}, "", err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	t, err := c.TokenSource(ctx, &oauth2.Token{RefreshToken: old}).Token()
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) && refusal.Response != nil && (refusal.Response.StatusCode == http.StatusBadRequest || refusal.Response.StatusCode == http.StatusUnauthorized) {
		return claims{}, "", errEnded
	}
	if err != nil {
		return claims{}, "", err
	}
	said, err := p.read(ctx, found, t, "")
	return said, cmp.Or(t.RefreshToken, old), err
}

func (p *provider) aead() (cipher.AEAD, error) {
	key := sha256.Sum256([]byte("refresh tokens\n" + p.Issuer + "\n" + p.ClientID + "\n" + p.ClientSecret))
	b, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

func (p *provider) seal(token string) []byte {
	a, err := p.aead()
	if err != nil {
		panic(err) // a key of 32 bytes is one
	}
	return a.Seal(nil, nil, []byte(token), nil)
}

func (p *provider) open(sealed []byte) (string, error) {
	a, err := p.aead()
	if err != nil {
		return "", err
	}
	text, err := a.Open(nil, nil, sealed, nil)
	return string(text), err
}

// providedAdmin tells whether the account is an administrator by the word of a
// provider.
func (s *Service) providedAdmin(a Account) bool {
	for _, p := range s.providers {
		if p.AdminGroup != "" && slices.ContainsFunc(a.Identities, func(i string) bool { return strings.HasPrefix(i, p.Issuer+" ") }) {
			return true
		}
	}
	return false
}

package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// Scope is what a token may be used for.
type Scope string

// The scopes. LibraryCreate pushes what was not there and never moves a tag.
const (
	LibraryRead   Scope = "library:read"
	LibraryCreate Scope = "library:create"
	LibraryWrite  Scope = "library:write"
	LibraryDelete Scope = "library:delete"
	LibraryManage Scope = "library:manage"
	KeysWrite     Scope = "keys:write"
	Build         Scope = "build"
	RunsWrite     Scope = "runs:write" // tell where images run
	AccountRead   Scope = "account:read"
	AccountWrite  Scope = "account:write"
	AccountAdmin  Scope = "admin"
	Registry      Scope = "registry"
)

// Scopes are all that somebody may choose for a token, in the order to show.
var Scopes = []Scope{LibraryRead, LibraryCreate, LibraryWrite, LibraryDelete, LibraryManage, KeysWrite, Build, RunsWrite, AccountRead, AccountWrite, AccountAdmin}

// CommandLine is what the command line needs: the choice of a new token.
var CommandLine = []Scope{LibraryRead, LibraryCreate, LibraryWrite, KeysWrite, Build, AccountRead}

// token is what is kept of an access token.
type token struct {
	ID      string    `json:"id"`
	Secret  []byte    `json:"secret"` // SHA-256
	Owner   string    `json:"owner"`
	Name    string    `json:"name"`
	Scopes  []Scope   `json:"scopes"`
	Origin  string    `json:"origin,omitempty"` // the token it was made by, and ends with
	Only    *Only     `json:"only,omitempty"`   // what it is bound to
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked time.Time `json:"revoked,omitzero"`
	Used    time.Time `json:"used,omitzero"`
	From    string    `json:"from,omitempty"`   // address of the last use
	Client  string    `json:"client,omitempty"` // and its user agent
	Forget  time.Time `json:"forget"`           // the record goes some time after the token
}

// TokenInfo is what its owner may see of a token.
type TokenInfo struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Scopes  []Scope   `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked time.Time `json:"revoked,omitzero"`
	Used    time.Time `json:"used,omitzero"`
	From    string    `json:"from,omitempty"`
	Client  string    `json:"client,omitempty"`
}

// The text of a token is PREFIX_ID_RANDOM and a checksum: a prefix by which
// scanners find one that leaked, and at least the 200 characters that clients
// insist on.
const (
	tokenPrefix  = "sgt"
	tokenIDSize  = 26
	tokenRandom  = 190
	tokenSumSize = 6
	tokenSize    = len(tokenPrefix) + 1 + tokenIDSize + 1 + tokenRandom + tokenSumSize
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// randomText returns n characters of base62, every one equally likely.
func randomText(n int) string {
	out, buf := make([]byte, 0, n), make([]byte, 2*n)
	for len(out) < n {
		rand.Read(buf)
		for _, b := range buf {
			if b < 4*62 && len(out) < n {
				out = append(out, base62[b%62])
			}
		}
	}
	return string(out)
}

func checksum(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	var out [tokenSumSize]byte
	for i := range out {
		out[len(out)-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// parseToken splits the text of a token into id and secret. It tells only
// whether the form is right; a checksum that is wrong is a typing error.
func parseToken(text string) (id, secret string, ok bool) {
	if len(text) != tokenSize || text[:len(tokenPrefix)+1] != tokenPrefix+"_" || text[len(tokenPrefix)+1+tokenIDSize] != '_' {
		return "", "", false
	}
	body, sum := text[:tokenSize-tokenSumSize], text[tokenSize-tokenSumSize:]
	if checksum(body) != sum {
		return "", "", false
	}
	id, secret = body[len(tokenPrefix)+1:len(tokenPrefix)+1+tokenIDSize], body[len(tokenPrefix)+tokenIDSize+2:]
	for _, c := range id + secret {
		if !strings.ContainsRune(base62, c) {
			return "", "", false
		}
	}
	return id, secret, true
}

// NewToken describes a token to make.
type NewToken struct {
	Name   string
	Scopes []Scope
	Life   time.Duration // 0: the default
}

// AddToken makes a token of an account and returns its text, which is not to be
// had a second time. A caller may only give scopes that it has itself.
func (s *Service) AddToken(ctx context.Context, by Caller, owner string, n NewToken) (string, TokenInfo, error) {
	if n.Name == "" || len(n.Name) > 100 || hasControl(n.Name) {
		return "", TokenInfo{}, route.Errorf(http.StatusBadRequest, "a token has a name of up to 100 printable characters")
	}
	life := cmp.Or(n.Life, s.o.TokenLife)
	if life < time.Minute || life > s.o.TokenMaxLife {
		return "", TokenInfo{}, route.Errorf(http.StatusBadRequest, "a token lives for a minute to %d days", int(s.o.TokenMaxLife/(24*time.Hour)))
	}
	if len(n.Scopes) == 0 {
		return "", TokenInfo{}, route.Errorf(http.StatusBadRequest, "choose what the token may be used for")
	}
	for _, sc := range n.Scopes {
		if !slices.Contains(Scopes, sc) {
			return "", TokenInfo{}, route.Errorf(http.StatusBadRequest, "there is no scope %q", sc)
		}
		if !by.Has(sc) {
			return "", TokenInfo{}, route.Errorf(http.StatusForbidden, "this token has not the scope %s itself", sc)
		}
	}
	if count, err := s.tokens.Count(ctx, store.Query{Index: "owner", Equal: owner}); err != nil || count >= maxTokens {
		if err == nil {
			err = route.Errorf(http.StatusConflict, "there are %d tokens already: remove some", count)
		}
		return "", TokenInfo{}, err
	}
	return s.mint(ctx, owner, by.TokenID, n.Name, n.Scopes, life)
}

const maxTokens = 500

func (s *Service) mint(ctx context.Context, owner, origin, name string, scopes []Scope, life time.Duration) (string, TokenInfo, error) {
	return s.mintFor(ctx, owner, origin, name, scopes, life, nil)
}

func (s *Service) mintFor(ctx context.Context, owner, origin, name string, scopes []Scope, life time.Duration, only *Only) (string, TokenInfo, error) {
	now := s.now().UTC()
	id, secret := randomText(tokenIDSize), randomText(tokenRandom)
	sum := sha256.Sum256([]byte(secret))
	slices.Sort(scopes)
	t := token{ID: id, Secret: sum[:], Owner: owner, Name: name, Scopes: slices.Compact(scopes), Origin: origin, Only: only, Created: now, Expires: now.Add(life), Forget: now.Add(life + 30*24*time.Hour)}
	if slices.Contains(scopes, Registry) || only != nil {
		t.Forget = t.Expires // made at every call: kept no longer than it works
	}
	if _, err := s.tokens.Insert(ctx, id, t); err != nil {
		return "", TokenInfo{}, err
	}
	body := fmt.Sprintf("%s_%s_%s", tokenPrefix, id, secret)
	return body + checksum(body), t.info(), nil
}

func (t *token) info() TokenInfo {
	return TokenInfo{t.ID, t.Name, t.Scopes, t.Created, t.Expires, t.Revoked, t.Used, t.From, t.Client}
}

// active tells whether the token works now.
func (t *token) active(now time.Time) bool { return t.Revoked.IsZero() && now.Before(t.Expires) }

// Tokens lists the tokens of an account, the newest first.
func (s *Service) Tokens(ctx context.Context, owner string) ([]TokenInfo, error) {
	var out []TokenInfo
	for t, err := range s.tokens.All(ctx, store.Query{Index: "owner", Equal: owner}) {
		if err != nil {
			return nil, err
		}
		if !slices.Contains(t.Value.Scopes, Registry) && t.Value.Only == nil {
			out = append(out, t.Value.info())
		}
	}
	slices.SortFunc(out, func(a, b TokenInfo) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// RevokeToken ends a token of the account at once, and those made by it.
func (s *Service) RevokeToken(ctx context.Context, owner, id string) error {
	_, err := s.tokens.Update(ctx, id, func(t *token) error {
		if t.Owner != owner {
			return store.ErrNotFound
		}
		if t.Revoked.IsZero() {
			t.Revoked = s.now().UTC()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for t, err := range s.tokens.All(ctx, store.Query{Index: "origin", Equal: id}) {
		if err != nil {
			return err
		}
		if t.Value.Revoked.IsZero() {
			if err := s.RevokeToken(ctx, owner, t.Key); err != nil && !isNotFound(err) {
				return err
			}
		}
	}
	return nil
}

func (s *Service) revokeAll(ctx context.Context, owner string) error {
	for t, err := range s.tokens.All(ctx, store.Query{Index: "owner", Equal: owner}) {
		if err != nil {
			return err
		}
		if err := s.RevokeToken(ctx, owner, t.Key); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

type tokenState int

const (
	tokenUnknown tokenState = iota // nobody has or had such a token
	tokenEnded                     // somebody had: it is expired or revoked
	tokenWorks
)

// lookup returns the token that a text stands for, comparing in constant time
// (SC-152). A token ends with the one that made it.
func (s *Service) lookup(ctx context.Context, text string) (token, tokenState, error) {
	id, secret, ok := parseToken(text)
	if !ok {
		return token{}, tokenUnknown, nil
	}
	i, err := s.tokens.Get(ctx, id)
	if err != nil && !isNotFound(err) {
		return token{}, tokenUnknown, err
	}
	sum := sha256.Sum256([]byte(secret))
	t := i.Value
	switch {
	case subtle.ConstantTimeCompare(sum[:], t.Secret) != 1:
		return token{}, tokenUnknown, nil
	case !t.active(s.now()):
		return token{}, tokenEnded, nil
	}
	for origin := t.Origin; origin != ""; {
		o, err := s.tokens.Get(ctx, origin)
		if isNotFound(err) {
			break // its record is older than its life
		}
		if err != nil {
			return token{}, tokenUnknown, err
		}
		if !o.Value.Revoked.IsZero() {
			return token{}, tokenEnded, nil
		}
		origin = o.Value.Origin
	}
	return t, tokenWorks, nil
}

// noteUse writes down, once a minute at most, when and from where a token was
// used.
func (s *Service) noteUse(t token, from netip.Addr, client string) {
	now := s.now()
	if last, ok := s.used.Load(t.ID); ok && now.Sub(last.(time.Time)) < time.Minute {
		return
	}
	s.used.Store(t.ID, now)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.tokens.Update(ctx, t.ID, func(t *token) error {
			t.Used, t.From, t.Client = now.UTC(), from.String(), printable(client, 200)
			return nil
		})
	}()
}

// printable cuts a text of a client to what may be shown and logged.
func printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if route.Acts(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}

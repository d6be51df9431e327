// Package auth knows who asks and what they may do: accounts, groups, roles,
// tokens, browser sessions, log-in by other providers, and the record of it all.
//
// A service gets the Caller of a request by From and asks Service.Allow before
// it touches an object; that is all most need. Nothing is trusted for where it
// comes from: every request carries a token or a session, which is looked up
// each time, so that a revoked token or a lost membership ends at once.
//
// Passwords are kept as argon2id, tokens and sessions as SHA-256 of secrets of
// more than 256 random bits; none of them is ever logged. Nothing that a client
// sends decides a role: bodies are decoded into types that hold only what a
// client may choose.
//
//   - access.go: actions, roles, Allow
//   - caller.go: from a request to a Caller
//   - account.go, group.go, grant.go: users, robots and groups; who may what where
//   - token.go: access tokens; delegate.go: those of a build; password.go: passwords; session.go: browsers
//   - device.go: log-in from a terminal; oidc.go: log-in by a provider
//   - link.go: one-time links; audit.go: the record
//   - api.go, pages.go, form.go: the routes
package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// Options of the service.
type Options struct {
	URL           string         // where browsers and clients find us: https://host[:port]
	TokenLife     time.Duration  // of a new token; 30 days by default
	TokenMaxLife  time.Duration  // the longest that somebody may ask for; a year
	SessionLife   time.Duration  // of a browser's log-in, at most; 7 days
	SessionIdle   time.Duration  // without a request; 24 hours
	Secure        bool           // cookies are for https alone; off only on a loopback without TLS
	Providers     []Provider     // log-in by OpenID Connect
	HashesAtOnce  int            // how many passwords are hashed at a time; 2
	GuessesPerMin int            // failed log-ins a minute from one address; 10
	AuditLog      *slog.Logger   // a second copy of the record
	HTTP          *http.Client   // to providers; by default one of package dial
	Networks      []netip.Prefix // that are not public and have a provider
	Shared        bool           // other processes have the same records
}

// Service is the accounts of one installation.
type Service struct {
	o          Options
	accounts   *store.Collection[Account]
	grants     *store.Collection[Grant]
	tokens     *store.Collection[token]
	sessions   *store.Collection[session]
	links      *store.Collection[link]
	devices    *store.Collection[device]
	flows      *store.Collection[flow]
	assurances *store.Collection[assurance]
	audits     *store.Collection[Event]

	hashing   chan struct{}
	guesses   *guesses
	providers map[string]*provider
	now       func() time.Time
	used      sync.Map // token id -> when its use was last noted
	confirmed sync.Map // account id -> *confirmation
	nothing   string   // the hash of a password that nobody has
}

// Open opens the accounts in the store.
func Open(ctx context.Context, r store.Records, o Options) (*Service, error) {
	o.TokenLife = cmp.Or(o.TokenLife, 30*24*time.Hour)
	o.TokenMaxLife = cmp.Or(o.TokenMaxLife, 366*24*time.Hour)
	o.SessionLife = cmp.Or(o.SessionLife, 7*24*time.Hour)
	o.SessionIdle = cmp.Or(o.SessionIdle, 24*time.Hour)
	o.HashesAtOnce = cmp.Or(o.HashesAtOnce, 2)
	o.GuessesPerMin = cmp.Or(o.GuessesPerMin, 10)
	if o.AuditLog == nil {
		o.AuditLog = slog.New(slog.DiscardHandler)
	}
	s := &Service{o: o, now: time.Now, hashing: make(chan struct{}, o.HashesAtOnce), guesses: newGuesses(o.GuessesPerMin)}
	if err := s.open(ctx, r); err != nil {
		return nil, err
	}
	// A check against it takes the time of any other and never succeeds; to hash
	// something for it would take that time and 64 MiB at each start.
	s.nothing = formatPHC(randomBytes(16), randomBytes(hashSize))
	var err error
	if s.providers, err = newProviders(o); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Service) open(ctx context.Context, r store.Records) (err error) {
	fail := func(e error) {
		err = errors.Join(err, e)
	}
	open(ctx, r, "accounts", &s.accounts, fail, nil,
		store.Index[Account]{Name: "name", Unique: true, Of: func(a *Account) []string { return []string{a.Name} }},
		store.Index[Account]{Name: "email", Of: func(a *Account) []string { return []string{strings.ToLower(a.Email)} }},
		store.Index[Account]{Name: "identity", Unique: true, Of: func(a *Account) []string { return a.Identities }},
		store.Index[Account]{Name: "member", Of: func(a *Account) []string { return memberIDs(a) }},
		store.Index[Account]{Name: "kind", Of: func(a *Account) []string { return []string{string(a.Kind)} }},
		store.Index[Account]{Name: "belongs", Of: func(a *Account) []string { return []string{a.BelongsTo} }})
	open(ctx, r, "grants", &s.grants, fail, func(g *Grant) time.Time { return g.Expires },
		store.Index[Grant]{Name: "object", Of: func(g *Grant) []string { return []string{g.Object} }},
		store.Index[Grant]{Name: "subject", Of: func(g *Grant) []string { return []string{g.Subject} }})
	open(ctx, r, "tokens", &s.tokens, fail, func(t *token) time.Time { return t.Forget },
		store.Index[token]{Name: "owner", Of: func(t *token) []string { return []string{t.Owner} }},
		store.Index[token]{Name: "origin", Of: func(t *token) []string { return []string{t.Origin} }})
	open(ctx, r, "sessions", &s.sessions, fail, func(v *session) time.Time { return v.Expires },
		store.Index[session]{Name: "user", Of: func(v *session) []string { return []string{v.User} }})
	open(ctx, r, "links", &s.links, fail, func(l *link) time.Time { return l.Expires },
		store.Index[link]{Name: "user", Of: func(l *link) []string { return []string{l.User} }})
	open(ctx, r, "devices", &s.devices, fail, func(d *device) time.Time { return d.Expires },
		store.Index[device]{Name: "code", Unique: true, Of: func(d *device) []string { return []string{d.UserCode} }})
	open(ctx, r, "assurances", &s.assurances, fail, nil)
	open(ctx, r, "flows", &s.flows, fail, func(f *flow) time.Time { return f.Expires })
	open(ctx, r, "audit", &s.audits, fail, func(e *Event) time.Time { return e.Forget },
		store.Index[Event]{Name: "actor", Of: func(e *Event) []string { return []string{e.Actor} }},
		store.Index[Event]{Name: "action", Of: func(e *Event) []string { return []string{e.Action} }},
		store.Index[Event]{Name: "object", Of: func(e *Event) []string { return []string{e.Object} }})
	if s.o.Shared {
		open(ctx, r, "guesses", &s.guesses.shared, fail, func(a *sharedAttempts) time.Time { return a.Forget })
	}
	return err
}

func open[T any](ctx context.Context, r store.Records, name string, c **store.Collection[T], fail func(error), expires func(*T) time.Time, indexes ...store.Index[T]) {
	var err error
	if *c, err = store.Open(ctx, r, name, store.Options[T]{Expires: expires, Indexes: indexes}); err != nil {
		fail(err)
	}
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }

// guesses counts failed attempts to log in, for each address.
type guesses struct {
	mu    sync.Mutex
	limit int
	from  map[netip.Prefix]*attempts
	// Of several processes; an attacker tries them in turn.
	shared *store.Collection[sharedAttempts]
}

type attempts struct {
	begun  time.Time
	failed int
}

func newGuesses(limit int) *guesses {
	return &guesses{limit: limit, from: map[netip.Prefix]*attempts{}}
}

// maxAddresses bounds the memory that an attacker with many addresses takes.
const maxAddresses = 100_000

// network is what counts as one address: whoever has one of IPv6 has 2^64.
func network(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !a.Is4In6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

var errGuesses = route.Errorf(http.StatusTooManyRequests, "too many failed log-ins from this address: try again in a minute")

// check says whether the address may try.
func (g *guesses) check(a netip.Addr, now time.Time) error {
	if g.shared != nil {
		return g.checkShared(a, now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if t, ok := g.from[network(a)]; ok && now.Sub(t.begun) < time.Minute && t.failed >= g.limit {
		return errGuesses
	}
	return nil
}

func (g *guesses) failed(a netip.Addr, now time.Time) {
	if g.shared != nil {
		g.failedShared(a, now)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.from[network(a)]
	if !ok || now.Sub(t.begun) >= time.Minute {
		if len(g.from) >= maxAddresses {
			for k, old := range g.from {
				if now.Sub(old.begun) >= time.Minute {
					delete(g.from, k)
				}
			}
			if len(g.from) >= maxAddresses {
				clear(g.from)
			}
		}
		t = &attempts{begun: now}
		g.from[network(a)] = t
	}
	t.failed++
}

// Sweep forgets what has expired of the memory; the store has a sweep of its
// own.
func (s *Service) Sweep(ctx context.Context) {
	s.used.Range(func(k, v any) bool {
		if s.now().Sub(v.(time.Time)) > time.Hour {
			s.used.Delete(k)
		}
		return true
	})
}

func (s *Service) url(path string) string { return fmt.Sprint(s.o.URL, path) }

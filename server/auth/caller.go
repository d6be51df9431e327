package auth

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"singularity/server/route"
)

// Caller is who makes a request. The zero Caller is anonymous.
type Caller struct {
	ID       string // of the account; empty for an anonymous caller
	Kind     Kind
	Name     string
	RealName string
	Email    string
	Admin    bool

	TokenID   string // empty for a browser's session
	TokenName string
	Scopes    []Scope
	Expires   time.Time

	// Invalid: a credential came and does not work. For what everybody may
	// read the caller is anonymous; for anything else this is the refusal.
	Invalid bool

	session string // the key of the session
	csrf    string
	groups  []Membership
}

// Known tells whether somebody is logged in.
func (c Caller) Known() bool { return c.ID != "" }

// Has tells whether the token of the caller has one of the scopes.
func (c Caller) Has(any ...Scope) bool {
	return slices.ContainsFunc(any, func(s Scope) bool { return slices.Contains(c.Scopes, s) })
}

// Groups are the groups that the caller is in now.
func (c Caller) Groups() []Membership { return c.groups }

// CSRF is what forms of a browser's session carry in the field "csrf".
func (c Caller) CSRF() string { return c.csrf }

// Browser tells whether the caller comes with the cookie of a session.
func (c Caller) Browser() bool { return c.session != "" }

func (c Caller) groupIDs() []string {
	var ids []string
	for _, g := range c.groups {
		ids = append(ids, g.ID)
	}
	return ids
}

type callerKey struct{}

// From returns the caller of the request with that context.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// With returns a context with a caller: for services that act for somebody
// outside a request, and for tests.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// AnonymousToken is what the registry gives to clients that insist on a token and
// have no account. It is nobody's.
const AnonymousToken = "anonymous"

// Identify finds out who makes a request. Its refusals are those that no route
// may overrule: guesses of secrets, and forms of another site.
func (s *Service) Identify(r *http.Request) (Caller, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return Caller{}, route.Errorf(http.StatusBadRequest, "more than one Authorization header")
	}
	if len(headers) == 1 {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(headers[0]), " ")
		rest = strings.TrimSpace(rest)
		switch {
		case strings.EqualFold(scheme, "Bearer") && (rest == "" || rest == AnonymousToken):
			return Caller{}, nil // a client that is not logged in
		case strings.EqualFold(scheme, "Bearer"):
			return s.byToken(r, rest, "")
		case strings.EqualFold(scheme, "Basic"):
			name, password, ok := r.BasicAuth()
			if !ok {
				return Caller{Invalid: true}, nil
			}
			return s.byToken(r, password, name)
		}
		return Caller{Invalid: true}, nil
	}
	c, err := s.bySession(r)
	if err != nil || !c.Browser() || safe(r.Method) {
		return c, err
	}
	// Security: a browser sends its cookie with the form of any site (SC-148).
	if err := s.sameOrigin(r); err != nil {
		return Caller{}, err
	}
	given := r.Header.Get("X-CSRF-Token")
	if given == "" && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		given = r.PostFormValue("csrf")
	}
	if subtle.ConstantTimeCompare([]byte(given), []byte(c.csrf)) != 1 {
		return Caller{}, route.Errorf(http.StatusForbidden, "the form is too old: go back, reload the page and try again")
	}
	return c, nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// sameOrigin refuses what a page of another site sends. Every browser says with
// a form where it comes from.
func (s *Service) sameOrigin(r *http.Request) error {
	refuse := route.Errorf(http.StatusForbidden, "this form was sent from another site: open %s and try again", s.o.URL)
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return refuse
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if origin == s.o.URL {
			return nil
		}
		return refuse
	}
	if referer, err := url.Parse(r.Header.Get("Referer")); err == nil && referer.Scheme+"://"+referer.Host == s.o.URL {
		return nil
	}
	return refuse
}

// byToken returns the caller with a token. A name, if one is given, must be the
// owner's.
func (s *Service) byToken(r *http.Request, text, name string) (Caller, error) {
	addr := route.Of(r.Context()).Addr
	t, state, err := s.lookup(r.Context(), text)
	if err != nil {
		return Caller{}, err
	}
	if state != tokenWorks {
		if state == tokenUnknown {
			// A token that has expired is no guess; others behind the address
			// with a token that works are not held up.
			if err := s.guesses.check(addr, s.now()); err != nil {
				return Caller{}, err
			}
			s.guesses.failed(addr, s.now())
		}
		return Caller{Invalid: true}, nil
	}
	c, err := s.caller(r.Context(), t.Owner)
	if err != nil || c.Invalid || name != "" && name != c.Name {
		return Caller{Invalid: true}, err
	}
	c.TokenID, c.TokenName, c.Scopes, c.Expires = t.ID, t.Name, t.Scopes, t.Expires
	s.noteUse(t, addr, r.UserAgent())
	return c, nil
}

// caller returns an account as a caller without scopes.
func (s *Service) caller(ctx context.Context, id string) (Caller, error) {
	a, err := s.AccountByID(ctx, id)
	if isNotFound(err) || err == nil && !a.Active() {
		return Caller{Invalid: true}, nil
	}
	if err != nil {
		return Caller{}, err
	}
	if a.Kind == Robot {
		// A robot ends with whom it belongs to.
		if o, err := s.AccountByID(ctx, a.BelongsTo); isNotFound(err) || err == nil && !o.Active() {
			return Caller{Invalid: true}, nil
		} else if err != nil {
			return Caller{}, err
		}
	}
	holds, err := s.confirm(ctx, a)
	if err == nil && len(a.Identities) > 0 {
		a, err = s.AccountByID(ctx, id) // it may be an administrator no longer
	}
	if err != nil {
		return Caller{}, err
	}
	groups, err := s.Groups(ctx, id)
	if !holds {
		groups = slices.DeleteFunc(groups, func(g Membership) bool { return g.provided })
		a.Admin = a.Admin && !s.providedAdmin(a)
	}
	return Caller{ID: a.ID, Kind: a.Kind, Name: a.Name, RealName: a.RealName, Email: a.Email, Admin: a.Admin, groups: groups}, err
}

// Check returns the caller with a token that came some other way than in a
// header: introspection asks this for other services.
func (s *Service) Check(ctx context.Context, text string) (Caller, error) {
	t, state, err := s.lookup(ctx, text)
	if err != nil || state != tokenWorks {
		return Caller{Invalid: true}, err
	}
	c, err := s.caller(ctx, t.Owner)
	c.TokenID, c.TokenName, c.Scopes, c.Expires = t.ID, t.Name, t.Scopes, t.Expires
	return c, err
}

// Identified attaches the caller to each request before next answers it. A bad
// token is reported in a header, as next may answer all the same.
func (s *Service) Identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Identify(r)
		if err != nil {
			route.Refuse(w, r, err)
			return
		}
		if c.Invalid {
			w.Header().Set("X-Token-Status", "invalid")
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), c)))
	})
}

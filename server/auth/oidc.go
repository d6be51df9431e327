package auth

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"singularity/server/dial"
	"singularity/server/route"
	"singularity/server/store"
)

// Provider is a provider of OpenID Connect that people may log in by. The
// administrator names it; its answers are checked by go-oidc.
type Provider struct {
	Name         string   // in addresses: letters, digits and dashes
	Title        string   // on the button
	Issuer       string   // its address, https
	ClientID     string   // as it knows us
	ClientSecret string   // or empty for a public client
	Scopes       []string // beside openid, profile and email
	GroupsClaim  string   // the claim with the names of groups; "groups" by default
	AdminGroup   string   // who is in it is an administrator here, who is not is none
	Domains      []string // whose verified addresses may come; all if empty
	NoSignUp     bool     // only those who have an account already
	Insecure     bool     // http, for tests on the loopback
}

type provider struct {
	Provider
	redirect string
	client   *http.Client
	mu       sync.Mutex
	found    *oidc.Provider
}

// flow is a log-in that is on its way to a provider and back. Its key is the
// SHA-256 of the state.
type flow struct {
	Provider string    `json:"provider"`
	Cookie   string    `json:"cookie"` // SHA-256 of what the browser keeps
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Next     string    `json:"next"`
	Expires  time.Time `json:"expires"`
}

const flowLife = 10 * time.Minute

func newProviders(o Options) (map[string]*provider, error) {
	m := map[string]*provider{}
	for _, p := range o.Providers {
		u, err := url.Parse(p.Issuer)
		switch {
		case !accountName.MatchString(p.Name) || len(p.Name) > 32 || m[p.Name] != nil:
			return nil, fmt.Errorf("cannot use the provider %q: its name has letters and digits and is no other's", p.Name)
		case err != nil || u.Host == "" || u.Scheme != "https" && !(p.Insecure && u.Scheme == "http"):
			return nil, fmt.Errorf("cannot use the provider %q: its issuer %q is no https address", p.Name, p.Issuer)
		case p.ClientID == "":
			return nil, fmt.Errorf("cannot use the provider %q: no client_id", p.Name)
		}
		p.GroupsClaim, p.Title = cmp.Or(p.GroupsClaim, "groups"), cmp.Or(p.Title, p.Name)
		client := o.HTTP
		if client == nil {
			client = dial.Client(nil, o.Networks)
		}
		m[p.Name] = &provider{Provider: p, redirect: o.URL + "/auth/oidc/" + p.Name + "/callback", client: client}
	}
	return m, nil
}

// signatures are the ways to sign that we take, whatever a token says (SC-144).
var signatures = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.EdDSA}

// config asks the provider where its endpoints are, once it answers.
func (p *provider) config(ctx context.Context) (*oauth2.Config, *oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		// The keys are asked for long after this request.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.Issuer)
		if err != nil {
			return nil, nil, &route.Error{Status: http.StatusBadGateway, Message: fmt.Sprintf("%s does not answer: try again later", p.Title), Cause: err}
		}
		p.found = found
	}
	scopes := append([]string{oidc.ScopeOpenID, "profile", "email"}, p.Scopes...)
	var offers struct {
		Scopes []string `json:"scopes_supported"`
	}
	if p.found.Claims(&offers) == nil && slices.Contains(offers.Scopes, oidc.ScopeOfflineAccess) && !slices.Contains(scopes, oidc.ScopeOfflineAccess) {
		scopes = append(scopes, oidc.ScopeOfflineAccess) // so that we may ask again
	}
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: p.found.Endpoint(), RedirectURL: p.redirect, Scopes: scopes}, p.found, nil
}

func (s *Service) flowCookie(value string) *http.Cookie {
	c := s.cookie(value, flowLife)
	c.Name = strings.Replace(c.Name, "session", "flow", 1)
	return c
}

// startOIDC sends the browser to a provider.
func (s *Service) startOIDC(w http.ResponseWriter, r *http.Request) error {
	p := s.providers[r.PathValue("provider")]
	if p == nil {
		return route.Errorf(http.StatusNotFound, "there is no such provider")
	}
	c, _, err := p.config(r.Context())
	if err != nil {
		return err
	}
	state, kept := randomText(43), randomText(43)
	f := flow{Provider: p.Name, Cookie: sessionKey(kept), Nonce: randomText(43), Verifier: oauth2.GenerateVerifier(), Next: localPath(r.FormValue("next")), Expires: s.now().Add(flowLife).UTC()}
	if _, err := s.flows.Insert(r.Context(), sessionKey(state), f); err != nil {
		return err
	}
	http.SetCookie(w, s.flowCookie(kept))
	http.Redirect(w, r, c.AuthCodeURL(state, oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)), http.StatusFound)
	return nil
}

var errFlow = route.Errorf(http.StatusBadRequest, "this log-in has expired or began in another browser: start again")

// finishOIDC takes the browser back from a provider.
func (s *Service) finishOIDC(w http.ResponseWriter, r *http.Request) error {
	p := s.providers[r.PathValue("provider")]
	if p == nil {
		return route.Errorf(http.StatusNotFound, "there is no such provider")
	}
	key := sessionKey(r.FormValue("state"))
	f, err := s.flows.Get(r.Context(), key)
	if isNotFound(err) {
		return errFlow
	}
	if err != nil {
		return err
	}
	kept, err := r.Cookie(s.flowCookie("").Name)
	if err != nil || subtle.ConstantTimeCompare([]byte(sessionKey(kept.Value)), []byte(f.Value.Cookie)) != 1 || f.Value.Provider != p.Name {
		return errFlow
	}
	if err := s.flows.Delete(r.Context(), key, f.Rev); err != nil {
		return errFlow
	}
	http.SetCookie(w, s.flowCookie(""))
	if iss := r.FormValue("iss"); iss != "" && iss != p.Issuer {
		return errFlow
	}
	if code := r.FormValue("error"); code != "" {
		return route.Errorf(http.StatusForbidden, "%s did not log you in: %s", p.Title, printable(code, 60))
	}
	claims, refresh, err := p.claims(r.Context(), f.Value, r.FormValue("code"))
	if err != nil {
		return err
	}
	a, err := s.provided(r.Context(), p, claims)
	if err != nil {
		return err
	}
	if err := s.assure(context.WithValue(r.Context(), logInKey{}, true), p, a.ID, refresh); err != nil {
		return err
	}
	if err := s.beginSession(w, r, a.ID, p.Name); err != nil {
		return err
	}
	s.Audit(With(r.Context(), Caller{Name: a.Name}), "login", a.Name, nil, map[string]string{"way": p.Name})
	http.Redirect(w, r, f.Value.Next, http.StatusSeeOther)
	return nil
}

// claims are what a provider says about somebody.
type claims struct {
	Subject  string
	Name     string `json:"name"`
	User     string `json:"preferred_username"`
	Email    string `json:"email"`
	Verified bool   `json:"email_verified"`
	groups   []string
}

const maxIDToken = 64 << 10

func (p *provider) refuse(err error) error {
	return &route.Error{Status: http.StatusForbidden, Message: fmt.Sprintf("the answer of %s is not valid: start again", p.Title), Cause: err}
}

// claims exchanges the code of a log-in for what the provider says, and perhaps
// for the right to ask again.
func (p *provider) claims(ctx context.Context, f flow, code string) (claims, string, error) {
	c, found, err := p.config(ctx)
	if err != nil {
		return claims{}, "", err
	}
	ctx = oidc.ClientContext(ctx, p.client)
	t, err := c.Exchange(ctx, code, oauth2.VerifierOption(f.Verifier))
	if err != nil {
		return claims{}, "", p.refuse(err)
	}
	out, err := p.read(ctx, found, t, f.Nonce)
	return out, t.RefreshToken, err
}

// read checks the ID token of an answer, and reads what it says. A later answer
// may come without one, and has no nonce: then the other endpoint tells, to which
// the answer's own token gives access.
func (p *provider) read(ctx context.Context, found *oidc.Provider, t *oauth2.Token, nonce string) (claims, error) {
	var out claims
	var all map[string]any
	raw, _ := t.Extra("id_token").(string)
	switch {
	case len(raw) > maxIDToken:
		return claims{}, p.refuse(errors.New("too long an id_token"))
	case raw == "" && nonce != "":
		return claims{}, p.refuse(errors.New("no id_token"))
	case raw == "":
		info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(t))
		if err != nil {
			return claims{}, err
		}
		if err := errors.Join(info.Claims(&out), info.Claims(&all)); err != nil {
			return claims{}, err
		}
		out.Subject = info.Subject
		return out.grouped(all, p.GroupsClaim), nil
	}
	id, err := found.Verifier(&oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: signatures}).Verify(ctx, raw)
	if err != nil {
		return claims{}, p.refuse(err)
	}
	if nonce != "" && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return claims{}, p.refuse(errors.New("another nonce"))
	}
	if err := errors.Join(id.Claims(&out), id.Claims(&all)); err != nil {
		return claims{}, p.refuse(err)
	}
	// A small token may leave the person to the other endpoint.
	if info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(t)); err == nil && info.Subject == id.Subject {
		var more claims
		var moreAll map[string]any
		if info.Claims(&more) == nil && info.Claims(&moreAll) == nil {
			out.Name, out.User = cmp.Or(out.Name, more.Name), cmp.Or(out.User, more.User)
			if out.Email == "" {
				out.Email, out.Verified = more.Email, more.Verified
			}
			if all[p.GroupsClaim] == nil {
				all[p.GroupsClaim] = moreAll[p.GroupsClaim]
			}
		}
	}
	out.Subject = id.Subject
	return out.grouped(all, p.GroupsClaim), nil
}

// grouped adds the groups that a claim lists.
func (c claims) grouped(all map[string]any, claim string) claims {
	list, _ := all[claim].([]any)
	for _, g := range list {
		if name, ok := g.(string); ok && len(c.groups) < 1000 {
			c.groups = append(c.groups, name)
		}
	}
	return c
}

// provided returns the account of somebody whom a provider vouches for.
//
// Security: issuer and subject alone decide which account it is. A name or an
// address that matches an account's proves nothing, as any provider may claim
// it.
func (s *Service) provided(ctx context.Context, p *provider, c claims) (Account, error) {
	if !c.Verified {
		c.Email = ""
	}
	if len(p.Domains) > 0 && !slices.Contains(p.Domains, strings.ToLower(c.Email[strings.LastIndexByte(c.Email, '@')+1:])) {
		return Account{}, route.Errorf(http.StatusForbidden, "accounts of this domain may not log in here")
	}
	identity := p.Issuer + " " + c.Subject
	if len(identity) > store.MaxValue {
		return Account{}, errFlow
	}
	i, err := s.accounts.Find(ctx, "identity", identity)
	a := i.Value
	if isNotFound(err) {
		if p.NoSignUp {
			return Account{}, route.Errorf(http.StatusForbidden, "there is no account for you here: ask an administrator")
		}
		a, err = s.signUp(ctx, p, c, identity)
	}
	if err != nil {
		return a, err
	}
	if !a.Active() {
		return a, route.Errorf(http.StatusForbidden, "this account is disabled")
	}
	return s.follow(ctx, p, a.ID, c)
}

// signUp makes an account under the name at the provider, or one like it that
// is free.
func (s *Service) signUp(ctx context.Context, p *provider, c claims, identity string) (Account, error) {
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(strings.SplitN(cmp.Or(c.User, cmp.Or(c.Email, "user")), "@", 2)[0]))
	base = strings.Join(strings.FieldsFunc(base, func(r rune) bool { return r == '-' }), "-")
	if len(base) > 50 {
		base = strings.TrimRight(base[:50], "-")
	}
	base = cmp.Or(base, "user")
	for n := 1; n < 1000; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		if CheckName(name) != nil {
			continue
		}
		a, err := s.AddAccount(ctx, Account{Kind: User, Name: name, RealName: printable(c.Name, 200), Email: c.Email, Identities: []string{identity}})
		var taken *route.Error
		if errors.As(err, &taken) && taken.Status == http.StatusConflict {
			// Perhaps by the same person in another window.
			if i, err := s.accounts.Find(ctx, "identity", identity); err == nil {
				return i.Value, nil
			}
			continue
		}
		return a, err
	}
	return Account{}, route.Errorf(http.StatusConflict, "no name like %q is free", base)
}

// syncGroups makes the account a member of the groups that the provider names,
// and of no other that it once named.
func (s *Service) syncGroups(ctx context.Context, p *provider, id string, names []string) error {
	for g, err := range s.accounts.All(ctx, store.Query{Index: "kind", Equal: string(Group)}) {
		if err != nil {
			return err
		}
		external, ours := strings.CutPrefix(g.Value.External, p.Name+":")
		want := ours && slices.Contains(names, external)
		_, member := g.Value.Members[id]
		if !ours || want == member || member && !g.Value.Provided[id] {
			continue
		}
		_, err := s.UpdateAccount(ctx, g.Key, func(a *Account) error {
			if !want {
				delete(a.Members, id)
				delete(a.Provided, id)
				return nil
			}
			if a.Members == nil {
				a.Members = map[string]Role{}
			}
			if a.Provided == nil {
				a.Provided = map[string]bool{}
			}
			a.Members[id], a.Provided[id] = Writer, true
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

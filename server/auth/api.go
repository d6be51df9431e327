package auth

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/route"
)

// Routes are the calls and pages of the service.
func (s *Service) Routes() []route.Route {
	f := route.Func
	return append([]route.Route{
		{Pattern: "GET /token/v1/token-status", Handler: f(s.tokenStatus), Class: route.Login},
		{Pattern: "GET /v1/rbac/users/current", Handler: f(s.currentUser)},
		{Pattern: "POST /token/v1/device", Handler: f(s.startDevice), Class: route.Login, Body: 8 << 10},
		{Pattern: "POST /token/v1/device/token", Handler: f(s.pollDevice), Body: 8 << 10},

		{Pattern: "GET /v1/users/{name}/tokens", Handler: f(s.listTokens)},
		{Pattern: "POST /v1/users/{name}/tokens", Handler: f(s.createToken), Class: route.Push},
		{Pattern: "DELETE /v1/users/{name}/tokens/{id}", Handler: f(s.deleteToken)},

		{Pattern: "GET /v1/robots", Handler: f(s.listRobots)},
		{Pattern: "POST /v1/robots", Handler: f(s.createRobot), Class: route.Push},
		{Pattern: "DELETE /v1/robots/{name}", Handler: f(s.deleteRobot)},
		{Pattern: "POST /v1/groups", Handler: f(s.createGroup), Class: route.Push},
		{Pattern: "GET /v1/groups", Handler: f(s.listGroups)},
		{Pattern: "GET /v1/groups/{group}", Handler: f(s.showGroup)},
		{Pattern: "PUT /v1/groups/{group}/members/{name}", Handler: f(s.putMember)},
		{Pattern: "DELETE /v1/groups/{group}/members/{name}", Handler: f(s.deleteMember)},

		{Pattern: "GET /v1/admin/users", Handler: f(s.adminUsers)},
		{Pattern: "POST /v1/admin/users", Handler: f(s.adminCreate)},
		{Pattern: "PATCH /v1/admin/users/{name}", Handler: f(s.adminChange)},
		{Pattern: "POST /v1/admin/users/{name}/link", Handler: f(s.adminLink)},
		{Pattern: "GET /v1/admin/audit", Handler: f(s.adminAudit), Class: route.Search},
	}, s.pages()...)
}

// Internal are the calls for other services, on the internal listener, which
// lets only holders of a certificate of ours call them.
func (s *Service) Internal() []route.Route {
	return []route.Route{{Pattern: "POST /internal/v1/introspect", Handler: route.Func(s.introspect), Body: 8 << 10}}
}

// tokenStatus says whether a token works. Clients show the 404 as wrong
// credentials.
func (s *Service) tokenStatus(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if !c.Known() || c.TokenID == "" {
		return route.Errorf(http.StatusNotFound, "invalid or expired token")
	}
	route.Data(w, api.TokenStatus{Username: c.Name, Email: c.Email, TokenName: c.TokenName, ExpiresAt: c.Expires, Scopes: scopeNames(c.Scopes)})
	return nil
}

func scopeNames(scopes []Scope) []string {
	out := make([]string, 0, len(scopes))
	for _, sc := range scopes {
		out = append(out, string(sc))
	}
	return out
}

// registryLife is how long the password for a registry works.
const registryLife = 12 * time.Hour

// currentUser says who the caller is, with a password for the registry that has
// no more rights than the token and ends with it.
func (s *Service) currentUser(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if !c.Known() {
		return route.Errorf(http.StatusUnauthorized, "log in first: this needs an access token")
	}
	u := api.CurrentUser{Username: c.Name, RealName: c.RealName, Email: c.Email}
	if !c.Has(Registry) && c.Has(LibraryRead) {
		scopes := []Scope{Registry}
		for _, sc := range []Scope{LibraryRead, LibraryCreate, LibraryWrite, LibraryDelete} {
			if c.Has(sc) {
				scopes = append(scopes, sc)
			}
		}
		life := registryLife
		if left := c.Expires.Sub(s.now()); !c.Expires.IsZero() && left < life {
			life = left
		}
		var err error
		if u.Meta.Secret, _, err = s.mint(r.Context(), c.ID, c.TokenID, "registry", scopes, life); err != nil {
			return err
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	route.JSON(w, http.StatusOK, u)
	return nil
}

// own returns the account whose tokens the path names, if they are the caller's
// to manage: their own, or those of a robot of theirs.
func (s *Service) own(r *http.Request, sc Scope) (Account, error) {
	c := From(r.Context())
	if err := c.Require(sc); err != nil {
		return Account{}, err
	}
	a, err := s.Account(r.Context(), r.PathValue("name"))
	if err != nil || !a.Active() {
		return a, notFoundOr(err)
	}
	if a.ID == c.ID || a.Kind == Robot && s.mayManage(c, a.BelongsTo) {
		return a, nil
	}
	return a, notFoundOr(nil)
}

// mayManage tells whether the caller acts for the account: it is theirs, or a
// group that they own.
func (s *Service) mayManage(c Caller, id string) bool {
	return id == c.ID || c.Admin || slices.ContainsFunc(c.groups, func(g Membership) bool { return g.ID == id && g.Role == Owner })
}

func notFoundOr(err error) error {
	if err == nil || isNotFound(err) {
		return route.Errorf(http.StatusNotFound, "not found")
	}
	return err
}

func (s *Service) listTokens(w http.ResponseWriter, r *http.Request) error {
	a, err := s.own(r, AccountRead)
	if err != nil {
		return err
	}
	list, err := s.Tokens(r.Context(), a.ID)
	if err != nil {
		return err
	}
	if list == nil {
		list = []TokenInfo{}
	}
	route.Data(w, list)
	return nil
}

func (s *Service) createToken(w http.ResponseWriter, r *http.Request) error {
	a, err := s.own(r, AccountWrite)
	if err != nil {
		return err
	}
	var in struct {
		Name   string  `json:"name"`
		Scopes []Scope `json:"scopes"`
		Days   int     `json:"days"`
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if in.Days < 0 || in.Days > 36600 {
		return route.Errorf(http.StatusBadRequest, "a token lives for a number of days")
	}
	text, info, err := s.AddToken(r.Context(), From(r.Context()), a.ID, NewToken{in.Name, in.Scopes, time.Duration(in.Days) * 24 * time.Hour})
	s.Audit(r.Context(), "token.create", info.ID, err, map[string]string{"name": in.Name, "owner": a.Name})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	route.Data(w, struct {
		TokenInfo
		Token string `json:"token"`
	}{info, text})
	return nil
}

func (s *Service) deleteToken(w http.ResponseWriter, r *http.Request) error {
	a, err := s.own(r, AccountWrite)
	if err != nil {
		return err
	}
	err = s.RevokeToken(r.Context(), a.ID, r.PathValue("id"))
	s.Audit(r.Context(), "token.revoke", r.PathValue("id"), err, map[string]string{"owner": a.Name})
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

// person is what others may see of an account.
type person struct {
	Name      string    `json:"name"`
	Kind      Kind      `json:"kind"`
	RealName  string    `json:"realName,omitempty"`
	Email     string    `json:"email,omitempty"`
	Admin     bool      `json:"admin,omitempty"`
	Disabled  bool      `json:"disabled,omitempty"`
	Deleted   bool      `json:"deleted,omitempty"`
	BelongsTo string    `json:"belongsTo,omitempty"`
	Created   time.Time `json:"created"`
}

func toPerson(a Account) person {
	return person{a.Name, a.Kind, a.RealName, a.Email, a.Admin, a.Disabled, a.Deleted, a.BelongsTo, a.Created}
}

func (s *Service) adminUsers(w http.ResponseWriter, r *http.Request) error {
	if err := From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	limit, err := pageSize(r)
	if err != nil {
		return err
	}
	list, next, err := s.Accounts(r.Context(), "", r.FormValue("after"), limit)
	if err != nil {
		return err
	}
	out := []person{}
	for _, a := range list {
		out = append(out, toPerson(a))
	}
	route.JSON(w, http.StatusOK, paged{out, following{next}})
	return nil
}

type paged struct {
	Data any       `json:"data"`
	Page following `json:"page"`
}

type following struct {
	Next string `json:"next"`
}

func pageSize(r *http.Request) (int, error) {
	text := r.FormValue("limit")
	if text == "" {
		return 100, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, route.Errorf(http.StatusBadRequest, "a page has 1 to 1000 entries")
	}
	return n, nil
}

func (s *Service) adminCreate(w http.ResponseWriter, r *http.Request) error {
	if err := From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	var in struct {
		Name     string `json:"name"`
		RealName string `json:"realName"`
		Email    string `json:"email"`
		Admin    bool   `json:"admin"`
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	a, err := s.AddAccount(r.Context(), Account{Kind: User, Name: in.Name, RealName: in.RealName, Email: in.Email, Admin: in.Admin})
	s.Audit(r.Context(), "account.create", in.Name, err, map[string]string{"admin": strconv.FormatBool(in.Admin)})
	if err != nil {
		return err
	}
	return s.answerLink(w, r, a)
}

// answerLink answers with a one-time link for the account.
func (s *Service) answerLink(w http.ResponseWriter, r *http.Request, a Account) error {
	address, err := s.AddLink(r.Context(), a.ID, 72*time.Hour)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	route.Data(w, struct {
		person
		Link string `json:"link"`
	}{toPerson(a), address})
	return nil
}

func (s *Service) adminLink(w http.ResponseWriter, r *http.Request) error {
	if err := From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	a, err := s.Account(r.Context(), r.PathValue("name"))
	if err != nil || a.Kind != User || !a.Active() {
		return notFoundOr(err)
	}
	s.Audit(r.Context(), "account.link", a.Name, nil, nil)
	return s.answerLink(w, r, a)
}

func (s *Service) adminChange(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if err := c.RequireAdmin(); err != nil {
		return err
	}
	var in struct {
		RealName *string `json:"realName"`
		Email    *string `json:"email"`
		Admin    *bool   `json:"admin"`
		Disabled *bool   `json:"disabled"`
		Deleted  *bool   `json:"deleted"`
		External *string `json:"external"`
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	a, err := s.Account(r.Context(), r.PathValue("name"))
	if err != nil || a.Deleted {
		return notFoundOr(err)
	}
	if a.ID == c.ID && (in.Admin != nil && !*in.Admin || in.Disabled != nil || in.Deleted != nil) {
		return route.Errorf(http.StatusConflict, "somebody else has to take this from you")
	}
	a, err = s.UpdateAccount(r.Context(), a.ID, func(a *Account) error {
		set(&a.RealName, in.RealName)
		set(&a.Email, in.Email)
		set(&a.Disabled, in.Disabled)
		set(&a.Deleted, in.Deleted)
		if a.Kind == User {
			set(&a.Admin, in.Admin)
		}
		if a.Kind == Group {
			set(&a.External, in.External)
		}
		return nil
	})
	s.Audit(r.Context(), "account.change", r.PathValue("name"), err, nil)
	if err != nil {
		return err
	}
	route.Data(w, toPerson(a))
	return nil
}

func set[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}

func (s *Service) adminAudit(w http.ResponseWriter, r *http.Request) error {
	if err := From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	limit, err := pageSize(r)
	if err != nil {
		return err
	}
	index, value := "", ""
	for _, name := range []string{"actor", "action", "object"} {
		if v := r.FormValue(name); v != "" {
			index, value = name, v
		}
	}
	events, next, err := s.Events(r.Context(), index, value, r.FormValue("after"), limit)
	if err != nil {
		return err
	}
	route.JSON(w, http.StatusOK, paged{events, following{next}})
	return nil
}

// introspect tells another service whose a token is.
func (s *Service) introspect(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	c, err := s.Check(r.Context(), r.PostFormValue("token"))
	if err != nil {
		return err
	}
	if !c.Known() {
		route.JSON(w, http.StatusOK, api.Introspection{})
		return nil
	}
	groups := map[string]string{}
	for _, g := range c.groups {
		groups[g.Name] = string(g.Role)
	}
	route.JSON(w, http.StatusOK, api.Introspection{Active: true, Subject: c.ID, Username: c.Name, Kind: string(c.Kind), Admin: c.Admin, TokenID: c.TokenID,
		Scope: strings.Join(scopeNames(c.Scopes), " "), ExpiresAt: c.Expires.Unix(), Groups: groups})
	return nil
}

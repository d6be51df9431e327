package auth

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/server/page"
	"singularity/server/route"
)

//go:embed pages/*.html
var pageFiles embed.FS

var templates = page.Parse(pageFiles, "pages/*.html", template.FuncMap{"scope": func(s Scope) string { return scopeTexts[s] }})

func (s *Service) pages() []route.Route {
	f := s.pageFunc
	return []route.Route{
		{Pattern: "GET /auth/login", Handler: f(s.loginPage)},
		{Pattern: "POST /auth/login", Handler: f(s.loginForm), Class: route.Login, Body: 16 << 10},
		{Pattern: "POST /auth/logout", Handler: f(s.logoutForm), Body: 16 << 10},
		{Pattern: "GET /auth/setup", Handler: f(s.setupPage), Class: route.Login},
		{Pattern: "POST /auth/setup", Handler: f(s.setupForm), Class: route.Login, Body: 16 << 10},
		{Pattern: "GET /auth/tokens", Handler: f(s.tokensPage)},
		{Pattern: "POST /auth/tokens", Handler: f(s.tokensForm), Body: 16 << 10},
		{Pattern: "POST /auth/tokens/revoke", Handler: f(s.revokeForm), Body: 16 << 10},
		{Pattern: "GET /auth/device", Handler: f(s.devicePage)},
		{Pattern: "POST /auth/device", Handler: f(s.deviceForm), Class: route.Login, Body: 16 << 10},
		{Pattern: "POST /auth/password", Handler: f(s.passwordForm), Class: route.Login, Body: 16 << 10},
		{Pattern: "GET /auth/oidc/{provider}/start", Handler: f(s.startOIDC), Class: route.Login},
		{Pattern: "GET /auth/oidc/{provider}/callback", Handler: f(s.finishOIDC), Class: route.Login},
	}
}

// view is what a page shows.
type view struct {
	page.Frame
	Message   string
	Next      string
	Code      string
	Name      string
	Providers []*provider
	Tokens    []TokenInfo
	Now       time.Time
	New       string // the text of a token, this once
	Scopes    []choice
	Days      int
	MaxDays   int
	Device    *device
	Sessions  []SessionInfo
	Password  bool
}

type choice struct {
	Scope Scope
	Text  string
	On    bool
}

// pageFunc makes a handler of a page; a refusal is shown as a page too.
func (s *Service) pageFunc(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		var e *route.Error
		if !errors.As(err, &e) || !strings.Contains(r.Header.Get("Accept"), "text/html") {
			route.Refuse(w, r, err)
			return
		}
		if errors.Is(err, errLogFirst) {
			http.Redirect(w, r, "/auth/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		s.show(w, r, e.Status, "message.html", view{Frame: page.Frame{Title: "Sorry"}, Message: e.Message})
	}
}

func (s *Service) show(w http.ResponseWriter, r *http.Request, status int, name string, v view) error {
	v.Frame, v.Now = FrameOf(r.Context(), v.Title, "account"), s.now()
	return page.Write(w, templates, status, name, v)
}

// FrameOf is the frame of a page for the caller.
func FrameOf(ctx context.Context, title, section string) page.Frame {
	f := page.Frame{Title: title, Section: section}
	if c := From(ctx); c.Browser() {
		f.User, f.Admin, f.CSRF = c.Name, c.Admin, c.csrf
	}
	return f
}

// localPath returns next if it is a path of ours, and else where a log-in leads
// by itself (SC-150).
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > 2000 || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\t\r\n") || hasControl(next) || u.Host != "" || u.Scheme != "" ||
		strings.HasPrefix(u.Path, "//") || strings.ContainsAny(u.Path, "\\") {
		return "/auth/tokens"
	}
	return next
}

var errLogFirst = route.Errorf(http.StatusUnauthorized, "log in first")

// browser returns the caller of a page for people who are logged in.
func (s *Service) browser(r *http.Request) (Caller, error) {
	c := From(r.Context())
	if !c.Browser() {
		return c, errLogFirst
	}
	return c, nil
}

func (s *Service) loginPage(w http.ResponseWriter, r *http.Request) error {
	next := localPath(r.FormValue("next"))
	if From(r.Context()).Browser() {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	return s.show(w, r, http.StatusOK, "login.html", view{Frame: page.Frame{Title: "Log in"}, Next: next, Providers: s.providerList()})
}

func (s *Service) providerList() []*provider {
	var list []*provider
	for _, p := range s.providers {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *provider) int { return strings.Compare(a.Title, b.Title) })
	return list
}

func (s *Service) loginForm(w http.ResponseWriter, r *http.Request) error {
	// Security: another site must not log a browser in as somebody else.
	if err := s.sameOrigin(r); err != nil {
		return err
	}
	name, next := strings.TrimSpace(r.PostFormValue("name")), localPath(r.PostFormValue("next"))
	a, err := s.login(r.Context(), route.Of(r.Context()).Addr, name, r.PostFormValue("password"))
	s.Audit(r.Context(), "login", name, err, map[string]string{"way": "password"})
	if errors.Is(err, errLogin) {
		return s.show(w, r, http.StatusUnauthorized, "login.html", view{Frame: page.Frame{Title: "Log in"}, Next: next, Name: name, Message: errLogin.Message, Providers: s.providerList()})
	}
	if err != nil {
		return err
	}
	if err := s.beginSession(w, r, a.ID, "password"); err != nil {
		return err
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

func (s *Service) logoutForm(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if c.Browser() {
		if r.PostFormValue("everywhere") != "" {
			if err := s.endSessions(r.Context(), c.ID, ""); err != nil {
				return err
			}
		} else if err := s.sessions.Delete(r.Context(), c.session, 0); err != nil && !isNotFound(err) {
			return err
		}
		s.Audit(r.Context(), "logout", c.Name, nil, nil)
	}
	http.SetCookie(w, s.cookie("", 0))
	http.Redirect(w, r, "/auth/login", http.StatusSeeOther)
	return nil
}

func (s *Service) setupPage(w http.ResponseWriter, r *http.Request) error {
	from := route.Of(r.Context()).Addr
	if err := s.guesses.check(from, s.now()); err != nil {
		return err
	}
	code := r.FormValue("code")
	a, err := s.linkFor(r.Context(), code)
	if err != nil {
		s.guesses.failed(from, s.now())
		return err
	}
	return s.show(w, r, http.StatusOK, "setup.html", view{Frame: page.Frame{Title: "Choose a password"}, Code: code, Name: a.Name})
}

func (s *Service) setupForm(w http.ResponseWriter, r *http.Request) error {
	if err := s.sameOrigin(r); err != nil {
		return err
	}
	from, code := route.Of(r.Context()).Addr, r.PostFormValue("code")
	if err := s.guesses.check(from, s.now()); err != nil {
		return err
	}
	a, err := s.useLink(r.Context(), code, r.PostFormValue("password"))
	if errors.Is(err, errLink) {
		s.guesses.failed(from, s.now())
		return err
	}
	var refused *route.Error
	if errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
		return s.show(w, r, refused.Status, "setup.html", view{Frame: page.Frame{Title: "Choose a password"}, Code: code, Name: a.Name, Message: refused.Message})
	}
	s.Audit(With(r.Context(), Caller{Name: a.Name}), "account.setup", a.Name, err, nil)
	if err != nil {
		return err
	}
	if err := s.beginSession(w, r, a.ID, "link"); err != nil {
		return err
	}
	http.Redirect(w, r, "/auth/tokens", http.StatusSeeOther)
	return nil
}

func (s *Service) passwordForm(w http.ResponseWriter, r *http.Request) error {
	c, err := s.browser(r)
	if err != nil {
		return err
	}
	if _, err := s.login(r.Context(), route.Of(r.Context()).Addr, c.Name, r.PostFormValue("old")); err != nil {
		s.Audit(r.Context(), "password.change", c.Name, err, nil)
		return err
	}
	err = s.SetPassword(r.Context(), c.ID, r.PostFormValue("new"))
	s.Audit(r.Context(), "password.change", c.Name, err, nil)
	if err != nil {
		return err
	}
	if err := s.beginSession(w, r, c.ID, "password"); err != nil {
		return err
	}
	http.Redirect(w, r, "/auth/tokens", http.StatusSeeOther)
	return nil
}

var scopeTexts = map[Scope]string{
	LibraryRead: "pull private images", LibraryCreate: "push new images, without moving tags", LibraryWrite: "push images and move tags", LibraryDelete: "delete images and tags",
	LibraryManage: "change settings and members of collections", KeysWrite: "publish keys", Build: "build remotely", RunsWrite: "tell where images run", AccountRead: "see the account", AccountWrite: "make tokens, groups and robots",
	AccountAdmin: "administer this server",
}

func (s *Service) tokensView(r *http.Request, c Caller) (view, error) {
	v := view{Frame: page.Frame{Title: "Access tokens"}, Days: int(s.o.TokenLife / (24 * time.Hour)), MaxDays: int(s.o.TokenMaxLife / (24 * time.Hour))}
	for _, sc := range Scopes {
		if sc != AccountAdmin || c.Admin {
			v.Scopes = append(v.Scopes, choice{sc, scopeTexts[sc], slices.Contains(CommandLine, sc)})
		}
	}
	var err error
	if v.Tokens, err = s.Tokens(r.Context(), c.ID); err != nil {
		return v, err
	}
	a, err := s.AccountByID(r.Context(), c.ID)
	if err != nil {
		return v, err
	}
	v.Password = a.Password != ""
	v.Sessions, err = s.Sessions(r.Context(), c)
	return v, err
}

func (s *Service) tokensPage(w http.ResponseWriter, r *http.Request) error {
	c, err := s.browser(r)
	if err != nil {
		return err
	}
	v, err := s.tokensView(r, c)
	if err != nil {
		return err
	}
	return s.show(w, r, http.StatusOK, "tokens.html", v)
}

func (s *Service) tokensForm(w http.ResponseWriter, r *http.Request) error {
	c, err := s.browser(r)
	if err != nil {
		return err
	}
	n := NewToken{Name: strings.TrimSpace(r.PostFormValue("name"))}
	for _, sc := range r.PostForm["scope"] {
		n.Scopes = append(n.Scopes, Scope(sc))
	}
	days, err := strconv.Atoi(r.PostFormValue("days"))
	if err != nil || days < 1 || days > 36600 {
		return route.Errorf(http.StatusBadRequest, "a token lives for a number of days")
	}
	n.Life = time.Duration(days) * 24 * time.Hour
	text, info, err := s.AddToken(r.Context(), c, c.ID, n)
	s.Audit(r.Context(), "token.create", info.ID, err, map[string]string{"name": n.Name, "owner": c.Name})
	if err != nil {
		return err
	}
	v, err := s.tokensView(r, c)
	if err != nil {
		return err
	}
	v.New = text
	return s.show(w, r, http.StatusOK, "tokens.html", v)
}

func (s *Service) revokeForm(w http.ResponseWriter, r *http.Request) error {
	c, err := s.browser(r)
	if err != nil {
		return err
	}
	if r.PostFormValue("all") != "" {
		err = s.revokeAll(r.Context(), c.ID)
	} else {
		err = s.RevokeToken(r.Context(), c.ID, r.PostFormValue("id"))
	}
	s.Audit(r.Context(), "token.revoke", r.PostFormValue("id"), err, map[string]string{"all": r.PostFormValue("all"), "owner": c.Name})
	if err != nil {
		return notFoundOr(err)
	}
	http.Redirect(w, r, "/auth/tokens", http.StatusSeeOther)
	return nil
}

func (s *Service) devicePage(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.browser(r); err != nil {
		return err
	}
	v := view{Frame: page.Frame{Title: "Log in a terminal"}}
	if code := r.FormValue("code"); code != "" {
		d, err := s.findDevice(r.Context(), code)
		if err != nil {
			return err
		}
		v.Device, v.Code = &d.Value, d.Value.UserCode
	}
	return s.show(w, r, http.StatusOK, "device.html", v)
}

func (s *Service) deviceForm(w http.ResponseWriter, r *http.Request) error {
	c, err := s.browser(r)
	if err != nil {
		return err
	}
	agree := r.PostFormValue("answer") == "agree"
	if err := s.decideDevice(r.Context(), c, r.PostFormValue("code"), agree); err != nil {
		return err
	}
	message := "The terminal was refused."
	if agree {
		message = "The terminal is logged in: go back to it."
	}
	return s.show(w, r, http.StatusOK, "message.html", view{Frame: page.Frame{Title: "Log in a terminal"}, Message: message})
}

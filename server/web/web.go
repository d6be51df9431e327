// Package web is the pages of the server: what people see of the library, the
// keys, and the accounts in a browser.
//
// A page asks the services by their routes, as any client does, in the name of
// the caller of the request: what a page shows and does, the API shows and does,
// under the same checks of rights and texts. Nothing is read past them, and
// a page that hides a button only saves somebody a refusal.
//
// What comes back is text of strangers. html/template escapes it; Markdown is
// rendered without HTML and sanitised (markdown.go); package page forbids what
// could run anyway. Forms carry the secret of their session, which package auth
// checks before a handler is called.
//
//   - call.go: a page as a client of the services
//   - explore.go: home, search, entities, collections
//   - image.go: containers and images; anatomy.go: the drawing of a SIF; trust.go:
//     who made an image, in a sentence
//   - security.go: what is wrong with images, and what runs; rules.go: what is not served
//     for that, and who is told
//   - edit.go: forms; trash.go; members.go: who may what; keys.go
//   - build.go, buildpage.go: building, and one build; ansi.go: its log;
//     buildsecret.go: registries that builds log in to
//   - account.go, groups.go, robots.go: what is somebody's
//   - admin.go, users.go, storage.go, audit.go, buildadmin.go: for administrators
//   - docs.go, status.go: set-up, API, whether all works
//
// A new page is a file here with its handler, a template in pages, a line in
// Routes and one in package openapi; a new part of the site also one in package
// page, for the navigation.
package web

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

//go:embed pages/*.html
var pageFiles embed.FS

var templates = page.Parse(pageFiles, "pages/*.html", template.FuncMap{"is": func(b *bool) bool { return b != nil && *b }, "groups": groups, "clock": clock, "counts": counts, "badge": badge})

// Service is the pages.
type Service struct {
	auth *auth.Service
	api  *http.ServeMux
	url  string
}

// New makes the pages of services that are reached at an address.
func New(a *auth.Service, address string, services ...interface{ Routes() []route.Route }) *Service {
	s := &Service{auth: a, api: http.NewServeMux(), url: strings.TrimSuffix(address, "/")}
	for _, service := range services {
		for _, r := range service.Routes() {
			s.api.HandleFunc(r.Pattern, r.Handler)
		}
	}
	return s
}

const maxForm = 256 << 10

// Routes are the pages.
func (s *Service) Routes() []route.Route {
	f := s.handler
	return []route.Route{
		{Pattern: "GET /static/{name}", Handler: page.Static, Class: route.Free},
		{Pattern: "GET /{$}", Handler: f(s.home)},
		{Pattern: "GET /library", Handler: f(s.explore), Class: route.Search},
		{Pattern: "GET /library/{entity}", Handler: f(s.entity)},
		{Pattern: "GET /library/{entity}/{collection}", Handler: f(s.collection)},
		{Pattern: "GET /library/{entity}/{collection}/{container}", Handler: f(s.container)},

		{Pattern: "GET /new", Handler: f(s.newPage)},
		{Pattern: "POST /new", Handler: f(s.newForm), Class: route.Push, Body: maxForm},
		{Pattern: "GET /edit/{path...}", Handler: f(s.editPage)},
		{Pattern: "POST /edit/{path...}", Handler: f(s.editForm), Body: maxForm},
		{Pattern: "GET /delete/{path...}", Handler: f(s.deletePage)},
		{Pattern: "POST /delete/{path...}", Handler: f(s.deleteForm), Body: maxForm},
		{Pattern: "GET /members/{path...}", Handler: f(s.membersPage)},
		{Pattern: "POST /members/{path...}", Handler: f(s.membersForm), Body: maxForm},

		{Pattern: "GET /trash/{path...}", Handler: f(s.trash)},
		{Pattern: "POST /trash/{path...}", Handler: f(s.trashForm), Body: maxForm},

		{Pattern: "GET /account", Handler: f(s.account)},
		{Pattern: "POST /account", Handler: f(s.accountForm), Class: route.Push, Body: maxForm},
		{Pattern: "GET /groups/{group}", Handler: f(s.group)},
		{Pattern: "POST /groups/{group}", Handler: f(s.groupForm), Body: maxForm},
		{Pattern: "GET /robots/{robot}", Handler: f(s.robot)},
		{Pattern: "POST /robots/{robot}", Handler: f(s.robotForm), Class: route.Push, Body: maxForm},

		{Pattern: "GET /keystore", Handler: f(s.keys), Class: route.Search},
		{Pattern: "GET /keystore/mine", Handler: f(s.myKeys)},
		{Pattern: "POST /keystore/mine", Handler: f(s.myKeysForm), Class: route.KeyAdd, Body: 2 << 20},
		{Pattern: "GET /keystore/{fingerprint}", Handler: f(s.key)},

		{Pattern: "GET /builder", Handler: f(s.editor)},
		{Pattern: "POST /builder", Handler: f(s.editorForm), Class: route.Push, Body: maxDefinitionForm},
		{Pattern: "POST /builder/check", Handler: f(s.checkForm), Body: maxDefinitionForm},
		{Pattern: "GET /builder/builds", Handler: f(s.buildList)},
		{Pattern: "GET /builder/builds/{id}", Handler: f(s.build)},
		{Pattern: "POST /builder/builds/{id}", Handler: f(s.buildForm), Body: maxForm},
		{Pattern: "GET /builder/builds/{id}/live", Handler: f(s.live), Class: route.Transfer},
		{Pattern: "GET /builder/registries", Handler: f(s.secrets)},
		{Pattern: "POST /builder/registries", Handler: f(s.secretsForm), Class: route.Push, Body: 16 << 10},

		{Pattern: "GET /security", Handler: f(s.security), Class: route.Search},
		{Pattern: "GET /security/fault", Handler: f(s.fault), Class: route.Search},
		{Pattern: "GET /security/running", Handler: f(s.running), Class: route.Search},
		{Pattern: "GET /security/rules", Handler: f(s.rulesPage)},
		{Pattern: "POST /security/rules", Handler: f(s.rulesForm), Body: maxForm},
		{Pattern: "GET /security/rules/{entity}/{collection}", Handler: f(s.rulesPage)},
		{Pattern: "POST /security/rules/{entity}/{collection}", Handler: f(s.rulesForm), Body: maxForm},
		{Pattern: "GET /security/images/{path...}", Handler: f(s.imageSecurity)},
		{Pattern: "POST /security/images/{path...}", Handler: f(s.imageSecurityForm), Body: maxForm},

		{Pattern: "GET /docs", Handler: f(s.docs)},
		{Pattern: "GET /docs/api", Handler: f(s.apiDocs)},
		{Pattern: "GET /status", Handler: f(s.status)},

		{Pattern: "GET /admin", Handler: f(s.admin)},
		{Pattern: "GET /admin/users", Handler: f(s.users)},
		{Pattern: "POST /admin/users", Handler: f(s.usersForm), Body: maxForm},
		{Pattern: "GET /admin/builds", Handler: f(s.adminBuilds)},
		{Pattern: "POST /admin/builds", Handler: f(s.adminBuildsForm), Body: maxForm},
		{Pattern: "GET /admin/storage", Handler: f(s.storage)},
		{Pattern: "POST /admin/storage", Handler: f(s.storageForm), Body: maxForm},
		{Pattern: "GET /admin/audit", Handler: f(s.audit), Class: route.Search},
	}
}

// errGone is for what is not there, or not for the caller to see.
var errGone = route.Errorf(http.StatusNotFound, "not found")

// errLogIn leads a browser to the log-in, and back.
var errLogIn = errors.New("log in first")

// handler makes a handler of a page; a refusal is a page too.
func (s *Service) handler(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		back := "/auth/login?next=" + url.QueryEscape(r.URL.RequestURI())
		if errors.Is(err, errLogIn) {
			http.Redirect(w, r, back, http.StatusSeeOther)
			return
		}
		var e *route.Error
		if !errors.As(err, &e) || e.Status >= 500 {
			route.Refuse(w, r, err)
			return
		}
		v := struct {
			page.Frame
			Message, Login string
		}{Frame: auth.FrameOf(r.Context(), "Sorry", ""), Message: e.Message}
		if e.Status == http.StatusNotFound {
			v.Title, v.Message = "Not found", "There is nothing here, or it is not for you to see."
		}
		if v.User == "" {
			v.Login = back
		}
		if err := page.Write(w, templates, e.Status, "sorry.html", v); err != nil {
			route.Refuse(w, r, err)
		}
	}
}

func show(w http.ResponseWriter, name string, data any) error {
	return page.Write(w, templates, http.StatusOK, name, data)
}

// person returns the caller of a page for people who are logged in.
func person(ctx context.Context) (auth.Caller, error) {
	c := auth.From(ctx)
	if !c.Browser() {
		return c, errLogIn
	}
	return c, nil
}

// may tells whether the caller has a right, to show a button or not.
func (s *Service) may(ctx context.Context, a auth.Action, o auth.Object) bool {
	c := auth.From(ctx)
	return c.Browser() && s.auth.Allow(ctx, c, a, o) == nil
}

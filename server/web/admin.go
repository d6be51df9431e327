package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// account is a line of the list of accounts.
type account struct {
	Name, Kind, RealName, Email string
	Admin, Disabled, Deleted    bool
	Created                     time.Time
}

type adminView struct {
	page.Frame
	Message  string
	Link     string // of a new account, this once
	Name     string
	Accounts []account
	Next     string
	Entities []api.Entity
	Total    int64
}

func (s *Service) adminView(r *http.Request) (adminView, error) {
	ctx := r.Context()
	v := adminView{Frame: auth.FrameOf(ctx, "Administration", "admin")}
	c, err := person(ctx)
	if err == nil {
		err = c.RequireAdmin()
	}
	if err != nil {
		return v, err
	}
	l, err := list[account](s, ctx, "/v1/admin/users?"+url.Values{"after": {r.URL.Query().Get("after")}}.Encode())
	if err != nil {
		return v, err
	}
	v.Accounts, v.Next = l.Data, l.Page.Next
	e, err := list[api.Entity](s, ctx, "/v1/entities?limit=200")
	if err != nil {
		return v, err
	}
	for _, one := range e.Data {
		full, err := get[api.Entity](s, ctx, path("/v1/entities/", one.Name))
		if err != nil {
			return v, err
		}
		v.Entities, v.Total = append(v.Entities, full), v.Total+full.Size
	}
	return v, nil
}

func (s *Service) admin(w http.ResponseWriter, r *http.Request) error {
	v, err := s.adminView(r)
	if err != nil {
		return err
	}
	return show(w, "admin.html", v)
}

// adminForm does what a button of the page says.
func (s *Service) adminForm(w http.ResponseWriter, r *http.Request) error {
	c, err := person(r.Context())
	if err == nil {
		err = c.RequireAdmin()
	}
	if err != nil {
		return err
	}
	link, failed := s.administer(r)
	v, err := s.adminView(r)
	if err != nil {
		return err
	}
	v.Link, v.Name = link, r.PostFormValue("name")
	if failed != nil {
		e, ok := failed.(*route.Error)
		if !ok {
			return failed
		}
		v.Message = e.Message
		return page.Write(w, templates, e.Status, "admin.html", v)
	}
	if link != "" {
		return show(w, "admin.html", v)
	}
	http.Redirect(w, r, "/admin", http.StatusSeeOther)
	return nil
}

func (s *Service) administer(r *http.Request) (link string, err error) {
	ctx, name := r.Context(), strings.TrimSpace(r.PostFormValue("name"))
	var made api.Envelope[struct{ Link string }]
	user := path("/v1/admin/users/", name)
	switch r.PostFormValue("do") {
	case "create":
		err = s.call(ctx, http.MethodPost, "/v1/admin/users", map[string]any{"name": name, "realName": r.PostFormValue("realname"), "email": r.PostFormValue("email"), "admin": r.PostFormValue("admin") != ""}, &made)
	case "link":
		err = s.call(ctx, http.MethodPost, user+"/link", nil, &made)
	case "disable":
		err = s.call(ctx, http.MethodPatch, user, map[string]bool{"disabled": true}, nil)
	case "enable":
		err = s.call(ctx, http.MethodPatch, user, map[string]bool{"disabled": false}, nil)
	case "quota":
		mib, e := strconv.ParseInt(strings.TrimSpace(r.PostFormValue("mib")), 10, 64)
		if e != nil || mib < -1 || mib > 1<<40 {
			return "", route.Errorf(http.StatusBadRequest, "a quota is a number of MiB; 0 for no limit, -1 for the default")
		}
		if mib > 0 {
			mib <<= 20
		}
		err = s.call(ctx, http.MethodPatch, path("/v1/entities/", name), map[string]int64{"quota": mib}, nil)
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	return made.Data.Link, err
}

func (s *Service) audit(w http.ResponseWriter, r *http.Request) error {
	ctx, q := r.Context(), r.URL.Query()
	v := struct {
		page.Frame
		Field, Value string
		Fields       []string
		Events       []auth.Event
		Next         string
	}{Frame: auth.FrameOf(ctx, "Audit", "admin"), Field: q.Get("field"), Value: q.Get("value"), Fields: []string{"actor", "action", "object"}}
	if _, err := person(ctx); err != nil {
		return err
	}
	ask := url.Values{"after": {q.Get("after")}}
	for _, f := range v.Fields {
		if f == v.Field && v.Value != "" {
			ask.Set(f, v.Value)
		}
	}
	l, err := list[auth.Event](s, ctx, "/v1/admin/audit?"+ask.Encode())
	if err != nil {
		return err
	}
	v.Events = l.Data
	if l.Page.Next != "" {
		v.Next = "/admin/audit?" + url.Values{"field": {v.Field}, "value": {v.Value}, "after": {l.Page.Next}}.Encode()
	}
	return show(w, "audit.html", v)
}

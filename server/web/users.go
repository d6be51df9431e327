package web

import (
	"net/http"
	"net/url"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type usersView struct {
	page.Frame
	Message  string
	Link     string // of a new account, this once
	Name     string
	Accounts []account
	Next     string
}

func (s *Service) usersView(r *http.Request) (usersView, error) {
	ctx := r.Context()
	v := usersView{Frame: auth.FrameOf(ctx, "Users", "admin")}
	if err := administrator(ctx); err != nil {
		return v, err
	}
	l, err := list[account](s, ctx, "/v1/admin/users?"+url.Values{"after": {r.URL.Query().Get("after")}}.Encode())
	v.Accounts, v.Next = l.Data, l.Page.Next
	return v, err
}

// users lists the accounts.
func (s *Service) users(w http.ResponseWriter, r *http.Request) error {
	v, err := s.usersView(r)
	if err != nil {
		return err
	}
	return show(w, "users.html", v)
}

// usersForm does what a button of the list says.
func (s *Service) usersForm(w http.ResponseWriter, r *http.Request) error {
	if err := administrator(r.Context()); err != nil {
		return err
	}
	link, err := s.changeUser(r)
	view := func(message string) (any, error) {
		v, err := s.usersView(r)
		v.Message, v.Link, v.Name = message, link, r.PostFormValue("name")
		return v, err
	}
	if err != nil {
		return s.sayAgain(w, err, "users.html", view)
	}
	if link != "" {
		v, err := view("")
		if err != nil {
			return err
		}
		return show(w, "users.html", v)
	}
	http.Redirect(w, r, "/admin/users", http.StatusSeeOther)
	return nil
}

func (s *Service) changeUser(r *http.Request) (link string, err error) {
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
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	return made.Data.Link, err
}

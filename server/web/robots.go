package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type robotView struct {
	page.Frame
	Message string
	Robot   account
	Tokens  []auth.TokenInfo
	New     string // text of a token, this once
	Scopes  []auth.Scope
	Now     time.Time
}

func (s *Service) robotView(r *http.Request) (robotView, error) {
	ctx, name := r.Context(), r.PathValue("robot")
	v := robotView{Frame: auth.FrameOf(ctx, "Robot "+name, "account"), Now: time.Now(),
		Scopes: []auth.Scope{auth.LibraryRead, auth.LibraryCreate, auth.LibraryWrite, auth.LibraryDelete, auth.KeysWrite, auth.Build}}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	all, err := get[[]account](s, ctx, "/v1/robots")
	if err != nil {
		return v, err
	}
	i := slices.IndexFunc(all, func(a account) bool { return a.Name == name })
	if i < 0 {
		return v, route.Errorf(http.StatusNotFound, "not found")
	}
	v.Robot = all[i]
	v.Tokens, err = get[[]auth.TokenInfo](s, ctx, path("/v1/users/", name, "tokens"))
	return v, err
}

// robot shows a robot and its tokens.
func (s *Service) robot(w http.ResponseWriter, r *http.Request) error {
	v, err := s.robotView(r)
	if err != nil {
		return err
	}
	return show(w, "robot.html", v)
}

// robotForm makes or revokes a token of a robot, or deletes it.
func (s *Service) robotForm(w http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("robot")
	if _, err := person(ctx); err != nil {
		return err
	}
	tokens := path("/v1/users/", name, "tokens")
	next := path("/robots/", name)
	var made struct{ Data struct{ Token string } }
	var err error
	switch r.PostFormValue("do") {
	case "token":
		days, _ := strconv.Atoi(r.PostFormValue("days"))
		err = s.call(ctx, http.MethodPost, tokens, map[string]any{"name": strings.TrimSpace(r.PostFormValue("name")), "scopes": r.PostForm["scope"], "days": days}, &made)
	case "revoke":
		err = s.call(ctx, http.MethodDelete, path(tokens+"/", r.PostFormValue("id")), nil, nil)
	case "delete":
		next = "/account"
		err = s.call(ctx, http.MethodDelete, path("/v1/robots/", name), nil, nil)
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	view := func(message string) (any, error) {
		v, err := s.robotView(r)
		v.Message, v.New = message, made.Data.Token
		return v, err
	}
	if err != nil {
		return s.sayAgain(w, err, "robot.html", view)
	}
	if made.Data.Token != "" {
		v, err := view("")
		if err != nil {
			return err
		}
		return show(w, "robot.html", v)
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

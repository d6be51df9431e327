package web

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type membersView struct {
	page.Frame
	Message string
	Path    string
	Action  string
	Name    string
	Members []api.Grant
	Roles   []auth.Role
}

func (s *Service) membersView(r *http.Request) (membersView, error) {
	ctx, full := r.Context(), r.PathValue("path")
	v := membersView{Frame: auth.FrameOf(ctx, "Members of "+full, "library"), Path: full, Action: path("/members/", strings.Split(full, "/")...),
		Roles: []auth.Role{auth.Reader, auth.Writer, auth.Maintainer, auth.Owner}}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	var err error
	v.Members, err = get[[]api.Grant](s, ctx, grants(full))
	return v, err
}

// grants is where the roles at an entity, a collection or a container are.
func grants(full string) string { return path("/v1/grants/", strings.Split(full, "/")...) }

func (s *Service) membersPage(w http.ResponseWriter, r *http.Request) error {
	v, err := s.membersView(r)
	if err != nil {
		return err
	}
	return show(w, "members.html", v)
}

// membersForm gives somebody a role, or with an empty one takes it.
func (s *Service) membersForm(w http.ResponseWriter, r *http.Request) error {
	ctx, full := r.Context(), r.PathValue("path")
	if _, err := person(ctx); err != nil {
		return err
	}
	name := strings.TrimSpace(r.PostFormValue("name"))
	if err := s.setRole(r, grants(full), name); err != nil {
		return s.sayAgain(w, err, "members.html", func(message string) (any, error) {
			v, err := s.membersView(r)
			v.Message, v.Name = message, name
			return v, err
		})
	}
	http.Redirect(w, r, path("/members/", strings.Split(full, "/")...), http.StatusSeeOther)
	return nil
}

func (s *Service) setRole(r *http.Request, target, name string) error {
	role := r.PostFormValue("role")
	if role == "" {
		return s.call(r.Context(), http.MethodDelete, target+"?"+url.Values{"name": {name}}.Encode(), nil, nil)
	}
	body := map[string]any{"name": name, "role": role}
	if text := r.PostFormValue("until"); text != "" {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return route.Errorf(http.StatusBadRequest, "%.40q is no day", text)
		}
		body["expires"] = day.Add(24 * time.Hour) // to the end of that day
	}
	return s.call(r.Context(), http.MethodPut, target, body, nil)
}

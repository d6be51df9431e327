package web

import (
	"net/http"
	"slices"
	"strings"

	"singularity/server/auth"
	"singularity/server/page"
)

type groupView struct {
	page.Frame
	Message string
	Group   struct {
		account
		Members map[string]auth.Role
	}
	Roles []auth.Role
	Owns  bool
	In    bool
}

func (s *Service) groupView(r *http.Request) (groupView, error) {
	ctx, name := r.Context(), r.PathValue("group")
	v := groupView{Frame: auth.FrameOf(ctx, "Group "+name, "account"), Roles: []auth.Role{auth.Reader, auth.Writer, auth.Maintainer, auth.Owner}}
	c, err := person(ctx)
	if err != nil {
		return v, err
	}
	if err := s.call(ctx, http.MethodGet, path("/v1/groups/", name), nil, &struct{ Data any }{&v.Group}); err != nil {
		return v, err
	}
	v.Owns = c.Admin || v.Group.Members[c.Name] == auth.Owner
	_, v.In = v.Group.Members[c.Name]
	return v, nil
}

// group shows who is in a group, as what.
func (s *Service) group(w http.ResponseWriter, r *http.Request) error {
	v, err := s.groupView(r)
	if err != nil {
		return err
	}
	return show(w, "group.html", v)
}

// groupForm gives somebody a role in a group, or with an empty one takes it.
func (s *Service) groupForm(w http.ResponseWriter, r *http.Request) error {
	ctx, group := r.Context(), r.PathValue("group")
	c, err := person(ctx)
	if err != nil {
		return err
	}
	name, role := strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("role")
	target := path("/v1/groups/", group, "members", name)
	if role == "" {
		err = s.call(ctx, http.MethodDelete, target, nil, nil)
	} else {
		err = s.call(ctx, http.MethodPut, target, map[string]string{"role": role}, nil)
	}
	if err != nil {
		return s.sayAgain(w, err, "group.html", func(message string) (any, error) {
			v, err := s.groupView(r)
			v.Message = message
			return v, err
		})
	}
	next := path("/groups/", group)
	if role == "" && name == c.Name && !slices.ContainsFunc(c.Groups(), func(g auth.Membership) bool { return g.Name == group && c.Admin }) {
		next = "/account"
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

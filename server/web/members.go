package web

import (
	"context"
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// member is a line of the list of members.
type member struct {
	Name, Kind string
	Role       auth.Role
	By         string
}

type membersView struct {
	page.Frame
	Message string
	Path    string
	Action  string
	Members []member
	Roles   []auth.Role
}

// owned returns the object of a grant, if it is the caller's to give.
func (s *Service) owned(r *http.Request) (string, error) {
	ctx := r.Context()
	c, err := person(ctx)
	if err != nil {
		return "", err
	}
	kind, address, parts, err := target(r)
	if err != nil {
		return "", err
	}
	id, o := auth.EntityObject(parts[0]), auth.Object{Entity: parts[0]}
	switch kind {
	case "entity":
		_, err = get[api.Entity](s, ctx, address)
	case "collection":
		v, e := get[api.Collection](s, ctx, address)
		id, o, err = v.ID, collectionObject(v), e
	default:
		v, e := get[api.Container](s, ctx, address)
		id, o, err = v.ID, containerObject(v), e
	}
	if err != nil {
		return "", err
	}
	return id, s.auth.Allow(ctx, c, auth.Own, o)
}

func (s *Service) membersView(ctx context.Context, r *http.Request, object string) (membersView, error) {
	full := r.PathValue("path")
	v := membersView{Frame: auth.FrameOf(ctx, "Members of "+full, "library"), Path: full, Action: path("/members/", strings.Split(full, "/")...),
		Roles: []auth.Role{auth.Reader, auth.Writer, auth.Maintainer, auth.Owner}}
	grants, err := s.auth.Grants(ctx, object)
	if err != nil {
		return v, err
	}
	for _, g := range grants {
		a, err := s.auth.AccountByID(ctx, g.Subject)
		if err != nil {
			return v, err
		}
		v.Members = append(v.Members, member{a.Name, string(a.Kind), g.Role, g.By})
	}
	return v, nil
}

func (s *Service) membersPage(w http.ResponseWriter, r *http.Request) error {
	object, err := s.owned(r)
	if err != nil {
		return err
	}
	v, err := s.membersView(r.Context(), r, object)
	if err != nil {
		return err
	}
	return show(w, "members.html", v)
}

// membersForm gives somebody a role, or with an empty one takes it.
func (s *Service) membersForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	object, err := s.owned(r)
	if err != nil {
		return err
	}
	name := strings.TrimSpace(r.PostFormValue("name"))
	a, err := s.auth.Account(ctx, name)
	if err == nil && a.Active() {
		err = s.auth.SetGrant(ctx, auth.Grant{Object: object, Subject: a.ID, Role: auth.Role(r.PostFormValue("role")), By: auth.From(ctx).Name})
		s.auth.Audit(ctx, "grant.set", r.PathValue("path"), err, map[string]string{"subject": name, "role": r.PostFormValue("role")})
		if err != nil {
			return err
		}
		http.Redirect(w, r, path("/members/", strings.Split(r.PathValue("path"), "/")...), http.StatusSeeOther)
		return nil
	}
	v, err := s.membersView(ctx, r, object)
	if err != nil {
		return err
	}
	v.Message = route.Errorf(http.StatusNotFound, "there is no account with the name %.80q", name).Message
	return page.Write(w, templates, http.StatusNotFound, "members.html", v)
}

package library

import (
	"context"
	"net/http"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
)

// grantable returns the object that a path names, if giving roles at it is the
// caller's right.
func (s *Service) grantable(ctx context.Context, path string) (string, error) {
	parts := strings.Split(path, "/")
	if len(parts) > 3 {
		return "", auth.From(ctx).NotFound()
	}
	for _, p := range parts {
		if err := checkPart(p); err != nil {
			return "", err
		}
	}
	switch len(parts) {
	case 1:
		e, err := s.entityFor(ctx, auth.Own, path)
		return auth.EntityObject(e.Value.Name), err
	case 2:
		c, err := s.collectionFor(ctx, auth.Own, path)
		return c.Key, err
	}
	k, err := s.containerFor(ctx, auth.Own, path)
	return k.Key, err
}

func (s *Service) listGrants(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	object, err := s.grantable(ctx, r.PathValue("path"))
	if err != nil {
		return err
	}
	grants, err := s.auth.Grants(ctx, object)
	if err != nil {
		return err
	}
	list := []api.Grant{}
	for _, g := range grants {
		a, err := s.auth.AccountByID(ctx, g.Subject)
		if err != nil && !missing(err) {
			return err
		}
		if err == nil && a.Active() {
			list = append(list, api.Grant{Name: a.Name, Kind: string(a.Kind), Role: string(g.Role), By: g.By, At: g.At, Expires: g.Expires})
		}
	}
	route.Data(w, list)
	return nil
}

// setGrant gives a user, robot or group a role, in place of the one they had.
func (s *Service) setGrant(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name    string
		Role    auth.Role
		Expires time.Time
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if !body.Role.Valid() {
		return route.Errorf(http.StatusBadRequest, "there is no role %q: choose reader, writer, maintainer or owner", body.Role)
	}
	if !body.Expires.IsZero() && !body.Expires.After(s.now()) {
		return route.Errorf(http.StatusBadRequest, "the end of the role has passed")
	}
	return s.changeGrant(w, r, body.Name, body.Role, body.Expires)
}

func (s *Service) deleteGrant(w http.ResponseWriter, r *http.Request) error {
	return s.changeGrant(w, r, r.URL.Query().Get("name"), auth.NoRole, time.Time{})
}

func (s *Service) changeGrant(w http.ResponseWriter, r *http.Request, name string, role auth.Role, expires time.Time) error {
	ctx := r.Context()
	path := r.PathValue("path")
	object, err := s.grantable(ctx, path)
	if err != nil {
		return err
	}
	a, err := s.auth.Account(ctx, name)
	if missing(err) || err == nil && !a.Active() && role != auth.NoRole {
		return route.Errorf(http.StatusBadRequest, "there is no account with the name %.80q", name)
	}
	if err == nil {
		err = s.auth.SetGrant(ctx, auth.Grant{Object: object, Subject: a.ID, Role: role, By: auth.From(ctx).Name, Expires: expires})
	}
	s.auth.Audit(ctx, "grant.set", path, err, map[string]string{"subject": name, "role": string(role)})
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

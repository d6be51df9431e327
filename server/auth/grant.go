package auth

import (
	"context"
	"net/http"
	"strings"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// Grant gives an account or group a role at an entity, collection or container.
type Grant struct {
	Object  string    `json:"object"`  // the id of a collection or container, or the entity by EntityObject
	Subject string    `json:"subject"` // the id of an account
	Role    Role      `json:"role"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires,omitzero"`
}

func grantKey(object, subject string) string { return object + "/" + subject }

// entityObject is the entity with that name as the object of a grant.
func entityObject(name string) string { return "entity:" + name }

func entityOf(object string) (string, bool) { return strings.CutPrefix(object, "entity:") }

// EntityObject is the entity with that name as the object of a grant.
func EntityObject(name string) string { return entityObject(name) }

// SetGrant gives a role, or takes it with NoRole. The caller has asked Allow for
// Own.
func (s *Service) SetGrant(ctx context.Context, g Grant) error {
	key := grantKey(g.Object, g.Subject)
	if g.Role == NoRole {
		if err := s.grants.Delete(ctx, key, 0); err != nil && !isNotFound(err) {
			return err
		}
		return nil
	}
	if !g.Role.Valid() {
		return route.Errorf(http.StatusBadRequest, "there is no role %q: choose reader, writer, maintainer or owner", g.Role)
	}
	if a, err := s.AccountByID(ctx, g.Subject); err != nil || !a.Active() {
		return route.Errorf(http.StatusBadRequest, "there is no such account")
	}
	g.At = s.now().UTC()
	for {
		_, err := s.grants.Insert(ctx, key, g)
		if err == nil {
			return nil
		}
		if _, err = s.grants.Update(ctx, key, func(old *Grant) error { *old = g; return nil }); !isNotFound(err) {
			return err
		}
	}
}

// Grants lists who has a role at the object itself.
func (s *Service) Grants(ctx context.Context, object string) ([]Grant, error) {
	var out []Grant
	for g, err := range s.grants.All(ctx, store.Query{Index: "object", Equal: object}) {
		if err != nil {
			return nil, err
		}
		out = append(out, g.Value)
	}
	return out, nil
}

// SetMember gives an account a role in a group, or takes it with NoRole.
func (s *Service) SetMember(ctx context.Context, group, member string, r Role) error {
	if r != NoRole && !r.Valid() {
		return route.Errorf(http.StatusBadRequest, "there is no role %q: choose reader, writer, maintainer or owner", r)
	}
	if a, err := s.AccountByID(ctx, member); r != NoRole && (err != nil || !a.Active() || a.Kind == Group) {
		return route.Errorf(http.StatusBadRequest, "there is no such account")
	}
	_, err := s.UpdateAccount(ctx, group, func(a *Account) error {
		if a.Kind != Group {
			return route.Errorf(http.StatusBadRequest, "%q is no group", a.Name)
		}
		if r == NoRole {
			delete(a.Members, member)
			delete(a.Provided, member)
			return nil
		}
		if a.Members == nil {
			a.Members = map[string]Role{}
		}
		if len(a.Members) >= maxMembers {
			return route.Errorf(http.StatusBadRequest, "a group has at most %d members", maxMembers)
		}
		a.Members[member] = r
		delete(a.Provided, member)
		return nil
	})
	return err
}

const maxMembers = 10_000

// Membership is a group that an account is in, and as what.
type Membership struct {
	ID   string
	Name string
	Role Role

	provided bool // by a provider
}

// Groups lists the groups of an account.
func (s *Service) Groups(ctx context.Context, id string) ([]Membership, error) {
	var out []Membership
	for g, err := range s.accounts.All(ctx, store.Query{Index: "member", Equal: id}) {
		if err != nil {
			return nil, err
		}
		if a := g.Value; a.Kind == Group && a.Active() {
			out = append(out, Membership{a.ID, a.Name, a.Members[id], a.Provided[id]})
		}
	}
	return out, nil
}

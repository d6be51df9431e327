package auth

import (
	"context"
	"net/http"
	"slices"

	"singularity/server/route"
	"singularity/server/store"
)

// Action is what somebody wants to do with an object. Each needs a scope of the
// token and a role at the object.
type Action int

// The actions.
const (
	Read   Action = iota // pull, list, search
	Create               // push what was not there: never changes a tag that is
	Write                // push, move tags, edit descriptions
	Delete               // delete images and tags
	Manage               // visibility, settings, retention; delete collections
	Own                  // members and grants
)

// Role is what an account may do at an entity, a collection or a container.
type Role string

// The roles, each with the rights of the ones before.
const (
	NoRole     Role = ""
	Reader     Role = "reader"
	Writer     Role = "writer"
	Maintainer Role = "maintainer"
	Owner      Role = "owner"
)

var ranks = []Role{NoRole, Reader, Writer, Maintainer, Owner}

// AtLeast tells whether r has all the rights of other.
func (r Role) AtLeast(other Role) bool { return slices.Index(ranks, r) >= slices.Index(ranks, other) }

// Valid tells whether r can be given to somebody.
func (r Role) Valid() bool { return slices.Index(ranks, r) > 0 }

// needs is what an action needs: one of the scopes, and the role.
var needs = map[Action]struct {
	scopes []Scope
	role   Role
}{
	Read:   {[]Scope{LibraryRead}, Reader},
	Create: {[]Scope{LibraryCreate, LibraryWrite}, Writer},
	Write:  {[]Scope{LibraryWrite}, Writer},
	Delete: {[]Scope{LibraryDelete}, Maintainer},
	Manage: {[]Scope{LibraryManage}, Maintainer},
	Own:    {[]Scope{LibraryManage}, Owner},
}

// Object is what an action is about: something of an entity, perhaps in a
// collection and a container of it.
type Object struct {
	Entity string   // the name of the account that it belongs to
	Within []string // the ids of collection and container, those there are
	Public bool     // everybody may read it
}

// Allow returns nil if the caller may do that with the object, and else the
// refusal to answer with: 404 for what they may not even know of, 401 if a login
// could help, 403 otherwise. It asks the store each time, so that what is
// revoked or taken away does not work a moment longer.
//
// Security: an answer of 404 must be the one of a name that does not exist, so
// answer for those with Caller.NotFound.
func (s *Service) Allow(ctx context.Context, c Caller, a Action, o Object) error {
	need, ok := needs[a]
	if !ok {
		return route.Errorf(http.StatusForbidden, "not allowed")
	}
	role, err := s.role(ctx, c, o)
	if err != nil {
		return err
	}
	readable := o.Public || role.AtLeast(Reader) && c.Has(LibraryRead, LibraryWrite, LibraryCreate, LibraryDelete, LibraryManage)
	switch {
	case !readable:
		return c.NotFound()
	case a == Read && o.Public:
		return nil // by anybody, with any token or a bad one
	case c.Invalid:
		return errInvalidToken
	case !c.Known():
		return route.Errorf(http.StatusUnauthorized, "log in first: this needs an access token")
	case !slices.ContainsFunc(need.scopes, func(sc Scope) bool { return c.Has(sc) }):
		return route.Errorf(http.StatusForbidden, "this token has not the scope %s", need.scopes[0])
	case a != Read && !c.Only.container(o), !role.AtLeast(need.role):
		return route.Errorf(http.StatusForbidden, "not allowed")
	}
	return nil
}

// Role returns the role of the caller at the object, whatever the token's
// scopes are: for pages that show what somebody could do.
func (s *Service) Role(ctx context.Context, c Caller, o Object) (Role, error) {
	return s.role(ctx, c, o)
}

func (s *Service) role(ctx context.Context, c Caller, o Object) (Role, error) {
	switch {
	case !c.Known():
		return NoRole, nil
	case c.Admin || c.Name == o.Entity:
		return Owner, nil
	}
	best := NoRole
	for _, g := range c.groups {
		if g.Name == o.Entity && g.Role.AtLeast(best) {
			best = g.Role
		}
	}
	for _, object := range append([]string{entityObject(o.Entity)}, o.Within...) {
		for _, subject := range append([]string{c.ID}, c.groupIDs()...) {
			g, err := s.grants.Get(ctx, grantKey(object, subject))
			if err == nil && g.Value.Role.AtLeast(best) {
				best = g.Value.Role
			} else if err != nil && !isNotFound(err) {
				return NoRole, err
			}
		}
	}
	return best, nil
}

// Readable returns what the caller may read beside what is public: the entities
// by name, and collections and containers by id. A search asks once instead of
// asking about each object. An administrator may read everything.
type Readable struct {
	All      bool
	Entities map[string]bool
	IDs      map[string]bool
}

// May tells whether the object is among it.
func (m Readable) May(o Object) bool {
	return o.Public || m.All || m.Entities[o.Entity] || slices.ContainsFunc(o.Within, func(id string) bool { return m.IDs[id] })
}

// Readable lists what the caller may read.
func (s *Service) Readable(ctx context.Context, c Caller) (Readable, error) {
	m := Readable{Entities: map[string]bool{}, IDs: map[string]bool{}}
	if !c.Known() || !c.Has(LibraryRead) {
		return m, nil
	}
	m.All = c.Admin
	m.Entities[c.Name] = true
	for _, g := range c.groups {
		m.Entities[g.Name] = true
	}
	for _, subject := range append([]string{c.ID}, c.groupIDs()...) {
		for g, err := range s.grants.All(ctx, store.Query{Index: "subject", Equal: subject}) {
			if err != nil {
				return m, err
			}
			if name, ok := entityOf(g.Value.Object); ok {
				m.Entities[name] = true
			} else {
				m.IDs[g.Value.Object] = true
			}
		}
	}
	return m, nil
}

// Require returns nil if the caller is known and the token has the scope: for
// what is not about an object of the library.
func (c Caller) Require(sc Scope) error {
	switch {
	case c.Invalid:
		return errInvalidToken
	case !c.Known():
		return route.Errorf(http.StatusUnauthorized, "log in first: this needs an access token")
	case !c.Has(sc):
		return route.Errorf(http.StatusForbidden, "this token has not the scope %s", sc)
	}
	return nil
}

// RequireAdmin returns nil for an administrator.
func (c Caller) RequireAdmin() error {
	if err := c.Require(AccountAdmin); err != nil {
		return err
	}
	if !c.Admin {
		return route.Errorf(http.StatusForbidden, "not allowed")
	}
	return nil
}

// NotFound is the answer for what is not there, or is hidden from the caller: a
// bad token is told so in both cases, and they stay alike.
func (c Caller) NotFound() error {
	if c.Invalid {
		return errInvalidToken
	}
	return route.Errorf(http.StatusNotFound, "not found")
}

var errInvalidToken = route.Errorf(http.StatusUnauthorized, "the access token is invalid or has expired: log in again")

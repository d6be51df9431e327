package auth

import (
	"context"
	"net/http"
	"slices"
	"time"

	"singularity/server/route"
)

// Only is what a token of a build may write: one tag of one container, or nothing.
type Only struct {
	Build     string `json:"build"`
	Container string `json:"container,omitempty"` // its id
	Tag       string `json:"tag,omitempty"`
}

// container tells whether the token may write to the object.
func (o *Only) container(object Object) bool {
	return o == nil || o.Container != "" && len(object.Within) > 1 && object.Within[len(object.Within)-1] == o.Container
}

// AllowTag returns nil if the caller's token is not bound to another tag.
//
// Security: whoever takes the token of a build from a worker can write what that
// build could have written, and nothing else.
func (c Caller) AllowTag(tag string) error {
	if c.Only == nil || c.Only.Tag == tag {
		return nil
	}
	return route.Errorf(http.StatusForbidden, "this token is for one build and one tag")
}

// OnBehalf returns an account as a caller with these scopes: for a service that
// goes on with what a request of theirs began.
func (s *Service) OnBehalf(ctx context.Context, id string, scopes ...Scope) (Caller, error) {
	c, err := s.caller(ctx, id)
	c.Scopes = scopes
	return c, err
}

// Delegate makes a token of an account for a build. It ends with origin, the
// token by which the build was asked for.
func (s *Service) Delegate(ctx context.Context, owner, origin string, only Only, scopes []Scope, life time.Duration) (text, id string, err error) {
	text, info, err := s.mintFor(ctx, owner, origin, "build "+only.Build, slices.Clone(scopes), life, &only)
	return text, info.ID, err
}

// EndDelegation ends a token that Delegate made, and those made by it.
func (s *Service) EndDelegation(ctx context.Context, owner, id string) error {
	if id == "" {
		return nil
	}
	err := s.RevokeToken(ctx, owner, id)
	if isNotFound(err) {
		return nil
	}
	return err
}

package auth

import (
	"net/http"

	"singularity/server/route"
	"singularity/server/store"
)

// createGroup makes a group with the caller as its owner.
func (s *Service) createGroup(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if err := c.Require(AccountWrite); err != nil {
		return err
	}
	if c.Kind != User {
		return route.Errorf(http.StatusForbidden, "not allowed")
	}
	var in struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	a, err := s.AddAccount(r.Context(), Account{Kind: Group, Name: in.Name, RealName: in.Description, Members: map[string]Role{c.ID: Owner}})
	s.Audit(r.Context(), "group.create", in.Name, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, toPerson(a))
	return nil
}

// listGroups lists the caller's groups.
func (s *Service) listGroups(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if err := c.Require(AccountRead); err != nil {
		return err
	}
	type mine struct {
		Name string `json:"name"`
		Role Role   `json:"role"`
	}
	list := []mine{}
	for _, g := range c.groups {
		list = append(list, mine{g.Name, g.Role})
	}
	route.Data(w, list)
	return nil
}

// group returns the group of the path, if the caller is in it, and with manage
// if they own it.
func (s *Service) group(r *http.Request, sc Scope, manage bool) (Account, error) {
	c := From(r.Context())
	if err := c.Require(sc); err != nil {
		return Account{}, err
	}
	a, err := s.Account(r.Context(), r.PathValue("group"))
	if err != nil || a.Kind != Group || !a.Active() {
		return a, notFoundOr(err)
	}
	if _, member := a.Members[c.ID]; !member && !c.Admin {
		return a, notFoundOr(nil)
	}
	if manage && !s.mayManage(c, a.ID) {
		return a, route.Errorf(http.StatusForbidden, "not allowed")
	}
	return a, nil
}

func (s *Service) showGroup(w http.ResponseWriter, r *http.Request) error {
	g, err := s.group(r, AccountRead, false)
	if err != nil {
		return err
	}
	members := map[string]Role{}
	for id, role := range g.Members {
		a, err := s.AccountByID(r.Context(), id)
		if err != nil && !isNotFound(err) {
			return err
		}
		if err == nil && a.Active() {
			members[a.Name] = role
		}
	}
	route.Data(w, struct {
		person
		Members map[string]Role `json:"members"`
	}{toPerson(g), members})
	return nil
}

func (s *Service) putMember(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Role Role `json:"role"`
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	if !in.Role.Valid() {
		return route.Errorf(http.StatusBadRequest, "there is no role %q: choose reader, writer, maintainer or owner", in.Role)
	}
	return s.changeMember(w, r, in.Role)
}

func (s *Service) deleteMember(w http.ResponseWriter, r *http.Request) error {
	return s.changeMember(w, r, NoRole)
}

func (s *Service) changeMember(w http.ResponseWriter, r *http.Request, role Role) error {
	c, name := From(r.Context()), r.PathValue("name")
	leaving := role == NoRole && name == c.Name
	g, err := s.group(r, AccountWrite, !leaving)
	if err != nil {
		return err
	}
	a, err := s.Account(r.Context(), name)
	if err != nil {
		if isNotFound(err) {
			return route.Errorf(http.StatusBadRequest, "there is no such account")
		}
		return err
	}
	if g.Members[a.ID] == Owner && role != Owner && owners(g) == 1 {
		return route.Errorf(http.StatusConflict, "a group keeps one owner")
	}
	err = s.SetMember(r.Context(), g.ID, a.ID, role)
	s.Audit(r.Context(), "group.member", g.Name, err, map[string]string{"member": a.Name, "role": string(role)})
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

func owners(g Account) int {
	n := 0
	for _, r := range g.Members {
		if r == Owner {
			n++
		}
	}
	return n
}

// createRobot makes an account for a program. It has no rights but those that
// grants and groups give it.
func (s *Service) createRobot(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if err := c.Require(AccountWrite); err != nil {
		return err
	}
	var in struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		BelongsTo   string `json:"belongsTo"` // a group, or else the caller
	}
	if err := route.Decode(r, &in); err != nil {
		return err
	}
	owner := c.ID
	if in.BelongsTo != "" && in.BelongsTo != c.Name {
		g, err := s.Account(r.Context(), in.BelongsTo)
		if err != nil && !isNotFound(err) {
			return err
		}
		if err != nil || g.Kind != Group || !g.Active() || !s.mayManage(c, g.ID) {
			return route.Errorf(http.StatusForbidden, "not allowed")
		}
		owner = g.ID
	}
	if c.Kind != User {
		return route.Errorf(http.StatusForbidden, "not allowed")
	}
	a, err := s.AddAccount(r.Context(), Account{Kind: Robot, Name: in.Name, RealName: in.Description, BelongsTo: owner})
	s.Audit(r.Context(), "robot.create", in.Name, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, toPerson(a))
	return nil
}

func (s *Service) listRobots(w http.ResponseWriter, r *http.Request) error {
	c := From(r.Context())
	if err := c.Require(AccountRead); err != nil {
		return err
	}
	out := []person{}
	for _, id := range append([]string{c.ID}, c.groupIDs()...) {
		if !s.mayManage(c, id) {
			continue
		}
		for a, err := range s.accounts.All(r.Context(), store.Query{Index: "belongs", Equal: id}) {
			if err != nil {
				return err
			}
			if !a.Value.Deleted {
				out = append(out, toPerson(a.Value))
			}
		}
	}
	route.Data(w, out)
	return nil
}

func (s *Service) deleteRobot(w http.ResponseWriter, r *http.Request) error {
	a, err := s.own(r, AccountWrite)
	if err != nil {
		return err
	}
	if a.Kind != Robot {
		return notFoundOr(nil)
	}
	_, err = s.UpdateAccount(r.Context(), a.ID, func(a *Account) error { a.Deleted = true; return nil })
	s.Audit(r.Context(), "robot.delete", a.Name, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

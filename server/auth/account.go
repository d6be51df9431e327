package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// Kind of an account.
type Kind string

// The kinds. They share one space of names, as each may own an entity.
const (
	User  Kind = "user"
	Robot Kind = "robot"
	Group Kind = "group"
)

// Account is a user, a robot or a group. Its name is taken for ever: a deleted
// account stays as a record without rights, so that nobody inherits its name.
type Account struct {
	ID         string          `json:"id"`
	Kind       Kind            `json:"kind"`
	Name       string          `json:"name"`
	RealName   string          `json:"realName,omitempty"`
	Email      string          `json:"email,omitempty"`
	Admin      bool            `json:"admin,omitempty"`
	Disabled   bool            `json:"disabled,omitempty"`
	Deleted    bool            `json:"deleted,omitempty"`
	Password   string          `json:"password,omitempty"`   // argon2id, in PHC form
	Identities []string        `json:"identities,omitempty"` // at providers: issuer and subject
	BelongsTo  string          `json:"belongsTo,omitempty"`  // the account that a robot belongs to
	Members    map[string]Role `json:"members,omitempty"`    // of a group, by id of the account
	Provided   map[string]bool `json:"provided,omitempty"`   // members that a provider named
	External   string          `json:"external,omitempty"`   // the group at a provider whose members join
	Created    time.Time       `json:"created"`
}

// Active tells whether the account may do anything.
func (a *Account) Active() bool { return !a.Disabled && !a.Deleted }

func memberIDs(a *Account) []string {
	var ids []string
	for id := range a.Members {
		ids = append(ids, id)
	}
	return ids
}

var accountName = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// reserved names would collide with a path of the protocols or with a word that
// means the operator.
var reserved = []string{"v1", "v2", "pks", "assets", "auth", "admin", "api", "imagefile", "tags", "library", "token", "consent", "keystore", "builder", "account", "groups", "docs", "status",
	"internal", "version", "search", "new", "root", "system"}

// CheckName says whether an account, and with it an entity, may have the name.
func CheckName(name string) error {
	if len(name) > 64 || !accountName.MatchString(name) {
		return route.Errorf(http.StatusBadRequest, "a name has up to 64 lower-case letters and digits, with single dots, dashes and underscores between them")
	}
	if slices.Contains(reserved, name) {
		return route.Errorf(http.StatusBadRequest, "the name %q is reserved", name)
	}
	return nil
}

func checkPerson(real, email string) error {
	if len(real) > 200 || hasControl(real) {
		return route.Errorf(http.StatusBadRequest, "a full name has up to 200 printable characters")
	}
	if email != "" && (len(email) > 254 || strings.Count(email, "@") != 1 || hasControl(email) || strings.ContainsAny(email, " <>\"")) {
		return route.Errorf(http.StatusBadRequest, "this is no e-mail address")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, route.Acts)
}

// AddAccount makes an account of a and returns it with its id. Only the name,
// the kind and what describes it are taken from a, and whether it is an
// administrator.
func (s *Service) AddAccount(ctx context.Context, a Account) (Account, error) {
	if err := CheckName(a.Name); err != nil && !(a.Name == "admin" && a.Admin) {
		return a, err
	}
	if err := checkPerson(a.RealName, a.Email); err != nil {
		return a, err
	}
	a.ID, a.Created, a.Disabled, a.Deleted = store.NewID(), s.now().UTC(), false, false
	_, err := s.accounts.Insert(ctx, a.ID, a)
	if errors.Is(err, store.ErrExists) {
		return a, route.Errorf(http.StatusConflict, "the name %q is taken", a.Name)
	}
	return a, err
}

// Account returns an account by its name.
func (s *Service) Account(ctx context.Context, name string) (Account, error) {
	i, err := s.accounts.Find(ctx, "name", name)
	if err != nil {
		return Account{}, err
	}
	return i.Value, nil
}

// AccountByID returns an account by its id.
func (s *Service) AccountByID(ctx context.Context, id string) (Account, error) {
	i, err := s.accounts.Get(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return i.Value, nil
}

// Accounts lists accounts of a kind, or of all kinds, by name.
func (s *Service) Accounts(ctx context.Context, kind Kind, after string, limit int) ([]Account, string, error) {
	q := store.Query{Index: "name", After: after, Limit: limit}
	if kind != "" {
		q = store.Query{Index: "kind", Equal: string(kind), After: after, Limit: limit}
	}
	items, next, err := s.accounts.List(ctx, q)
	var out []Account
	for _, i := range items {
		out = append(out, i.Value)
	}
	return out, next, err
}

// UpdateAccount lets change alter an account. Whoever is disabled or deleted
// loses tokens and sessions with it.
func (s *Service) UpdateAccount(ctx context.Context, id string, change func(*Account) error) (Account, error) {
	i, err := s.accounts.Update(ctx, id, func(a *Account) error {
		before := *a
		if err := change(a); err != nil {
			return err
		}
		if a.Deleted {
			// The name stays taken; whatever says who it was goes.
			*a = Account{ID: a.ID, Kind: a.Kind, Name: a.Name, Deleted: true, Created: a.Created}
		}
		if a.ID != before.ID || a.Name != before.Name || a.Kind != before.Kind {
			return fmt.Errorf("cannot change the identity of the account %s", before.ID)
		}
		return checkPerson(a.RealName, a.Email)
	})
	if err == nil && !i.Value.Active() {
		err = errors.Join(s.revokeAll(ctx, id), s.endSessions(ctx, id, ""), s.endGrants(ctx, id, i.Value.Deleted))
	}
	return i.Value, err
}

// endGrants takes every role from an account that is no more.
func (s *Service) endGrants(ctx context.Context, id string, deleted bool) error {
	if !deleted {
		return nil
	}
	for g, err := range s.grants.All(ctx, store.Query{Index: "subject", Equal: id}) {
		if err != nil {
			return err
		}
		if err := s.grants.Delete(ctx, g.Key, 0); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

// hasAdmin tells whether some administrator can log in.
func (s *Service) hasAdmin(ctx context.Context) (bool, error) {
	for i, err := range s.accounts.All(ctx, store.Query{Index: "kind", Equal: string(User)}) {
		if err != nil {
			return false, err
		}
		if a := i.Value; a.Admin && a.Active() && (a.Password != "" || len(a.Identities) > 0) {
			return true, nil
		}
	}
	return false, nil
}

package keystore

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"singularity/pgp"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// description is a key as pages show it.
type description struct {
	Fingerprint string    `json:"fingerprint"`
	Subkeys     []string  `json:"subkeys"`
	UserIDs     []userID  `json:"userIDs"`
	Algorithm   int       `json:"algorithm"`
	Bits        int       `json:"bits"`
	Created     time.Time `json:"created"`
	Expires     time.Time `json:"expires,omitzero"`
	Revoked     bool      `json:"revoked"`
	Added       time.Time `json:"added"`
	Changed     time.Time `json:"changed"`
	SHA256      string    `json:"sha256"` // of the packets
	LogIndex    int64     `json:"logIndex"`
}

func (r *record) describe() description {
	return description{r.IDs[0], r.IDs[1:], r.UserIDs, r.Algorithm, r.Bits, r.Created, r.Expires, r.Revoked, r.Added, r.Changed, strings.TrimPrefix(digestOf(r.Key), "sha256:"), r.LogIndex}
}

func fingerprint(r *http.Request) (string, error) {
	f, err := pgp.ParseFingerprint(r.PathValue("fingerprint"))
	if err != nil {
		return "", route.Errorf(http.StatusBadRequest, "a fingerprint has 40 hexadecimal digits")
	}
	return f.String(), nil
}

// describe answers with what is known of one key.
func (s *Service) describe(w http.ResponseWriter, r *http.Request) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	i, err := s.keys.Get(r.Context(), f)
	if err == nil && !i.Value.served() {
		err = store.ErrNotFound
	}
	if err != nil {
		return err
	}
	route.Data(w, i.Value.describe())
	return nil
}

// mine lists the keys that the caller brought.
func (s *Service) mine(w http.ResponseWriter, r *http.Request) error {
	c := auth.From(r.Context())
	if err := c.Require(auth.AccountRead); err != nil {
		return err
	}
	items, _, err := s.keys.List(r.Context(), store.Query{Index: "owner", Equal: c.ID})
	if err != nil {
		return err
	}
	list := []description{}
	for _, i := range items {
		if i.Value.served() {
			list = append(list, i.Value.describe())
		}
	}
	route.Data(w, list)
	return nil
}

// hide takes a key out of all answers. The bytes stay: a revocation that came
// once must hold when somebody brings an older copy.
//
// Security: who brought a key first need not be who it is of; the address of a
// user id has to be theirs too.
func (s *Service) hide(w http.ResponseWriter, r *http.Request) error {
	c := auth.From(r.Context())
	if err := c.Require(auth.KeysWrite); err != nil {
		return err
	}
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	ch := s.changes()
	_, err = s.keys.Update(r.Context(), f, func(k *record) error {
		switch {
		case !k.served():
			return store.ErrNotFound
		case c.Admin && c.Has(auth.AccountAdmin), c.ID == k.Owner && k.belongsTo(c):
			k.Hidden = true
			return ch.begin(r.Context(), k)
		}
		return route.Errorf(http.StatusForbidden, "only who brought the key, and has the address of one of its user ids, may take it away: ask the administrators")
	})
	ch.end()
	s.auth.Audit(r.Context(), "key.hide", f, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, nil)
	return nil
}

func (r *record) belongsTo(c auth.Caller) bool {
	for _, u := range r.UserIDs {
		if u.Proven && c.Email != "" && strings.EqualFold(address(u.Text), c.Email) {
			return true
		}
	}
	return false
}

// confirm marks the user ids with an address: an administrator knows whose it is.
func (s *Service) confirm(w http.ResponseWriter, r *http.Request) error {
	if err := auth.From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	_, err = s.keys.Update(r.Context(), f, func(k *record) error {
		found := false
		for i := range k.UserIDs {
			if a := address(k.UserIDs[i].Text); a != "" && strings.EqualFold(a, r.PathValue("address")) {
				k.UserIDs[i].Proven, found = true, true
			}
		}
		if !found || !k.served() {
			return store.ErrNotFound
		}
		return nil
	})
	s.auth.Audit(r.Context(), "key.confirm", f, err, map[string]string{"address": r.PathValue("address")})
	if err != nil {
		return err
	}
	route.Data(w, nil)
	return nil
}

// block and unblock a key, whether it is here or not.
func (s *Service) block(w http.ResponseWriter, r *http.Request) error {
	if err := auth.From(r.Context()).RequireAdmin(); err != nil {
		return err
	}
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	blocked := r.Method == http.MethodPut
	ch := s.changes()
	_, err = s.keys.Update(r.Context(), f, func(k *record) error { k.Blocked = blocked; return ch.begin(r.Context(), k) })
	ch.end()
	if errors.Is(err, store.ErrNotFound) && blocked {
		_, err = s.keys.Insert(r.Context(), f, record{IDs: []string{f}, Blocked: true, Added: s.now().UTC(), LogIndex: -1})
	}
	s.auth.Audit(r.Context(), map[bool]string{true: "key.block", false: "key.unblock"}[blocked], f, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, nil)
	return nil
}

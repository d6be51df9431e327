// Package keystore is the key server: OpenPGP keys by HKP, for people, for the
// check of signatures, and for gpg.
//
// In come keys of anybody's making. What is kept of one is what its owner signed
// (pgp.Cert): signatures of others, pictures and unsigned parts are dropped, so
// that nobody but the owner can make a key large or change a byte of it. Keys
// merge: nothing that the owner signed later is lost by an older copy, and a
// revocation never. Adding needs an account; a revocation is taken from anybody.
//
// A look-up by fingerprint or id gives the key as it is. A search by text finds
// user ids only whose address the site knows to be the uploader's, or that an
// administrator confirmed: anyone can write any name into a key.
//
// Every change of what is served is written to the transparency log first (package
// translog).
//
//   - keystore.go: records; add.go: what comes in
//   - lookup.go, search.go: look-ups; index.go: lists; manage.go: owners and
//     administrators
//
// Specs: draft-gallagher-openpgp-hkp, and what clients of the field expect of it.
package keystore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"singularity/pgp"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/translog"
)

// Options of the service.
type Options struct {
	// Open takes keys from anybody and finds every user id: for a network in
	// which everybody is trusted.
	Open bool
	Log  *translog.Log
	// Changing, unless nil, is told before a key changes, with the fingerprints of
	// the key and its sub-keys, and what it returns is called after that.
	Changing func(ctx context.Context, ids ...string) (done func(), err error)
}

// Service is the key server.
type Service struct {
	keys   *store.Collection[record]
	auth   *auth.Service
	o      Options
	secret [32]byte // signs the cursors of pages
	now    func() time.Time
}

// record is a key with what is asked about it. Its document is named by the
// fingerprint.
type record struct {
	Key       []byte    `json:"key"`
	IDs       []string  `json:"ids"` // fingerprints, the primary key's first
	Algorithm int       `json:"algorithm"`
	Bits      int       `json:"bits"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"`
	Revoked   bool      `json:"revoked,omitempty"`
	UserIDs   []userID  `json:"userIDs"`
	Owner     string    `json:"owner,omitempty"` // the account that brought it first
	Hidden    bool      `json:"hidden,omitempty"`
	Blocked   bool      `json:"blocked,omitempty"`
	Added     time.Time `json:"added"`
	Changed   time.Time `json:"changed"`
	LogIndex  int64     `json:"logIndex"` // of the line about these bytes
}

type userID struct {
	Text    string    `json:"text"`
	Created time.Time `json:"created,omitzero"`
	Revoked bool      `json:"revoked,omitempty"`
	Proven  bool      `json:"proven,omitempty"`
}

// Open opens the service.
func Open(ctx context.Context, r store.Records, a *auth.Service, o Options) (*Service, error) {
	s := &Service{auth: a, o: o, now: time.Now}
	rand.Read(s.secret[:])
	texts, version := (*record).provenTexts, 1
	if o.Open {
		texts, version = (*record).allTexts, 2
	}
	var err error
	s.keys, err = store.Open(ctx, r, "keys", store.Options[record]{Version: version, Indexes: []store.Index[record]{
		{Name: "id", Of: (*record).ids},
		{Name: "text", Of: texts},
		{Name: "owner", Of: func(r *record) []string { return []string{r.Owner} }},
	}})
	return s, err
}

// Routes returns the calls of the service.
func (s *Service) Routes() []route.Route {
	return []route.Route{
		{Pattern: "GET /pks/lookup", Handler: route.Func(s.lookup), ClassOf: classOf},
		{Pattern: "POST /pks/add", Handler: route.Func(s.add), Class: route.KeyAdd, Body: maxForm},
		{Pattern: "OPTIONS /pks/lookup", Handler: options, Class: route.Free},
		{Pattern: "OPTIONS /pks/add", Handler: options, Class: route.Free},
		{Pattern: "GET /v1/keys", Handler: route.Func(s.mine)},
		{Pattern: "GET /v1/keys/{fingerprint}", Handler: route.Func(s.describe), Class: route.KeyID},
		{Pattern: "GET /v1/keys/{fingerprint}/proof", Handler: route.Func(s.proof), Class: route.KeyID},
		{Pattern: "DELETE /v1/keys/{fingerprint}", Handler: route.Func(s.hide)},
		{Pattern: "PUT /v1/keys/{fingerprint}/addresses/{address}", Handler: route.Func(s.confirm)},
		{Pattern: "PUT /v1/keys/{fingerprint}/block", Handler: route.Func(s.block)},
		{Pattern: "DELETE /v1/keys/{fingerprint}/block", Handler: route.Func(s.block)},
	}
}

// ids are the values by which look-ups find a key.
func (r *record) ids() []string {
	var list []string
	for _, f := range r.IDs {
		list = append(list, f, f[len(f)-16:], f[len(f)-8:])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (r *record) provenTexts() []string { return r.texts(false) }
func (r *record) allTexts() []string    { return r.texts(true) }

func (r *record) texts(all bool) []string {
	var list []string
	for _, u := range r.UserIDs {
		if (all || u.Proven) && !u.Revoked {
			list = append(list, terms(u.Text)...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// served tells whether the key is shown at all.
func (r *record) served() bool { return !r.Hidden && !r.Blocked && len(r.Key) > 0 }

// flag is the one letter that clients know.
func (r *record) flag(now time.Time) string {
	switch {
	case r.Revoked:
		return "r"
	case !r.Expires.IsZero() && !r.Expires.After(now):
		return "e"
	}
	return ""
}

// set takes what is known of a key from its packets.
func (r *record) set(c *pgp.Cert, now time.Time) error {
	k, err := c.Key()
	if err != nil {
		return err
	}
	proven := map[string]bool{}
	for _, u := range r.UserIDs {
		proven[u.Text] = u.Proven
	}
	r.Key, r.IDs, r.UserIDs = c.Bytes(), nil, nil
	for _, f := range c.Fingerprints() {
		r.IDs = append(r.IDs, f.String())
	}
	for _, u := range c.UserIDs() {
		r.UserIDs = append(r.UserIDs, userID{Text: u.Text, Created: u.Created, Revoked: u.Revoked, Proven: proven[u.Text]})
	}
	r.Algorithm, r.Bits, r.Created, r.Expires = k.Algorithm(), k.Bits(), k.Created().UTC(), k.Expires().UTC()
	if k.Expires().IsZero() {
		r.Expires = time.Time{}
	}
	r.Revoked = k.Revoked(now)
	return nil
}

func digestOf(key []byte) string {
	sum := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// address returns the mail address of a user id in lower case, or "".
func address(text string) string {
	text = strings.ToLower(strings.TrimSpace(text))
	if i := strings.LastIndexByte(text, '<'); i >= 0 && strings.HasSuffix(text, ">") {
		text = text[i+1 : len(text)-1]
	}
	if strings.Count(text, "@") != 1 || strings.ContainsAny(text, " <>\"") || strings.HasPrefix(text, "@") || strings.HasSuffix(text, "@") {
		return ""
	}
	return text
}

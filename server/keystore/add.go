package keystore

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"singularity/pgp"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// Limits of what comes in.
const (
	maxForm = 1 << 20
	maxAdd  = 5
)

// add answers /pks/add. Whether a key was new, changed or known makes no
// difference in the answer.
func (s *Service) add(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	c := auth.From(r.Context())
	permission := c.Require(auth.KeysWrite)
	if s.o.Open && !c.Known() && !c.Invalid {
		permission = nil
	}
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return route.Errorf(http.StatusBadRequest, "the request is no form")
	}
	text := r.PostForm.Get("keytext")
	if text == "" {
		if permission != nil {
			return permission
		}
		return route.Errorf(http.StatusBadRequest, "the field keytext is missing")
	}
	list, err := pgp.ReadCerts([]byte(text), maxAdd, s.known(r.Context()))
	if err != nil {
		if permission != nil {
			return permission
		}
		return refusal(err)
	}
	if permission != nil {
		return s.addRevocations(r.Context(), w, list, permission)
	}
	for _, cert := range list {
		err := s.merge(r.Context(), cert, c)
		s.auth.Audit(r.Context(), "key.add", cert.Fingerprint().String(), err, nil)
		if err != nil {
			return refusal(err)
		}
	}
	return done(w)
}

func done(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte("the key was received\n"))
	return ignore(err)
}

// refusal tells what is wrong with a key.
func refusal(err error) error {
	var e *route.Error
	switch {
	case errors.As(err, &e), errors.Is(err, store.ErrFull), errors.Is(err, store.ErrConflict), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, pgp.ErrSecret):
		return route.Errorf(http.StatusBadRequest, "%v: send the public key", err)
	case errors.Is(err, pgp.ErrLimit):
		return route.Errorf(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, errStorage):
		return err
	}
	return route.Errorf(http.StatusUnprocessableEntity, "the key is not accepted: %s", printable(err.Error()))
}

func printable(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c >= 0x7f {
			return '?'
		}
		return c
	}, s)
}

// errStorage marks faults that are not the key's.
var errStorage = errors.New("storage")

// known finds the keys that a revocation without its key may be of.
func (s *Service) known(ctx context.Context) func(uint64) []*pgp.Cert {
	return func(id uint64) []*pgp.Cert {
		items, _, err := s.keys.List(ctx, store.Query{Index: "id", Equal: longID(id), Limit: maxGet})
		if err != nil {
			return nil
		}
		var list []*pgp.Cert
		for _, i := range items {
			if c, err := readStored(i.Value.Key); err == nil {
				list = append(list, c)
			}
		}
		return list
	}
}

func longID(id uint64) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 16)
	for i := range b {
		b[15-i] = digits[id>>(4*i)&15]
	}
	return string(b)
}

// addRevocations takes from a stranger what no stranger can make: the revocation
// of a key that is known here.
func (s *Service) addRevocations(ctx context.Context, w http.ResponseWriter, list []*pgp.Cert, permission error) error {
	taken := false
	for _, cert := range list {
		rev := cert.Revocation()
		if rev == nil {
			continue
		}
		switch err := s.update(ctx, rev, auth.Caller{}); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return refusal(err)
		default:
			taken = true
			s.auth.Audit(ctx, "key.revoke", rev.Fingerprint().String(), nil, nil)
		}
	}
	if !taken {
		return permission
	}
	return done(w)
}

// merge adds a key to the store, or what it has that is new.
func (s *Service) merge(ctx context.Context, cert *pgp.Cert, c auth.Caller) error {
	for {
		err := s.update(ctx, cert, c)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if cert.Check() != nil { // the key of a revocation has gone meanwhile
			return err
		}
		now := s.now().UTC()
		r := record{Owner: c.ID, Added: now, Changed: now}
		if err := r.set(cert, now); err != nil {
			return err
		}
		r.prove(c)
		if err := s.note(ctx, &r); err != nil {
			return err
		}
		ch := s.changes()
		if err := ch.begin(ctx, &r); err != nil {
			return err
		}
		_, err = s.keys.Insert(ctx, r.IDs[0], r)
		ch.end()
		if !errors.Is(err, store.ErrExists) {
			return err
		}
	}
}

// changes tells somebody else, around a write, that a key changes.
type changes struct {
	changing func(ctx context.Context, ids ...string) (done func(), err error)
	done     []func()
}

func (s *Service) changes() *changes { return &changes{changing: s.o.Changing} }

func (c *changes) begin(ctx context.Context, r *record) error {
	if c.changing == nil {
		return nil
	}
	done, err := c.changing(ctx, r.IDs...)
	if err != nil {
		return errors.Join(errStorage, err)
	}
	c.done = append(c.done, done)
	return nil
}

func (c *changes) end() {
	for _, done := range c.done {
		done()
	}
}

var errBlocked = route.Errorf(http.StatusForbidden, "this key is blocked here: ask the administrators")

// errSame ends an update that would change nothing.
var errSame = errors.New("nothing new")

// update merges a key into its record, or returns store.ErrNotFound.
func (s *Service) update(ctx context.Context, cert *pgp.Cert, c auth.Caller) error {
	ch := s.changes()
	defer ch.end()
	_, err := s.keys.Update(ctx, cert.Fingerprint().String(), func(r *record) error {
		if r.Blocked {
			return errBlocked
		}
		merged, err := cert, cert.Check()
		if len(r.Key) > 0 {
			merged, err = mergeCerts(cert, r.Key)
		} else {
			r.Owner = c.ID // it was blocked before it came
		}
		if err != nil {
			return err
		}
		before := digestOf(r.Key)
		now := s.now().UTC()
		if err := r.set(merged, now); err != nil {
			return err
		}
		proven := r.prove(c)
		shown := r.Hidden && c.Known() && (c.ID == r.Owner || c.Admin)
		if shown {
			r.Hidden = false
		}
		if digestOf(r.Key) == before {
			switch {
			case shown:
				return ch.begin(ctx, r)
			case proven:
				return nil
			}
			return errSame
		}
		r.Changed = now
		if err := s.note(ctx, r); err != nil {
			return err
		}
		return ch.begin(ctx, r)
	})
	if errors.Is(err, errSame) {
		return nil
	}
	return err
}

// mergeCerts merges a key into what is stored of it. What would be too large is
// refused, but a revocation never.
func mergeCerts(cert *pgp.Cert, stored []byte) (*pgp.Cert, error) {
	merged, err := readStored(stored)
	if err != nil {
		return nil, err
	}
	merged.Merge(cert)
	err = merged.Check()
	if err == nil && len(merged.Bytes()) > pgp.MaxCertSize {
		err = pgp.ErrLimit
	}
	if err == nil {
		return merged, nil
	}
	rev := cert.Revocation()
	if rev == nil {
		return nil, err
	}
	if merged, err = readStored(stored); err != nil {
		return nil, err
	}
	merged.Merge(rev)
	return merged, nil
}

// readStored reads a key of the store. It was checked when it came in, and is
// checked again: what a stranger's key is merged with must be what was signed.
func readStored(key []byte) (*pgp.Cert, error) {
	c, err := pgp.ReadCert(key)
	if err != nil {
		return nil, errors.Join(errStorage, err)
	}
	return c, nil
}

// prove marks the user ids whose address the site knows to be the caller's.
func (r *record) prove(c auth.Caller) (changed bool) {
	if !c.Known() || c.Email == "" || c.Kind != auth.User {
		return false
	}
	for i := range r.UserIDs {
		u := &r.UserIDs[i]
		if !u.Proven && strings.EqualFold(address(u.Text), c.Email) {
			u.Proven, changed = true, true
		}
	}
	return changed
}

// note writes the state of a key to the log before it is served.
func (s *Service) note(ctx context.Context, r *record) (err error) {
	r.LogIndex, err = s.o.Log.Change(ctx, "key", r.IDs[0], digestOf(r.Key))
	if err != nil {
		return errors.Join(errStorage, err)
	}
	return nil
}

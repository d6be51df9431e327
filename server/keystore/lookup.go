package keystore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/pgp"
	"singularity/server/route"
	"singularity/server/store"
)

// Limits of answers.
const (
	maxGet   = 20
	maxIndex = 256
	pageLife = 10 * time.Minute
)

var errNothing = route.Errorf(http.StatusNotFound, "no matching keys found")

func options(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
	w.WriteHeader(http.StatusNoContent)
}

// lookup answers /pks/lookup.
func (s *Service) lookup(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", "X-HKP-Next-Page-Token, "+api.LogHeader)
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return route.Errorf(http.StatusBadRequest, "the query is not valid")
	}
	op := q.Get("op")
	switch op {
	case "get", "index", "vindex":
	case "":
		return route.Errorf(http.StatusBadRequest, "the parameter op is missing: say get or index")
	default:
		return route.Errorf(http.StatusNotImplemented, "op %q is not offered: say get or index", op)
	}
	if !q.Has("search") || strings.TrimSpace(q.Get("search")) == "" {
		return route.Errorf(http.StatusBadRequest, "the parameter search is missing")
	}
	t, err := parseTerm(q.Get("search"), q.Get("exact") == "on")
	if err != nil {
		return err
	}
	if op == "get" {
		return s.get(w, r, t)
	}
	return s.index(w, r, t, q)
}

// get answers with all keys of a term in one block.
func (s *Service) get(w http.ResponseWriter, r *http.Request, t term) error {
	list, _, err := s.find(r.Context(), t, "", maxGet)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errNothing
	}
	// Security: anybody can make a key with given 8 digits.
	if t.short && len(list) > 1 {
		return route.Errorf(http.StatusConflict, "%d keys have the id %s: ask by fingerprint", len(list), t.ids[0])
	}
	var all bytes.Buffer
	for _, k := range list {
		all.Write(k.Key)
	}
	text, err := pgp.ArmorPublic(all.Bytes())
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set(api.LogHeader, s.o.Log.Key())
	h.Set("Content-Type", "application/pgp-keys")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-cache")
	_, err = w.Write(text)
	return ignore(err)
}

// proof proves that what is served of a key is in the log.
func (s *Service) proof(w http.ResponseWriter, r *http.Request) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	from := int64(0)
	if text := r.URL.Query().Get("from"); text != "" {
		if from, err = strconv.ParseInt(text, 10, 64); err != nil || from < 0 {
			return route.Errorf(http.StatusBadRequest, "from is no size of the log")
		}
	}
	i, err := s.keys.Get(r.Context(), f)
	if err == nil && !i.Value.served() {
		err = store.ErrNotFound
	}
	if err != nil {
		return err
	}
	p, err := s.o.Log.Prove(r.Context(), i.Value.LogIndex, from)
	if err != nil {
		return err
	}
	route.Data(w, p)
	return nil
}

// ignore drops the error of a client that went away.
func ignore(error) error { return nil }

// index answers with a list of keys.
func (s *Service) index(w http.ResponseWriter, r *http.Request, t term, q url.Values) error {
	size := maxIndex
	if text := q.Get("x-pagesize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return route.Errorf(http.StatusBadRequest, "x-pagesize is no number of keys")
		}
		size = min(n, maxIndex)
	}
	after, err := s.openCursor(q.Get("x-pagetoken"), t)
	if err != nil {
		return err
	}
	list, next, err := s.find(r.Context(), t, after, size)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return errNothing
	}
	if next != "" {
		w.Header().Set("X-HKP-Next-Page-Token", s.cursor(next, t))
	}
	w.Header().Set("Cache-Control", "no-cache")
	if !slices.Contains(strings.Split(q.Get("options"), ","), "mr") {
		return s.writePage(w, list, t)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = w.Write(s.machineReadable(list, t))
	return ignore(err)
}

// cursor makes the token of the next page, which serves for this search only and
// for some minutes.
func (s *Service) cursor(next string, t term) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.now().Add(pageLife).Unix()))
	b = append(b, next...)
	return base64.RawURLEncoding.EncodeToString(append(s.seal(b, t), b...))
}

func (s *Service) seal(b []byte, t term) []byte {
	m := hmac.New(sha256.New, s.secret[:])
	m.Write(b)
	m.Write([]byte("\x00" + strings.ToLower(t.text)))
	return m.Sum(nil)
}

func (s *Service) openCursor(text string, t term) (string, error) {
	if text == "" {
		return "", nil
	}
	bad := route.Errorf(http.StatusBadRequest, "the page token is too old or of another search: search again")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < sha256.Size+8 {
		return "", bad
	}
	sum, rest := b[:sha256.Size], b[sha256.Size:]
	if !hmac.Equal(sum, s.seal(rest, t)) || int64(binary.BigEndian.Uint64(rest)) < s.now().Unix() {
		return "", bad
	}
	return string(rest[8:]), nil
}

// Keys returns the keys with a 64-bit id, for who checks signatures with them.
func (s *Service) Keys(ctx context.Context, id uint64) []*pgp.Key {
	items, _, err := s.keys.List(ctx, store.Query{Index: "id", Equal: fmt.Sprintf("%016X", id), Limit: maxGet})
	if err != nil {
		return nil
	}
	var list []*pgp.Key
	for _, i := range items {
		if !i.Value.served() {
			continue
		}
		if c, err := pgp.ReadCert(i.Value.Key); err == nil {
			if k, err := c.Key(); err == nil {
				list = append(list, k)
			}
		}
	}
	return list
}

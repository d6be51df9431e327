// Package keyservertest is a key server in memory, for tests. It speaks HKP as the
// spec of the key store asks: lookups by fingerprint, ids and text, an index in
// pages, and additions with a token.
package keyservertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"singularity/pgp"
)

// Server is a key server.
type Server struct {
	Token    string // wanted by additions, unless empty
	Moderate bool   // additions are answered with 202
	PageSize int    // the most keys on a page

	mu       sync.Mutex
	keys     []*pgp.Key
	requests []string // method, path and query, and " +token" if one came along
}

// Put makes the server serve k.
func (s *Server) Put(k *pgp.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, k)
}

// Requests returns what was asked so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := r.Method + " " + r.URL.RequestURI()
	if r.Header.Get("Authorization") != "" {
		line += " +token"
	}
	s.requests = append(s.requests, line)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/pks/lookup":
		s.lookup(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/pks/add":
		s.add(w, r)
	default:
		refuse(w, http.StatusNotFound, "no such page")
	}
}

// refuse writes the error envelope.
func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

func (s *Server) lookup(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if len(q.Get("search")) < 3 {
		refuse(w, http.StatusBadRequest, "search is too short")
		return
	}
	found := s.find(q.Get("search"))
	switch {
	case len(found) == 0:
		refuse(w, http.StatusNotFound, "no matching keys found")
	case q.Get("op") == "get":
		w.Header().Set("Content-Type", "application/pgp-keys")
		w.Write(armored(found))
	case q.Get("op") == "index" && strings.Contains(q.Get("options"), "mr"):
		s.index(w, q, found)
	default:
		refuse(w, http.StatusNotImplemented, "op is not known")
	}
}

// armored puts all keys into one block.
func armored(keys []*pgp.Key) []byte {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		panic(err)
	}
	for _, k := range keys {
		w.Write(k.Bytes())
	}
	w.Close()
	return b.Bytes()
}

func (s *Server) find(search string) []*pgp.Key {
	digits, isID := strings.CutPrefix(search, "0x")
	var found []*pgp.Key
	for _, k := range s.keys {
		fp := k.Fingerprint().String()
		id, err := strconv.ParseUint(digits, 16, 64)
		switch {
		case isID && len(digits) == 40 && strings.EqualFold(digits, fp),
			isID && len(digits) == 8 && strings.EqualFold(digits, fp[32:]),
			isID && len(digits) <= 16 && err == nil && k.HasID(id),
			!isID && strings.Contains(strings.ToLower(strings.Join(k.UserIDs(), "\n")), strings.ToLower(search)):
			found = append(found, k)
		}
	}
	return found
}

func (s *Server) index(w http.ResponseWriter, q url.Values, found []*pgp.Key) {
	size, _ := strconv.Atoi(q.Get("x-pagesize"))
	if size <= 0 || s.PageSize > 0 && size > s.PageSize {
		size = max(s.PageSize, 1)
	}
	start := 0
	if t := q.Get("x-pagetoken"); t != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(t, "page "))
		if err != nil || n > len(found) {
			refuse(w, http.StatusBadRequest, "bad page token")
			return
		}
		start = n
	}
	end := min(start+size, len(found))
	if end < len(found) {
		w.Header().Set("X-HKP-Next-Page-Token", fmt.Sprintf("page %d", end))
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "info:1:%d\n", end-start)
	for _, k := range found[start:end] {
		expires, flag := "", ""
		if t := k.Expires(); !t.IsZero() {
			expires = strconv.FormatInt(t.Unix(), 10)
		}
		if k.Revoked(time.Now()) {
			flag = "r"
		}
		fmt.Fprintf(w, "pub:%s:%d:%d:%d:%s:%s\n", k.Fingerprint(), k.Algorithm(), k.Bits(), k.Created().Unix(), expires, flag)
		for _, id := range k.UserIDs() {
			fmt.Fprintf(w, "uid:%s:%d::\n", strings.ReplaceAll(url.QueryEscape(id), "+", "%20"), k.Created().Unix())
		}
	}
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	if s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token {
		refuse(w, http.StatusUnauthorized, "unauthorized or missing token")
		return
	}
	ring, err := pgp.ParseRing([]byte(r.PostFormValue("keytext")))
	if err != nil || len(ring.Keys()) == 0 {
		refuse(w, http.StatusUnprocessableEntity, "no usable key in the text")
		return
	}
	for _, k := range ring.Keys() {
		if k.SecretPackets() {
			refuse(w, http.StatusBadRequest, "secret keys are not wanted")
			return
		}
	}
	for _, k := range ring.Keys() {
		s.keys = slices.DeleteFunc(s.keys, func(old *pgp.Key) bool { return old.Fingerprint() == k.Fingerprint() })
		s.keys = append(s.keys, k)
	}
	if s.Moderate {
		w.WriteHeader(http.StatusAccepted)
	}
}

package library

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// How long an address works. The parts of one pull come until its end.
const (
	uploadLife   = 24 * time.Hour
	downloadLife = 12 * time.Hour
)

// sign makes an address that carries its own right: for one thing, one way, one
// content and some time.
func (s *Service) sign(method, path, sum, by string, life time.Duration) string {
	end := strconv.FormatInt(s.now().Add(life).Unix(), 10)
	q := url.Values{"exp": {end}, "sig": {s.mac(method, path, sum, by, end)}}
	if sum != "" {
		q.Set("sum", sum)
		// It makes clients send the hash of what they send.
		q.Set("X-Amz-SignedHeaders", "host;x-amz-content-sha256")
	}
	if by != "" {
		q.Set("by", by)
	}
	return s.o.URL + path + "?" + q.Encode()
}

func (s *Service) mac(words ...string) string {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(strings.Join(words, "\n")))
	return hex.EncodeToString(h.Sum(nil))
}

// signed tells whether the address of a request was made by sign for it and has
// not ended.
func (s *Service) signed(method string, r *http.Request) bool {
	q := r.URL.Query()
	end, err := strconv.ParseInt(q.Get("exp"), 10, 64)
	want := s.mac(method, r.URL.Path, q.Get("sum"), q.Get("by"), q.Get("exp"))
	return hmac.Equal([]byte(want), []byte(q.Get("sig"))) && err == nil && s.now().Unix() < end
}

package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"singularity/api"
)

// Service is a service that takes and gives JSON in the envelope of package api.
//
// It is not trusted: its answers are bounded. The token goes to it alone.
type Service struct {
	Kind        string // "a builder", for errors
	Base        string // URL, without a slash at its end
	Token       string
	TokenSource string // where the token is from, for errors
	HTTP        *http.Client
	Time        time.Duration // of one call
	Most        int64         // bytes of an answer
}

// NewService returns the service at base, a URL; role is what it is to the caller,
// for an error.
func NewService(role, base, token string, client *http.Client) (*Service, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("cannot use the %s %q: it is no URL of a service", role, Redact(base))
	}
	return &Service{Base: strings.TrimRight(base, "/"), Token: token, TokenSource: "the remote endpoint", HTTP: client}, nil
}

// Call makes one request. in, unless nil, goes as JSON; the data of the answer
// goes to out, unless that is nil.
func (s *Service) Call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, s.Time)
	defer cancel()
	res, err := s.Send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, s.Most+1))
	if err != nil {
		return err
	}
	var e api.Envelope[json.RawMessage]
	if int64(len(text)) > s.Most || json.Unmarshal(text, &e) != nil || json.Unmarshal(e.Data, out) != nil {
		return fmt.Errorf("%s sends an answer that is none of %s", res.Request.URL.Host, s.Kind)
	}
	return nil
}

// Send makes a request whose answer is good, for as long as ctx lasts.
func (s *Service) Send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	s.Authorize(req.Header)
	res, err := s.HTTP.Do(req)
	if err != nil {
		return nil, Plain(err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, NewStatusError(res, s.TokenSource)
	}
	return res, nil
}

// Authorize puts the token into the header of a request.
func (s *Service) Authorize(h http.Header) {
	if s.Token != "" {
		h.Set("Authorization", "BEARER "+s.Token)
	}
}

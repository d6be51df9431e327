package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
)

// answer takes what a service writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// call asks a service, as the caller of ctx. The path is made by path, or holds
// nothing from outside. What the service refuses is a *route.Error.
func (s *Service) call(ctx context.Context, method, target string, in, out any) error {
	a, err := s.send(ctx, method, target, in)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(a.body.Bytes(), out)
}

func (s *Service) send(ctx context.Context, method, target string, in any) (*answer, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	return s.sendBody(ctx, method, target, "", &body)
}

func (s *Service) sendBody(ctx context.Context, method, target, kind string, body io.Reader) (*answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, route.Errorf(http.StatusNotFound, "not found")
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	a := &answer{header: http.Header{}}
	s.api.ServeHTTP(a, r)
	if a.status < 300 {
		return a, nil
	}
	var e api.Envelope[json.RawMessage]
	if json.Unmarshal(a.body.Bytes(), &e) != nil || e.Error == nil {
		return nil, route.Errorf(http.StatusNotFound, "not found") // no such service, or a path that leads elsewhere
	}
	if a.status == http.StatusUnauthorized && !auth.From(ctx).Known() {
		return nil, errLogIn
	}
	return nil, route.Errorf(a.status, "%s", e.Error.Message)
}

// get reads the data of an answer.
func get[T any](s *Service, ctx context.Context, target string) (T, error) {
	var e api.Envelope[T]
	err := s.call(ctx, http.MethodGet, target, nil, &e)
	return e.Data, err
}

// list reads a part of a list.
func list[T any](s *Service, ctx context.Context, target string) (api.Listing[T], error) {
	var l api.Listing[T]
	err := s.call(ctx, http.MethodGet, target, nil, &l)
	return l, err
}

// path makes an address of parts that come from outside.
func path(prefix string, parts ...string) string {
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(p), "..", "%2E%2E")
	}
	return prefix + strings.Join(parts, "/")
}

func missing(err error) bool {
	var e *route.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// has tells whether a service answers a path.
func (s *Service) has(target string) bool {
	r, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return false
	}
	_, pattern := s.api.Handler(r)
	return pattern != ""
}

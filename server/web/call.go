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

// call asks a service, as the caller of ctx. The path is made by path, or holds
// nothing from outside. What the service refuses is a *route.Error.
func (s *Service) call(ctx context.Context, method, target string, in, out any) error {
	a, err := s.send(ctx, method, target, in)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(a.Body.Bytes(), out)
}

func (s *Service) send(ctx context.Context, method, target string, in any) (*route.Answer, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	return s.sendBody(ctx, method, target, "", &body)
}

func (s *Service) sendBody(ctx context.Context, method, target, kind string, body io.Reader) (*route.Answer, error) {
	a, err := route.Ask(ctx, s.api, method, target, kind, body)
	var e *route.Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized && !auth.From(ctx).Known() {
		return nil, errLogIn
	}
	return a, err
}

// get reads the data of an answer.
func get[T any](s *Service, ctx context.Context, target string) (T, error) {
	var e api.Envelope[T]
	err := s.call(ctx, http.MethodGet, target, nil, &e)
	return e.Data, err
}

// decode reads the data of an answer that was sent for.
func decode[T any](a *route.Answer) (T, error) {
	var e api.Envelope[T]
	err := json.Unmarshal(a.Body.Bytes(), &e)
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

package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"singularity/server/auth"
	"singularity/server/route"
)

// times is what a client has. A body or an answer may take as long as it likes
// while it goes on: a lifetime for all would cut large images of slow networks.
type times struct {
	header time.Duration // of a handshake, and of the head of a request
	idle   time.Duration
	body   time.Duration // of a small body, as a whole
	stall  time.Duration // of an answer without progress
	rate   time.Duration // over which a large body must have minRate
}

var usualTimes = times{header: 10 * time.Second, idle: time.Minute, body: time.Minute, stall: time.Minute, rate: time.Minute}

const (
	minRate     = 16 << 10 // bytes a second of a large body
	maxHeader   = 16 << 10
	maxPath     = 2048
	maxQuery    = 8192
	maxSegments = 32
)

// front is what stands before every route of the public listener.
type front struct {
	mux     *http.ServeMux
	auth    *auth.Service
	rates   *rates
	metrics *metrics
	proxies []netip.Prefix
	hsts    bool
	times   times
	log     *slog.Logger
	// patterns are those of all routes: what the server describes.
	patterns []string
}

// add puts a route behind its limits.
func (f *front) add(r route.Route) {
	f.patterns = append(f.patterns, r.Pattern)
	f.mux.HandleFunc(r.Pattern, func(w http.ResponseWriter, req *http.Request) {
		t := w.(*tracked)
		t.pattern = r.Pattern
		t.limitBody(req, r.Body)
		var c auth.Caller
		if !r.Presigned {
			var err error
			if c, err = f.auth.Identify(req); err != nil {
				route.Refuse(w, req, err)
				return
			}
		}
		t.caller = c
		if c.Invalid {
			w.Header().Set("X-Token-Status", "invalid")
		}
		if c.Invalid && req.URL.Path == "/" {
			// Clients log in to a key server by asking its root with a password.
			route.Refuse(w, req, route.Errorf(http.StatusUnauthorized, "the access token is invalid or has expired: log in again"))
			return
		}
		class := r.Class
		if r.ClassOf != nil {
			class = r.ClassOf(req)
		}
		if err := f.rates.allow(req.Context(), w, class, c, route.Of(req.Context()).Addr); err != nil {
			if w.Header().Get("Retry-After") != "" {
				f.metrics.limited.Inc()
			}
			route.Refuse(w, req, err)
			return
		}
		r.Handler(w, req.WithContext(auth.With(req.Context(), c)))
	})
}

// ServeHTTP gives each request its id, looks at its path, finds its route, and
// notes what came of it.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	var id [8]byte
	rand.Read(id[:])
	req := route.Request{ID: hex.EncodeToString(id[:]), Addr: f.client(r)}
	r = r.WithContext(route.WithRequest(r.Context(), req))
	t := &tracked{ResponseWriter: w, control: http.NewResponseController(w), times: f.times}
	h := w.Header()
	h.Set("X-Request-Id", req.ID)
	h.Set("X-Content-Type-Options", "nosniff")
	if f.hsts {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	f.metrics.running.Inc()
	defer func() {
		f.metrics.running.Dec()
		caught := recover()
		if caught != nil && caught != http.ErrAbortHandler {
			f.log.ErrorContext(r.Context(), "a handler panicked", "request", req.ID, "panic", fmt.Sprint(caught), "stack", string(debug.Stack()))
			if t.status == 0 {
				route.Refuse(t, r, errors.New("panic"))
				caught = nil
			} else {
				caught = http.ErrAbortHandler // the client must not take it for whole
			}
		}
		f.note(r, t, req, time.Since(begun))
		if caught != nil {
			panic(caught)
		}
	}()
	f.serve(t, r)
}

func (f *front) serve(t *tracked, r *http.Request) {
	if err := checkPath(r); err != nil {
		route.Refuse(t, r, err)
		return
	}
	_, pattern := f.mux.Handler(r)
	if pattern != "" {
		f.mux.ServeHTTP(t, r)
		return
	}
	var allowed []string
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		other := &http.Request{Method: m, URL: r.URL, Host: r.Host, Header: http.Header{}}
		if _, p := f.mux.Handler(other); p != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		t.Header().Set("Allow", strings.Join(allowed, ", "))
		route.Refuse(t, r, route.Errorf(http.StatusMethodNotAllowed, "method not allowed"))
		return
	}
	route.Refuse(t, r, route.Errorf(http.StatusNotFound, "not found"))
}

// checkPath refuses what two readers of a path could understand in two ways
// (SC-158): a handler sees no "..", no encoded slash, no NUL.
func checkPath(r *http.Request) error {
	bad := route.Errorf(http.StatusBadRequest, "the path of the request is not valid")
	raw := strings.ToLower(r.URL.EscapedPath())
	switch {
	case len(raw) > maxPath || len(r.URL.RawQuery) > maxQuery:
		return route.Errorf(http.StatusRequestURITooLong, "the address of the request is too long")
	case r.URL.Path == "" || r.URL.Path[0] != '/' || strings.Contains(raw, "//") || strings.Count(raw, "/") > maxSegments:
		return bad
	}
	for _, code := range []string{"%2e", "%2f", "%5c", "%00", "\\"} {
		if strings.Contains(raw, code) {
			return bad
		}
	}
	for part := range strings.SplitSeq(r.URL.Path, "/") {
		if part == "." || part == ".." || strings.ContainsFunc(part, func(c rune) bool { return c < 0x20 || c == 0x7f || c == 0xfffd }) {
			return bad
		}
	}
	return nil
}

// client returns the address of the client: the peer's, or what a proxy that is
// trusted says. Of a list the last that is no such proxy counts, since anybody
// can write the ones before.
func (f *front) client(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	a := p.Addr().Unmap().WithZone("")
	words := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(words) - 1; i >= 0 && f.trusts(a); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(words[i]))
		if err != nil {
			break
		}
		a = next.Unmap().WithZone("")
	}
	return a
}

func (f *front) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(f.proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// note writes the line of a request. The query is left out: it may hold the
// signature of an address.
func (f *front) note(r *http.Request, t *tracked, req route.Request, took time.Duration) {
	status := t.status
	if status == 0 {
		status = http.StatusOK
	}
	f.metrics.note(t.pattern, status, took)
	f.log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("request", req.ID), slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status),
		slog.Int64("bytes", t.written), slog.Duration("took", took), slog.String("from", req.Addr.String()), slog.String("user", t.caller.Name), slog.String("token", t.caller.TokenID), slog.String("client", r.UserAgent()))
}

// tracked is the answer of a request: it remembers what was sent and gives each
// piece of it some time.
type tracked struct {
	http.ResponseWriter
	control *http.ResponseController
	pattern string
	caller  auth.Caller
	status  int
	written int64
	times   times
	limit   time.Time
}

func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t *tracked) WriteHeader(status int) {
	if t.status == 0 && status >= 200 {
		t.status = status
	}
	t.touch()
	t.ResponseWriter.WriteHeader(status)
}

// touch gives the answer more time. Setting a deadline costs a little, so once
// a second is enough.
func (t *tracked) touch() {
	if now := time.Now(); t.limit.Sub(now) < t.times.stall-time.Second {
		t.limit = now.Add(t.times.stall)
		t.control.SetWriteDeadline(t.limit)
	}
}

func (t *tracked) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	t.touch()
	n, err := t.ResponseWriter.Write(p)
	t.written += int64(n)
	return n, err
}

// limitBody bounds the body of a request, in bytes and in time.
func (t *tracked) limitBody(r *http.Request, limit int64) {
	if limit == 0 {
		limit = route.MaxBody
	}
	now := time.Now()
	if limit == route.Stream {
		r.Body = &paced{ReadCloser: r.Body, control: t.control, time: t.times.rate, begun: now}
		return
	}
	t.control.SetReadDeadline(now.Add(t.times.body))
	r.Body = http.MaxBytesReader(t, r.Body, limit)
}

// paced is a large body: whoever sends slower than minRate is cut.
type paced struct {
	io.ReadCloser
	control *http.ResponseController
	time    time.Duration
	begun   time.Time
	got     int64
}

func (p *paced) Read(b []byte) (int, error) {
	now := time.Now()
	if now.Sub(p.begun) > p.time {
		if float64(p.got)/now.Sub(p.begun).Seconds() < minRate {
			return 0, route.Errorf(http.StatusRequestTimeout, "the bytes come too slowly")
		}
		p.begun, p.got = now, 0
	}
	p.control.SetReadDeadline(now.Add(p.time))
	n, err := p.ReadCloser.Read(b)
	p.got += int64(n)
	return n, err
}

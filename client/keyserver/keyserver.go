// Package keyserver talks to key servers by HKP: it looks keys up, searches, and
// sends keys.
//
// In go the addresses of servers and what is wanted, out come OpenPGP keys that
// have the id or fingerprint that was asked for, or the lines of an index. There
// is no server but those that the caller names.
//
// A server is not trusted. An answer with another key than the one that was asked
// for is an error, and so is one that is too long or too slow; a key that is right
// says nothing about who made it. Texts of servers may hold any byte. A token is
// shown to the server that it belongs to, over TLS, and to nobody else, wherever
// that server sends us. A redirection never leads from https to http, and what is
// sent to a server is not sent on.
//
// A server that says that it has a transparency log must prove each key by it
// (package translog); one that had a log before must have it still.
//
// The package does not print, and keeps nothing but by a translog.Memory.
//
// Specs: draft-gallagher-openpgp-hkp, and the paging of X-HKP-Next-Page-Token.
package keyserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"singularity/api"
	"singularity/client/transfer"
	"singularity/client/translog"
	"singularity/pgp"
)

// Limits on what a server may do.
const (
	maxKeys      = 1 << 20 // bytes of keys in an answer: each signature in them takes time
	maxPage      = 2 << 20 // bytes of a page of an index
	maxNote      = 64 << 10
	maxRedirects = 5
	timeout      = 10 * time.Second // for an answer, all of it
)

// Server is one key server.
type Server struct {
	URL string // http, https, hkp or hkps, and a host
	// Auth is what the Authorization header says to this server, if it is https,
	// and to no other. AuthSource says where it comes from, for messages.
	Auth, AuthSource string
	// Insecure takes any certificate. Auth is not sent then.
	Insecure bool
}

// Client asks key servers.
type Client struct {
	servers []server
	timeout time.Duration
	memory  translog.Memory // may be nil
}

// server is a Server that was checked.
type server struct {
	base   *url.URL
	http   *http.Client
	auth   *authorized
	source string // of auth's value
}

// New returns a client of the servers, which are asked in their order. How to
// connect is said by settings but for Plain, which is known for each server.
func New(list []Server, settings transfer.Settings) (*Client, error) {
	if len(list) == 0 {
		return nil, ErrNoServer
	}
	c := &Client{timeout: timeout}
	for _, s := range list {
		base, err := parseURL(s.URL)
		if err != nil {
			return nil, err
		}
		settings.Plain = s.Insecure || base.Scheme == "http" // who names such a server wants it
		t, err := transfer.NewTransport(&settings)
		if err != nil {
			return nil, err
		}
		a := &authorized{transport: t, base: base}
		if !s.Insecure {
			a.value = s.Auth
		}
		c.servers = append(c.servers, server{base: base, auth: a, source: s.AuthSource,
			http: &http.Client{Transport: a, CheckRedirect: checkRedirect}})
	}
	return c, nil
}

// parseURL reads the address of a server. HKP fixes the paths on it.
func parseURL(s string) (*url.URL, error) {
	bad := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("%q is no address of a key server: %s", hideUser(s), why)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return bad("want https://HOST, or hkp, hkps or http")
	case u.User != nil:
		return bad("it holds a user name or a password, which other users of this host could read")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return bad("want a host alone, as the paths on it are fixed")
	}
	u.Path, u.RawPath = "", ""
	switch u.Scheme {
	case "http", "https":
	case "hkp":
		u.Scheme = "http"
		if u.Port() == "" {
			u.Host += ":11371"
		}
	case "hkps":
		u.Scheme = "https"
	default:
		return bad("want https, hkps, hkp or http")
	}
	return u, nil
}

// hideUser cuts what may be a password out of an address.
func hideUser(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if i := strings.LastIndexByte(rest, '@'); ok && i >= 0 {
		return scheme + "://...@" + rest[i+1:]
	}
	return s
}

// authorized adds value, the user's token, to the requests that may have it.
type authorized struct {
	transport http.RoundTripper
	base      *url.URL
	value     string
}

// sends tells whether a request to u carries the token.
//
// Security: a server that redirects elsewhere, and whoever listens to plain HTTP,
// must not get it. That is decided for each request, not for the first of a row.
func (a *authorized) sends(u *url.URL) bool {
	return a.value != "" && u.Scheme == "https" && transfer.Origin(u) == transfer.Origin(a.base)
}

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	r.Header.Del("Referer")
	if a.sends(r.URL) {
		r.Header.Set("Authorization", a.value)
	}
	return a.transport.RoundTrip(r)
}

// checkRedirect follows GET alone: a POST would become a GET, or carry on what
// was meant for one server.
func checkRedirect(r *http.Request, via []*http.Request) error {
	first, last := via[0], via[len(via)-1]
	switch {
	case first.Method != http.MethodGet:
		return http.ErrUseLastResponse
	case len(via) > maxRedirects:
		return fmt.Errorf("it redirects more than %d times", maxRedirects)
	case r.URL.Scheme != "https" && (r.URL.Scheme != "http" || last.URL.Scheme == "https"):
		return fmt.Errorf("it redirects from https to %s", r.URL.Scheme)
	}
	return nil
}

// Get returns the keys of that id. The servers are asked in their order until one
// has it. ErrNotFound is wrapped if none has, and no other fault was met.
func (c *Client) Get(ctx context.Context, id ID) ([]*pgp.Key, error) {
	query := url.Values{"op": {"get"}, "exact": {"on"}, "options": {"mr"}, "search": {id.search()}}
	var faults []error
	missing := 0
	for _, s := range c.servers {
		keys, err := c.get(ctx, s, query, id)
		if errors.Is(err, translog.ErrProof) || errors.Is(err, translog.ErrHistory) {
			return nil, err // no other server makes that good
		}
		if err == nil {
			return keys, nil
		}
		if errors.Is(err, ErrNotFound) {
			missing++
		}
		faults = append(faults, err)
	}
	if len(faults) == 1 {
		return nil, faults[0]
	}
	if missing == len(faults) {
		return nil, fmt.Errorf("%w by any of %d key servers", ErrNotFound, missing)
	}
	return nil, &allError{faults}
}

// get asks one server. A key may change between the answer and its proof, so one
// that does not fit is asked for once more.
func (c *Client) get(ctx context.Context, s server, query url.Values, id ID) ([]*pgp.Key, error) {
	keys, err := c.getOnce(ctx, s, query, id)
	if errors.Is(err, translog.ErrProof) {
		keys, err = c.getOnce(ctx, s, query, id)
	}
	return keys, err
}

func (c *Client) getOnce(ctx context.Context, s server, query url.Values, id ID) ([]*pgp.Key, error) {
	a, err := c.lookup(ctx, s, query, maxKeys)
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(a.body, id)
	if err != nil {
		return nil, fmt.Errorf("the answer of key server %q is not usable: %w", s.base.Host, err)
	}
	return keys, c.checkLog(ctx, s, a.header.Get(api.LogHeader), keys)
}

// readKeys reads the keys of an answer.
//
// Security: a server that answers with another key than the one that was asked
// for would have the user trust somebody else.
func readKeys(text []byte, id ID) ([]*pgp.Key, error) {
	ring, err := pgp.ParseRing(text)
	if err != nil {
		return nil, err
	}
	var keys []*pgp.Key
	seen := map[pgp.Fingerprint]bool{}
	for _, k := range ring.Keys() {
		if !seen[k.Fingerprint()] {
			keys = append(keys, k)
		}
		seen[k.Fingerprint()] = true
	}
	if len(keys) == 0 {
		if p := ring.Problems(); len(p) > 0 {
			return nil, fmt.Errorf("it has no usable key: %w", p[0].Err)
		}
		return nil, errors.New("it has no keys")
	}
	for _, k := range keys {
		if k.SecretPackets() {
			return nil, fmt.Errorf("it has a secret key, %s", k.Fingerprint())
		}
		if !id.names(k) {
			return nil, fmt.Errorf("it has the key %s, which is not the one that was asked for, %s", k.Fingerprint(), id)
		}
	}
	return keys, nil
}

// Add sends a public key to the first server. It tells whether the server will
// look at the key before it serves it.
func (c *Client) Add(ctx context.Context, key *pgp.Key) (moderated bool, err error) {
	if key.SecretPackets() {
		return false, errors.New("the key has secret parts") // those never leave this host
	}
	text, err := key.Armor()
	if err != nil {
		return false, err
	}
	ctx, stop := context.WithTimeout(ctx, c.timeout)
	defer stop()
	s := c.servers[0]
	body := strings.NewReader(url.Values{"keytext": {string(text)}}.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base.JoinPath("/pks/add").String(), body)
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a, err := s.do(r, maxNote)
	if err != nil {
		return false, err
	}
	return a.status == http.StatusAccepted, nil
}

// answer is a good answer of a server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (c *Client) lookup(ctx context.Context, s server, query url.Values, limit int64) (*answer, error) {
	ctx, stop := context.WithTimeout(ctx, c.timeout)
	defer stop()
	u := s.base.JoinPath("/pks/lookup")
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	return s.do(r, limit)
}

// do sends r and reads at most limit bytes of the answer.
func (s server) do(r *http.Request, limit int64) (*answer, error) {
	res, err := s.http.Do(r)
	if err != nil {
		return nil, s.broken(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		used := ""
		if s.auth.sends(res.Request.URL) {
			used = s.source
		}
		return nil, &refusal{transfer.NewStatusError(res, used)}
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, s.broken(err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("key server %q answers with more than %d bytes", s.base.Host, limit)
	}
	return &answer{res.StatusCode, res.Header, body}, nil
}

// broken is the error of a server that gave no answer.
func (s server) broken(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address, which says the same at length
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer in time")
	}
	return fmt.Errorf("cannot reach key server %q: %w", s.base.Host, err)
}

// Package transfer is what all our HTTP clients have in common: how to connect,
// what is never sent where, how to say what went wrong, and how to download a
// large file.
//
// In go settings and requests, out come http.Clients, files on disk and errors
// that name the host, the status, what the server said and whose credentials
// were used, never the credentials.
//
// No server is trusted: sizes, digests, ranges and the lengths of texts are
// checked, a server that falls silent is given up, and credentials go to no
// other scheme, host or port than the one they are for. A download that breaks
// off is taken up again where it stopped.
//
// Nothing is ever sent unencrypted unless the caller allows it for that client,
// and nothing at all with Offline.
//
// Files: transport.go (connections), again.go (a server that is away for a moment),
// redirect.go, download.go, service.go, error.go.
package transfer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// How long a server may take for each step.
const (
	connectTimeout = 10 * time.Second
	// A server that many ask at once has much to compute here.
	tlsTimeout    = 30 * time.Second
	headerTimeout = 60 * time.Second
	idleTimeout   = 60 * time.Second
)

// ErrOffline is the answer to every request of a client that is offline.
var ErrOffline = errors.New("the network is not used: offline is set")

// Settings say how to connect.
type Settings struct {
	Offline   bool
	Plain     bool     // http and unverified TLS are allowed
	Proxy     string   // URL; empty: what the environment says
	CAs       []string // files of certificates to trust besides those of the system
	Cert, Key string   // files of the client's own certificate
	UserAgent string
	Connect   time.Duration // for the connection; 0: the default
	Idle      time.Duration // how long an answer may pause; 0: the default
	NoHTTP2   bool          // for connections that become something else
	Again     bool          // a request is made again whose server is away for a moment
}

// NewTransport returns a transport that follows s.
func NewTransport(s *Settings) (http.RoundTripper, error) {
	if s.Offline {
		return offline{}, nil
	}
	connect := connectTimeout
	if s.Connect > 0 {
		connect = s.Connect
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connect, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		// Ranges and digests are about the bytes as they are stored.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Plain},
	}
	if s.NoHTTP2 {
		t.ForceAttemptHTTP2, t.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	if s.Proxy != "" {
		u, err := url.Parse(s.Proxy)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("cannot use the proxy %q: it is no URL", Redact(s.Proxy))
		}
		t.Proxy = http.ProxyURL(u)
	}
	if err := certificates(t.TLSClientConfig, s); err != nil {
		return nil, err
	}
	agent := s.UserAgent
	if agent == "" {
		agent = "singularity"
	}
	g := &guard{inner: t, plain: s.Plain, agent: agent, idle: cmp.Or(s.Idle, idleTimeout)}
	if s.Again {
		return patient{g, firstAgain}, nil
	}
	return g, nil
}

func certificates(c *tls.Config, s *Settings) error {
	if len(s.CAs) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, name := range s.CAs {
			text, err := os.ReadFile(name)
			if err != nil {
				return fmt.Errorf("cannot read certificates: %w", err)
			}
			if !pool.AppendCertsFromPEM(text) {
				return fmt.Errorf("cannot use %q: no certificate in it", name)
			}
		}
		c.RootCAs = pool
	}
	if s.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return fmt.Errorf("cannot use the client certificate %q: %w", s.Cert, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return nil
}

type offline struct{}

func (offline) RoundTrip(*http.Request) (*http.Response, error) { return nil, ErrOffline }

// guard refuses what is not encrypted, and gives up on a server that stops in
// the middle of a request or an answer.
type guard struct {
	inner http.RoundTripper
	plain bool
	agent string
	idle  time.Duration
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.plain {
		return nil, &PlainError{Host: r.URL.Host}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	r = r.Clone(ctx)
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", g.agent)
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &sending{ReadCloser: r.Body, limit: g.idle, t: time.AfterFunc(g.idle, func() { cancel(errIdle) })}
	}
	res, err := g.inner.RoundTrip(r)
	if err != nil {
		if context.Cause(ctx) == errIdle {
			err = fmt.Errorf("%w for %v", errIdle, g.idle)
		}
		cancel(nil)
		return nil, err
	}
	if conn, ok := res.Body.(io.ReadWriteCloser); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &upgraded{conn, cancel} // whose silence is somebody else's matter
		return res, nil
	}
	res.Body = &idleReader{ReadCloser: &cancelling{res.Body, cancel}, limit: g.idle, cancel: cancel}
	return res, nil
}

// sending is the body of a request, which ends if the server takes nothing of it
// for a while. From its end on the time for the answer counts.
type sending struct {
	io.ReadCloser
	limit time.Duration
	t     *time.Timer
}

func (s *sending) Read(p []byte) (int, error) {
	s.t.Reset(s.limit)
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.t.Stop()
	}
	return n, err
}

func (s *sending) Close() error {
	s.t.Stop()
	return s.ReadCloser.Close()
}

// cancelling ends a request with its answer.
type cancelling struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (c *cancelling) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(nil)
	return err
}

// upgraded is a connection that became something else than HTTP.
type upgraded struct {
	io.ReadWriteCloser
	cancel context.CancelCauseFunc
}

func (u *upgraded) Close() error {
	err := u.ReadWriteCloser.Close()
	u.cancel(nil)
	return err
}

// PlainError says that a request would not have been encrypted.
type PlainError struct{ Host string }

func (e *PlainError) Error() string {
	return fmt.Sprintf("cannot connect to %q: it would not be encrypted", e.Host)
}

// NewClient returns a client over t with our rules for redirects.
func NewClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: CheckRedirect}
}

// Pause waits for d or until ctx ends, whose error it returns then.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

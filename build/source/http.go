package source

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
)

const (
	connectTimeout = 30 * time.Second
	stallTimeout   = 60 * time.Second // without a byte
	maxRedirects   = 10
)

// httpImage is an image that a web server has.
type httpImage struct {
	url string
	imageSource
}

func newHTTP(s *deffile.Stage, c Config) (Source, error) {
	from := s.Value("from")
	if !strings.Contains(from, "://") {
		from = s.Agent() + ":" + "//" + strings.TrimLeft(from, "/")
	}
	u, err := url.Parse(from)
	if err != nil || u.Scheme != s.Agent() || u.Host == "" {
		return nil, fmt.Errorf("line %d: cannot use %q as From: want an address that begins with %s://", s.LineOf("from"), from, s.Agent())
	}
	require, err := fingerprints(s)
	return &httpImage{from, imageSource{c: c, origin: Origin{Agent: s.Agent(), URI: u.Redacted()}, require: require, quiet: c.Quiet}}, err
}

// Fetch implements Source.
func (h *httpImage) Fetch(ctx context.Context, rootfs string) error {
	dir, err := h.c.WorkDir()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "image"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if _, err := download(ctx, h.c.Log, h.url, f, 0); err != nil {
		return err
	}
	return h.take(ctx, h.origin.URI, f.Name(), rootfs)
}

// download writes what is at address, a URL of http, https or file, to f, and
// returns its SHA-256 in hexadecimal. A limit of 0 is the free space.
//
// Security: an answer is bounded, a server that stalls is given up, and a
// redirection from https never leads to anything less.
func download(ctx context.Context, log Log, address string, f *os.File, limit int64) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("cannot download %q: %w", address, err)
	}
	fail := func(err error) error { return fmt.Errorf("cannot download %q: %w", u.Redacted(), err) }
	if limit == 0 {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return "", err
		}
		limit = int64(st.Bavail) * int64(st.Bsize)
	}
	if u.Scheme == "file" {
		in, err := os.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return "", err
		}
		defer in.Close()
		digest, err := copyBounded(f, in, limit)
		if err != nil {
			err = fail(err)
		}
		return digest, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fail(err)
	}
	log.Info("Downloading " + u.Redacted())
	resp, err := httpClient().Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // it repeats the address, password and all
		}
		return "", fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fail(fmt.Errorf("the server answered %s", resp.Status))
	}
	if resp.ContentLength > limit {
		return "", fail(fmt.Errorf("it has more than the %d bytes that are free or allowed: %d", limit, resp.ContentLength))
	}
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing came for %v", stallTimeout)) })
	defer stall.Stop()
	digest, err := copyBounded(f, &alive{resp.Body, stall}, limit)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return "", fail(err)
	}
	return digest, nil
}

// httpClient returns one that follows few redirections, none of them from https
// to http.
func httpClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: connectTimeout}).DialContext
	t.ResponseHeaderTimeout = stallTimeout
	return &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) >= maxRedirects:
			return fmt.Errorf("more than %d redirections", maxRedirects)
		case req.URL.Scheme != "https" && via[0].URL.Scheme == "https", req.URL.Scheme != "http" && req.URL.Scheme != "https":
			return fmt.Errorf("it redirects to %q, which is not https", req.URL.Redacted())
		}
		return nil
	}}
}

// alive puts off the end of a transfer with every byte.
type alive struct {
	r     io.Reader
	stall *time.Timer
}

func (a *alive) Read(b []byte) (int, error) {
	n, err := a.r.Read(b)
	if n > 0 {
		a.stall.Reset(stallTimeout)
	}
	return n, err
}

// copyBounded copies at most limit bytes and returns their SHA-256.
func copyBounded(f *os.File, r io.Reader, limit int64) (string, error) {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("it has more than the %d bytes that are free or allowed", limit)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

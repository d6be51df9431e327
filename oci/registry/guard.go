package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// CredentialError says that a credential would go where it is not for.
type CredentialError struct{ Host, For string }

func (e *CredentialError) Error() string {
	return fmt.Sprintf("the credentials of %q would go to %q", e.For, e.Host)
}

// guard is the last to see each request of one registry.
//
// Security: a registry says where to get tokens, where to send uploads and
// where its blobs are. The credentials of the user go to the registry itself
// and to the token servers that are known to be its own, and over TLS; whatever
// else asks for them gets an error, and a token on a redirect is taken off.
type guard struct {
	inner  http.RoundTripper
	host   string
	others []string // token servers
	plain  bool
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	own := g.own(r.URL.Host)
	auth := r.Header.Get("Authorization")
	switch {
	case own && (r.URL.Scheme == "https" || g.plain):
		return g.inner.RoundTrip(r)
	case strings.HasPrefix(strings.ToLower(auth), "basic"), r.Method == http.MethodPost, r.Method == http.MethodPut, r.Method == http.MethodPatch:
		// The log-in by POST has the secret in its body, an upload has data.
		return nil, &CredentialError{Host: r.URL.Scheme + "://" + r.URL.Host, For: g.host}
	}
	if auth != "" || r.Header.Get("Cookie") != "" {
		r = r.Clone(r.Context())
		r.Header.Del("Authorization")
		r.Header.Del("Cookie")
	}
	return g.inner.RoundTrip(r)
}

func (g *guard) own(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	return host == strings.TrimSuffix(strings.ToLower(g.host), ":443") || slices.Contains(g.others, host)
}

package transfer

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const maxRedirects = 10

// Origin returns scheme, host and port of u: what credentials are bound to.
func Origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// CheckRedirect is our policy for redirects, for http.Client.
//
// Security: a server may send us anywhere, and so may the place it sends us to.
// Credentials go along only while every step has stayed at the first origin,
// sub-domains and other ports are others, and nobody leads us out of TLS.
func CheckRedirect(next *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	first := via[0].URL
	if first.Scheme == "https" && next.URL.Scheme != "https" {
		return &PlainError{Host: next.URL.Host}
	}
	if next.URL.User != nil {
		return errors.New("the server redirects to an address with credentials in it")
	}
	same := Origin(next.URL) == Origin(first)
	for _, r := range via {
		same = same && Origin(r.URL) == Origin(first)
	}
	if !same {
		for _, name := range []string{"Authorization", "Www-Authenticate", "Cookie", "Cookie2", "Proxy-Authorization", "X-Registry-Auth"} {
			next.Header.Del(name)
		}
	}
	return nil
}

// Redact returns the URL s without user, password and query, fit for a message.
func Redact(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(no URL)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

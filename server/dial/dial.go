// Package dial connects the server to addresses that somebody wrote down: those of
// providers, authorities, and whatever else is asked for something by its address.
//
// In goes what the administrator allows, out comes a client of HTTP. It connects to
// the public Internet; to this host, to neighbours, to private networks and to where
// clouds keep their credentials only as far as the administrator names those
// networks. That is decided for the address to which a connection is being made,
// after names were resolved: a name that resolves differently the second time, and
// a redirection, lead nowhere else (SC-155). No proxy is used, as it would resolve
// names itself.
//
// Redirections are not followed; answers are cut at a bound.
package dial

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Times and sizes of an exchange.
const (
	connectTime = 10 * time.Second
	wholeTime   = 20 * time.Second
	maxAnswer   = 1 << 20
)

// ErrAddress is wrapped by the refusal of an address.
var ErrAddress = errors.New("the server does not connect to this network: name it in dial_networks if it should")

// special are networks that net/netip has no word for: shared addresses of carriers,
// where a cloud keeps credentials too, benchmarks, IPv4 within IPv6, and reserved
// ones.
func special(a netip.Addr) bool {
	for _, text := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10"} {
		if netip.MustParsePrefix(text).Contains(a) {
			return true
		}
	}
	return false
}

// Allowed tells whether the server connects to an address.
func Allowed(a netip.Addr, networks []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	if slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !special(a)
}

// Dialer returns a dialer that asks Allowed before each connection.
func Dialer(networks []netip.Prefix) *net.Dialer {
	return &net.Dialer{Timeout: connectTime, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !Allowed(to.Addr(), networks) {
			return fmt.Errorf("%s: %w", address, ErrAddress)
		}
		return nil
	}}
}

// Client returns a client by such a dialer. base may be nil; it says how to check
// certificates.
func Client(base *http.Transport, networks []netip.Prefix) *http.Client {
	if base == nil {
		base, _ = http.DefaultTransport.(*http.Transport)
	}
	t := base.Clone()
	t.DialContext, t.DialTLSContext, t.Proxy = Dialer(networks).DialContext, nil, nil
	return &http.Client{Transport: bounded{t}, Timeout: wholeTime, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it redirects, which is not followed")
	}}
}

// bounded cuts answers.
type bounded struct{ base http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.base.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxAnswer), res.Body}
	}
	return res, err
}

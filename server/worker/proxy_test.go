package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// TestPublic: a build reaches what is public, and the library (SC-159).
func TestPublic(t *testing.T) {
	p, err := newProxy(&spec{Library: "https://images.example.org:8443", Allow: []string{"10.9.0.0/16", "mirror.example.org:80"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"8.8.8.8", "2600:1901::1", "151.101.2.132"} {
		if !p.may("x.org", "443", netip.MustParseAddr(a)) {
			t.Errorf("%s is refused", a)
		}
	}
	for _, a := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "fd00:ec2::254", "fe80::1", "100.64.0.1",
		"224.0.0.1", "255.255.255.255", "64:ff9b::a00:1", "2002:0a00:0001::1", "::ffff:10.0.0.1", "198.18.0.1", "::10.0.0.1", "ff02::1", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fe80::1%lo", "::ffff:169.254.169.254"} {
		if p.may("x.org", "443", netip.MustParseAddr(a)) {
			t.Errorf("%s is not refused", a)
		}
	}
	inside := netip.MustParseAddr("10.0.0.1")
	for to, want := range map[string]bool{"images.example.org:8443": true, "images.example.org:8444": false, "mirror.example.org:80": true, "mirror.example.org:443": false} {
		u, err := url.Parse("https://" + to)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.may(u.Hostname(), u.Port(), inside); got != want {
			t.Errorf("%s: got %v, want %v", to, got, want)
		}
	}
	if !p.may("x.org", "80", netip.MustParseAddr("10.9.1.1")) {
		t.Error("a network that is allowed is refused")
	}
	if _, err := parseAllow([]string{"10.0.0.0/33"}); err == nil {
		t.Error("a network that is none is taken")
	}
}

// names is a name server, whose answers about any name are those given, one after
// another and the last for ever.
func names(t *testing.T, answers ...[]string) *atomic.Int64 {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	asked := &atomic.Int64{}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Type == dnsmessage.TypeA {
				for _, a := range answers[min(int(asked.Add(1)), len(answers))-1] {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}, Body: &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()}})
				}
			}
			if out, err := m.Pack(); err == nil {
				c.WriteTo(out, from)
			}
		}
	}()
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = old })
	return asked
}

// TestRebinding: a name that is a public address first and an internal one then, or
// both at once, leads to the public one alone; each connection asks once, and goes to
// what was checked (SC-159).
func TestRebinding(t *testing.T) {
	const public, internal = "151.101.2.132", "169.254.169.254"
	p, err := newProxy(&spec{Library: "https://images.example.org:8443"})
	if err != nil {
		t.Fatal(err)
	}
	var dialled []string
	errReached := errors.New("reached")
	p.connect = func(_ context.Context, _, address string) (net.Conn, error) {
		dialled = append(dialled, address)
		return nil, errReached
	}
	for name, x := range map[string]struct {
		answers [][]string
		want    []error // of one connection after another
	}{
		"then internal": {[][]string{{public}, {internal}}, []error{errReached, errRefused, errRefused}}, "both": {[][]string{{internal, public, "127.0.0.1"}}, []error{errReached}},
		"internal": {[][]string{{internal, "10.0.0.1", "0.0.0.0"}}, []error{errRefused}}, "loopback": {[][]string{{"127.0.0.1"}, {public}}, []error{errRefused, errReached}},
	} {
		asked := names(t, x.answers...)
		for n, want := range x.want {
			dialled = nil
			_, err := p.dial(t.Context(), "tcp", "rebind.example.net:80")
			if !errors.Is(err, want) || want == errRefused && len(dialled) > 0 || want == errReached && !slices.Equal(dialled, []string{public + ":80"}) {
				t.Errorf("%s, connection %d: %v, dialled %q", name, n, err, dialled)
			}
			if got := asked.Load(); got != int64(n+1) {
				t.Errorf("%s, connection %d: asked %d times", name, n, got)
			}
		}
	}
}

// TestProxyForms: what a build says to the proxy by hand leads nowhere but to a public
// host: addresses in forms that other resolvers know, other schemes, no host.
func TestProxyForms(t *testing.T) {
	names(t, []string{"127.0.0.1"})
	reached := &atomic.Int64{}
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer secret.Close()
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	p, err := newProxy(&spec{Library: "https://images.example.org:8443"})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(p)
	defer s.Close()
	hosts := []string{"127.0.0.1", "localhost", "LOCALHOST.", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1%25lo]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "rebind.example.net",
		"127.0.0.1.", "user@127.0.0.1", "images.example.org", "[64:ff9b::7f00:1]"}
	for _, h := range hosts {
		to := h + ":" + port
		for _, line := range []string{"GET http://" + to + "/ HTTP/1.1\r\nHost: example.org\r\n", "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n", "GET https://" + to + "/ HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: " + to + "\r\n",
			"GET ftp://" + to + "/ HTTP/1.1\r\nHost: x\r\n", "GET http:/// HTTP/1.1\r\nHost: " + to + "\r\n"} {
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, line+"Connection: close\r\n\r\n")
			text, _ := io.ReadAll(c)
			c.Close()
			if status, _, _ := strings.Cut(string(text), "\r\n"); !strings.HasPrefix(status, "HTTP/1.1 4") {
				t.Errorf("%q: %q", line, status)
			}
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d requests came through", n)
	}
}

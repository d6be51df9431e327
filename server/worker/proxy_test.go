package worker

import (
	"net/netip"
	"net/url"
	"testing"
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
		"224.0.0.1", "255.255.255.255", "64:ff9b::a00:1", "2002:0a00:0001::1", "::ffff:10.0.0.1", "198.18.0.1", "::10.0.0.1", "ff02::1"} {
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

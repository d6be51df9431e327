package dial

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// SC-155: the addresses that the server connects to, and those that it does not
// unless they are named.
func TestAllowed(t *testing.T) {
	for _, text := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "10.0.0.1", "172.16.0.1", "192.168.1.1",
		"100.100.100.200", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "198.18.0.1"} {
		if Allowed(netip.MustParseAddr(text), nil) {
			t.Errorf("%s is connected to", text)
		}
		own := netip.MustParseAddr(text).Unmap()
		if !Allowed(netip.MustParseAddr(text), []netip.Prefix{netip.PrefixFrom(own, own.BitLen())}) {
			t.Errorf("%s is not connected to where it is named", text)
		}
	}
	for _, text := range []string{"9.9.9.9", "2620:fe::fe", "172.32.0.1", "100.128.0.1", "169.253.1.1"} {
		if !Allowed(netip.MustParseAddr(text), nil) {
			t.Errorf("%s is not connected to", text)
		}
	}
	if Allowed(netip.MustParseAddr("10.1.0.1"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}) {
		t.Error("a neighbour of the network that is named")
	}
}

// The address counts at the connection: names, redirections and spellings lead to
// no other, and nothing comes from an answer beyond its bound.
func TestClient(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
			return
		}
		io.Copy(w, strings.NewReader(strings.Repeat("x", maxAnswer+1000)))
	}))
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	c := Client(nil, nil)
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001"} {
		res, err := c.Get("http://" + host + ":" + port + "/")
		if err == nil {
			res.Body.Close()
			t.Errorf("%s is asked", host)
		}
	}
	if _, err := c.Get(s.URL); !errors.Is(err, ErrAddress) {
		t.Errorf("refused for another reason: %v", err)
	}
	if asked != 0 {
		t.Errorf("%d requests came", asked)
	}
	c = Client(nil, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	res, err := c.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || len(text) != maxAnswer {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if _, err := c.Get(s.URL + "/redirect"); err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("a redirection: %v", err)
	}
}

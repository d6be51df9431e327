package priv

import (
	"strings"
	"testing"

	"singularity/conf"
)

// TestNetWords: SC-096, SC-097: the lists are compared whole, and what reaches the
// keeper has no form but that of a name, an address and ports.
func TestNetWords(t *testing.T) {
	for _, c := range []struct {
		allow []string
		n     Net
		want  string // of the error
	}{
		{nil, Net{Name: "bridge"}, "allow net networks"},
		{[]string{}, Net{Name: ""}, "allow net networks"},
		{[]string{"bridg", "bridge2", "ridge"}, Net{Name: "bridge"}, "allow net networks"},
		{[]string{"a", "bridge"}, Net{Name: "bridge"}, ""},
		{[]string{"a", "bridge"}, Net{Name: "a,bridge"}, "allow net networks"},
		{[]string{"../x"}, Net{Name: "../x"}, "allow net networks"},
		{[]string{"a"}, Net{"a", "IP=10.0.0.1;portmap=8080:80/tcp;portmap=8081:81/udp"}, ""},
		{[]string{"a"}, Net{"a", "IP=10.0.0.1;K=V"}, "not well formed"},
		{[]string{"a"}, Net{"a", "IP=10.0.0.1; portmap=8080:80/tcp"}, "not well formed"},
		{[]string{"a"}, Net{"a", "IP="}, "not well formed"},
		{[]string{"a"}, Net{"a", ";"}, "not well formed"},
		{[]string{"a"}, Net{"a", "portmap=+8080:80/tcp"}, "not well formed"},
		{[]string{"a"}, Net{"a", "portmap=8080:80/tcp\nIP=1"}, "not well formed"},
		{[]string{"a"}, Net{"a", "portmap=80800:80/tcp"}, "not well formed"},
		{[]string{"a"}, Net{"a", "portmap=8080:80/icmp"}, "not well formed"},
		{[]string{"a"}, Net{"a", "portmap=80:80/tcp"}, "are for root"},
		{[]string{"a"}, Net{"a", "portmap=8080:0/tcp"}, "are for root"},
		{[]string{"a"}, Net{"a", strings.Repeat("portmap=8080:80/tcp;", maxPorts+2)}, "not well formed"},
	} {
		err := checkNet(&conf.Config{Others: conf.Others{AllowNetNetworks: c.allow}}, c.n, 1024)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.n, err, c.want)
		}
	}
}

func TestMayNetwork(t *testing.T) {
	for _, c := range []struct {
		users, groups []string
		ok            bool
	}{
		{nil, nil, false}, {[]string{"root"}, nil, true}, {nil, []string{"root"}, true}, {[]string{"roo", "roott", "toor"}, []string{"roo", "daemon"}, false},
		{[]string{"x", "root"}, nil, true}, {[]string{""}, []string{""}, false},
	} {
		p := person{"root", []string{"root"}}
		if ok := p.mayNetwork(&conf.Config{Others: conf.Others{AllowNetUsers: c.users, AllowNetGroups: c.groups}}); ok != c.ok {
			t.Errorf("%+v: %v", c, ok)
		}
	}
	for word, want := range map[string]uint64{"net_raw": 1 << 13, "CAP_CHOWN": 1, "all": 1<<64 - 1, "x": 0} {
		if got := capBits(word); got != want {
			t.Errorf("%s is %x", word, got)
		}
	}
	for _, v := range []*Verdict{Rights(Capabilities, 1<<30, nil, nil), Rights("x", 0, nil, nil)} {
		if v.OK || v.Text == "" {
			t.Errorf("%+v", v)
		}
	}
}

// TestNetnsRefuses: no name of a network leads anywhere but to the caller's.
func TestNetnsRefuses(t *testing.T) {
	h := &helper{uid: 1000, conf: &conf.Config{AllowNetnsPaths: []string{"/proc/self/ns/net", "/etc/passwd"}}}
	for _, id := range []string{"u100-ab", "u10000-ab", "u1000-../x", "u1000", "u1000-", "../u1000-ab", "u1000-AB", "u1000-ab/../../x"} {
		if f, err := h.netns(id); err == nil || f != nil || !strings.Contains(err.Error(), "is the caller's") {
			t.Errorf("%q: %v", id, err)
		}
	}
	h.uid = 0
	for path, want := range map[string]string{"/proc/2/ns/net": "allow netns paths", "/proc/self/ns/net": "must be owned by root: it is a link", "/etc/passwd": "is no network namespace"} {
		if f, err := h.netns(path); err == nil || f != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

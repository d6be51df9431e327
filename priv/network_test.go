package priv

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/conf"
)

// TestNetWords: SC-096, SC-097: the lists are compared whole, and what reaches the
// keeper has no form but that of a name, an address and ports.
func TestNetWords(t *testing.T) {
	ok := []Port{{8080, 80, "tcp"}, {8081, 81, "udp"}}
	for _, c := range []struct {
		allow []string
		n     Net
		want  string // of the words, or of the error behind "!"
	}{
		{nil, Net{Name: "bridge"}, "!allow net networks"},
		{[]string{}, Net{Name: ""}, "!allow net networks"},
		{[]string{"bridg", "bridge2", "ridge"}, Net{Name: "bridge"}, "!allow net networks"},
		{[]string{"a", "bridge"}, Net{Name: "bridge"}, ""},
		{[]string{"a", "bridge"}, Net{Name: "a,bridge"}, "!allow net networks"},
		{[]string{"../x"}, Net{Name: "../x"}, "!allow net networks"},
		{[]string{"a"}, Net{Name: "a", IP: "10.0.0.1", Ports: ok}, "IP=10.0.0.1;portmap=8080:80/tcp;portmap=8081:81/udp"},
		{[]string{"a"}, Net{Name: "a", IP: "10.0.0.1;K=V"}, "!not well formed"},
		{[]string{"a"}, Net{Name: "a", Ports: []Port{{8080, 80, "tcp;K=V"}}}, "!not well formed"},
		{[]string{"a"}, Net{Name: "a", Ports: []Port{{80, 80, "tcp"}}}, "!are for root"},
		{[]string{"a"}, Net{Name: "a", Ports: []Port{{8080, 0, "tcp"}}}, "!are for root"},
		{[]string{"a"}, Net{Name: "a", Ports: make([]Port, maxPorts+1)}, "!not well formed"},
	} {
		h := &helper{conf: &conf.Config{AllowNetNetworks: c.allow}}
		got, err := h.netWords(&c.n)
		if want, refused := strings.CutPrefix(c.want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %q, %v, want %q", c.n, got, err, c.want)
			}
		} else if err != nil || got != want {
			t.Errorf("%+v: %q, %v, want %q", c.n, got, err, c.want)
		}
	}
}

// TestRights: what the files give to the caller, by names that are compared whole.
func TestRights(t *testing.T) {
	caps := &conf.Capabilities{Users: map[string][]string{"root": {"net_raw"}}, Groups: map[string][]string{"disk": {"CAP_CHOWN"}}}
	for _, c := range []struct {
		users, groups []string
		ok            bool
	}{
		{nil, nil, false}, {[]string{"root"}, nil, true}, {nil, []string{"root"}, true}, {[]string{"roo", "roott", "toor"}, []string{"roo", "daemon"}, false},
		{[]string{"x", "root"}, nil, true}, {[]string{""}, []string{""}, false},
	} {
		v := given("root", []string{"root"}, caps, &conf.Config{AllowNetUsers: c.users, AllowNetGroups: c.groups})
		if v.Nets != c.ok || v.Caps != 1<<unix.CAP_NET_RAW {
			t.Errorf("%+v: %+v", c, v)
		}
	}
	if v := given("x", []string{"disk", "roo"}, caps, &conf.Config{}); v.Caps != 1<<unix.CAP_CHOWN {
		t.Errorf("%+v", v)
	}
	if v := Rights(1<<30, nil); v.OK || v.Text == "" {
		t.Errorf("nobody: %+v", v)
	}
}

// TestNetnsRefuses: no name of a network leads anywhere but to the caller's.
func TestNetnsRefuses(t *testing.T) {
	h := &helper{uid: 1000, conf: &conf.Config{AllowNetUsers: []string{"root"}, AllowNetnsPaths: []string{"/proc/self/ns/net", "/etc/passwd"}}}
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

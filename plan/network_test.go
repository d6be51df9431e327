package plan

import (
	"reflect"
	"strings"
	"testing"
)

func TestChooseNetwork(t *testing.T) {
	const none, rights = "Only --network=none is there: the container gets a loopback device and nothing else", "network requires root or --fakeroot"
	for _, c := range []struct {
		o    Options
		uid  int
		way  string
		may  NetRights
		want Network
		text string // of the note or the error
	}{
		{o: Options{}, want: Network{}},
		{o: Options{Network: []string{"x"}}, want: Network{}, text: "Ignoring --network: it needs --net"},
		{o: Options{Network: []string{"none"}}, uid: 1, want: Network{Kind: NoNet}},
		{o: Options{Net: true, Network: []string{"none"}}, want: Network{Kind: NoNet}},
		{o: Options{Net: true}, want: Network{SiteNet, []string{"bridge"}}},
		{o: Options{Net: true}, way: "pasta", want: Network{SiteNet, []string{"bridge"}}},
		{o: Options{Net: true, Network: []string{"a", "b"}}, want: Network{SiteNet, []string{"a", "b"}}},
		{o: Options{Net: true, Network: []string{"a", "none"}}, text: "together with other networks"},
		{o: Options{Net: true, Network: []string{"a", "b", "a"}}, text: `"a" twice`},
		{o: Options{Net: true, Fakeroot: true}, want: Network{SiteNet, []string{"fakeroot"}}},
		{o: Options{Net: true, Boot: true}, want: Network{Kind: NoNet}, text: none},
		{o: Options{Net: true, Userns: true}, text: rights},
		{o: Options{Net: true, Userns: true}, way: "pasta", text: rights},
		{o: Options{Net: true, Network: []string{"pasta"}}, way: "pasta", text: "it is for ordinary users"},
		{o: Options{Net: true}, uid: 1, text: rights},
		{o: Options{Net: true}, uid: 1, way: "pasta", want: Network{UserNet, []string{"pasta"}}},
		{o: Options{Net: true, Network: []string{"bridge"}}, uid: 1, way: "pasta", text: rights},
		{o: Options{Net: true, Network: []string{"slirp4netns"}}, uid: 1, way: "pasta", want: Network{UserNet, []string{"slirp4netns"}}},
		{o: Options{Net: true, Network: []string{"pasta", "slirp4netns"}}, uid: 1, way: "pasta", text: rights},
		{o: Options{Net: true, Network: []string{"pasta"}}, uid: 1, want: Network{UserNet, []string{"pasta"}}},
		{o: Options{Net: true, Fakeroot: true}, uid: 1, way: "pasta", want: Network{Kind: NoNet}, text: none},
		{o: Options{Net: true, Fakeroot: true, Network: []string{"pasta"}}, uid: 1, way: "pasta", want: Network{UserNet, []string{"pasta"}}},
		{o: Options{Net: true, Fakeroot: true, NetworkArgs: []string{"portmap=8080:80"}}, uid: 1, way: "pasta", want: Network{UserNet, []string{"pasta"}}},
		{o: Options{Net: true, Fakeroot: true, NetworkArgs: []string{"portmap=8080:80"}}, uid: 1, text: "--network-args has arguments"},
		{o: Options{NetworkArgs: []string{"portmap=8080:80"}}, text: "--network-args has arguments"},
		{o: Options{NetnsPath: "/x", Net: true}, text: "cannot join existing --netns-path"},
		{o: Options{NetnsPath: "/x"}, uid: 1, text: "not permitted to join network namespaces"},
		{o: Options{NetnsPath: "/x"}, want: Network{}},
		// What the administrator allows by the setuid helper.
		{o: Options{Net: true}, uid: 1, may: NetRights{Networks: []string{"bridge"}}, want: Network{SiteNet, []string{"bridge"}}},
		{o: Options{Net: true}, uid: 1, may: NetRights{Networks: []string{"a"}}, text: rights},
		{o: Options{Net: true}, uid: 1, way: "pasta", may: NetRights{Networks: []string{"a"}}, want: Network{UserNet, []string{"pasta"}}},
		{o: Options{Net: true, Network: []string{"a", "b"}}, uid: 1, may: NetRights{Networks: []string{"b", "a"}}, want: Network{SiteNet, []string{"a", "b"}}},
		{o: Options{Net: true, Network: []string{"a", "c"}}, uid: 1, may: NetRights{Networks: []string{"b", "a"}}, text: rights},
		{o: Options{Net: true, Network: []string{"a"}, Userns: true}, uid: 1, may: NetRights{Networks: []string{"a"}}, text: rights},
		{o: Options{NetnsPath: "/x"}, uid: 1, may: NetRights{Paths: []string{"/x"}}, want: Network{}},
		{o: Options{NetnsPath: "/x/"}, uid: 1, may: NetRights{Paths: []string{"/x"}}, text: "not permitted to join network namespaces"},
	} {
		got, notes, err := ChooseNetwork(&c.o, c.uid, c.way, c.may)
		text := strings.Join(notes, "")
		if err != nil {
			got, text = Network{}, err.Error()
		}
		if !reflect.DeepEqual(got, c.want) || !strings.Contains(text, c.text) || (text == "") != (c.text == "") {
			t.Errorf("%+v as uid %d with %q: %+v, %q, want %+v, %q", c.o, c.uid, c.way, got, text, c.want, c.text)
		}
	}
}

// TestResolver: what a network says of name servers cannot put other lines into
// the file.
func TestResolver(t *testing.T) {
	m := &maker{o: &Options{}, f: &Facts{Conf: Settings{ConfigResolv: true}}, p: &Plan{}}
	if _, own := m.resolver(); own {
		t.Error("a file of its own without name servers")
	}
	m.f.Host.Net = NetFacts{Servers: []string{"10.0.0.1", "x\nnameserver 1.2.3.4", "fd00::1"}, Search: []string{"a.example", "b\noptions x"}, Options: []string{"ndots:2"}}
	if got, own := m.resolver(); !own || got != "search a.example\noptions ndots:2\nnameserver 10.0.0.1\nnameserver fd00::1\n" {
		t.Errorf("%q", got)
	}
	m.o.DNS = []string{"9.9.9.9"}
	if got, own := m.resolver(); !own || got != "nameserver 9.9.9.9\n" {
		t.Errorf("with --dns: %q", got)
	}
	m.o.DNS, m.f.Conf.ConfigResolv = nil, false
	if _, own := m.resolver(); own {
		t.Error("a file of its own though the configuration wants none")
	}
}

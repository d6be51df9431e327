package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const bridge = `{"cniVersion": "1.0.0", "name": "a", "disableCheck": true, "plugins": [
	{"type": "bridge", "mtu": 1.5e3, "ipam": {"ranges": [[{"subnet": "10.0.0.0/8"}]], "type": "host-local"}, "prevResult": {"x": 1}, "name": "other"},
	{"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": false}}]}`

func TestConfig(t *testing.T) {
	l, err := parse(bridge)
	if err != nil {
		t.Fatal(err)
	}
	if l.name != "a" || len(l.plugins) != 2 || l.plugins[0].ipam != "host-local" || !l.mapsPorts() {
		t.Errorf("parsed %+v", l)
	}
	args := Args{Ports: []Port{{8080, 80, "tcp"}, {53, 53, "udp"}}}
	for i, want := range []string{
		`{"cniVersion":"1.0.0","name":"a","type":"bridge","mtu":1500,"ipam":{"ranges":[[{"subnet":"10.0.0.0/8"}]],"type":"host-local"}}`,
		`{"cniVersion":"1.0.0","name":"a","type":"portmap","capabilities":{"portMappings":true,"bandwidth":false},"prevResult":{"ips":[]},
			"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":53,"containerPort":53,"protocol":"udp"}]}}`,
	} {
		prev := []string{"", `{"ips":[]}`}[i]
		if got := l.config(&l.plugins[i], &args, prev); !sameJSON(t, got, want) {
			t.Errorf("plug-in %d reads %s, want %s", i, got, want)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	for text, v := range map[string]*any{a: &x, b: &y} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return reflect.DeepEqual(x, y)
}

// TestNames (SC-048, SC-096): no name leads out of the directory of the programs.
func TestNames(t *testing.T) {
	for _, bad := range []string{"../../tmp/x", "/tmp/x", "..", ".", "", ".x", "-x", "a/b", "a b", "a\x00b", strings.Repeat("x", maxName+1)} {
		q := quote(bad)
		for _, text := range []string{
			strings.Replace(bridge, `"type": "bridge"`, `"type": `+q, 1), strings.Replace(bridge, `"name": "a"`, `"name": `+q, 1),
			strings.Replace(bridge, `"host-local"`, q, 1),
		} {
			// No addresses from another program are fine.
			if l, err := parse(text); err == nil && !(bad == "" && l.plugins[0].program == "bridge" && l.name == "a") {
				t.Errorf("%q is taken for a name in %s", bad, text)
			}
		}
	}
	for _, text := range []string{`{}`, `[]`, bridge + "x", strings.Replace(bridge, "1.0.0", "0.2.0", 1), strings.Replace(bridge, `"type": "bridge"`, `"type": 1`, 1),
		`{"cniVersion":"1.0.0","name":"a","plugins":[]}`, strings.Replace(bridge, `"ipam": {`, `"ipam": {"type": "x", `, 1)} {
		if _, err := parse(text); err == nil {
			t.Errorf("%s is taken for a configuration", text)
		}
	}
}

func TestArgs(t *testing.T) {
	names := []string{"a", "b"}
	got, err := ParseArgs(names, []string{"portmap=8080:80/tcp", "b:IP=10.1.2.3;portmap=53/udp", "b:portmap=9:10"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []Args{{Ports: []Port{{8080, 80, "tcp"}, {53, 53, "udp"}}}, {Ports: []Port{{9, 10, "tcp"}}, IP: "10.1.2.3"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s := got[1].String(); s != "portmap=9:10/tcp;IP=10.1.2.3" {
		t.Errorf("written as %q", s)
	}
	for _, bad := range []string{"", "x=1", "portmap=", "portmap=0:1", "portmap=1:65536", "portmap=1:2/icmp", "portmap=1:2:3", "IP=10.0.0.1;K=V", "IP=10.0.0.1/8",
		"IP=fe80::1%eth0", "IP=", "c:IP=10.0.0.1", "portmap=1023:80", "portmap=-1:5", "IP=10.0.0.1\x00"} {
		if got, err := ParseArgs(names, []string{bad}, 1024); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func TestResult(t *testing.T) {
	got, err := parseResult(`{"cniVersion":"1.0.0","interfaces":[{"name":"br0","mac":"x"},{"sandbox":"/n","name":"eth0"},{"name":"veth1"}],
		"ips":[{"version":"4","interface":-1,"address":"10.0.0.2/8","gateway":"10.0.0.1"},{"address":"fd00::2/64"}],
		"dns":{"nameservers":["10.0.0.1"],"domain":"d","search":["a.b"],"options":null}}`)
	want := &Result{IPs: []string{"10.0.0.2", "fd00::2"}, Servers: []string{"10.0.0.1"}, Search: []string{"a.b"}, outside: []string{"br0", "veth1"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "{", `{"ips":[` + strings.Repeat(`{"address":"1.2.3.4/8"},`, maxEntries) + `{}]}`, `{"ips":{}}`, `{"dns":[]}`} {
		if _, err := parseResult(bad); err == nil {
			t.Errorf("%.40q is taken for a result", bad)
		}
	}
}

// site is a place of configurations and of programs that are scripts.
func site(t *testing.T, script string) *Site {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"10-a.conflist": bridge, "bridge": script, "portmap": script, "host-local": script, "20-broken.conflist": "{", "x.conf": bridge} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &Site{Lists: dir, Plugins: []string{dir + "/nowhere", dir}, State: dir + "/state", Open: os.Open}
}

func TestFind(t *testing.T) {
	s := site(t, "")
	l, err := s.find([]string{"a"})
	if err != nil || l[0].name != "a" {
		t.Fatal(l, err)
	}
	if _, err = s.find([]string{"b"}); err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), "20-broken.conflist") {
		t.Errorf("a missing network: %v", err)
	}
}

// TestCall (SC-094, R1, R7): a program gets what the specification says and nothing of the
// caller's.
func TestCall(t *testing.T) {
	s := site(t, "#!/bin/sh\necho \"$(env | sort | tr '\\n' ' ')dir=$(pwd) fds=$(ls /proc/self/fd | wc -l)\"\ncat\n")
	t.Setenv("LD_PRELOAD", "/tmp/x")
	t.Setenv("IFS", "x")
	l, err := s.find([]string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	leak, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	out, err := s.call(&l[0].plugins[0], "ADD", "id", "/run/ns", "eth0", "IP=1.2.3.4", `{"config":1}`)
	if err != nil {
		t.Fatal(err)
	}
	want := "CNI_ARGS=IP=1.2.3.4 CNI_COMMAND=ADD CNI_CONTAINERID=id CNI_IFNAME=eth0 CNI_NETNS=/run/ns CNI_PATH=" + strings.Join(s.Plugins, ":") + " PATH=" + path + " PWD=/ dir=/ "
	if !strings.HasPrefix(out, want) || !strings.HasSuffix(out, "\n{\"config\":1}") {
		t.Errorf("the program saw %s\nwant %s", out, want)
	}
}

func TestComplaint(t *testing.T) {
	for script, want := range map[string]string{
		"#!/bin/sh\necho '{\"code\":7,\"msg\":\"no such bridge\",\"details\":\"x\"}'; exit 1\n": "the plug-in bridge says: no such bridge x",
		"#!/bin/sh\necho noise; exit 3\n":       "the plug-in bridge says: exit status 3",
		"#!/bin/sh\nhead -c 300000 /dev/zero\n": "more than 262144 bytes",
	} {
		s := site(t, script)
		l, err := s.find([]string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.call(&l[0].plugins[0], "ADD", "id", "", "eth0", "", ""); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", script, err, want)
		}
	}
}

func TestRecord(t *testing.T) {
	l, err := parse(bridge)
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{dir: t.TempDir(), list: []*attachment{{list: l, args: Args{IP: "10.0.0.9"}, device: "eth0", result: `{"ips":[]}`}, {list: l, device: "eth1"}}}
	if err := n.write(); err != nil {
		t.Fatal(err)
	}
	old := n.list
	if err := n.load(); err != nil || !reflect.DeepEqual(n.list, old) {
		t.Errorf("read %+v, %v, want %+v", n.list, err, old)
	}
	text, err := os.ReadFile(n.dir + "/record")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{string(text[:len(text)-1]), string(text) + "x", "x\x00\x00\x00\x00"} {
		if _, err := parseRecord(bad); err == nil {
			t.Errorf("%q is taken for a record", bad)
		}
	}
}

func TestOwned(t *testing.T) {
	s := &Site{State: "/s"}
	if p, err := s.Owned(1000, "u1000-ab"); err != nil || p != "/s/u1000-ab/net" {
		t.Error(p, err)
	}
	for _, bad := range []string{"", "u100-ab", "u10000-ab", "u1000-../x", "u1000", "../u1000-ab"} {
		if p, err := s.Owned(1000, bad); err == nil {
			t.Errorf("%q leads to %s", bad, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(bridge)
	for _, file := range []string{"00_bridge", "10_ptp", "20_ipvlan", "30_macvlan", "40_fakeroot"} {
		text, err := os.ReadFile("../../container/network/conf/" + file + ".conflist")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parse(text)
		if err != nil {
			return
		}
		args := Args{Ports: []Port{{1, 2, "tcp"}}, IP: "10.0.0.1"}
		for i := range l.plugins {
			config := l.config(&l.plugins[i], &args, `{"ips":[]}`)
			if !json.Valid([]byte(config)) {
				t.Fatalf("plug-in %d reads %q", i, config)
			}
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add(`{"interfaces":[{"name":"br0"}],"ips":[{"address":"10.0.0.2/8"}],"dns":{"nameservers":["10.0.0.1"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseResult(text); err == nil && !json.Valid([]byte(text)) {
			t.Fatalf("%q is no JSON", text)
		}
		complaint(text, "")
	})
}

func FuzzArgs(f *testing.F) {
	f.Add("portmap=8080:80/tcp;b:IP=10.0.0.1")
	f.Fuzz(func(t *testing.T, text string) {
		args, err := ParseArgs([]string{"a", "b"}, []string{text}, 0)
		if err != nil {
			return
		}
		for _, a := range args {
			if a.String() == "" {
				continue
			}
			again, err := ParseArgs([]string{"a"}, []string{a.String()}, 0)
			if err != nil || !reflect.DeepEqual(again[0], a) {
				t.Fatalf("%+v is read again as %+v, %v", a, again, err)
			}
		}
	})
}

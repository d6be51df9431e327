package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types/create"

	"singularity/linux/cni"
)

// plugin records its environment and what it reads, and answers in the version
// that it was asked in.
const plugin = `#!/bin/sh
n=$(ls RECORD | wc -l)
text=$(cat)
{ env | grep ^CNI_ | sort; printf '\n%s' "$text"; } >RECORD/$(printf %03d $n)
case $text in
*'"cniVersion":"1.0.0"'*) ip='{"interface":0,"address":"10.9.0.2/24","gateway":"10.9.0.1"}' v=1.0.0 ;;
*'"cniVersion":"0.4.0"'*) ip='{"version":"4","interface":0,"address":"10.9.0.2/24"}' v=0.4.0 ;;
*) ip='{"version":"4","interface":0,"address":"10.9.0.2/24"}' v=0.3.1 ;;
esac
[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"'$v'","interfaces":[{"name":"eth0","mac":"0a:00:00:00:00:01","sandbox":"'$CNI_NETNS'"}],"ips":['$ip'],"dns":{"nameservers":["10.9.0.1"]}}'
`

// lists are configurations, with what administrators write in them.
func lists(t *testing.T) map[string]string {
	out := map[string]string{
		"chain": `{"cniVersion": "1.0.0", "name": "chain", "disableCheck": true, "plugins": [
			{"type": "one", "bridge": "br\u00e9\"\\", "mtu": 1e3, "deep": {"a": [1, 2.5, -3, true, null, {"b": "\t"}]}, "ipam": {"type": "two", "ranges": [[{"subnet": "10.0.0.0/8"}]]}, "dns": {"nameservers": ["1.1.1.1"]}},
			{"type": "two", "capabilities": {"portMappings": true, "bandwidth": true, "other": false}, "snat": true, "args": {"labels": []}},
			{"type": "three", "capabilities": {"portMappings": false}, "name": "mine", "cniVersion": "0.3.0", "prevResult": {"ips": []}, "runtimeConfig": {"x": 1}}]}`,
		"older": `{"cniVersion": "0.4.0", "name": "older", "plugins": [{"type": "one"}, {"type": "two", "capabilities": {"portMappings": true}}]}`,
		"old":   `{"cniVersion": "0.3.1", "name": "old", "unknown": {"x": []}, "plugins": [{"type": "one", "capabilities": {"portMappings": true}}, {"type": "two"}]}`,
	}
	shipped, err := filepath.Glob("../../container/network/conf/*.conflist")
	if err != nil || len(shipped) == 0 {
		t.Fatal(shipped, err)
	}
	for _, file := range shipped {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var l struct{ Name string }
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
		out[l.Name] = string(text)
	}
	return out
}

// TestCNI: libcni calls the same programs in the same order as we do, with the
// same environment and the same input, when a network is attached and detached.
func TestCNI(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, who makes network namespaces")
	}
	for name, text := range lists(t) {
		t.Run(name, func(t *testing.T) {
			record := t.TempDir()
			dir := site(t, text, record)
			s := &cni.Site{Lists: dir, Plugins: []string{dir}, State: filepath.Join(t.TempDir(), "state"), Open: os.Open}
			list, err := libcni.NetworkConfFromBytes([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			args, ports := cni.Args{IP: "10.9.0.2"}, []map[string]any(nil)
			if strings.Contains(text, `"portMappings": true`) {
				args.Ports = []cni.Port{{Host: 8080, Container: 80, Protocol: "tcp"}, {Host: 53, Container: 5353, Protocol: "udp"}}
				for _, p := range args.Ports {
					ports = append(ports, map[string]any{"hostPort": p.Host, "containerPort": p.Container, "protocol": p.Protocol})
				}
			}
			n, err := s.Attach(1234, []string{name}, []cni.Args{args})
			if err != nil {
				t.Fatal(err)
			}
			runtime := &libcni.RuntimeConf{ContainerID: n.ID, NetNS: n.Path(), IfName: "eth0", Args: [][2]string{{"IgnoreUnknown", "1"}, {"IP", args.IP}}}
			if ports != nil {
				runtime.CapabilityArgs = map[string]any{"portMappings": ports}
			}
			theirs := libcni.NewCNIConfigWithCacheDir([]string{dir}, t.TempDir(), nil)
			ours := take(t, record)
			if _, err := theirs.AddNetworkList(context.Background(), list, runtime); err != nil {
				t.Fatal(err)
			}
			sameCalls(t, take(t, record), ours)
			if len(ours) != len(list.Plugins) {
				t.Errorf("%d programs were called, want %d", len(ours), len(list.Plugins))
			}
			if err := theirs.DelNetworkList(context.Background(), list, runtime); err != nil {
				t.Fatal(err)
			}
			want := take(t, record)
			if err := n.Detach(); err != nil {
				t.Fatal(err)
			}
			sameCalls(t, want, take(t, record))
		})
	}
}

// site is a directory with a configuration and programs.
func site(t *testing.T, text, record string) string {
	t.Helper()
	dir := t.TempDir()
	script := strings.ReplaceAll(plugin, "RECORD", record)
	files := map[string]string{"net.conflist": text}
	for _, p := range []string{"one", "two", "three", "bridge", "ptp", "ipvlan", "macvlan", "host-local", "firewall", "portmap", "loopback", "dhcp", "tuning", "static"} {
		files[p] = script
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// call is one call of a program.
type call struct {
	env   string
	input map[string]any
}

// take returns the calls so far, and forgets them.
func take(t *testing.T, record string) (calls []call) {
	t.Helper()
	files, err := filepath.Glob(record + "/*")
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(files)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		env, input, _ := strings.Cut(string(text), "\n\n")
		c := call{env: env}
		if err := json.Unmarshal([]byte(input), &c.input); err != nil {
			t.Fatalf("%v in %q", err, input)
		}
		calls = append(calls, c)
		os.Remove(f)
	}
	return calls
}

// sameCalls wants the same calls. The result of a program before goes through
// libcni's own types, which leave out what they do not know.
func sameCalls(t *testing.T, want, got []call) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d calls, and libcni makes %d", len(got), len(want))
	}
	for i := range want {
		if want[i].env != got[i].env {
			t.Errorf("call %d: environment\n%s\nwant\n%s", i, got[i].env, want[i].env)
		}
		for _, c := range []*call{&want[i], &got[i]} {
			if prev, ok := c.input["prevResult"]; ok {
				b, err := json.Marshal(prev)
				if err != nil {
					t.Fatal(err)
				}
				r, err := create.Create(fmt.Sprint(c.input["cniVersion"]), b)
				if err != nil {
					t.Fatal(err)
				}
				c.input["prevResult"] = r
			}
		}
		if !reflect.DeepEqual(want[i].input, got[i].input) {
			w, _ := json.Marshal(want[i].input)
			g, _ := json.Marshal(got[i].input)
			t.Errorf("call %d: input\n%s\nwant\n%s", i, g, w)
		}
	}
}

// TestCNIRefused: what libcni does not take for a configuration we do not take
// either.
func TestCNIRefused(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, `{"cniVersion":"1.0.0","name":"a"}`, `{"cniVersion":"1.0.0","name":"a","plugins":[]}`, `{"cniVersion":"1.0.0","name":"","plugins":[{"type":"one"}]}`,
		`{"cniVersion":"1.0.0","name":"a","plugins":[{}]}`, `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":1}]}`, `{"cniVersion":"1.0.0","name":"a","plugins":{"type":"one"}}`,
		`{"cniVersion":"9.0.0","name":"a","plugins":[{"type":"one"}]}`, `{"cniVersion":1,"name":"a","plugins":[{"type":"one"}]}`,
		`{"cniVersion":"1.0.0","name":1,"plugins":[{"type":"one"}]}`, `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"one"}]} x`,
		`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"one","capabilities":[]}]}`, `{"cniVersion":"1.0.0","name":"a","plugins":["one"]}`, `{"name":"a","plugins":[`,
	} {
		dir := site(t, text, t.TempDir())
		s := &cni.Site{Lists: dir, Plugins: []string{dir}, State: filepath.Join(t.TempDir(), "state"), Open: os.Open}
		_, theirs := libcni.NetworkConfFromBytes([]byte(text))
		n, ours := s.Attach(1234, []string{"a"}, make([]cni.Args, 1))
		if ours == nil {
			n.Detach()
			t.Errorf("%s is taken for a configuration (libcni says %v)", text, theirs)
		}
	}
}

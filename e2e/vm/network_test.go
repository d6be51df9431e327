package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworkKinds: the installed networks ipvlan and macvlan, whose kernel modules
// not every machine has, get their addresses, and nothing is left.
func TestNetworkKinds(t *testing.T) {
	root := image(t)
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if kind := os.Getenv("VM_KIND"); kind != "v2-root" {
		t.Skip("runs in v2-root, this is ", kind)
	}
	if _, err := os.Stat("/usr/lib/cni/ipvlan"); err != nil {
		t.Skip("needs CNI plug-ins: ", err)
	}
	for _, name := range []string{"ip", "ping"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	host := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// The installed files want an interface called eth0; the other end of it is
	// the gateway, in a namespace of its own.
	host("ip", "netns", "add", "gateway")
	t.Cleanup(func() { host("ip", "netns", "del", "gateway") })
	host("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "gw0", "netns", "gateway")
	host("ip", "link", "set", "eth0", "up")
	host("ip", "-n", "gateway", "addr", "add", "192.168.1.254/24", "dev", "gw0")
	host("ip", "-n", "gateway", "link", "set", "gw0", "up")
	for _, kind := range []string{"ipvlan", "macvlan"} {
		out, status := run(t, "exec", "--net", "--network", kind, root, "sh", "-c", "ip -4 -o addr show eth0; ip route; ping -c 1 -w 10 192.168.1.254")
		for _, want := range []string{"192.168.1.1/24", "default via 192.168.1.254", " 0% packet loss"} {
			if status != 0 || !strings.Contains(out, want) {
				t.Fatalf("%s: status %d, no %q in\n%s", kind, status, want, out)
			}
		}
		if left, _ := os.ReadDir("/run/singularity/network"); len(left) > 0 {
			t.Errorf("%s: left in /run/singularity/network: %v", kind, left)
		}
	}
}

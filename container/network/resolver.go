package network

import (
	"net/netip"
	"os"
	"strings"
)

// upstreamFile has the name servers behind that of systemd, which listens on the
// host's loopback device.
const upstreamFile = "/run/systemd/resolve/resolv.conf"

// upstream returns the name servers that a container must ask itself, as it does
// not reach the host's loopback device; none if it can ask those of resolv, the
// host's file.
func upstream(resolv, behind string) []string {
	servers := nameServers(resolv)
	for _, s := range servers {
		if ip, err := netip.ParseAddr(s); err != nil || !ip.IsLoopback() {
			return nil
		}
	}
	if len(servers) == 0 {
		return nil
	}
	return nameServers(behind)
}

// nameServers reads the name servers of a file like resolv.conf.
func nameServers(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			list = append(list, f[1])
		}
	}
	return list
}

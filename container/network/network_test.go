package network

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"singularity/linux/cni"
)

func TestUpstream(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	behind := file("behind", "# x\nnameserver 192.0.2.1\nnameserver fd00::1\nsearch a\n")
	for text, want := range map[string][]string{
		"nameserver 127.0.0.53\noptions edns0\n":       {"192.0.2.1", "fd00::1"},
		"nameserver ::1\n":                             {"192.0.2.1", "fd00::1"},
		"nameserver 127.0.0.1\nnameserver 192.0.2.9\n": nil,
		"nameserver 192.0.2.9\n":                       nil,
		"":                                             nil,
		"nameserver fe80::1%eth0\n# nameserver 127.0.0.1 x y\n": nil,
	} {
		if got := upstream(file("resolv", text), behind); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := upstream(file("resolv", "nameserver 127.0.0.1\n"), dir+"/none"); got != nil {
		t.Errorf("without the other file: %q", got)
	}
}

func TestOwnRefuses(t *testing.T) {
	for words, want := range map[string]string{"IP=10.0.0.1": "chooses the address", "portmap=0:1": "is not two ports"} {
		_, err := Own("sh", []string{words}) // any program of the system
		if os.IsNotExist(err) || err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), ErrNoTun.Error()) {
			t.Errorf("%s: %v", words, err)
		}
	}
	if _, err := Own("no-such-program", nil); err == nil || !strings.Contains(err.Error(), "cannot find the program") {
		t.Error(err)
	}
	if err := onlyTCPAndUDP([]cni.Port{{Host: 1, Container: 1, Protocol: "sctp"}}); err == nil {
		t.Error("sctp is taken")
	}
}

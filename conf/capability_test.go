package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCapabilities(t *testing.T) {
	file := filepath.Join(t.TempDir(), "capability.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := LoadCapabilities(file, OpenSite); err != nil || c.Granted("ada") != nil {
		t.Errorf("no file: got %v %v", c, err)
	}
	write(`{"users": {"ada": ["CAP_KILL"], "bob": ["CAP_CHOWN"]}, "groups": {"net": ["CAP_NET_RAW"], "x": null}}`)
	c, err := LoadCapabilities(file, OpenSite)
	if err != nil {
		t.Fatal(err)
	}
	if caps := c.Granted("ada", "net", "x"); !slices.Equal(caps, []string{"CAP_KILL", "CAP_NET_RAW"}) {
		t.Errorf("got %q", caps)
	}
	for _, bad := range []string{``, `{"users": []}`, `{"user": {}}`, `{"users": {"ada": "CAP_KILL"}}`} {
		write(bad)
		if c, err := LoadCapabilities(file, OpenSite); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v %v", bad, c, err)
		}
	}
}

func FuzzCapability(f *testing.F) {
	f.Add(`{"users": {"ada": ["CAP_KILL"]}, "groups": {"net": ["CAP_NET_RAW"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadCapabilities(strings.NewReader(text))
		if err == nil && len(c.Granted("ada", "net")) > 2*maxGranted {
			t.Errorf("%d capabilities of one user and one group", len(c.Granted("ada", "net")))
		}
	})
}

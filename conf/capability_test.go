package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestGrantedCaps(t *testing.T) {
	file := filepath.Join(t.TempDir(), "capability.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if caps, err := GrantedCaps(file, "ada"); err != nil || caps != nil {
		t.Errorf("no file: got %q %v", caps, err)
	}
	write(`{"users": {"ada": ["CAP_KILL"], "bob": ["CAP_CHOWN"]}, "groups": {"net": ["CAP_NET_RAW"], "x": null}}`)
	if caps, err := GrantedCaps(file, "ada", "net", "x"); err != nil || !slices.Equal(caps, []string{"CAP_KILL", "CAP_NET_RAW"}) {
		t.Errorf("got %q %v", caps, err)
	}
	for _, bad := range []string{``, `{"users": []}`, `{"user": {}}`, `{"users": {"ada": "CAP_KILL"}}`} {
		write(bad)
		if caps, err := GrantedCaps(file, "ada"); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %q %v", bad, caps, err)
		}
	}
}

func FuzzCapability(f *testing.F) {
	f.Add(`{"users": {"ada": ["CAP_KILL"]}, "groups": {"net": ["CAP_NET_RAW"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if caps, err := parseCapability(text, "ada", []string{"net"}); err == nil && len(caps) > 2*maxGranted {
			t.Errorf("%d capabilities of one user and one group", len(caps))
		}
	})
}

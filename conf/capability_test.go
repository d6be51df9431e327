package conf

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	for _, bad := range []string{``, `{"users": []}`, `{"user": {}}`, `{"users": {"ada": "CAP_KILL"}}`, `{"users": {}, "users": {}}`,
		`{"users": {"ada": [], "ada": []}}`, `{"users": {"ada": ["A",]}}`, `{"users": {"ada": ["A" "B"]}}`, `{"users": {"ada": ["A"}}`, `{"users" {}}`,
		`{"users": {"\x61da": []}}`, `{"users": {"ada\`, "{\"users\": {\"a\tb\": []}}", `{} x`, "{\"users\": {\"\xff\": []}}", `{,}`, `[]`,
		`{"users": {"ada": [` + strings.Repeat(`"A",`, maxGranted) + `"A"]}}`} {
		write(bad)
		if c, err := LoadCapabilities(file, OpenSite); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v %v", bad, c, err)
		}
	}
}

// FuzzCapability: encoding/json reads the same from all that is accepted.
func FuzzCapability(f *testing.F) {
	f.Add(`{"users": {"DOM\\ada": ["CAP_KILL", "\u0041"], "b": null}, "groups": {}}`)
	f.Add(`{"users": {"ada": ["CAP_KILL"]}, "groups": {"net": ["CAP_NET_RAW"]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadCapabilities(strings.NewReader(text))
		if err == nil && len(c.Granted("ada", "net")) > 2*maxGranted {
			t.Errorf("%d capabilities of one user and one group", len(c.Granted("ada", "net")))
		}
		want := Capabilities{}
		if err != nil {
			return
		}
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("%q is accepted, and is no JSON: %v", text, err)
		}
		if diff := cmp.Diff(&want, c, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("want - got +\n%s", diff)
		}
	})
}

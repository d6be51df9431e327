package bundle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/sif"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// create makes a bundle of three files, and opens it.
func create(t *testing.T, at time.Time, policy string) (*Bundle, string) {
	t.Helper()
	dir := t.TempDir()
	p := filepath.Join(dir, "out.sif")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	_, err = Create(context.Background(), f, "site-1", at, []Item{
		{Kind: Images, Name: "a.sif", Path: write(t, filepath.Join(dir, "a"), strings.Repeat("image", 10000))},
		{Kind: Policy, Name: "ecl.toml", Path: write(t, filepath.Join(dir, "b"), policy)},
		{Kind: Keys, Name: "global-pgp-public", Path: write(t, filepath.Join(dir, "c"), "")},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, p), p
}

func open(t *testing.T, p string) *Bundle {
	t.Helper()
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, _ := f.Stat()
	s, err := sif.Open(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var day = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func TestRoundTrip(t *testing.T) {
	b, _ := create(t, day, "one")
	dir := t.TempDir()
	if err := b.Import(context.Background(), dir, false, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"images/a.sif": strings.Repeat("image", 10000), "policy/ecl.toml": "one", "keys/global-pgp-public": ""} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	// A newer one replaces, an older one does not.
	next, _ := create(t, day.Add(time.Hour), "two")
	if err := next.Import(context.Background(), dir, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Import(context.Background(), dir, false, nil); !errors.Is(err, ErrOlder) {
		t.Errorf("an older bundle: %v", err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "policy/ecl.toml")); string(got) != "two" {
		t.Errorf("policy %q", got)
	}
	if err := b.Import(context.Background(), dir, true, nil); err != nil {
		t.Error(err)
	}
}

// TestDamage: a file whose bytes are not those of the manifest gets no name.
func TestDamage(t *testing.T) {
	_, p := create(t, day, "policy-text")
	raw, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(raw), "policy-text")
	raw[at] ^= 1
	if err := os.WriteFile(p, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := open(t, p).Import(context.Background(), dir, false, nil); err == nil || !strings.Contains(err.Error(), "policy/ecl.toml") {
		t.Errorf("damage: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*/*"))
	hidden, _ := filepath.Glob(filepath.Join(dir, "*/.*"))
	if len(left)+len(hidden) != 0 {
		t.Errorf("left: %q %q", left, hidden)
	}
}

func TestHostileManifests(t *testing.T) {
	good := Item{Kind: Images, Name: "a", SHA256: strings.Repeat("0", 64)}
	for name, m := range map[string]Manifest{
		"version": {Version: 2, Name: "x"},
		"name":    {Version: 1, Name: "a b"},
		"kind":    {Version: 1, Name: "x", Items: []Item{{Kind: "../..", Name: "a", SHA256: good.SHA256}}},
		"path":    {Version: 1, Name: "x", Items: []Item{{Kind: Images, Name: "../a", SHA256: good.SHA256}}},
		"hidden":  {Version: 1, Name: "x", Items: []Item{{Kind: Images, Name: ".bundle.json", SHA256: good.SHA256}}},
		"twice":   {Version: 1, Name: "x", Items: []Item{good, good}},
		"size":    {Version: 1, Name: "x", Items: []Item{{Kind: Images, Name: "a", Size: -1, SHA256: good.SHA256}}},
		"digest":  {Version: 1, Name: "x", Items: []Item{{Kind: Images, Name: "a"}}},
	} {
		if m.check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestLinks: what lies in the directory already leads nothing out of it.
func TestLinks(t *testing.T) {
	b, _ := create(t, day, "x")
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "images")); err != nil {
		t.Fatal(err)
	}
	err := b.Import(context.Background(), dir, false, nil)
	if left, _ := os.ReadDir(outside); err == nil || len(left) != 0 {
		t.Errorf("err %v, outside %v", err, left)
	}
}

package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestActive(t *testing.T) {
	for name, c := range map[string]struct{ user, system, want, token, err string }{
		"none":      {},
		"user":      {user: "Active: a\nRemotes: {a: {URI: h.org, Token: t}}\n", want: "a", token: "t"},
		"system":    {system: "Active: s\nRemotes: {s: {URI: s.org}}\n", want: "s"},
		"log-in":    {user: "Remotes: {s: {URI: s.org, Token: t, System: true}}", system: "Active: s\nRemotes: {s: {URI: s.org}}", want: "s", token: "t"},
		"exclusive": {user: "Active: a\nRemotes: {a: {URI: h.org}}", system: "Remotes: {s: {URI: s.org, Exclusive: true}}", want: "s"},
		"clash":     {user: "Remotes: {s: {URI: h.org}}", system: "Remotes: {s: {URI: s.org}}", err: "is in the user's file and in that"},
		"unknown":   {user: "Nosuch: 1\n", err: "not found in type"},
		"no URI":    {user: "Remotes: {a: {Token: x}}\n", err: "no URI"},
		"null":      {user: "Remotes: {a: }\n", err: "no URI"},
	} {
		dir := t.TempDir()
		user, system := filepath.Join(dir, "u"), filepath.Join(dir, "s")
		os.WriteFile(user, []byte(c.user), 0o600)
		os.WriteFile(system, []byte(c.system), 0o600)
		got, e, err := Active(user, system)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want || c.want != "" && e.Token != c.token {
			t.Errorf("%s: got %q, %+v, %v", name, got, e, err)
		}
	}
}

func TestChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "remote.yaml")
	add := func(name string) error {
		return Change(path, 0o600, func(f *File) error { return f.Add(name, &Endpoint{URI: name + ".org"}) })
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := add(fmt.Sprint("r", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := Read(path)
	if err != nil || len(f.Remotes) != 20 {
		t.Fatalf("got %d remotes, %v, want 20", len(f.Remotes), err)
	}
	if err := add("r1"); err == nil {
		t.Error("a name twice: no error")
	}
	for _, bad := range []string{"", "a b", "a/b", "a:b", "a\nb"} {
		if err := add(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("got mode %v, %v", st.Mode(), err)
	}
	left, _ := filepath.Glob(filepath.Dir(path) + "/.*")
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("Active: a\nRemotes: {a: {URI: h.org, Keyservers: [{URI: k}]}}\nCredentials: [{URI: u, Auth: x}]\n"))
	f.Fuzz(func(t *testing.T, in []byte) { Parse(in) })
}

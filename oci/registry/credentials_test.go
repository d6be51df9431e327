package registry

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func auth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOrder(t *testing.T) {
	dir := t.TempDir()
	r := &Resolver{
		Explicit: Auth{Username: "flag", Password: "x"},
		AuthFile: write(t, dir+"/a", `{"auths":{"a.org":{"auth":"`+auth("authfile", "x")+`"}}}`),
		Own:      write(t, dir+"/b", `{"auths":{"a.org":{"auth":"`+auth("no", "x")+`"},"b.org":{"auth":"`+auth("own", "x")+`"}}}`),
		Others:   []string{dir + "/none", write(t, dir+"/c", `{"auths":{"b.org":{"auth":"`+auth("no", "x")+`"},"c.org/x":{"username":"path","password":"x"},"c.org":{"identitytoken":"t"}}}`)},
	}
	for _, c := range []struct {
		repo, user, source string
		explicit           bool
	}{
		{"a.org/x", "flag", "flags and variables", true}, {"a.org/x", "authfile", dir + "/a", false}, {"b.org/x", "own", dir + "/b", false},
		{"c.org/x/y", "path", dir + "/c", false}, {"c.org/xy", "", dir + "/c", false}, {"d.org/x", "", "", false},
	} {
		got, err := r.For(c.repo, c.explicit)
		if err != nil || got.Username != c.user || got.Source != c.source {
			t.Errorf("%s: got %+v, %v", c.repo, got, err)
		}
	}
	if got := len(r.Order()); got != 6 {
		t.Errorf("order: %v", r.Order())
	}
	r.AuthFile = dir + "/none"
	if _, err := r.For("a.org/x", false); err == nil {
		t.Error("a missing --authfile is no error")
	}
	r.AuthFile = write(t, dir+"/bad", `{"auths":{"a.org":{"auth":"secret!"}}}`)
	if _, err := r.For("a.org/x", false); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("bad base64: got %v", err)
	}
}

// TestExactHost: SC-134, a host that looks like another is another.
func TestExactHost(t *testing.T) {
	m := map[string]int{"registry.example.org": 1, "https://index.docker.io/v1/": 2, "h.org:5000": 3, "https://x.org": 4}
	for repo, want := range map[string]int{
		"registry.example.org/a": 1, "registry.example.org.evil.org/a": 0, "evil.registry.example.org/a": 0, "registry.example.orgx/a": 0,
		"docker.io/library/a": 2, "index.docker.io/a": 2, "docker.io.evil.org/a": 0, "h.org:5000/a": 3, "h.org:50001/a": 0, "h.org/a": 0, "x.org/a": 4, "": 0,
	} {
		key, ok := find(m, repo)
		if got := m[key]; got != want || ok != (want != 0) {
			t.Errorf("%s: got %q", repo, key)
		}
	}
}

// TestHelper: SC-133, a helper that does not work ends the search.
func TestHelper(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	write(t, bin+"/docker-credential-good", "#!/bin/sh\nread -r host\n[ \"$host\" = h.org ] || { echo credentials not found in native keychain; exit 1; }\n"+
		`echo '{"ServerURL":"h.org","Username":"helper","Secret":"x"}'`+"\n")
	write(t, bin+"/docker-credential-bad", "#!/bin/sh\necho secret; echo broken >&2; exit 1\n")
	write(t, bin+"/docker-credential-odd", "#!/bin/sh\necho secret\n")
	next := write(t, dir+"/next", `{"auths":{"h.org":{"auth":"`+auth("next", "x")+`"},"i.org":{"auth":"`+auth("next", "x")+`"}}}`)
	for name, c := range map[string]struct{ file, repo, user, err string }{
		"store":   {`{"credsStore":"good"}`, "h.org/x", "helper", ""},
		"nothing": {`{"credsStore":"good"}`, "i.org/x", "next", ""},
		"host":    {`{"credHelpers":{"h.org":"good"},"credsStore":"bad"}`, "h.org/x", "helper", ""},
		"broken":  {`{"credHelpers":{"h.org":"bad"}}`, "h.org/x", "", "broken"},
		"odd":     {`{"credsStore":"odd"}`, "h.org/x", "", "no JSON"},
		"missing": {`{"credsStore":"none"}`, "h.org/x", "", "not found"},
		"path":    {`{"credsStore":"../x"}`, "h.org/x", "", "no name of a helper"},
		"empty":   {``, "h.org/x", "next", ""},
	} {
		r := &Resolver{Own: write(t, dir+"/own", c.file), Others: []string{next}}
		got, err := r.For(c.repo, true)
		if c.err != "" {
			if _, ok := errors.AsType[*HelperError](err); !ok || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil || got.Username != c.user {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.json")
	var wg sync.WaitGroup
	for _, host := range []string{"a.org", "b.org:5000", "docker.io"} {
		wg.Go(func() {
			if err := Store(path, host, Auth{Username: "u", Password: "p:q"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := List(path); err != nil || strings.Join(list, " ") != "a.org b.org:5000 docker.io" {
		t.Errorf("got %v, %v", list, err)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	r := &Resolver{Own: path}
	if got, err := r.For("docker.io/library/x", true); err != nil || got.Username != "u" || got.Password != "p:q" {
		t.Errorf("got %+v, %v", got, err)
	}
	write(t, path, `{"auths":{"a.org":{"auth":"x"},"k":{"email":"e"}},"other":{"keep":1}}`)
	if err := Erase(path, "a.org"); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), `"keep": 1`) || !strings.Contains(string(text), "email") || strings.Contains(string(text), "a.org") {
		t.Errorf("got %s", text)
	}
	if err := Erase(path, "a.org"); !errors.Is(err, ErrNotLoggedIn) {
		t.Errorf("got %v", err)
	}
	write(t, path, `[secret`)
	if err := Store(path, "a.org", Auth{}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"h.org":{"auth":"dTpw"}},"credHelpers":{"i.org":""}}`), "h.org/x")
	f.Fuzz(func(t *testing.T, text []byte, repo string) {
		a, err := ParseAuthFile(text)
		if err != nil {
			return
		}
		if key, ok := find(a.Auths, repo); ok {
			e := a.Auths[key]
			e.credentials()
		}
		a.helper(repo)
	})
}

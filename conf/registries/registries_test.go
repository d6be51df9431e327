package registries

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const text = `
unqualified-search-registries = ["docker.io"]
proxy = "http://proxy:3128"
[[registry]]
prefix = "docker.io"
[[registry.mirror]]
location = "mirror.example.org/hub"
insecure = true
[[registry]]
prefix = "docker.io/evil"
blocked = true
[[registry]]
location = "reg.example.org:5000"
ca = "/ca.pem"
auth-hosts = ["auth.example.org"]
`

func TestEndpoints(t *testing.T) {
	f, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	list, err := f.Endpoints("docker.io/library/debian", true)
	if err != nil || len(list) != 2 || list[0].Repository != "mirror.example.org/hub/library/debian" || !list[0].Insecure ||
		!list[0].Mirror || list[1].Repository != "docker.io/library/debian" || list[1].Insecure {
		t.Errorf("got %+v, %v", list, err)
	}
	if list, _ := f.Endpoints("docker.io/library/debian", false); len(list) != 1 || list[0].Mirror {
		t.Errorf("without mirrors: got %+v", list)
	}
	if _, err := f.Endpoints("docker.io/evil/x", true); !errors.Is(err, ErrBlocked) {
		t.Errorf("blocked: got %v", err)
	}
	if list, err := f.Endpoints("docker.io/evilness/x", true); err != nil || len(list) != 2 {
		t.Errorf("a name that begins alike: got %+v, %v", list, err)
	}
	if list, _ := f.Endpoints("reg.example.org:5000/a", true); list[0].CA != "/ca.pem" || list[0].AuthHosts[0] != "auth.example.org" {
		t.Errorf("got %+v", list)
	}
	// SC-134: a host that begins like a known one is another host.
	for _, repo := range []string{"reg.example.org:5000.evil.org/a", "reg.example.org:50001/a", "docker.io.evil.org/a"} {
		if list, err := f.Endpoints(repo, true); err != nil || len(list) != 1 || list[0].Repository != repo || list[0].CA != "" {
			t.Errorf("%s: got %+v, %v", repo, list, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	os.WriteFile(one, []byte("[[registry]]\nprefix=\"a.org\"\nlocation=\"b.org\"\n"), 0o600)
	os.WriteFile(two, []byte("offline=true\n[[registry]]\nprefix=\"a.org\"\nlocation=\"c.org\"\n"), 0o600)
	f, err := Load(one, filepath.Join(dir, "none"), two)
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := f.Endpoints("a.org/x", true); list[0].Repository != "b.org/x" || !f.Offline {
		t.Errorf("got %+v, offline %v", list, f.Offline)
	}
}

func TestParseBad(t *testing.T) {
	for in, want := range map[string]string{
		"nosuch = 1\n":                                      "unknown key \"nosuch\"",
		"[[registry]]\ninsecure = true\n":                   "needs a prefix",
		"[[registry]]\nprefix = \"*.example.org\"\n":        "name each",
		"[[registry]]\nlocation = \"https://a.org\"":        "a host is wanted",
		"proxy = 3\n":                                       "line 1",
		"#" + strings.Repeat("x", maxSize):                  "larger",
		"[[registry]]\nprefix=\"a\"\n[[registry.mirror]]\n": "a host is wanted",
	} {
		if _, err := Parse([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(text))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := Parse(in)
		if err != nil {
			return
		}
		list, err := c.Endpoints("docker.io/library/debian", true)
		if err == nil && len(list) == 0 {
			t.Error("no endpoint and no error")
		}
	})
}

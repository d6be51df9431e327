package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/client/transfer"
	"singularity/fetch/cache"
)

// hub speaks the protocol of Singularity Hub as its documentation and its last
// answers have it; no server does any more.
func hub(t *testing.T, answer string) (*Fetcher, string, *[]string) {
	t.Helper()
	var asked []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/container/"):
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, strings.ReplaceAll(answer, "HUB", "https://"+r.Host))
		case r.URL.Path == "/data/image.sif":
			fmt.Fprint(w, "the image")
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"detail":"Not found."}`)
		}
	}))
	t.Cleanup(s.Close)
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Fetcher{Cache: c, HTTP: s.Client(), TempDir: t.TempDir(), Platform: HostPlatform()}, s.Listener.Addr().String(), &asked
}

// recorded is an answer as the API gave them: of its fields two count.
const recorded = `{"id":1234,"name":"vsoch/hello-world","image":"HUB/data/image.sif","branch":"master",` +
	`"commit":"3bac21df631874e3cbb3f0cf6fc9af1898f4cc3d","tag":"latest","version":"3f2e6c1b5a","build_date":"2018-05-16T12:08:57.263Z","size_mb":62,"metrics":{}}`

// TestShub: an image by name, by tag, through the cache the second time.
func TestShub(t *testing.T) {
	f, host, asked := hub(t, recorded)
	for name, path := range map[string]string{"": "", ":v1": ":v1"} {
		r, err := Parse("shub://"+host+"/vsoch/hello-world"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(t.TempDir(), "image.sif")
		if _, err := f.Pull(t.Context(), r, dst, false, 0o755, nil); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(dst); string(got) != "the image" {
			t.Errorf("got %q", got)
		}
		*asked = nil
		if _, err := f.Pull(t.Context(), r, dst, true, 0o755, nil); err != nil {
			t.Fatal(err)
		}
		if len(*asked) != 1 || (*asked)[0] != "GET /api/container/vsoch/hello-world"+path {
			t.Errorf("the second time asked %q", *asked)
		}
	}
}

// TestShubBad: what a hub says is not believed.
func TestShubBad(t *testing.T) {
	for name, answer := range map[string]string{
		"no address": `{"version":"1"}`, "plain": `{"image":"http://example.org/x"}`, "file": `{"image":"file:///etc/passwd"}`,
		"no JSON": "<html>", "gone": `{"image":"HUB/data/gone","version":"2"}`, "endless": `{"image":"` + strings.Repeat("x", 2<<20) + `"}`,
	} {
		f, host, _ := hub(t, answer)
		r, err := Parse("shub://"+host+"/u/n", nil)
		if err != nil {
			t.Fatal(err)
		}
		dst := filepath.Join(t.TempDir(), "image.sif")
		_, err = f.Pull(t.Context(), r, dst, false, 0o755, nil)
		if err == nil {
			t.Errorf("%s: got an image", name)
		}
		if _, ok := errors.AsType[*transfer.StatusError](err); ok != (name == "gone") {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := os.Stat(dst); err == nil {
			t.Errorf("%s: left a file", name)
		}
	}
}

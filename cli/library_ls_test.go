package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"singularity/client/keyserver"
)

func TestLibraryPlace(t *testing.T) {
	for text, want := range map[string]string{
		"": " ", "library://": " ", "lab": " lab", "library://lab/tools": " lab/tools", "/lab/": " lab", "library:lab/tools/tool": " lab/tools/tool",
		"library://images.example.org:8443/lab/tools/tool": "images.example.org:8443 lab/tools/tool", "library://images.example.org/lab/tools/tool": "images.example.org lab/tools/tool",
		"lab/tools/tool:1.0": "error", "lab//tool": "error", "a/b/c/d/e": "error", "library://lab/../tool": "error",
	} {
		host, name, err := libraryPlace(text)
		got := host + " " + name
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Pages of a list are put together, and what a library says does not reach the
// terminal as it is (SC-164).
func TestLibraryList(t *testing.T) {
	t.Setenv("SINGULARITY_CONFIGDIR", t.TempDir())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/entities/lab/collections", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("after") == "" {
			fmt.Fprint(w, `{"data":[{"name":"one","description":"No description"}],"page":{"next":"one"}}`)
			return
		}
		fmt.Fprint(w, `{"data":[{"name":"two","private":true,"description":"bad\u001b]52;c;AAAA\u0007\n\u202etext"}]}`)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	o := &libraryListOptions{fetchOptions: fetchOptions{library: s.URL, noHTTPS: true}}
	var out bytes.Buffer
	if err := libraryList(t.Context(), &out, o, "library://lab"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || strings.Fields(lines[0])[0] != "lab/one" || !strings.HasPrefix(lines[1], "lab/two  private") || strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
		t.Errorf("%q", out.String())
	}
	o.json = true
	out.Reset()
	var all []map[string]any
	if err := libraryList(t.Context(), &out, o, "lab"); err != nil || json.Unmarshal(out.Bytes(), &all) != nil || len(all) != 2 || all[1]["description"] != "bad\x1b]52;c;AAAA\a\n\u202etext" || strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
		t.Errorf("%v %q", err, out.String())
	}
	if got := o.complete("library://lab/t"); len(got) != 1 || got[0] != "library://lab/two" {
		t.Errorf("completed: %q", got)
	}
	if err := libraryList(t.Context(), &out, o, "nobody"); err == nil || !strings.Contains(err.Error(), "there is no nobody in the library") {
		t.Error(err)
	}
}

// SC-138: offline, nothing is sent to a library, a key server or an endpoint, not
// even a question for its name.
func TestOffline(t *testing.T) {
	t.Setenv("SINGULARITY_CONFIGDIR", t.TempDir())
	t.Setenv("SINGULARITY_OFFLINE", "1")
	connections := atomic.Int64{}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	o := &libraryListOptions{fetchOptions: fetchOptions{library: s.URL, noHTTPS: true}}
	client, err := o.open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := (&serverOptions{urls: []string{s.URL}}).client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := keyserver.ParseID("5994BE54C31CF1B5E1994F987C52CF6D055F072B")
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"ls":     func() error { return libraryList(t.Context(), io.Discard, o, "lab") },
		"find":   func() error { _, err := client.Find(t.Context(), "lab/tools/tool", "latest", "amd64"); return err },
		"search": func() error { _, err := client.Search(t.Context(), "tool", "amd64", false); return err },
		"delete": func() error { return client.Delete(t.Context(), "lab/tools/tool", "latest", "amd64") },
		"key":    func() error { _, err := keys.Get(t.Context(), id); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "offline") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := o.complete("la"); len(got) > 0 {
		t.Errorf("completed %q", got)
	}
	if n := connections.Load(); n > 0 {
		t.Errorf("%d connections", n)
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
	if err := libraryList(&out, o, "library://lab"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || strings.Fields(lines[0])[0] != "lab/one" || !strings.HasPrefix(lines[1], "lab/two  private") || strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
		t.Errorf("%q", out.String())
	}
	o.json = true
	out.Reset()
	var all []map[string]any
	if err := libraryList(&out, o, "lab"); err != nil || json.Unmarshal(out.Bytes(), &all) != nil || len(all) != 2 || all[1]["description"] != "bad\x1b]52;c;AAAA\a\n\u202etext" || strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
		t.Errorf("%v %q", err, out.String())
	}
	if got := o.complete("library://lab/t"); len(got) != 1 || got[0] != "library://lab/two" {
		t.Errorf("completed: %q", got)
	}
	if err := libraryList(&out, o, "nobody"); err == nil || !strings.Contains(err.Error(), "there is no nobody in the library") {
		t.Error(err)
	}
}

package source

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// get downloads an address and returns what came.
func get(t *testing.T, ctx context.Context, address string, limit int64) (string, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest, err := download(ctx, &testLog{}, address, f, limit)
	if err == nil && len(digest) != 64 {
		t.Errorf("got digest %q", digest)
	}
	data, _ := os.ReadFile(f.Name())
	return string(data), err
}

func TestDownload(t *testing.T) {
	var plain *httptest.Server
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("content")) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/lies", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("short"))
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1099511627776")
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	plain = httptest.NewServer(mux)
	defer plain.Close()
	ctx := context.Background()
	for _, path := range []string{"/good", "/moved"} {
		if data, err := get(t, ctx, plain.URL+path, 7); err != nil || data != "content" {
			t.Errorf("%s: got %q, %v", path, data, err)
		}
	}
	for path, want := range map[string]string{
		"/endless": "it has more than", "/lies": "unexpected EOF", "/big": "it has more than", "/loop": "more than 10 redirections",
		"/file": "which is not https", "/nosuch": "the server answered 404", "/good": "it has more than",
	} {
		limit := int64(1 << 20)
		if path == "/good" {
			limit = 6
		}
		if _, err := get(t, ctx, plain.URL+path, limit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	// Nobody sees the password of an address.
	secret := strings.Replace(plain.URL, "http://", "http://user:hunter2@", 1)
	for _, address := range []string{secret + "/nosuch", "http://user:hunter2@127.0.0.1:1/"} {
		if _, err := get(t, ctx, address, 0); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := get(t, ctx, plain.URL+"/good", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after an interrupt", err)
	}
}

// TestDowngrade follows no redirection from https to http.
func TestDowngrade(t *testing.T) {
	c := httpClient()
	via := func(address string) []*http.Request {
		r, _ := http.NewRequest(http.MethodGet, address, nil)
		return []*http.Request{r}
	}
	for _, to := range []string{"http://example.org/", "ftp://example.org/"} {
		r, _ := http.NewRequest(http.MethodGet, to, nil)
		if err := c.CheckRedirect(r, via("https://example.org/")); err == nil {
			t.Errorf("https was left for %q", to)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "https://example.org/", nil)
	if err := c.CheckRedirect(r, via("http://example.org/")); err != nil {
		t.Error(err)
	}
}

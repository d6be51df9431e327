package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var content = bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func plainClient(t *testing.T) *http.Client {
	t.Helper()
	tr, err := NewTransport(&Settings{Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(tr)
}

func target(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// breaking serves content and cuts each answer after n bytes.
func breaking(n int, ranges bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && ranges {
			from, _ = strconv.Atoi(strings.TrimSuffix(s, "-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
			w.Header().Set("Content-Length", strconv.Itoa(len(content)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		}
		end := min(from+n, len(content))
		w.Write(content[from:end])
		if end < len(content) {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
}

func TestResume(t *testing.T) {
	s := httptest.NewServer(breaking(300<<10, true))
	defer s.Close()
	d := &Download{Client: plainClient(t), URL: s.URL, Size: int64(len(content)), Digest: sum(content)}
	f := target(t)
	f.Write(content[:100]) // of an earlier try
	got, err := d.To(t.Context(), f)
	if err != nil || got != d.Digest {
		t.Fatalf("got %s, %v", got, err)
	}
	if b, _ := os.ReadFile(f.Name()); !bytes.Equal(b, content) {
		t.Error("content differs")
	}
	if b, err := io.ReadAll(d.Open(t.Context())); err != nil || !bytes.Equal(b, content) {
		t.Errorf("as a stream: %d bytes, %v", len(b), err)
	}
}

// TestNoRanges: a server that knows no ranges sends it all again.
func TestNoRanges(t *testing.T) {
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		breaking(n*600<<10, false)(w, r)
	}))
	defer s.Close()
	for _, digest := range []string{sum(content), ""} {
		n = 0
		d := &Download{Client: plainClient(t), URL: s.URL, Size: -1, Digest: digest}
		if got, err := d.To(t.Context(), target(t)); err != nil || got != sum(content) {
			t.Errorf("digest %q: got %s, %v", digest, got, err)
		}
	}
}

func TestLies(t *testing.T) {
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		size  int64
		want  error
	}{
		"digest":    {func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("evil")) }, 4, ErrDigest},
		"announced": {func(w http.ResponseWriter, r *http.Request) { w.Write(content[:10]) }, 4, ErrSize},
		"more":      {func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); w.Write(content) }, 4, ErrSize},
		"wrong range": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/10")
			w.WriteHeader(206)
		}, 4, nil},
		"not found": {http.NotFound, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.serve)
			defer s.Close()
			f := target(t)
			f.Write([]byte("ab"))
			d := &Download{Client: plainClient(t), URL: s.URL, Size: c.size, Digest: sum(content)}
			_, err := d.To(t.Context(), f)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if fi, _ := f.Stat(); c.want != nil && fi.Size() != 0 {
				t.Errorf("%d bytes are left for the next try", fi.Size())
			}
		})
	}
}

func TestSilence(t *testing.T) {
	end := make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(end)
	d := &Download{Client: plainClient(t), URL: s.URL, Size: 100, Digest: sum(nil), Idle: 50 * time.Millisecond}
	begin := time.Now()
	_, err := d.To(t.Context(), target(t))
	if !errors.Is(err, ErrSize) && !errors.Is(err, errIdle) && err == nil {
		t.Errorf("got %v", err)
	}
	if time.Since(begin) > 40*time.Second {
		t.Errorf("took %v", time.Since(begin))
	}
}

// TestSilentAnswer: an answer that stops in the middle ends for whoever reads
// it, not only for a Download.
func TestSilentAnswer(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	tr, err := NewTransport(&Settings{Plain: true, Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	res, err := NewClient(tr).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); !errors.Is(err, errIdle) {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestDeafServer: a server that takes nothing of an upload is given up.
func TestDeafServer(t *testing.T) {
	end := make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-end }))
	defer s.Close()
	defer close(end)
	tr, err := NewTransport(&Settings{Plain: true, Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	res, err := NewClient(tr).Post(s.URL, "x", io.LimitReader(zeros{}, 1<<40))
	if !errors.Is(err, errIdle) {
		t.Errorf("got %v, %v", res, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestRedirect: SC-127 and SC-128, credentials stay at their origin, however
// long the way is, and TLS is never left.
func TestRedirect(t *testing.T) {
	seen := map[string]string{}
	var a, b *httptest.Server
	serve := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			seen[name+r.URL.Path] = r.Header.Get("Authorization") + r.Header.Get("Cookie")
			if to := r.URL.Query().Get("to"); to != "" {
				u, _ := url.Parse(to)
				http.Redirect(w, r, u.String(), http.StatusTemporaryRedirect)
			}
		}
	}
	a, b = httptest.NewServer(serve("a")), httptest.NewServer(serve("b"))
	defer a.Close()
	defer b.Close()
	ask := func(u string) error {
		req, _ := http.NewRequest(http.MethodGet, u, nil)
		req.Header.Set("Authorization", "secret")
		req.Header.Set("Cookie", "secret")
		res, err := plainClient(t).Do(req)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	esc := url.QueryEscape
	if err := ask(a.URL + "/1?to=" + esc(a.URL+"/2?to="+esc(b.URL+"/3?to="+esc(a.URL+"/4")))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"a/1": "secretsecret", "a/2": "secretsecret", "b/3": "", "a/4": ""} {
		if got, ok := seen[path]; !ok || got != want {
			t.Errorf("%s: got %q (asked: %v), want %q", path, got, ok, want)
		}
	}
	// The same host under another name is another host.
	sub := strings.Replace(a.URL, "127.0.0.1", "localhost", 1)
	if err := ask(a.URL + "/5?to=" + esc(sub+"/6")); err != nil || seen["a/6"] != "" {
		t.Errorf("another name: got %q, %v", seen["a/6"], err)
	}
	via := []*http.Request{{URL: &url.URL{Scheme: "https", Host: "h"}}}
	if err := CheckRedirect(&http.Request{URL: &url.URL{Scheme: "http", Host: "h"}, Header: http.Header{}}, via); err == nil {
		t.Error("a redirect out of TLS is followed")
	}
}

// TestTLS: SC-136, an unknown certificate ends it unless that is allowed, and
// one that is trusted by configuration is good.
func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = nil
	ca := filepath.Join(t.TempDir(), "ca.crt")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600)
	for name, c := range map[string]struct {
		set  Settings
		good bool
	}{
		"unknown": {Settings{}, false}, "plain": {Settings{Plain: true}, true}, "ca": {Settings{CAs: []string{ca}}, true},
		"offline": {Settings{Offline: true}, false},
	} {
		tr, err := NewTransport(&c.set)
		if err != nil {
			t.Fatal(err)
		}
		res, err := NewClient(tr).Get(s.URL)
		if (err == nil) != c.good {
			t.Errorf("%s: got %v", name, err)
		}
		if err == nil {
			res.Body.Close()
		}
		if name == "offline" && !errors.Is(err, ErrOffline) {
			t.Errorf("offline: got %v", err)
		}
	}
	if _, err := NewTransport(&Settings{CAs: []string{filepath.Join(t.TempDir(), "none")}}); err == nil {
		t.Error("a missing certificate is no error")
	}
	tr, _ := NewTransport(&Settings{})
	_, err := NewClient(tr).Get("http://127.0.0.1:1/")
	if _, ok := errors.AsType[*PlainError](err); !ok {
		t.Errorf("http: got %v", err)
	}
}

func TestStatusError(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":{"code":404,"message":"no such image"}}`:            "h answers 401 Unauthorized: no such image (no credentials were sent)",
		`{"errors":[{"code":"DENIED","message":"requested access"}]}`: "h answers 401 Unauthorized: DENIED: requested access (no credentials were sent)",
		`{"details":"incorrect username or password"}`:                "h answers 401 Unauthorized: incorrect username or password (no credentials were sent)",
		"plain\n text": "h answers 401 Unauthorized: plain text (no credentials were sent)",
		"":             "h answers 401 Unauthorized (no credentials were sent)",
	} {
		r := &http.Response{StatusCode: 401, Request: &http.Request{URL: &url.URL{Host: "h"}}, Body: io.NopCloser(strings.NewReader(body))}
		if got := NewStatusError(r, "").Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := Redact("https://u:p@h/x?token=secret"); got != "https://h/x" {
		t.Error(got)
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-1/2")
	f.Fuzz(func(t *testing.T, s string) {
		if from, total, ok := contentRange(s); ok && (from < 0 || total >= 0 && total < from) {
			t.Errorf("%q: %d, %d", s, from, total)
		}
		message("", []byte(s))
	})
}

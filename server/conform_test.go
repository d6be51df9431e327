package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"

	"singularity/server/auth"
	"singularity/server/conformance"
)

// broken is a server like ours that breaks some rules.
type broken struct {
	name   string
	failed []string // checks that must notice
	answer func(*http.Response)
}

func asked(r *http.Response, method, part string) bool {
	return r.Request.Method == method && strings.Contains(r.Request.URL.Path, part)
}

func setBody(r *http.Response, text string) {
	r.Body.Close()
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	r.Header.Set("Content-Length", fmt.Sprint(len(text)))
}

func edit(r *http.Response, from, to string) {
	text, _ := io.ReadAll(r.Body)
	setBody(r, strings.ReplaceAll(string(text), from, to))
}

var brokenServers = []broken{
	{"a string at the top of the document", []string{"discovery"}, func(r *http.Response) {
		if asked(r, "GET", "/config.prod.json") {
			edit(r, `"consentAPI":{`, `"note":"hello","consentAPI":{`)
		}
	}},
	{"two key stores", []string{"discovery"}, func(r *http.Response) {
		if asked(r, "GET", "/config.prod.json") {
			edit(r, `"consentAPI":{`, `"keyserverAPI":{"uri":"https://example.org"},"consentAPI":{`)
		}
	}},
	{"refusals that are pages", []string{"token-unknown", "user-nobody", "missing"}, func(r *http.Response) {
		if r.StatusCode >= 400 {
			r.Header.Set("Content-Type", "text/html")
			setBody(r, "<h1>error</h1>")
		}
	}},
	{"another code, an old version, no challenge, an empty redirect", []string{"token-unknown", "version", "registry", "oci-redirect"}, func(r *http.Response) {
		r.Header.Del("WWW-Authenticate")
		switch {
		case asked(r, "GET", "/version"):
			edit(r, `"apiVersion":"2.0.0"`, `"apiVersion":"v2.0.0"`)
		case asked(r, "GET", "/v1/oci-redirect"):
			r.StatusCode = 200
			setBody(r, "{}")
		case r.StatusCode == 404:
			edit(r, `"code":404`, `"code":1`)
		}
	}},
	{"201 for bytes", []string{"single-put", "parts-put"}, func(r *http.Response) {
		if asked(r, "PUT", "/data/upload/") && r.StatusCode == 200 {
			r.StatusCode = 201
		}
	}},
	{"201 for tags, no ETag, short lines of keys", []string{"tags", "tags-flat", "parts-put", "key-index"}, func(r *http.Response) {
		r.Header.Del("ETag")
		switch {
		case asked(r, "POST", "/tags/") && r.StatusCode == 200:
			r.StatusCode = 201
		case asked(r, "GET", "/pks/lookup") && r.Request.URL.Query().Get("op") == "index":
			edit(r, "\npub:", "\npub:x\npub:")
		}
	}},
	{"404 for an unknown upload, no body at the end, 204 for a deletion, two blocks of keys", []string{"parts-unknown", "parts-end", "delete", "key-get"}, func(r *http.Response) {
		switch {
		case r.StatusCode == 410:
			r.StatusCode = 404
		case asked(r, "PUT", "_multipart_complete") && r.StatusCode == 200, asked(r, "DELETE", "/v1/images/") && r.StatusCode == 200:
			r.StatusCode = 204
			setBody(r, "")
		case asked(r, "GET", "/pks/lookup") && r.Request.URL.Query().Get("op") == "get" && r.StatusCode == 200:
			text, _ := io.ReadAll(r.Body)
			setBody(r, string(text)+string(text))
		}
	}},
	{"too many parts, an image of everybody", []string{"parts", "tag-early"}, func(r *http.Response) {
		switch {
		case asked(r, "POST", "_multipart"):
			edit(r, `"totalParts":1`, `"totalParts":2`)
		case asked(r, "POST", "/v2/tags/") && r.StatusCode == 409:
			r.StatusCode = 200
			setBody(r, `{"data":{}}`)
		}
	}},
	{"a range that is answered whole", []string{"ranges"}, func(r *http.Response) {
		if r.StatusCode == 206 {
			r.StatusCode = 200
		}
	}},
	{"other bytes", []string{"pull-small", "pull-large"}, func(r *http.Response) {
		if r.Header.Get("Content-Type") == "application/octet-stream" && r.StatusCode == 200 {
			text, _ := io.ReadAll(r.Body)
			text[len(text)/2]++
			r.Body = io.NopCloser(bytes.NewReader(text))
		}
	}},
	{"an empty time", []string{"container"}, func(r *http.Response) {
		if asked(r, "GET", "/v1/containers/") && r.StatusCode == 200 {
			edit(r, `"id":`, `"updatedAt":"","id":`)
		}
	}},
}

// proxied puts a server in front of ours that changes answers, and the addresses
// in them to its own. It comes from another address for each.
func proxied(t *testing.T, r *running, number int, change func(*http.Response)) string {
	t.Helper()
	to, err := url.Parse(r.config.URL)
	if err != nil {
		t.Fatal(err)
	}
	var front *httptest.Server
	p := &httputil.ReverseProxy{Transport: r.client.Transport, ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		Rewrite: func(q *httputil.ProxyRequest) {
			q.SetURL(to)
			q.Out.Header.Del("Accept-Encoding")
			q.Out.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", number))
		},
		ModifyResponse: func(res *http.Response) error {
			if l := res.Header.Get("Location"); l != "" {
				res.Header.Set("Location", strings.Replace(l, r.config.URL, front.URL, 1))
			}
			if strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
				edit(res, r.config.URL, front.URL)
			}
			change(res)
			return nil
		}}
	front = httptest.NewServer(p)
	t.Cleanup(front.Close)
	return front.URL
}

// TestConformance: our server passes all checks, without one that is skipped, and
// what was made is gone afterwards; a server that breaks a rule fails in the check
// of that rule.
func TestConformance(t *testing.T) {
	r := start(t, func(c *Config) {
		c.RateFree, c.TrustedProxies = []string{"127.0.0.0/8", "192.0.2.0/24"}, []string{"127.0.0.0/8"}
	})
	a, err := r.auth.AddAccount(t.Context(), auth.Account{Kind: auth.User, Name: "alice", Email: "alice@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := r.auth.AddToken(t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "checks", Scopes: slices.DeleteFunc(slices.Clone(auth.Scopes), func(s auth.Scope) bool { return s == auth.AccountAdmin })})
	if err != nil {
		t.Fatal(err)
	}
	results := conformance.Run(t.Context(), conformance.Options{URL: r.config.URL, Token: token, Client: r.client})
	for _, x := range results {
		if x.Outcome != conformance.Pass && x.ID != "end" { // a key for an address of nobody cannot be proven to be one's own
			t.Errorf("%s %s: %s", x.Outcome, x.ID, x.Detail)
		}
	}
	if len(results) < 50 {
		t.Errorf("%d checks", len(results))
	}
	if res, _ := r.get(t, "/v1/entities/alice/collections"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	for i, b := range brokenServers {
		t.Run(b.name, func(t *testing.T) {
			address := proxied(t, r, i+1, b.answer)
			results := conformance.Run(t.Context(), conformance.Options{URL: address, Token: token, Client: http.DefaultClient})
			var failed []string
			for _, x := range results {
				if x.Outcome == conformance.Fail {
					failed = append(failed, x.ID)
				}
			}
			for _, id := range b.failed {
				if !slices.Contains(failed, id) {
					t.Errorf("%s has not failed, but %q", id, failed)
				}
			}
			if err := report(io.Discard, address, results, false); err == nil {
				t.Error("the report has no error")
			}
		})
	}
	nobody := conformance.Run(t.Context(), conformance.Options{URL: proxied(t, r, 100, func(*http.Response) {}), Client: http.DefaultClient})
	for _, x := range nobody {
		if x.Outcome == conformance.Fail {
			t.Errorf("without a token: %s: %s", x.ID, x.Detail)
		}
	}
}

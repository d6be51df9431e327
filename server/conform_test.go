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
	"time"

	"singularity/server/auth"
	"singularity/server/conformance"
	"singularity/server/openapi"
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

// described holds each answer that passes against the description, strictly: what
// is sent and not described is a fault of the table.
type described struct {
	http.RoundTripper
	t    *testing.T
	mux  *http.ServeMux
	rows map[string]openapi.Operation
	seen map[string]bool
}

func newDescribed(t *testing.T, to http.RoundTripper) *described {
	d := &described{to, t, http.NewServeMux(), map[string]openapi.Operation{}, map[string]bool{}}
	for _, o := range openapi.Operations() {
		if o.As == "" {
			d.mux.HandleFunc(o.Pattern, func(http.ResponseWriter, *http.Request) {})
			d.rows[o.Pattern] = o
		}
	}
	return d
}

func (d *described) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := d.RoundTripper.RoundTrip(r)
	if err != nil || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return res, err
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(text))
	_, pattern := d.mux.Handler(r)
	o, ok := d.rows[pattern]
	switch {
	case !ok:
	case res.StatusCode == o.Success():
		d.seen[pattern] = true
		if err := o.Check(text, true); err != nil {
			d.t.Errorf("%s %s: %v in %.300s", r.Method, r.URL.Path, err, text)
		}
	case !slices.Contains(o.Refusals(), res.StatusCode):
		d.t.Errorf("%s %s: the status %d is not described", r.Method, r.URL.Path, res.StatusCode)
	}
	return res, nil
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
	watched := newDescribed(t, r.client.Transport)
	results := conformance.Run(t.Context(), conformance.Options{URL: r.config.URL, Token: token, Client: &http.Client{Transport: watched}})
	for _, x := range results {
		if x.Outcome != conformance.Pass && x.ID != "end" { // a key for an address of nobody cannot be proven to be one's own
			t.Errorf("%s %s: %s", x.Outcome, x.ID, x.Detail)
		}
	}
	if len(results) < 50 {
		t.Errorf("%d checks", len(results))
	}
	if res, text := r.get(t, "/v1/entities/alice/collections"); res.StatusCode != 200 || strings.Contains(text, "conformance") {
		t.Errorf("what the checks made is left: %d %s", res.StatusCode, text)
	}
	r.administer(t, watched)
	if len(watched.seen) < 35 {
		t.Errorf("only %d calls were held against the description", len(watched.seen))
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

// administer makes the calls that no client makes, but pages do.
func (r *running) administer(t *testing.T, watched *described) {
	t.Helper()
	a, err := r.auth.AddAccount(t.Context(), auth.Account{Kind: auth.User, Name: "boss", Admin: true})
	if err != nil {
		t.Fatal(err)
	}
	token, info, err := r.auth.AddToken(t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Admin: true, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "checks", Scopes: auth.Scopes})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct{ method, path, body string }{
		{"POST", "/v1/groups", `{"name":"lab","description":"a laboratory"}`}, {"PUT", "/v1/groups/lab/members/alice", `{"role":"writer"}`}, {"GET", "/v1/groups", ""}, {"GET", "/v1/groups/lab", ""}, {"POST", "/v1/entities", `{"name":"boss"}`}, {"PUT", "/v1/grants/boss", `{"name":"lab","role":"reader","expires":"2100-01-01T00:00:00Z"}`}, {"GET", "/v1/grants/boss", ""}, {"DELETE", "/v1/grants/boss?name=lab", ""}, {"DELETE", "/v1/groups/lab/members/alice", ""},
		{"POST", "/v1/robots", `{"name":"night","belongsTo":"lab"}`}, {"GET", "/v1/robots", ""}, {"POST", "/v1/users/night/tokens", `{"name":"a","scopes":["library:read"],"days":1}`}, {"GET", "/v1/users/night/tokens", ""},
		{"DELETE", "/v1/robots/night", ""}, {"GET", "/v1/users/boss/tokens", ""}, {"POST", "/v1/admin/users", `{"name":"bob"}`}, {"POST", "/v1/admin/users/bob/link", ""}, {"PATCH", "/v1/admin/users/bob", `{"disabled":true}`},
		{"GET", "/v1/admin/users", ""}, {"GET", "/v1/admin/audit", ""}, {"GET", "/v1/admin/system", ""}, {"POST", "/v1/admin/gc", `{"dryRun":true}`}, {"POST", "/v1/admin/gc", ""}, {"GET", "/v1/entities", ""}, {"GET", "/v1/latest", ""},
		{"GET", "/v1/keys", ""}, {"GET", "/v1/log/consistency?from=1", ""}, {"GET", "/v1/log/inclusion?index=0", ""}, {"GET", "/registry/token", ""},
		{"GET", "/v1/findings", ""}, {"GET", "/v1/findings/search?q=abc", ""}, {"GET", "/v1/findings/images?id=CVE-2026-1", ""}, {"GET", "/v1/findings/runs?id=CVE-2026-1", ""}, {"GET", "/v1/suppressions", ""},
		{"POST", "/v1/suppressions", `{"id":"CVE-2026-1","reason":"not called"}`}, {"DELETE", "/v1/suppressions?id=CVE-2026-1", ""}, {"PUT", "/v1/watch/rules", `{"block":"high","grace":"8760h","notify":"high"}`}, {"GET", "/v1/watch/rules", ""},
		{"POST", "/v1/runs", `{"records":[{"id":"1","start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:00Z","host":"h","user":"boss","verb":"exec","image":"x"},{"id":"2","start":"` + time.Now().UTC().Format(time.RFC3339) + `","host":"h","user":"boss","verb":"exec","image":"x"}]}`}, {"GET", "/v1/runs", ""}, {"DELETE", "/v1/users/boss/tokens/" + info.ID, ""},
	} {
		req, err := http.NewRequest(call.method, r.config.URL+call.path, strings.NewReader(call.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := (&http.Client{Transport: watched}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%s %s: %d %s", call.method, call.path, res.StatusCode, text)
		}
	}
	if req, _ := http.NewRequest("POST", r.config.URL+"/v1/admin/gc", nil); req != nil {
		if res, err := r.client.Do(req); err != nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("nobody frees storage: %v %v", res, err)
		}
	}
}

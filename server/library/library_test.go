package library

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/sif"
)

// site is a library with its accounts behind a listener.
type site struct {
	t     *testing.T
	lib   *Service
	auth  *auth.Service
	store *embedded.Store
	http  *httptest.Server
	skew  time.Duration
}

func newSite(t *testing.T, o Options) *site {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return openSite(t, st, st.Records, st.Blobs, o)
}

func openSite(t *testing.T, st *embedded.Store, r store.Records, b store.Blobs, o Options) *site {
	t.Helper()
	v := &site{t: t, store: st}
	v.http = httptest.NewUnstartedServer(nil)
	v.http.Start()
	t.Cleanup(v.http.Close)
	o.URL = v.http.URL
	var err error
	if v.auth, err = auth.Open(t.Context(), st.Records, auth.Options{URL: o.URL, AuditLog: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	if v.lib, err = Open(t.Context(), r, b, v.auth, o); err != nil {
		t.Fatal(err)
	}
	v.lib.now = func() time.Time { return time.Now().Add(v.skew) }
	v.http.Config.Handler = v.handler()
	return v
}

// handler is a front as package server has one: presigned addresses see no
// token.
func (v *site) handler() http.Handler {
	open, closed := http.NewServeMux(), http.NewServeMux()
	for _, r := range v.lib.Routes() {
		if r.Presigned {
			open.HandleFunc(r.Pattern, r.Handler)
		} else {
			closed.HandleFunc(r.Pattern, r.Handler)
		}
	}
	closed.HandleFunc("GET /version", func(w http.ResponseWriter, r *http.Request) {
		route.Data(w, api.Version{Version: "1", APIVersion: "2.0.0"})
	})
	identified := v.auth.Identified(closed)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(route.WithRequest(r.Context(), route.Request{ID: "r1", Addr: netip.MustParseAddr("192.0.2.1")}))
		if _, pattern := open.Handler(r); pattern != "" {
			open.ServeHTTP(w, r)
			return
		}
		identified.ServeHTTP(w, r)
	})
}

// user makes an account and returns a token of it.
func (v *site) user(name string, scopes ...auth.Scope) string {
	v.t.Helper()
	a, err := v.auth.Account(v.t.Context(), name)
	if err != nil {
		if a, err = v.auth.AddAccount(v.t.Context(), auth.Account{Kind: auth.User, Name: name, Admin: name == "admin"}); err != nil {
			v.t.Fatal(err)
		}
	}
	if len(scopes) == 0 {
		scopes = auth.Scopes
	}
	text, _, err := v.auth.AddToken(v.t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Kind: auth.User, Admin: a.Admin, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "test", Scopes: scopes})
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

// call makes a request and returns status and body. Bodies go without a type, as
// clients send them.
func (v *site) call(token, method, path string, body any, headers ...string) (int, string) {
	v.t.Helper()
	res := v.do(token, method, path, body, headers...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func (v *site) do(token, method, path string, body any, headers ...string) *http.Response {
	v.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			v.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	if strings.HasPrefix(path, "/") {
		path = v.http.URL + path
	}
	req, err := http.NewRequest(method, path, r)
	if err != nil {
		v.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := *v.http.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	return res
}

// want makes a request whose status is known.
func (v *site) want(status int, token, method, path string, body any, headers ...string) string {
	v.t.Helper()
	got, text := v.call(token, method, path, body, headers...)
	if got != status {
		v.t.Fatalf("%s %s: %d %s, want %d", method, path, got, strings.TrimSpace(text), status)
	}
	return text
}

// field reads a field of the data of an answer.
func field(t *testing.T, text string, names ...string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for _, n := range append([]string{"data"}, names...) {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %v in %s", names, text)
		}
		v = m[n]
	}
	return fmt.Sprint(v)
}

// newSIF makes an image of about size bytes for an architecture; seed makes its
// content its own.
func newSIF(t testing.TB, arch string, size int, seed string, signed bool) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte(seed+"\n"), size/(len(seed)+1)+1)[:size]
	in := []sif.Input{{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: arch}.Extra(), Data: bytes.NewReader(data)}}
	if signed {
		in = append(in, sif.Input{Type: sif.DataSignature, Link: 1, LinkIsGroup: true, Extra: sif.Signature{Hash: sif.HashSHA256, Entity: [20]byte{0xAB, 1}}.Extra(), Data: strings.NewReader("no signature")})
	}
	if _, err := sif.Create(f, sif.CreateOptions{Deterministic: true}, in...); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// container makes what is missing on the way to a container, call by call as
// clients do, and returns its id.
func (v *site) container(token, path string) string {
	v.t.Helper()
	p := strings.Split(path, "/")
	id := ""
	for i, kind := range []string{"entities", "collections", "containers"} {
		status, text := v.call(token, "GET", "/v1/"+kind+"/"+strings.Join(p[:i+1], "/"), nil)
		if status == http.StatusNotFound {
			text = v.want(200, token, "POST", "/v1/"+kind, map[string]any{"name": p[i], "description": "No description", "entity": id, "collection": id, "createdAt": "0001-01-01T00:00:00Z", "deleted": false, "private": false})
		} else if status != 200 {
			v.t.Fatalf("GET %s: %d %s", path, status, text)
		}
		id = field(v.t, text, "id")
	}
	return id
}

// push sends an image in one part and gives it tags; it returns its id.
func (v *site) push(token, path string, b []byte, arch string, tags ...string) string {
	v.t.Helper()
	k := v.container(token, path)
	hash := hexOf(b)
	id := field(v.t, v.want(200, token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hash, "container": k, "description": "an image"}), "id")
	status, text := v.call(token, "POST", "/v2/imagefile/"+id, map[string]any{"filesize": len(b), "sha256sum": hash, "md5sum": "x"})
	if status == 200 {
		v.want(200, "", "PUT", field(v.t, text, "uploadURL"), b, "X-Amz-Content-Sha256", hash)
		v.want(200, token, "PUT", "/v2/imagefile/"+id+"/_complete", "{}")
	} else if status != http.StatusConflict {
		v.t.Fatalf("announce: %d %s", status, text)
	}
	for _, tag := range tags {
		v.want(200, token, "POST", "/v2/tags/"+k, map[string]any{"Arch": arch, "Tag": tag, "ImageID": id})
	}
	return id
}

// grant gives somebody a role at an object.
func (v *site) grant(object, name string, r auth.Role) {
	v.t.Helper()
	a, err := v.auth.Account(v.t.Context(), name)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.auth.SetGrant(context.Background(), auth.Grant{Object: object, Subject: a.ID, Role: r}); err != nil {
		v.t.Fatal(err)
	}
}

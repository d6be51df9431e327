package library

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"singularity/api"
	client "singularity/client/library"
	check "singularity/client/translog"
	"singularity/server/store/embedded"
	"singularity/server/translog"
)

// memory is what one client remembers.
type memory map[string]check.State

func (m memory) Load(server string) (check.State, error) { return m[server], nil }

func (m memory) Save(server string, s check.State) error { m[server] = s; return nil }

func loggedSite(t *testing.T) (*site, *translog.Log) {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	l, err := translog.Open(t.Context(), st.Records, "library.example")
	if err != nil {
		t.Fatal(err)
	}
	return openSite(t, st, st.Records, st.Blobs, Options{Log: l}), l
}

// lines reads the log as a monitor does.
func lines(t *testing.T, l *translog.Log) []api.LogEntry {
	t.Helper()
	var list []api.LogEntry
	for n := int64(0); ; n++ {
		p, err := l.Prove(t.Context(), n, 0)
		if err != nil {
			return list
		}
		var e api.LogEntry
		if err := json.Unmarshal(p.Entry, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
}

func newClient(t *testing.T, base, token string, m check.Memory) *client.Client {
	t.Helper()
	c, err := client.New(base, token, http.DefaultClient)
	if err != nil {
		t.Fatal(err)
	}
	c.Memory = m
	return c
}

func pushWith(t *testing.T, c *client.Client, name string, b []byte, tags ...string) {
	t.Helper()
	if _, err := c.Push(t.Context(), bytes.NewReader(b), &client.Push{Name: name, Tags: tags, Arch: "amd64", Size: int64(len(b))}); err != nil {
		t.Fatal(err)
	}
}

// Every move of a tag is a line before anybody sees it, and clients check that.
func TestTagLog(t *testing.T) {
	v, l := loggedSite(t)
	alice := v.user("alice")
	m := memory{}
	c := newClient(t, v.http.URL, alice, m)
	one, two := newSIF(t, "amd64", 5000, "one", false), newSIF(t, "amd64", 5000, "two", false)
	pushWith(t, c, "alice/tools/tool", one, "latest", "v1")
	if s := m[v.http.URL]; s.Size != 2 {
		t.Fatalf("after two tags the client remembers %d lines", s.Size)
	}
	pushWith(t, c, "alice/tools/tool", two, "latest")
	other := newClient(t, v.http.URL, "", m)
	for tag, b := range map[string][]byte{"latest": two, "v1": one} {
		i, err := other.Find(t.Context(), "alice/tools/tool", tag, "amd64")
		if err != nil || i.Hash != "sha256."+hexOf(b) {
			t.Fatalf("%s: %+v, %v", tag, i, err)
		}
	}
	v.want(200, alice, "DELETE", "/v1/images/alice/tools/tool:v1?arch=amd64", nil)
	want := []string{"latest " + hexOf(one), "v1 " + hexOf(one), "latest " + hexOf(two), "v1 "}
	for n, e := range lines(t, l) {
		tag, hash, _ := strings.Cut(want[n], " ")
		if hash != "" {
			hash = "sha256:" + hash
		}
		if e.Kind != "tag" || e.Name != "alice/tools/tool:"+tag+" amd64" || e.Digest != hash {
			t.Errorf("line %d: %+v", n, e)
		}
	}
	// Old clients ask for no proof, and get what they always got.
	res := v.do(alice, "GET", "/v1/images/alice/tools/tool:latest?arch=amd64", nil)
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || bytes.Contains(text, []byte("proof")) || res.Header.Get(api.LogHeader) != "" {
		t.Errorf("an answer that nobody asked for: %v %s", res.Header, text)
	}
	v.want(400, alice, "GET", "/v1/images/alice/tools/tool:latest?arch=amd64&proof=-1", nil)
}

// The log is public: it tells nothing of what is private, not even with the salt
// of another line.
func TestTagLogHidesPrivate(t *testing.T) {
	v, l := loggedSite(t)
	alice := v.user("alice")
	v.container(alice, "alice/tools/secretproject")
	v.want(200, alice, "PATCH", "/v1/containers/alice/tools/secretproject", `{"private": true}`)
	c := newClient(t, v.http.URL, alice, memory{})
	b := newSIF(t, "amd64", 5000, "one", false)
	pushWith(t, c, "alice/tools/secretproject", b, "latest")
	if _, err := c.Find(t.Context(), "alice/tools/secretproject", "latest", "amd64"); err != nil {
		t.Fatal(err)
	}
	v.want(200, alice, "DELETE", "/v1/images/alice/tools/secretproject:latest?arch=amd64", nil)
	list := lines(t, l)
	if len(list) != 2 {
		t.Fatalf("%d lines", len(list))
	}
	seen := map[string]bool{}
	for _, e := range list {
		if text := fmt.Sprint(e); strings.Contains(text, "secret") || strings.Contains(text, hexOf(b)) || e.Digest == "" || seen[e.Name] {
			t.Errorf("line %+v", e)
		}
		seen[e.Name] = true
	}
}

// evil is a server between client and library, which changes answers.
func evil(t *testing.T, to string, change func(*http.Response, []byte) []byte) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: func(r *http.Response) error {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			text = change(r, text)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			r.Header.Set("Content-Length", fmt.Sprint(len(text)))
			return nil
		},
	}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return s.URL
}

// SC-106, SC-110: neither the proof of another image nor an older log is taken.
func TestTagLogOfLiars(t *testing.T) {
	v, _ := loggedSite(t)
	alice := v.user("alice")
	one, two := newSIF(t, "amd64", 5000, "one", false), newSIF(t, "amd64", 5000, "two", false)
	plain := newClient(t, v.http.URL, alice, nil)
	pushWith(t, plain, "alice/tools/tool", one, "latest")
	pushWith(t, plain, "alice/tools/tool", two, "other")
	pushWith(t, plain, "alice/tools/more", two, "latest")
	var change func(*http.Response, []byte) []byte
	base := evil(t, v.http.URL, func(r *http.Response, text []byte) []byte { return change(r, text) })
	honest := func(_ *http.Response, text []byte) []byte { return text }
	find := func(m memory, tag string) error {
		_, err := newClient(t, base, alice, m).Find(t.Context(), "alice/tools/tool", tag, "amd64")
		return err
	}
	replace := func(a, b string) func(*http.Response, []byte) []byte {
		return func(_ *http.Response, text []byte) []byte { return bytes.ReplaceAll(text, []byte(a), []byte(b)) }
	}
	more := v.want(200, alice, "GET", "/v1/images/alice/tools/more:latest?arch=amd64&proof=0", nil)
	for name, c := range map[string]struct {
		change func(*http.Response, []byte) []byte
		want   error
	}{
		"another image":         {replace("sha256."+hexOf(one), "sha256."+hexOf(two)), check.ErrProof},
		"another container":     {func(*http.Response, []byte) []byte { return []byte(more) }, nil},
		"no proof":              {replace(`"proof":`, `"prof":`), check.ErrProof},
		"no log":                {func(r *http.Response, text []byte) []byte { r.Header.Del(api.LogHeader); return text }, check.ErrHistory},
		"another key":           {func(r *http.Response, text []byte) []byte { r.Header.Set(api.LogHeader, "x+1+y"); return text }, check.ErrProof},
		"a proof cut short":     {replace(`"hashes":["`, `"hashes":["AAAA","`), check.ErrProof},
		"an entry of its own":   {replace(`"entry":"`, `"entry":"e30=","x":"`), check.ErrProof},
		"another salt":          {replace(`"index":`, `"salt":"`+strings.Repeat("A", 43)+`=","index":`), check.ErrProof},
		"a checkpoint unsigned": {replace(`\n3\n`, `\n4\n`), check.ErrProof},
	} {
		m := memory{}
		change = honest
		if err := find(m, "latest"); err != nil {
			t.Fatal(err)
		}
		change = c.change
		if err := find(m, "latest"); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A log that lost lines, and one with others in their places.
	change = honest
	m := memory{}
	if err := find(m, "latest"); err != nil {
		t.Fatal(err)
	}
	s := m[base]
	for name, other := range map[string]check.State{
		"lost lines": {Key: s.Key, Size: s.Size + 5, Root: s.Root}, "other lines": {Key: s.Key, Size: s.Size, Root: bytes.Repeat([]byte{1}, 32)},
		"another past": {Key: s.Key, Size: 1, Root: bytes.Repeat([]byte{1}, 32)}, "another log": {Key: "x+1+y", Size: 1, Root: s.Root},
	} {
		m[base] = other
		if err := find(m, "latest"); !errors.Is(err, check.ErrHistory) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m[base] = s
	if err := find(m, "other"); err != nil {
		t.Error(err)
	}
}

// A proof is smaller than 2 KB.
func TestProofSize(t *testing.T) {
	v, l := loggedSite(t)
	alice := v.user("alice")
	m := memory{}
	c := newClient(t, v.http.URL, alice, m)
	pushWith(t, c, "alice/tools/tool", newSIF(t, "amd64", 5000, "one", false), "latest")
	var all sync.WaitGroup
	for n := range 3000 {
		all.Go(func() {
			if _, err := l.Change(t.Context(), "key", fmt.Sprint(n), "sha256:"+strings.Repeat("0", 64)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, from := range []int{0, 1, 1700} {
		var e api.Envelope[api.Image]
		if err := json.Unmarshal([]byte(v.want(200, alice, "GET", fmt.Sprintf("/v1/images/alice/tools/tool:latest?arch=amd64&proof=%d", from), nil)), &e); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(e.Proof)
		if err != nil || len(text) > 2048 || len(text) < 500 {
			t.Errorf("from %d: %d bytes, %v", from, len(text), err)
		}
		t.Logf("a log of 3001 lines, from %d: %d bytes", from, len(text))
	}
	if _, err := c.Find(t.Context(), "alice/tools/tool", "latest", "amd64"); err != nil || m[v.http.URL].Size != 3001 {
		t.Errorf("%v, %d lines", err, m[v.http.URL].Size)
	}
}

// Many at once move one tag: the last line about it is what it means in the end.
func TestTagLogOfRaces(t *testing.T) {
	v, l := loggedSite(t)
	alice := v.user("alice")
	k := v.container(alice, "alice/tools/tool")
	var ids []string
	for n := range 4 {
		ids = append(ids, v.push(alice, "alice/tools/tool", newSIF(t, "amd64", 3000, fmt.Sprint("seed", n), false), "amd64"))
	}
	var all sync.WaitGroup
	for n := range 24 {
		all.Go(func() {
			if status, text := v.call(alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": ids[n%4]}); status != 200 {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	all.Wait()
	i, err := newClient(t, v.http.URL, "", memory{}).Find(t.Context(), "alice/tools/tool", "latest", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	list := lines(t, l)
	if last := list[len(list)-1]; "sha256."+strings.TrimPrefix(last.Digest, "sha256:") != i.Hash {
		t.Errorf("the last line says %s, the library %s", last.Digest, i.Hash)
	}
}

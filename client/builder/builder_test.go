package builder

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"singularity/api"
	"singularity/client/transfer"
)

const token = "sgt_the-token-canary"

// peer is a builder, as the test wants it to be.
type peer struct {
	*httptest.Server
	mux *http.ServeMux
	mu  sync.Mutex
	got []string // the calls: "METHOD path token-or-none"
}

func newPeer(t *testing.T) (*peer, *Client) {
	t.Helper()
	p := &peer{mux: http.NewServeMux()}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		with := "none"
		if a := r.Header.Get("Authorization"); a != "" {
			with = strings.Replace(a, token, "token", 1)
		}
		p.mu.Lock()
		p.got = append(p.got, r.Method+" "+r.URL.Path+" "+with)
		p.mu.Unlock()
		p.mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p, clientOf(t, p.URL)
}

// clientOf is as quick to try again as a test wants it.
func clientOf(t *testing.T, base string) *Client {
	t.Helper()
	connect := func(noHTTP2 bool) *http.Client {
		tr, err := transfer.NewTransport(&transfer.Settings{Plain: true, NoHTTP2: noHTTP2})
		if err != nil {
			t.Fatal(err)
		}
		return transfer.NewClient(tr)
	}
	c, err := New(base, token, connect(false), connect(true))
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Millisecond
	return c
}

func (p *peer) calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

func answer(w http.ResponseWriter, v any) {
	json.NewEncoder(w).Encode(map[string]any{"data": v})
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": message}})
}

const id = "0123456789abcdef01234567"

// status adds the answers to the questions of status, the last one for ever.
func (p *peer) status(states ...any) {
	n := atomic.Int64{}
	p.mux.HandleFunc("GET /v1/build/"+id, func(w http.ResponseWriter, r *http.Request) {
		switch s := states[min(int(n.Add(1)), len(states))-1].(type) {
		case int:
			refuse(w, s, "not now")
		case api.BuildInfo:
			s.ID = id
			answer(w, s)
		}
	})
}

// log adds a web socket; each connection is the next of the functions, the last
// one for ever.
func (p *peer) log(t *testing.T, list ...func(c *websocket.Conn)) {
	n := atomic.Int64{}
	p.mux.HandleFunc("GET /v1/build-ws/"+id, func(w http.ResponseWriter, r *http.Request) {
		if o := r.Header.Get("Origin"); o != "" {
			t.Errorf("a program sends an origin: %q", o)
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		list[min(int(n.Add(1)), len(list))-1](c)
	})
}

func say(c *websocket.Conn, lines ...string) {
	for _, l := range lines {
		c.Write(context.Background(), websocket.MessageText, []byte(l))
	}
}

// TestSubmit: every field goes as the protocol has it, the token goes along, and
// what a server answers is checked.
func TestSubmit(t *testing.T) {
	p, c := newPeer(t)
	var got map[string]any
	info := map[string]any{"id": id, "libraryRef": "library://a/b/c", "libraryURL": "https://l.example.org"}
	p.mux.HandleFunc("POST /v1/build", func(w http.ResponseWriter, r *http.Request) {
		got = nil
		json.NewDecoder(r.Body).Decode(&got)
		w.WriteHeader(http.StatusCreated)
		answer(w, info)
	})
	p.mux.HandleFunc("PUT /v1/build/"+id+"/_cancel", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	amd64 := map[string]string{"arch": "amd64"}
	for name, x := range map[string]struct {
		in   api.BuildRequest
		want map[string]any
	}{
		"least":   {api.BuildRequest{DefinitionRaw: []byte("x"), BuilderRequirements: amd64}, map[string]any{}},
		"target":  {api.BuildRequest{DefinitionRaw: []byte("x"), BuilderRequirements: amd64, LibraryRef: "library://e/c/k:t"}, map[string]any{"libraryRef": "library://e/c/k:t"}},
		"library": {api.BuildRequest{DefinitionRaw: []byte("x"), BuilderRequirements: amd64, LibraryURL: "https://l"}, map[string]any{"libraryURL": "https://l"}},
		"files":   {api.BuildRequest{DefinitionRaw: []byte("x"), BuilderRequirements: amd64, ContextDigest: "sha256.00", WorkingDir: "/w"}, map[string]any{"contextDigest": "sha256.00", "workingDir": "/w"}},
	} {
		x.want["definitionRaw"], x.want["builderRequirements"] = "eA==", map[string]any{"arch": "amd64"}
		if x.want["libraryRef"] == nil {
			x.want["libraryRef"] = "" // servers read it as: none
		}
		i, err := c.Submit(t.Context(), &x.in)
		if err != nil || i.ID != id || !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %+v %v, sent %v", name, i, err, got)
		}
	}
	if calls := p.calls(); calls[0] != "POST /v1/build BEARER token" {
		t.Error(calls)
	}
	// A builder that would build for another architecture is told to stop.
	info["arch"] = "arm64"
	r := &api.BuildRequest{DefinitionRaw: []byte("x"), BuilderRequirements: amd64}
	if _, err := c.Submit(t.Context(), r); err == nil || !strings.Contains(err.Error(), `for "arm64", and not for "amd64"`) {
		t.Error(err)
	}
	if calls := p.calls(); calls[len(calls)-1] != "PUT /v1/build/"+id+"/_cancel BEARER token" {
		t.Error(calls)
	}
	info["arch"] = "amd64"
	for _, bad := range []any{"", "a/b", "x?y", "x#y", strings.Repeat("a", 201), 7} {
		info["id"] = bad
		if i, err := c.Submit(t.Context(), r); err == nil || i != nil {
			t.Errorf("the id %.20v is taken", bad)
		}
	}
}

// TestHostileAnswers: an answer without end, one that is none, a text that acts on a
// terminal, and a redirect to somebody else, who gets no token.
func TestHostileAnswers(t *testing.T) {
	other, _ := newPeer(t)
	other.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { answer(w, map[string]any{"id": id}) })
	for name, x := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"data":{"id":"`)
			piece := bytes.Repeat([]byte("a"), 1<<20)
			for {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}, "none of a builder"},
		"no JSON": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }, "none of a builder"},
		"deep":    {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("[", 1<<20)) }, "none of a builder"},
		"nothing": {func(w http.ResponseWriter, r *http.Request) {}, "none of a builder"},
		"refusal": {func(w http.ResponseWriter, r *http.Request) { refuse(w, 400, `nothing is built for "vax" here`) }, `400 Bad Request: nothing is built for "vax" here`},
		"long refusal": {func(w http.ResponseWriter, r *http.Request) { refuse(w, 503, strings.Repeat("no ", 10000)) },
			"503"},
		"no token": {func(w http.ResponseWriter, r *http.Request) { refuse(w, 401, "who?") }, "with the credentials of the remote endpoint"},
		"loop": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, "redirects"},
	} {
		p, c := newPeer(t)
		p.mux.HandleFunc("POST /v1/build", x.serve)
		_, err := c.Submit(t.Context(), &api.BuildRequest{DefinitionRaw: []byte("x")})
		if err == nil || !strings.Contains(err.Error(), x.want) || len(err.Error()) > 1000 || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %.2000v", name, err)
		}
	}
	p, c := newPeer(t)
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := c.Status(t.Context(), id); err != nil {
		t.Error(err)
	}
	c.patience = 0
	c.Follow(t.Context(), id, io.Discard)
	c.Cancel(t.Context(), id)
	if len(other.calls()) < 3 {
		t.Errorf("too few calls: %q", other.calls())
	}
	for _, call := range other.calls() {
		if !strings.HasSuffix(call, " none") {
			t.Errorf("another host gets %q", call)
		}
	}
}

// TestCloseCodes: 1000 alone is the end of a log. After any other end, or none, the
// client comes again, and leaves out what it has.
func TestCloseCodes(t *testing.T) {
	lines := []string{"one\n", "two é\n", "three\n"}
	whole := strings.Join(lines, "")
	good := func(c *websocket.Conn) {
		say(c, lines...)
		c.Close(websocket.StatusNormalClosure, "")
	}
	cut := func(c *websocket.Conn) { // in the middle of a character
		say(c, lines[0], "two \xc3")
		c.CloseNow()
	}
	list := map[string]func(c *websocket.Conn){"cut": func(c *websocket.Conn) { say(c, lines[:2]...) }, "nothing": func(c *websocket.Conn) {}, "invalid": cut,
		"binary": func(c *websocket.Conn) {
			c.Write(context.Background(), websocket.MessageBinary, []byte("no log"))
			say(c, lines[0])
		},
		"large": func(c *websocket.Conn) { say(c, lines[0], strings.Repeat("x", maxFrame+1)) }}
	for _, code := range []websocket.StatusCode{1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999} {
		list[fmt.Sprint(int(code))] = func(c *websocket.Conn) {
			say(c, lines[:2]...)
			c.Close(code, "because")
		}
	}
	for name, first := range list {
		p, c := newPeer(t)
		p.log(t, first, good)
		var out strings.Builder
		if err := c.Follow(t.Context(), id, &out); err != nil || out.String() != whole {
			t.Errorf("%s: %v %q", name, err, out.String())
		}
		if n := len(p.calls()); n != 2 {
			t.Errorf("%s: %d connections", name, n)
		}
	}
	p, c := newPeer(t)
	p.log(t, good)
	if err := c.Follow(t.Context(), id, io.Discard); err != nil || len(p.calls()) != 1 || p.calls()[0] != "GET /v1/build-ws/"+id+" BEARER token" {
		t.Errorf("%v %q", err, p.calls())
	}
}

// TestFollowGivesUp: a log that never gets further, and one that is refused; a
// server that is away for less than the patience is waited for.
func TestFollowGivesUp(t *testing.T) {
	p, c := newPeer(t)
	c.patience = 20 * time.Millisecond
	p.log(t, func(c *websocket.Conn) { say(c, "one\n") })
	var out strings.Builder
	if err := c.Follow(t.Context(), id, &out); err == nil || !strings.Contains(err.Error(), "the log breaks off") || out.String() != "one\n" {
		t.Errorf("%v %q", err, out.String())
	}
	for code, want := range map[int]int{401: 1, 403: 1, 404: 1, 426: 1, 500: 3, 502: 3, 429: 3} {
		p, c := newPeer(t)
		n := atomic.Int64{}
		p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 3 { // it is back
				conn, err := websocket.Accept(w, r, nil)
				if err == nil {
					conn.Close(websocket.StatusNormalClosure, "")
				}
				return
			}
			refuse(w, code, "no log here")
		})
		err := c.Follow(t.Context(), id, io.Discard)
		if e, ok := errors.AsType[*transfer.StatusError](err); int(n.Load()) != want || (want == 1) != ok || ok && e.Code != code {
			t.Errorf("%d: %v after %d connections", code, err, n.Load())
		}
	}
	// What takes the log fails: that is no fault of the server.
	p, c = newPeer(t)
	p.log(t, func(c *websocket.Conn) { say(c, "one\n", "two\n") })
	err := c.Follow(t.Context(), id, full{})
	if w, ok := errors.AsType[*WriteError](err); !ok || w.Err != errFull || len(p.calls()) != 1 {
		t.Errorf("%v after %d connections", err, len(p.calls()))
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestInterrupt: Ctrl-C in the middle of a log, or between two questions, ends at
// once; and a build is cancelled by a call without a body.
func TestInterrupt(t *testing.T) {
	p, c := newPeer(t)
	ctx, stop := context.WithCancel(t.Context())
	p.log(t, func(c *websocket.Conn) {
		say(c, "one\n")
		c.Read(context.Background()) // it goes on until the client goes
	})
	p.status(api.BuildInfo{})
	p.mux.HandleFunc("PUT /v1/build/"+id+"/_cancel", func(w http.ResponseWriter, r *http.Request) {
		if text, _ := io.ReadAll(r.Body); len(text) > 0 {
			t.Errorf("a body: %q", text)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.Follow(ctx, id, stopping{stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
	if _, err := c.Wait(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	if err := c.Cancel(t.Context(), id); err != nil {
		t.Error(err)
	}
}

type stopping struct{ stop func() }

func (s stopping) Write(p []byte) (int, error) {
	s.stop()
	return len(p), nil
}

// TestWait: the status alone tells what came of a build, through all that a server
// may have to say meanwhile.
func TestWait(t *testing.T) {
	done := api.BuildInfo{IsComplete: true, ImageSize: 7}
	p, c := newPeer(t)
	p.status(api.BuildInfo{State: "running"}, 500, 503, 429, api.BuildInfo{State: "uploading"}, 502, done)
	if i, err := c.Wait(t.Context(), id); err != nil || i.ImageSize != 7 || len(p.calls()) != 7 {
		t.Errorf("%+v %v after %d", i, err, len(p.calls()))
	}
	for _, code := range []int{401, 403, 404} {
		p, c := newPeer(t)
		p.status(api.BuildInfo{}, code, done)
		if _, err := c.Wait(t.Context(), id); err == nil || len(p.calls()) != 2 {
			t.Errorf("%d: %v after %d", code, err, len(p.calls()))
		}
	}
	p, c = newPeer(t)
	c.patience = 20 * time.Millisecond
	p.status(500)
	if _, err := c.Wait(t.Context(), id); err == nil || len(p.calls()) < 2 {
		t.Error("it waits for ever")
	}
}

// pack packs a file and a directory.
func pack(t *testing.T) *Files {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "content one", "dir/two": "content two"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../one", filepath.Join(dir, "dir/link")); err != nil {
		t.Fatal(err)
	}
	f, err := Pack(t.Context(), t.TempDir(), dir, []string{"on?", filepath.Join(dir, "dir"), "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// store takes what comes at /put, and tells of it.
func (p *peer) store(got *[]byte) {
	p.mux.HandleFunc("PUT /put", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil && r.ContentLength == int64(len(text)) && r.Header.Get("Content-Type") == "application/octet-stream" {
			*got = text
		}
	})
}

// TestFiles: what is packed is what is there, links followed, and its digest is that
// of what comes; sent to an address of the builder's or of another host, without the
// token; not sent again.
func TestFiles(t *testing.T) {
	f := pack(t)
	p, c := newPeer(t)
	s, _ := newPeer(t)
	to := s.URL + "/put?sig=secret"
	p.mux.HandleFunc("POST /v1/build-context", func(w http.ResponseWriter, r *http.Request) {
		var in api.ContextRequest
		if json.NewDecoder(r.Body).Decode(&in); in.Size != f.Size || in.Digest != f.Digest {
			t.Errorf("announced: %+v", in)
		}
		if to != "" {
			w.Header().Set("Location", to)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	var got, near []byte
	s.store(&got)
	p.store(&near)
	if err := c.Send(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(got)
	if "sha256."+hex.EncodeToString(sum[:]) != f.Digest || int64(len(got)) != f.Size {
		t.Errorf("%d bytes come that are not those announced", len(got))
	}
	if calls := s.calls(); len(calls) != 1 || calls[0] != "PUT /put none" {
		t.Errorf("the presigned address gets %q", calls)
	}
	to = "/put"
	if err := c.Send(t.Context(), f); err != nil || !bytes.Equal(near, got) {
		t.Errorf("to a place of the builder's own: %v", err)
	}
	to = ""
	if err := c.Send(t.Context(), f); err != nil || len(s.calls()) != 1 {
		t.Errorf("what is there already: %v", err)
	}
	for _, to = range []string{"file:///etc/passwd", "ftp://example.org/x", "http:///x", "%zz", "data:,x"} {
		if err := c.Send(t.Context(), f); err == nil || !strings.Contains(err.Error(), "no address of a service") {
			t.Errorf("%q: %v", to, err)
		}
	}
	names := map[string]string{}
	z, err := gzip.NewReader(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r)
		if _, twice := names[h.Name]; twice || strings.HasPrefix(h.Name, "/") || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			t.Errorf("an entry %q of type %c", h.Name, h.Typeflag)
		}
		names[filepath.Base(h.Name)] = string(text)
	}
	if names["one"] != "content one" || names["two"] != "content two" || names["link"] != "content one" {
		t.Errorf("%q", names)
	}
}

// TestSendAgain: a way that broke off is taken again, from a new address, as long
// as there is hope; a refusal is the end.
func TestSendAgain(t *testing.T) {
	f := pack(t)
	for name, x := range map[string]struct {
		puts  []int // 0: the connection breaks off
		calls int
		ok    bool
	}{
		"broken once": {[]int{0, 200}, 4, true}, "twice": {[]int{0, 500, 200}, 6, true}, "for ever": {[]int{0, 0, 0, 200}, 6, false},
		"refused": {[]int{422, 200}, 2, false}, "the address ended": {[]int{403, 200}, 2, false},
	} {
		p, c := newPeer(t)
		n := 0
		p.mux.HandleFunc("POST /v1/build-context", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", fmt.Sprintf("/put/%d", n)) })
		p.mux.HandleFunc("PUT /put/{n}", func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("n") != fmt.Sprint(n) {
				t.Errorf("%s: an old address: %s", name, r.URL)
			}
			n++
			if x.puts[n-1] == 0 {
				panic(http.ErrAbortHandler)
			}
			text, err := io.ReadAll(r.Body)
			if err != nil || int64(len(text)) != f.Size {
				t.Errorf("%s: %d bytes, %v", name, len(text), err)
			}
			if x.puts[n-1] != 200 {
				refuse(w, x.puts[n-1], "no")
			}
		})
		if err := c.Send(t.Context(), f); (err == nil) != x.ok || len(p.calls()) != x.calls {
			t.Errorf("%s: %v after %q", name, err, p.calls())
		}
	}
	// They are there already when the client comes again: the answer alone was lost.
	p, c := newPeer(t)
	there := false
	p.mux.HandleFunc("POST /v1/build-context", func(w http.ResponseWriter, r *http.Request) {
		if !there {
			w.Header().Set("Location", "/put")
		}
	})
	p.mux.HandleFunc("PUT /put", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		there = true
		panic(http.ErrAbortHandler)
	})
	if err := c.Send(t.Context(), f); err != nil || len(p.calls()) != 3 {
		t.Errorf("%v after %q", err, p.calls())
	}
	// Announcing them is refused.
	p, c = newPeer(t)
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { refuse(w, 413, "too many bytes") })
	if err := c.Send(t.Context(), f); err == nil || !strings.Contains(err.Error(), "too many bytes") || len(p.calls()) != 1 {
		t.Errorf("%v after %q", err, p.calls())
	}
	p, c = newPeer(t)
	p.mux.HandleFunc("DELETE /v1/build-context/"+f.Digest, func(w http.ResponseWriter, r *http.Request) {})
	if err := c.Drop(t.Context(), f.Digest); err != nil {
		t.Error(err)
	}
}

// TestPackRefuses: what cannot be packed is told by its name, before anything is
// sent.
func TestPackRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(".", filepath.Join(dir, "circle")); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{"none": "no such file", "none*": "no such file", "[": "syntax error", "circle": "circle", "/dev/null": "neither a file nor a directory"} {
		f, err := Pack(t.Context(), t.TempDir(), dir, []string{pattern})
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), pattern) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Pack(ctx, t.TempDir(), dir, []string{"file"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/coder/websocket"

	"singularity/action"
	"singularity/api"
	"singularity/client/builder"
	"singularity/client/library"
	"singularity/client/transfer"
)

// remoteSite is a builder and its library, as the test wants them to be.
type remoteSite struct {
	*httptest.Server
	mux *http.ServeMux
	job *remoteJob
	log bytes.Buffer
}

func newRemoteSite(t *testing.T, target string) *remoteSite {
	t.Helper()
	s := &remoteSite{mux: http.NewServeMux()}
	s.Server = httptest.NewServer(s.mux)
	t.Cleanup(s.Close)
	connect := func(noHTTP2 bool) *http.Client {
		tr, err := transfer.NewTransport(&transfer.Settings{Plain: true, NoHTTP2: noHTTP2})
		if err != nil {
			t.Fatal(err)
		}
		return transfer.NewClient(tr)
	}
	s.job = &remoteJob{log: &action.Log{Out: &s.log, Level: action.DefaultLevel}, flags: &buildFlags{}, front: s.URL, target: target}
	s.job.flags.tmpDir = t.TempDir()
	var err error
	if s.job.client, err = builder.New(s.URL, "token", connect(false), connect(true)); err != nil {
		t.Fatal(err)
	}
	if s.job.library, err = library.New(s.URL, "token", connect(false)); err != nil {
		t.Fatal(err)
	}
	return s
}

const remoteID = "0123456789abcdef01234567"

// answers adds a call whose data is given.
func (s *remoteSite) answers(pattern string, data any) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"data": data})
	})
}

// socket adds the log.
func (s *remoteSite) socket(talk func(c *websocket.Conn)) {
	s.mux.HandleFunc("GET /v1/build-ws/"+remoteID, func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			defer c.CloseNow()
			talk(c)
		}
	})
}

// TestRemoteStatus: what came of a build is what its status says, whatever the log
// did.
func TestRemoteStatus(t *testing.T) {
	const target = "library://e/c/k:t"
	queued := api.BuildInfo{ID: remoteID, LibraryRef: target}
	ok, bad := queued, queued
	ok.IsComplete, ok.ImageSize = true, 7
	bad.IsComplete, bad.Reason = true, "exit status \x1b[3m3"
	end := func(c *websocket.Conn) { c.Close(websocket.StatusNormalClosure, "") }
	for name, x := range map[string]struct {
		socket func(c *websocket.Conn) // none: refused
		end    api.BuildInfo
		want   string // in the error; empty for none
		warns  bool
	}{
		"good": {end, ok, "", false}, "failed": {end, bad, `the remote build failed: exit status \x1b[3m3`, false},
		"no log, good": {nil, ok, "", true}, "no log, failed": {nil, bad, "the remote build failed", true},
	} {
		s := newRemoteSite(t, target)
		s.answers("POST /v1/build", queued)
		asked := atomic.Int64{}
		s.mux.HandleFunc("GET /v1/build/"+remoteID, func(w http.ResponseWriter, r *http.Request) {
			i := queued
			if asked.Add(1) > 1 { // a log may end a moment before the build
				i = x.end
			}
			json.NewEncoder(w).Encode(map[string]any{"data": i})
		})
		if x.socket != nil {
			s.socket(x.socket)
		}
		err := s.job.run(t.Context(), []byte("x"), nil)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Contains(s.log.String(), "goes on without its log"); got != x.warns {
			t.Errorf("%s: %s", name, s.log.String())
		}
	}
	// It is not known what came of it: then it is not said to have failed.
	s := newRemoteSite(t, target)
	s.answers("POST /v1/build", queued)
	s.socket(end)
	if err := s.job.run(t.Context(), []byte("x"), nil); err == nil || strings.Contains(err.Error(), "failed") || !strings.Contains(err.Error(), "which goes on") {
		t.Error(err)
	}
}

// TestRemoteInterrupt: Ctrl-C, in the log and behind it, cancels the build; nothing
// else does.
func TestRemoteInterrupt(t *testing.T) {
	for _, place := range []string{"log", "status"} {
		s := newRemoteSite(t, "library://e/c/k:t")
		ctx, stop := context.WithCancel(t.Context())
		var cancelled atomic.Int64
		s.answers("POST /v1/build", api.BuildInfo{ID: remoteID})
		s.socket(func(c *websocket.Conn) {
			if place == "log" {
				stop()
				c.Read(context.Background())
			}
			c.Close(websocket.StatusNormalClosure, "")
		})
		s.mux.HandleFunc("GET /v1/build/"+remoteID, func(w http.ResponseWriter, r *http.Request) {
			stop()
			json.NewEncoder(w).Encode(map[string]any{"data": api.BuildInfo{ID: remoteID}})
		})
		s.mux.HandleFunc("PUT /v1/build/"+remoteID+"/_cancel", func(w http.ResponseWriter, r *http.Request) { cancelled.Add(1) })
		if err := s.job.run(ctx, []byte("x"), nil); err == nil || err.Error() != "remote build cancelled" || cancelled.Load() != 1 {
			t.Errorf("%s: %v, %d calls", place, err, cancelled.Load())
		}
	}
}

// TestRemoteRequest: what the command asks for, with files, detached and not; and an
// image in a library that is not the endpoint's is not fetched with its token.
func TestRemoteRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	s := newRemoteSite(t, filepath.Join(dir, "out.sif"))
	s.job.flags.builder.detached, s.job.flags.arch, s.job.flags.remote.library = true, "arm64", "https://other.example.org"
	var got api.BuildRequest
	s.mux.HandleFunc("POST /v1/build-context", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Location", "/put") })
	s.mux.HandleFunc("PUT /put", func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	s.mux.HandleFunc("DELETE /v1/build-context/{digest}", func(w http.ResponseWriter, r *http.Request) {})
	info := api.BuildInfo{ID: remoteID, IsComplete: true, ImageSize: 7, LibraryRef: "library://a/remote-builds/rb-1", LibraryURL: "https://other.example.org"}
	s.mux.HandleFunc("POST /v1/build", func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&got)
		json.NewEncoder(w).Encode(map[string]any{"data": info})
	})
	s.socket(func(c *websocket.Conn) {
		if s.job.flags.builder.detached {
			t.Error("a detached build asks for the log")
		}
		c.Close(websocket.StatusNormalClosure, "")
	})
	if err := s.job.run(t.Context(), []byte("text"), []string{"file"}); err != nil {
		t.Fatal(err)
	}
	if string(got.DefinitionRaw) != "text" || got.LibraryRef != "" || got.LibraryURL != "https://other.example.org" || got.BuilderRequirements["arch"] != "arm64" || got.WorkingDir != dir || !strings.HasPrefix(got.ContextDigest, "sha256.") {
		t.Errorf("%+v", got)
	}
	s.job.flags.builder.detached = false
	s.answers("GET /v1/build/"+remoteID, info)
	if err := s.job.run(t.Context(), []byte("text"), []string{"file"}); err == nil || !strings.Contains(err.Error(), "not that of the remote endpoint") {
		t.Error(err)
	}
}

var terminalLogs = map[string]string{
	"plain é ✓\ttext\r\n": "plain é ✓\ttext\r\n", "\x1b[1;31mred\x1b[0m\x1b[K": "\x1b[1;31mred\x1b[0m\x1b[K", "\x1b[38:2:1:2:3mx": "\x1b[38:2:1:2:3mx",
	"\x1b]0;title\a": "]0;title", "\x1b]52;c;ZXZpbA==\x1b\\": `]52;c;ZXZpbA==\`, "\x1b[6n": "6n", "\x1b[2J": "2J", "\x1b[?1049h": "?1049h", "\x1bc": "c", "\x1b\x1b[1m": "\x1b[1m",
	"\u009b6n": "6n", "a\bb\a": "ab", "\u202eevil": "evil", "\xff\xfe": "", "\x1b[" + strings.Repeat("1", maxSequence) + "m": strings.Repeat("1", maxSequence) + "m",
}

// TestTerminalLog: colours stay, and nothing else acts on the terminal, wherever the
// log is cut.
func TestTerminalLog(t *testing.T) {
	for in, want := range terminalLogs {
		for cut := range len(in) + 1 {
			var out bytes.Buffer
			w := &terminalLog{w: &out}
			for _, piece := range []string{in[:cut], in[cut:]} {
				if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
			}
			if out.String() != want {
				t.Errorf("%q, cut at %d: %q, want %q", in, cut, out.String(), want)
			}
		}
	}
}

func FuzzTerminalLog(f *testing.F) {
	for in := range terminalLogs {
		f.Add([]byte(in), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var whole, pieces bytes.Buffer
		(&terminalLog{w: &whole}).Write(in)
		w := &terminalLog{w: &pieces}
		cut = max(0, min(cut, len(in)))
		w.Write(in[:cut])
		w.Write(in[cut:])
		if !bytes.Equal(whole.Bytes(), pieces.Bytes()) {
			t.Fatalf("%q cut at %d: %q and %q", in, cut, whole.Bytes(), pieces.Bytes())
		}
		rest := whole.String()
		if !utf8.ValidString(rest) {
			t.Fatalf("%q gives %q", in, rest)
		}
		for {
			at := strings.IndexByte(rest, 0x1b)
			if at < 0 {
				break
			}
			end := strings.IndexAny(rest[at:], "mK")
			if end < 2 || rest[at+1] != '[' || strings.Trim(rest[at+2:at+end], "0123456789;:") != "" {
				t.Fatalf("%q gives %q", in, rest)
			}
			rest = rest[:at] + rest[at+end+1:]
		}
		if rest = strings.ReplaceAll(rest, "\r", ""); rest != action.Printable(rest) {
			t.Fatalf("%q gives %q", in, rest)
		}
	})
}

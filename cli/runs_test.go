package cli

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"singularity/api"
	"singularity/runlog"
)

// runsServer takes records as the service does, and can be told to fail.
type runsServer struct {
	*httptest.Server
	mu    sync.Mutex
	kept  map[string]api.Run
	calls int
	take  int         // records at a time, 0 for all
	bad   string      // a host whose records are refused
	fail  int         // status of the next calls
	after func(n int) // called behind each call, before its answer
	drop  bool        // keep what comes, and break the connection off
	sizes []int       // records of each call
}

func newRunsServer(t *testing.T) *runsServer {
	s := &runsServer{kept: map[string]api.Run{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *runsServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in api.Runs
	if r.Header.Get("Authorization") != "BEARER secret-token" || r.URL.Path != "/v1/runs" || json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Records) > api.MaxRuns {
		http.Error(w, `{"error":{"message":"no"}}`, http.StatusUnauthorized)
		return
	}
	s.calls++
	s.sizes = append(s.sizes, len(in.Records))
	if s.fail != 0 {
		http.Error(w, "later", s.fail)
		return
	}
	var out api.RunsTaken
	for _, x := range in.Records {
		if s.take != 0 && out.Done == s.take {
			break
		}
		out.Done++
		if x.Host == s.bad {
			out.Refused = append(out.Refused, api.RunRefused{ID: x.ID, Message: "not your host\x1b[2J"})
			continue
		}
		if old, known := s.kept[x.ID]; known && !old.End.IsZero() {
			x.End = old.End
		}
		s.kept[x.ID] = x
	}
	if s.after != nil {
		s.after(s.calls)
	}
	if s.drop {
		panic(http.ErrAbortHandler)
	}
	json.NewEncoder(w).Encode(api.Envelope[api.RunsTaken]{Data: out})
}

// spoolOf makes a spool with n runs, of which every third goes on.
func spoolOf(t *testing.T, n int) (spool, image string) {
	t.Helper()
	spool, image = filepath.Join(t.TempDir(), "spool"), filepath.Join(t.TempDir(), "x.sif")
	if err := os.Mkdir(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, []byte("an image"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range n {
		r := runlog.Record{Start: time.Now().Add(-time.Hour), Host: "node1", Verb: "exec", Job: fmt.Sprint("SLURM:", i)}
		if err := r.Describe(f, image); err != nil {
			t.Fatal(err)
		}
		e, err := runlog.Write(spool, r)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 != 0 {
			if err := e.End(time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return spool, image
}

func shipArgs(t *testing.T, s *runsServer, spool string, more ...string) []string {
	t.Helper()
	t.Setenv("SINGULARITY_CONFIGDIR", t.TempDir())
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{"runs", "ship", "--no-https", "--server", s.URL, "--token-file", token, "--spool", spool, "--digests", filepath.Join(t.TempDir(), "digests")}, more...)
}

func left(t *testing.T, spool string) int {
	t.Helper()
	list, bad, err := runlog.Read(spool)
	if err != nil || bad != 0 {
		t.Fatal(err, bad)
	}
	return len(list)
}

// TestShip: what has ended and is kept elsewhere goes, what runs stays and is sent
// again with its end.
func TestShip(t *testing.T) {
	s := newRunsServer(t)
	spool, _ := spoolOf(t, 9)
	args := shipArgs(t, s, spool, "--json")
	out, _ := mustRun(t, "", append(args, "--dry-run")...)
	if s.calls != 0 || left(t, spool) != 9 || strings.Count(out, `"verb": "exec"`) != 9 {
		t.Fatalf("a dry run: %d calls, %d left, %s", s.calls, left(t, spool), out)
	}
	out, _ = mustRun(t, "", args...)
	var r shipReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Sent != 9 || r.Running != 3 || r.Removed != 6 || r.Waiting != 0 || left(t, spool) != 3 {
		t.Fatalf("%s, %d left, %v", out, left(t, spool), err)
	}
	want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("an image")))
	running := 0
	for _, x := range s.kept {
		if x.Digest != want || x.Job == "" || x.User == "" {
			t.Errorf("kept %+v", x)
		}
		if x.End.IsZero() {
			running++
		}
	}
	if running != 3 {
		t.Errorf("%d go on", running)
	}
	if out, _ = mustRun(t, "", args...); !strings.Contains(out, `"sent": 3`) || left(t, spool) != 3 || len(s.kept) != 9 {
		t.Errorf("again: %s", out)
	}
	// They end.
	names, _ := os.ReadDir(spool)
	for _, n := range names {
		id, _, _ := strings.Cut(n.Name(), ".")
		if err := os.WriteFile(filepath.Join(spool, id+".end"), []byte(time.Now().UTC().Format(time.RFC3339Nano)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, "", args...)
	if n, _ := os.ReadDir(spool); len(n) != 0 {
		t.Errorf("left are %v", n)
	}
	for _, x := range s.kept {
		if x.End.IsZero() {
			t.Errorf("without an end: %+v", x)
		}
	}
}

// TestShipUnacknowledged: nothing that the server has not said to have is removed,
// whatever happens, and all of it comes in the end, once.
func TestShipUnacknowledged(t *testing.T) {
	s := newRunsServer(t)
	spool, _ := spoolOf(t, 30)
	args := shipArgs(t, s, spool)
	for _, status := range []int{429, 500, 503, 507} {
		s.fail = status
		if _, stderr, code := callIn("", args...); code != 255 || !strings.Contains(stderr, "the next round sends them again") || left(t, spool) != 30 {
			t.Errorf("%d: status %d, %d left: %s", status, code, left(t, spool), stderr)
		}
	}
	s.fail, s.drop = 0, true
	if _, _, code := callIn("", args...); code != 255 || left(t, spool) != 30 || len(s.kept) != 30 {
		t.Errorf("a connection that breaks off: status %d, %d left, %d kept", code, left(t, spool), len(s.kept))
	}
	// Of the second call nothing is answered.
	s.drop, s.take = false, 10
	s.after = func(int) { s.drop = len(s.sizes) > 7 }
	s.sizes = make([]int, 6)
	callIn("", args...)
	if n := left(t, spool); n <= 10 || n >= 30 {
		t.Errorf("%d left after one of several calls", n)
	}
	s.drop, s.take, s.after = false, 7, nil
	mustRun(t, "", args...)
	if left(t, spool) != 10 || len(s.kept) != 30 {
		t.Errorf("%d left, %d kept", left(t, spool), len(s.kept))
	}
}

// TestShipHostile: records of users, and tokens of others.
func TestShipHostile(t *testing.T) {
	s := newRunsServer(t)
	s.bad = "other"
	spool, image := spoolOf(t, 0)
	other := runlog.Record{Start: time.Now(), Host: "other", Verb: "exec", Image: "/etc/shadow"}
	e, err := runlog.Write(spool, other)
	if err != nil {
		t.Fatal(err)
	}
	e.End(time.Now())
	// A file that is not the one of the record any more has no digest.
	changed := runlog.Record{Start: time.Now(), Host: "node1", Verb: "exec"}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	changed.Describe(f, image)
	if _, err := runlog.Write(spool, changed); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, []byte("another image"), 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{strings.Repeat("a", 32) + ".run", strings.Repeat("b", 32) + ".end", "letter.run", "notes.txt"} {
		os.WriteFile(filepath.Join(spool, name), []byte("no record"), 0o600)
		os.Chtimes(filepath.Join(spool, name), old, old)
	}
	args := shipArgs(t, s, spool, "--json")
	out, stderr := mustRun(t, "", args...)
	if !strings.Contains(stderr, "not your host") || strings.Contains(stderr, "\x1b") || !strings.Contains(out, `"swept": 2`) || !strings.Contains(out, `"removed": 1`) {
		t.Errorf("%s %s", out, stderr)
	}
	for _, x := range s.kept {
		if x.Digest != "" {
			t.Errorf("kept %+v", x)
		}
	}
	for _, name := range []string{"letter.run", "notes.txt"} {
		if _, err := os.Stat(filepath.Join(spool, name)); err != nil {
			t.Errorf("%s is gone", name)
		}
	}
	token := args[6]
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	calls := s.calls
	if _, stderr, code := callIn("", args...); code != 255 || !strings.Contains(stderr, "others can read or change it") || s.calls != calls {
		t.Errorf("a token that others can read: status %d, %s", code, stderr)
	}
}

// TestShipMany: batches are no larger than the server takes.
func TestShipMany(t *testing.T) {
	s := newRunsServer(t)
	spool, _ := spoolOf(t, 2500)
	mustRun(t, "", shipArgs(t, s, spool)...)
	if fmt.Sprint(s.sizes) != "[1000 1000 500]" || len(s.kept) != 2500 {
		t.Errorf("calls of %v, %d kept", s.sizes, len(s.kept))
	}
	long := make([]shipped, 1000)
	for i := range long {
		long[i].Image = strings.Repeat("\x00", 4096) // six bytes each in JSON
	}
	for rest := long; len(rest) > 0; {
		n := batch(rest)
		b, err := json.Marshal(rest[:n])
		if err != nil || n < 1 || len(b) > api.MaxRunsBody {
			t.Fatalf("%d records are %d bytes, %v", n, len(b), err)
		}
		rest = rest[n:]
	}
}

// TestShipUnit: the unit of systemd calls the command with flags that it has, and
// systemd understands unit and timer.
func TestShipUnit(t *testing.T) {
	text, err := os.ReadFile("../deploy/systemd/singularity-runs.service")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "\nExecStart=/usr/bin/singularity ")
	line, _, _ = strings.Cut(line, "\n")
	for _, variable := range []string{"SERVER", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"} {
		line = strings.ReplaceAll(line, "${"+variable+"}", t.TempDir())
	}
	words := strings.Fields(line)
	if len(words) < 4 || strings.Join(words[:2], " ") != "runs ship" {
		t.Fatalf("it calls %q", line)
	}
	if err := newRunsShipCommand(nil).ParseFlags(words[2:]); err != nil {
		t.Error(err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not here: only the flags are checked")
		return
	}
	out, _ := exec.Command(analyze, "verify", "--man=no", "../deploy/systemd/singularity-runs.timer", "../deploy/systemd/singularity-runs.service").CombinedOutput()
	for l := range strings.Lines(string(out)) {
		if strings.Contains(l, "singularity-runs.") && !strings.Contains(l, "is not executable") {
			t.Error(l)
		}
	}
}

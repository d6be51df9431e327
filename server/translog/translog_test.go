package translog

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"singularity/api"
	check "singularity/client/translog"
	"singularity/server/store"
	"singularity/server/store/embedded"
)

func newStore(t *testing.T) store.Records {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st.Records
}

func open(t *testing.T, r store.Records) *Log {
	t.Helper()
	l, err := Open(t.Context(), r, "keys.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, l *Log, name string) int64 {
	t.Helper()
	i, err := l.Change(t.Context(), "key", name, "sha256:"+name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// fill adds lines up to a size, written together.
func fill(t *testing.T, l *Log, size int) {
	t.Helper()
	var batch []*change
	for n := int(l.tree.N); n < size; n++ {
		data, err := json.Marshal(api.LogEntry{Kind: "key", Name: fmt.Sprint(n), Digest: fmt.Sprintf("sha256:%d", n)})
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &change{data: data})
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.append(t.Context(), batch)
	for _, c := range batch {
		if c.err != nil {
			t.Fatal(c.err)
		}
	}
}

// Every line is proven at every size, and each tree goes on from the one before;
// full and growing tiles of two levels are in it.
func TestProofs(t *testing.T) {
	r := newStore(t)
	l := open(t, r)
	if _, err := l.Prove(t.Context(), 0, 0); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a proof of the empty log: %v", err)
	}
	var last check.State
	for n := range int64(270) {
		if n == 25 {
			fill(t, l, 245)
		}
		if n >= 25 && n < 245 {
			continue
		}
		name := fmt.Sprint(n)
		if i := add(t, l, name); i != n {
			t.Fatalf("line %d is at %d", n, i)
		}
		if n%10 == 0 {
			l = open(t, r)
		}
		for _, i := range []int64{0, n / 2, n} {
			p, err := l.Prove(t.Context(), i, last.Size)
			if err != nil {
				t.Fatal(err)
			}
			next, err := check.Check(p, "key", fmt.Sprint(i), fmt.Sprintf("sha256:%d", i), last)
			if err != nil || next.Size != n+1 {
				t.Fatalf("line %d of %d after %d: %v (%d)", i, n+1, last.Size, err, next.Size)
			}
			if i == n {
				last = next
			}
		}
	}
}

// Whatever of a proof is changed, it holds no longer; nor is another log taken.
func TestBadProofs(t *testing.T) {
	r := newStore(t)
	l := open(t, r)
	for n := range 20 {
		add(t, l, fmt.Sprint(n))
	}
	p, err := l.Prove(t.Context(), 5, 0)
	if err != nil {
		t.Fatal(err)
	}
	last, err := check.Check(p, "key", "5", "sha256:5", check.State{})
	if err != nil {
		t.Fatal(err)
	}
	add(t, l, "20")
	proof := func() api.LogProof {
		p, err := l.Prove(t.Context(), 5, last.Size)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := check.Check(proof(), "key", "5", "sha256:5", last); err != nil {
		t.Fatal(err)
	}
	other := open(t, newStore(t))
	for n := range 21 {
		add(t, other, fmt.Sprint(n))
	}
	foreign, err := other.Prove(t.Context(), 5, last.Size)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*api.LogProof){
		"hash":         func(p *api.LogProof) { p.Hashes[1][3] ^= 1 },
		"hash missing": func(p *api.LogProof) { p.Hashes = p.Hashes[1:] },
		"short hash":   func(p *api.LogProof) { p.Hashes[0] = p.Hashes[0][:31] },
		"many hashes":  func(p *api.LogProof) { p.Hashes = make([][]byte, 1000) },
		"index":        func(p *api.LogProof) { p.Index = 6 },
		"negative":     func(p *api.LogProof) { p.Index = -1 },
		"entry":        func(p *api.LogProof) { p.Entry = bytes.Replace(p.Entry, []byte("key"), []byte("kex"), 1) },
		"checkpoint":   func(p *api.LogProof) { p.Checkpoint = "x" + p.Checkpoint },
		"unsigned":     func(p *api.LogProof) { p.Checkpoint = p.Checkpoint[:60] },
		"consistency":  func(p *api.LogProof) { p.Consistency[0][0] ^= 1 },
		"none":         func(p *api.LogProof) { p.Consistency = nil },
		"foreign":      func(p *api.LogProof) { *p = foreign },
		"no key":       func(p *api.LogProof) { p.Key = "" },
		"foreign key":  func(p *api.LogProof) { p.Key = foreign.Key },
	} {
		p := proof()
		change(&p)
		if _, err := check.Check(p, "key", "5", "sha256:5", last); !errors.Is(err, check.ErrProof) && !errors.Is(err, check.ErrHistory) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, w := range [][3]string{{"tag", "5", "sha256:5"}, {"key", "6", "sha256:5"}, {"key", "5", "sha256:6"}} {
		if _, err := check.Check(proof(), w[0], w[1], w[2], last); !errors.Is(err, check.ErrProof) {
			t.Errorf("%v: %v", w, err)
		}
	}
	if _, err := check.Check(p, "key", "5", "sha256:5", check.State{Key: last.Key, Size: 21, Root: last.Root}); !errors.Is(err, check.ErrHistory) {
		t.Errorf("a log that shrank: %v", err)
	}
	if _, err := check.Check(p, "key", "5", "sha256:5", check.State{Key: last.Key, Size: 20, Root: make([]byte, 32)}); !errors.Is(err, check.ErrHistory) {
		t.Errorf("a log with another past: %v", err)
	}
}

func TestConcurrentChanges(t *testing.T) {
	l := open(t, newStore(t))
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]string{}
	for n := range 60 {
		wg.Go(func() {
			name := fmt.Sprint(n)
			i, err := l.Change(t.Context(), "tag", name, name)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[i] != "" {
				t.Errorf("%s at %d: %v", name, i, err)
			}
			seen[i] = name
		})
	}
	wg.Wait()
	for i, name := range seen {
		p, err := l.Prove(t.Context(), i, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := check.Check(p, "tag", name, name, check.State{}); err != nil {
			t.Error(err)
		}
	}
}

// dying is storage that stops writing after some writes, as a machine does.
type dying struct {
	store.Records
	left int
}

var errDead = errors.New("dead")

func (d *dying) alive() error {
	if d.left--; d.left < 0 {
		return errDead
	}
	return nil
}

func (d *dying) Insert(ctx context.Context, c string, doc store.Doc) (int64, error) {
	if err := d.alive(); err != nil {
		return 0, err
	}
	return d.Records.Insert(ctx, c, doc)
}

func (d *dying) Replace(ctx context.Context, c string, doc store.Doc) (int64, error) {
	if err := d.alive(); err != nil {
		return 0, err
	}
	return d.Records.Replace(ctx, c, doc)
}

// After a stop at any write no acknowledged line is lost or moved, the log opens
// and goes on from every checkpoint that was shown: at the beginning, and where a
// tile ends and one above it begins.
func TestCrash(t *testing.T) {
	full := filepath.Join(t.TempDir(), "full")
	st, err := embedded.Open(full)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, open(t, st.Records), 254)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for left := range 16 {
		crash(t, newStore(t), 0, left)
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(full)); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			return os.Chmod(path, 0o700)
		})
		if err != nil {
			t.Fatal(err)
		}
		again, err := embedded.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		crash(t, again.Records, 254, left)
		again.Close()
	}
}

// crash adds lines from first on until the storage dies, and looks what is left.
func crash(t *testing.T, r store.Records, first, left int) {
	t.Helper()
	var last check.State
	known := first
	if l, err := Open(t.Context(), &dying{r, left}, "keys.example"); err == nil {
		for ; known < first+4; known++ {
			if _, err := l.Change(t.Context(), "key", fmt.Sprint(known), fmt.Sprintf("sha256:%d", known)); err != nil {
				break
			}
		}
		if known > 0 {
			p, err := l.Prove(t.Context(), int64(known-1), 0)
			if err != nil {
				t.Fatal(err)
			}
			if last, err = check.Check(p, "key", fmt.Sprint(known-1), fmt.Sprintf("sha256:%d", known-1), last); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := open(t, r)
	add(t, l, "after")
	for i := max(0, first-3); i < known; i++ {
		p, err := l.Prove(t.Context(), int64(i), last.Size)
		if err != nil {
			t.Fatalf("after %d writes: line %d: %v", left, i, err)
		}
		if _, err := check.Check(p, "key", fmt.Sprint(i), fmt.Sprintf("sha256:%d", i), last); err != nil {
			t.Fatalf("after %d writes: line %d: %v", left, i, err)
		}
	}
}

// A storage that changed a hash is noticed before anything is signed.
func TestDamagedTile(t *testing.T) {
	r := newStore(t)
	l := open(t, r)
	for n := range 10 {
		add(t, l, fmt.Sprint(n))
	}
	if _, err := l.tiles.Update(t.Context(), "0/"+lineKey(0), func(x *tile) error { x.Hashes[40] ^= 1; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Change(t.Context(), "key", "x", "x"); err == nil {
		t.Error("a log of damaged hashes grows")
	}
	if _, err := l.Prove(t.Context(), 3, 0); err == nil {
		t.Error("damaged hashes prove something")
	}
}

// A monitor that knows only the served tiles comes to the root of the checkpoint.
func TestServedTiles(t *testing.T) {
	l := open(t, newStore(t))
	fill(t, l, 300)
	mux := http.NewServeMux()
	for _, r := range l.Routes() {
		mux.HandleFunc(r.Pattern, r.Handler)
	}
	get := func(path string, status int) []byte {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != status {
			t.Fatalf("%s gives %d, want %d: %s", path, w.Code, status, w.Body)
		}
		return w.Body.Bytes()
	}
	var leaves []tlog.Hash
	for _, part := range []struct {
		path string
		w    int
	}{{"000", 256}, {"001.p/44", 44}} {
		lines, hashes := get("/v1/log/tile/entries/"+part.path, 200), get("/v1/log/tile/0/"+part.path, 200)
		for i := range part.w {
			n := int(binary.BigEndian.Uint16(lines))
			h := tlog.RecordHash(lines[2 : 2+n])
			if !bytes.Equal(h[:], hashes[32*i:32*i+32]) {
				t.Fatalf("line %d of %s has another hash", i, part.path)
			}
			leaves, lines = append(leaves, h), lines[2+n:]
		}
		if len(lines) != 0 {
			t.Fatal("bytes follow the lines")
		}
	}
	stored := map[int64]tlog.Hash{}
	reader := tlog.HashReaderFunc(func(list []int64) (out []tlog.Hash, _ error) {
		for _, i := range list {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n, h := range leaves {
		list, err := tlog.StoredHashesForRecordHash(int64(n), h, reader)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range list {
			stored[tlog.StoredHashIndex(0, int64(n))+int64(i)] = h
		}
	}
	root, err := tlog.TreeHash(300, reader)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("keys.example:8443\n300\n%s\n\n", root); !bytes.HasPrefix(get("/v1/log/checkpoint", 200), []byte(want)) {
		t.Errorf("checkpoint\n%swant\n%s", get("/v1/log/checkpoint", 200), want)
	}
	get("/v1/log/tile/1/000.p/1", 200)
	for path, status := range map[string]int{
		"tile/0/001": 404, "tile/0/001.p/45": 404, "tile/1/000": 404, "tile/2/000.p/1": 404, "tile/9/000": 404, "tile/0/x999/999/999.p/1": 400, "tile/0/x999/x999/999.p/1": 404, "tile/0/1": 400, "tile/x": 400,
		"tile/entries/001": 404, "tile/data/000": 400, "consistency?from=0": 400, "consistency?from=5&to=301": 400, "consistency?from=x": 400, "inclusion?index=300": 404, "inclusion": 404,
	} {
		get("/v1/log/"+path, status)
	}
	var c struct{ Data api.LogConsistency }
	if err := json.Unmarshal(get("/v1/log/consistency?from=100&to=200", 200), &c); err != nil {
		t.Fatal(err)
	}
	var proof tlog.TreeProof
	for _, h := range c.Data.Hashes {
		proof = append(proof, tlog.Hash(h))
	}
	old, _ := tlog.TreeHash(100, reader)
	later, _ := tlog.TreeHash(200, reader)
	if err := tlog.CheckTree(proof, 200, later, 100, old); err != nil {
		t.Error(err)
	}
}

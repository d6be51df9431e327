package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"singularity/advisory"
	"singularity/sbom"
)

// small is a watch without a library: advisories and lists of packages alone.
func small(t *testing.T, advisories string) *Service {
	s := &Service{o: Options{Dir: t.TempDir(), Advisories: advisories}, corpus: newCorpus(), log: slog.New(slog.DiscardHandler), now: time.Now}
	s.startData(t.Context())
	return s
}

// world is a directory of advisories and some images, both of which change.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	day    int
	images map[string]*sbom.Inventory
}

func (w *world) write(name string, texts ...string) {
	p := filepath.Join(w.dir, name)
	if err := errors.Join(os.WriteFile(p+".part", []byte("["+strings.Join(texts, ",")+"]"), 0o644), os.Rename(p+".part", p)); err != nil {
		w.t.Fatal(err)
	}
}

// advisories changes a file of records, or removes it.
func (w *world) advisories() {
	w.day++
	name := fmt.Sprintf("f%d.json", w.rng.IntN(8))
	if w.rng.IntN(5) == 0 {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatal(err)
		}
		return
	}
	var list []string
	for range 1 + w.rng.IntN(4) {
		modified := time.Date(2026, 1, 1, w.day, 0, 0, 0, time.UTC).Format(time.RFC3339)
		eco := []string{"Debian:12", "Debian", "npm"}[w.rng.IntN(3)]
		list = append(list, rec(fmt.Sprint("A-", w.rng.IntN(60)), modified, eco, fmt.Sprint("p", w.rng.IntN(10)), fmt.Sprintf("1.%d", w.rng.IntN(9)), []string{"low", "high"}[w.rng.IntN(2)], fmt.Sprint("CVE-1-", w.rng.IntN(20))))
	}
	w.write(name, list...)
}

// inventory is the list of an image, a few of them larger than is kept in memory.
func (w *world) inventory() *sbom.Inventory {
	inv := &sbom.Inventory{Distro: sbom.Distro{ID: "debian", Version: fmt.Sprint(11 + w.rng.IntN(2))}}
	for range 1 + w.rng.IntN(6) {
		p := deb(fmt.Sprint("p", w.rng.IntN(10)), fmt.Sprintf("1.%d", w.rng.IntN(9)))
		switch w.rng.IntN(3) {
		case 0:
			p.Type = "npm"
		case 1:
			p.Name, p.Source = "lib"+p.Name, p.Name
		}
		inv.Packages = append(inv.Packages, p)
	}
	if w.rng.IntN(12) == 0 {
		for n := range maxShared {
			inv.Packages = append(inv.Packages, deb(fmt.Sprint("other", n), "1"))
		}
	}
	return inv
}

func (w *world) kept(_ context.Context, hash string) (*sbom.Inventory, error) {
	if inv := w.images[hash]; inv != nil {
		return inv, nil
	}
	return nil, fmt.Errorf("%s is gone", hash)
}

// change adds, replaces or removes an image.
func (w *world) change(c *corpus) {
	hash := fmt.Sprint("image", w.rng.IntN(12))
	if w.rng.IntN(3) == 0 {
		delete(w.images, hash)
		c.remove(hash)
		return
	}
	w.images[hash] = w.inventory()
	if err := c.add(w.t.Context(), hash, w.images[hash]); err != nil {
		w.t.Fatal(err)
	}
}

// TestIncrementalIsExact: after whatever changes of advisories and images the findings are
// those of a pass from nothing.
func TestIncrementalIsExact(t *testing.T) {
	compared, found, partial := 0, 0, 0
	for seed := range uint64(6) {
		w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 3)), dir: t.TempDir(), images: map[string]*sbom.Inventory{}}
		db, c := new(advisory.DB), newCorpus()
		files := mirrorCopy{dir: t.TempDir(), files: map[string]copied{}}
		for step := range 30 {
			for range 1 + w.rng.IntN(2) {
				if w.rng.IntN(2) == 0 {
					w.change(c)
				} else {
					w.advisories()
				}
			}
			seen, err := look(w.dir, time.Now().Add(time.Duration(step)*time.Nanosecond))
			if err != nil {
				t.Fatal(err)
			}
			now, err := files.bring(t.Context(), w.dir, seen)
			if err == nil {
				err = files.keep(now)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := db
			if db, err = db.Next(t.Context(), files.sources(now)); err != nil {
				t.Fatal(err)
			}
			if ids, _ := c.concerned(db.Changed(before)); len(ids) < len(c.ids) {
				partial++
			}
			if err := c.use(t.Context(), db, w.kept); err != nil {
				t.Fatal(err)
			}
			whole := newCorpus()
			for hash, inv := range w.images {
				if err := whole.add(t.Context(), hash, inv); err != nil {
					t.Fatal(err)
				}
			}
			var all *advisory.DB
			if all, err = new(advisory.DB).Next(t.Context(), files.sources(now)); err == nil {
				err = whole.use(t.Context(), all, w.kept)
			}
			if err != nil {
				t.Fatal(err)
			}
			for hash := range w.images {
				got, _ := c.image(hash)
				want, _ := whole.image(hash)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, step %d, %s: %+v\nfrom nothing %+v", seed, step, hash, got, want)
				}
				compared, found = compared+1, found+len(got.findings)
			}
			for id := range 20 {
				name := fmt.Sprint("CVE-1-", id)
				if got, want := c.touched(name), whole.touched(name); !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, step %d: %s touches %v, from nothing %v", seed, step, name, got, want)
				}
			}
		}
		for hash := range w.images {
			c.remove(hash)
		}
		if len(c.about) != 0 || len(c.found) != 0 || len(c.ids) != 0 {
			t.Errorf("without images there are %d names, %d findings and %d packages", len(c.about), len(c.found), len(c.ids))
		}
	}
	if found < 300 || partial < 100 {
		t.Errorf("%d findings in %d comparisons, %d passes over a part: that proves little", found, compared, partial)
	}
}

// TestMirror: a file that changes is noticed although its size and the time that it tells
// stay, or go back; what was not changed is not copied again, and nothing is left over.
func TestMirror(t *testing.T) {
	w := &world{t: t, dir: t.TempDir()}
	s := small(t, w.dir)
	var old []string
	for n := range 30 {
		old = append(old, rec(fmt.Sprint("A-", n), day1, "npm", fmt.Sprint("p", n), "1.5", "low"))
		w.write(fmt.Sprintf("a%d.json", n), old[n])
	}
	inv := &sbom.Inventory{Packages: []sbom.Package{{Type: "npm", Name: "p3", Version: "1.0"}, {Type: "npm", Name: "p4", Version: "1.0"}}}
	if err := s.corpus.add(t.Context(), "image", inv); err != nil {
		t.Fatal(err)
	}
	is := func(what, want string) {
		t.Helper()
		s.lookAtData(t.Context())
		k, _ := s.corpus.image("image")
		var got []string
		for _, f := range k.findings {
			got = append(got, f.ID+" "+strings.Join(f.Fixed, ","))
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: %q, want %q; %s", what, got, want, s.data.problem)
		}
	}
	is("all", "A-3 1.5; A-4 1.5")
	// Everything is settled: from now on files that stay are known by their times.
	for path, v := range s.data.copy.files {
		v.Seen.Look = 0
		s.data.copy.files[path] = v
	}
	path := filepath.Join(w.dir, "a3.json")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	text := "[" + strings.Replace(strings.Replace(old[3], "1.5", "1.7", 1), day1, day2, 1) + "]"
	before := s.data.copy.files["a4.json"]
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
	is("the same size and time", "A-3 1.7; A-4 1.5")
	if err := os.Chtimes(path, day(t, day1), day(t, day1).AddDate(-1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	is("a time that goes back", "A-3 1.7; A-4 1.5")
	if after := s.data.copy.files["a4.json"]; after.Digest != before.Digest {
		t.Error("a file that stayed was changed")
	}
	if err := os.Remove(filepath.Join(w.dir, "a4.json")); err != nil {
		t.Fatal(err)
	}
	is("a record is gone", "A-3 1.7")
	w.write("b.json", rec("B", day2, "npm", "p4", "2", "critical"), "5", `{"id":""}`)
	is("two of three are of no use", "B 2; A-3 1.7")
	// One new record among old ones, and then fewer.
	w.write("c.json", rec("C", "2026-03-01T00:00:00Z", "npm", "p4", "3", "low"))
	for n := range 5 {
		w.write(fmt.Sprintf("a%d.json", 10+n), strings.Replace(old[10+n], day1, "2025-01-01T00:00:00Z", 1))
	}
	is("a mirror that goes back in time", "B 2; A-3 1.7")
	if !strings.Contains(s.data.problem, "go back in time: 5 of the 30") {
		t.Errorf("%q", s.data.problem)
	}
	same := func(when string) {
		t.Helper()
		have := map[string]bool{}
		filepath.WalkDir(s.data.copy.dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				have[filepath.Base(filepath.Dir(p))+d.Name()] = true
			}
			return err
		})
		if want := len(digestsOf(s.data.copy.files)) + 1; len(have) != want {
			t.Errorf("%s: %d files are in the copy, want %d", when, len(have), want)
		}
	}
	same("after data that was refused")
	// A restart goes on with what was good, without reading the mirror.
	restarted := &Service{o: s.o, corpus: newCorpus(), log: s.log, now: time.Now}
	damaged := s.data.copy.files["b.json"]
	if err := os.Truncate(s.data.copy.path(damaged.Digest), 1); err != nil {
		t.Fatal(err)
	}
	restarted.startData(t.Context())
	if i := restarted.data.info; i == nil || i.Records != 29 || restarted.data.problem != "" {
		t.Errorf("after a restart with one damaged file: %+v, %q", i, restarted.data.problem)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(s.data.copy.dir, "new-1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	again := &Service{o: s.o, corpus: newCorpus(), log: s.log, now: time.Now}
	again.startData(t.Context())
	s = again
	same("after a crash")
	if err := s.corpus.add(t.Context(), "image", inv); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		w.write(fmt.Sprintf("a%d.json", 10+n), old[10+n])
	}
	is("the mirror is well again", "B 2; A-3 1.7; C 3")
	same("at the end")
}

func day(t *testing.T, text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestMirrorByLink: the directory may be a link that points to another one later, and a
// file by itself an archive by the name that it is called.
func TestMirrorByLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	for n, name := range []string{"one", "two"} {
		text, err := json.Marshal([]json.RawMessage{json.RawMessage(rec(fmt.Sprint("A-", n), []string{day1, day2}[n], "npm", "p", "", "low")), json.RawMessage(rec("B", day1, "npm", "q", "", "low"))})
		if err = errors.Join(err, os.Mkdir(filepath.Join(dir, name), 0o755), os.WriteFile(filepath.Join(dir, name, "a.json"), text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("one", link); err != nil {
		t.Fatal(err)
	}
	s := small(t, link)
	s.lookAtData(t.Context())
	if s.data.db == nil || s.data.db.Record("A-0") == nil {
		t.Fatalf("a link to a directory: %q", s.data.problem)
	}
	// Nearly all is another: of two records one is gone.
	if err := errors.Join(os.Remove(link), os.Symlink("two", link)); err != nil {
		t.Fatal(err)
	}
	s.lookAtData(t.Context())
	if s.data.problem == "" || s.data.db.Record("A-0") == nil {
		t.Error("half of the records are gone")
	}
	one := small(t, filepath.Join(link, "a.json"))
	if one.lookAtData(t.Context()); one.data.db == nil || one.data.db.Record("A-1") == nil {
		t.Errorf("a file by itself: %q", one.data.problem)
	}
}

package advisory

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"singularity/sbom"
)

// mirror is a directory of files that change.
type mirror struct {
	t     *testing.T
	dir   string
	rng   *rand.Rand
	files map[string]int // name to the number of its state
	turn  int
}

// record writes one of some 40 records, in one of many states.
func (m *mirror) record() string {
	r := m.rng
	text := rec(fmt.Sprint("A-", r.IntN(40)), []string{"Debian:12", "Debian", "npm", "PyPI", "Debian:12:x"}[r.IntN(5)], fmt.Sprint([]string{"p", "P_"}[r.IntN(2)], r.IntN(8)), fmt.Sprintf("%d.%d", r.IntN(3), r.IntN(5)))
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		m.t.Fatal(err)
	}
	v["modified"] = time.Date(2026, 1, 1+r.IntN(3), 0, 0, 0, 0, time.UTC)
	switch r.IntN(8) {
	case 0:
		v["withdrawn"] = v["modified"]
	case 1:
		v["affected"] = append(v["affected"].([]any), map[string]any{"package": map[string]any{"ecosystem": "npm", "name": fmt.Sprint("p", r.IntN(8))}, "versions": []string{"1.1", "2.2"}})
	case 2:
		v["upstream"] = []string{fmt.Sprint("CVE-1-", r.IntN(9)), fmt.Sprint("CVE-1-", r.IntN(9))}
	case 3:
		v["id"] = "no\nid"
	}
	v["aliases"] = []string{fmt.Sprint("CVE-1-", r.IntN(9))}
	v["summary"] = fmt.Sprint("summary ", r.IntN(3))
	b, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

func (m *mirror) content(name string) []byte {
	list := make([]string, m.rng.IntN(6))
	for i := range list {
		list[i] = m.record()
	}
	switch {
	case m.rng.IntN(12) == 0:
		return []byte("{")
	case strings.HasSuffix(name, ".json") && m.rng.IntN(2) == 0:
		return []byte(m.record())
	case strings.HasSuffix(name, ".json"):
		return []byte("[" + strings.Join(list, ",") + "]")
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i, text := range list {
		w, err := z.Create(fmt.Sprintf("%d.json", i))
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	z.Close()
	return b.Bytes()
}

// step changes some files.
func (m *mirror) step() {
	for range 1 + m.rng.IntN(3) {
		name := fmt.Sprintf("f%d.%s", m.rng.IntN(9), []string{"json", "json", "zip"}[m.rng.IntN(3)])
		m.turn++
		if m.rng.IntN(4) == 0 {
			delete(m.files, name)
			if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				m.t.Fatal(err)
			}
			continue
		}
		b := m.content(name)
		if strings.HasSuffix(name, ".zip") && !bytes.HasPrefix(b, []byte("PK")) {
			continue // an archive that cannot be read is an error of the whole
		}
		m.files[name] = m.turn
		if err := os.WriteFile(filepath.Join(m.dir, name), b, 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *mirror) sources() (list []Source) {
	for name, state := range m.files {
		p := filepath.Join(m.dir, name)
		list = append(list, Source{Name: p, Stamp: fmt.Sprint(state), Open: func() (*os.File, error) { return os.Open(p) }})
	}
	return list
}

// everyPackage is each of a small world.
func everyPackage() *sbom.Inventory {
	inv := debian("12")
	for n := range 8 {
		for _, v := range []string{"0.3", "1.1", "2.2"} {
			for _, kind := range []string{"deb", "npm", "pypi"} {
				inv.Packages = append(inv.Packages, sbom.Package{Type: kind, Name: fmt.Sprint("p", n), Version: v}, sbom.Package{Type: kind, Name: fmt.Sprint("P_", n), Version: v, Source: fmt.Sprint("p", n)})
			}
		}
	}
	return inv
}

// TestNextIsExact: whatever happens to the files, what Next makes of the state before is
// what a reading from nothing makes, and Changed names all packages whose findings are
// others.
func TestNextIsExact(t *testing.T) {
	inv := everyPackage()
	changed, rounds := 0, 0
	for seed := range uint64(8) {
		m := &mirror{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 7)), files: map[string]int{}}
		db, before := new(DB), []Finding(nil)
		for step := range 25 {
			m.step()
			next, err := db.Next(t.Context(), m.sources())
			if err != nil {
				t.Fatal(err)
			}
			whole, err := new(DB).Next(t.Context(), m.sources())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(next.Info(), whole.Info()) {
				t.Fatalf("seed %d, step %d: %+v\nfrom nothing %+v", seed, step, next.Info(), whole.Info())
			}
			after := match(t, next, inv)
			if want := match(t, whole, inv); !reflect.DeepEqual(after, want) {
				t.Fatalf("seed %d, step %d: findings\n%+v\nfrom nothing\n%+v", seed, step, after, want)
			}
			for id := range 40 {
				if a, b := next.Record(fmt.Sprint("A-", id)), whole.Record(fmt.Sprint("A-", id)); (a == nil) != (b == nil) || a != nil && (a.Summary != b.Summary || !a.Modified.Equal(b.Modified)) {
					t.Fatalf("seed %d, step %d: record %d is %+v, from nothing %+v", seed, step, id, a, b)
				}
			}
			names := next.Changed(db)
			others := func(list []Finding) map[string]bool {
				m := map[string]bool{}
				for _, f := range list {
					if !names[Subject(&f.Package)] {
						m[fmt.Sprintf("%+v", f)] = true
					}
				}
				return m
			}
			if !maps.Equal(others(before), others(after)) {
				t.Fatalf("seed %d, step %d: findings of packages that are not among %v have changed", seed, step, slices.Collect(maps.Keys(names)))
			}
			changed, rounds = changed+len(names), rounds+1
			db, before = next, after
		}
	}
	if mean := changed / rounds; mean < 1 || mean > 12 {
		t.Errorf("in the mean %d names of packages change in a step", mean)
	}
}

// TestNextReads: what has not changed is not read, and what reads as before is not
// understood again.
func TestNextReads(t *testing.T) {
	m := &mirror{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(1, 1))}
	opened := 0
	list := []Source{}
	for n := range 10 {
		p := filepath.Join(m.dir, fmt.Sprint(n, ".json"))
		if err := os.WriteFile(p, []byte(rec(fmt.Sprint("A-", n), "npm", fmt.Sprint("p", n), "")), 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, Source{Name: p, Stamp: "1", Open: func() (*os.File, error) { opened++; return os.Open(p) }})
	}
	one, err := new(DB).Next(t.Context(), list)
	if err != nil || opened != 10 {
		t.Fatal(err, opened)
	}
	list[3].Stamp, list[4].Stamp = "2", ""
	two, err := one.Next(t.Context(), list)
	if err != nil || opened != 12 {
		t.Fatal(err, opened)
	}
	if names := two.Changed(one); len(names) != 0 || two.Info().Digest != one.Info().Digest {
		t.Errorf("the same texts change %v", names)
	}
	three, err := two.Next(t.Context(), slices.Concat(list[:2], list[3:]))
	if err != nil {
		t.Fatal(err)
	}
	if names := three.Changed(one); !maps.Equal(names, map[string]bool{"p2": true}) || three.Record("A-2") != nil || one.Record("A-2") == nil {
		t.Errorf("without the third: %v", names)
	}
}

// TestBackInTime: one new record does not hide that the others are older.
func TestBackInTime(t *testing.T) {
	records := func(day int, extra ...string) *DB {
		var list []string
		for n := range 20 {
			list = append(list, strings.Replace(rec(fmt.Sprint("A-", n), "npm", "x", ""), "2026-01-02", fmt.Sprintf("2026-01-%02d", day), 1))
		}
		return build(t, append(list, extra...)...)
	}
	newer := strings.Replace(rec("B", "npm", "x", ""), "2026-01-02", "2026-03-01", 1)
	if err := records(5, newer).Keeps(records(3)); err != nil {
		t.Error(err)
	}
	if err := records(3, newer).Keeps(records(5)); err == nil || !strings.Contains(err.Error(), "20 of the 20") {
		t.Error(err)
	}
	if err := records(3).Keeps(records(5)); err == nil {
		t.Error("all are older")
	}
}

// TestLongList: a list may be larger than a record, as those are that are made of what
// distributions publish; a record in it may not.
func TestLongList(t *testing.T) {
	p := filepath.Join(t.TempDir(), "long.json")
	var b strings.Builder
	b.WriteString("[")
	n := 0
	for ; b.Len() < maxRecord*5/4; n++ {
		b.WriteString(strings.Replace(rec(fmt.Sprint("A-", n), "npm", "x", ""), `"affected"`, `"details":"`+strings.Repeat("x", 10000)+`","affected"`, 1) + ",")
	}
	good := b.String() + rec("B", "npm", "x", "") + "]"
	for text, want := range map[string][2]int{
		good: {n + 1, 0},
		b.String() + `{"id":"L","details":"` + strings.Repeat("x", 2*maxRecord+maxRecord/2) + `"},` + rec("B", "npm", "x", "") + "]": {n, 1},
		b.String() + `5,{"id":7},` + rec("B", "npm", "x", "") + "]":                                                                  {n + 1, 2},
		b.String(): {n, 1},
	} {
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		db, err := Load(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if i := db.Info(); i.Records != want[0] || i.Skipped != want[1] {
			t.Errorf("%d records, %d not usable; want %v: %q", i.Records, i.Skipped, want, i.Unusable)
		}
	}
}

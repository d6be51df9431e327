// Package storetest has the tests that every backend of package store passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singularity/server/store"
)

// Thing is what the tests store.
type Thing struct {
	Name   string
	Owner  string
	Labels []string
	Count  int
	Ends   time.Time
}

func things(t *testing.T, r store.Records, name string) *store.Collection[Thing] {
	t.Helper()
	c, err := store.Open(t.Context(), r, name, store.Options[Thing]{
		Expires: func(v *Thing) time.Time { return v.Ends },
		Indexes: []store.Index[Thing]{
			{Name: "name", Unique: true, Of: func(v *Thing) []string { return []string{v.Name} }},
			{Name: "owner", Of: func(v *Thing) []string { return []string{v.Owner} }},
			{Name: "label", Of: func(v *Thing) []string { return v.Labels }},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Records tests a backend; open returns an empty one, which it closes itself.
func Records(t *testing.T, open func(t *testing.T) store.Records) {
	for name, test := range map[string]func(*testing.T, store.Records){
		"documents": testDocuments, "unique": testUnique, "conflict": testConflict, "concurrent": testConcurrent, "list": testList,
		"pages": testPages, "expiry": testExpiry, "bad": testBad, "reindex": testReindex, "hostile": testHostile, "cancel": testCancel,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func testDocuments(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	_, err := c.Get(ctx, "a")
	want(t, err, store.ErrNotFound)
	a := must(c.Insert(ctx, "a", Thing{Name: "one", Count: 1}))(t)
	_, err = c.Insert(ctx, "a", Thing{Name: "other"})
	want(t, err, store.ErrExists)
	got := must(c.Get(ctx, "a"))(t)
	if got.Value.Name != "one" || got.Rev != a.Rev || got.Rev == 0 {
		t.Fatalf("got %+v, wrote %+v", got, a)
	}
	got.Value.Count = 2
	b := must(c.Replace(ctx, got))(t)
	if b.Rev == a.Rev {
		t.Fatal("the revision has not changed")
	}
	if got = must(c.Get(ctx, "a"))(t); got.Value.Count != 2 || got.Rev != b.Rev {
		t.Fatalf("got %+v after the change", got)
	}
	other := things(t, r, "others")
	_, err = other.Get(ctx, "a")
	want(t, err, store.ErrNotFound)
	must(other.Insert(ctx, "a", Thing{Name: "one"}))(t)
	want(t, c.Delete(ctx, "a", a.Rev), store.ErrConflict)
	want(t, c.Delete(ctx, "a", b.Rev), nil)
	want(t, c.Delete(ctx, "a", 0), store.ErrNotFound)
	_, err = c.Replace(ctx, b)
	want(t, err, store.ErrNotFound)
	again := must(c.Insert(ctx, "a", Thing{Name: "one"}))(t)
	if again.Rev == a.Rev || again.Rev == b.Rev {
		t.Fatal("a revision came twice for a key")
	}
	want(t, other.Delete(ctx, "a", 0), nil)
	must(c.Get(ctx, "a"))(t)
}

func testUnique(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	must(c.Insert(ctx, "a", Thing{Name: "one"}))(t)
	_, err := c.Insert(ctx, "b", Thing{Name: "one"})
	want(t, err, store.ErrExists)
	_, err = c.Get(ctx, "b")
	want(t, err, store.ErrNotFound)
	b := must(c.Insert(ctx, "b", Thing{Name: "two"}))(t)
	b.Value.Name = "one"
	_, err = c.Replace(ctx, b)
	want(t, err, store.ErrExists)
	if found := must(c.Find(ctx, "name", "two"))(t); found.Key != "b" {
		t.Fatalf("found %+v", found)
	}
	must(c.Update(ctx, "a", func(v *Thing) error { v.Name = "three"; return nil }))(t)
	must(c.Replace(ctx, b))(t) // the name is free now
	_, err = c.Find(ctx, "name", "two")
	want(t, err, store.ErrNotFound)
	// Documents without a value do not get in each other's way.
	must(c.Insert(ctx, "c", Thing{}))(t)
	must(c.Insert(ctx, "d", Thing{}))(t)
}

func testConflict(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	a := must(c.Insert(ctx, "a", Thing{Name: "one"}))(t)
	first, second := a, a
	first.Value.Count, second.Value.Count = 1, 2
	must(c.Replace(ctx, first))(t)
	_, err := c.Replace(ctx, second)
	want(t, err, store.ErrConflict)
	stop := errors.New("stop")
	_, err = c.Update(ctx, "a", func(v *Thing) error { v.Count = 9; return stop })
	want(t, err, stop)
	if got := must(c.Get(ctx, "a"))(t); got.Value.Count != 1 {
		t.Fatalf("got %+v", got)
	}
}

// testConcurrent lets many change one document and insert one name.
func testConcurrent(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	must(c.Insert(ctx, "sum", Thing{Name: "sum"}))(t)
	const writers, rounds = 8, 15
	var won atomic.Int64
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range rounds {
				if _, err := c.Update(ctx, "sum", func(v *Thing) error { v.Count++; return nil }); err != nil {
					t.Error(err)
				}
				_, err := c.Insert(ctx, fmt.Sprintf("%d-%d", w, i), Thing{Name: fmt.Sprint("name ", i)})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, store.ErrExists) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := must(c.Get(ctx, "sum"))(t); got.Value.Count != writers*rounds {
		t.Fatalf("%d of %d changes are there", got.Value.Count, writers*rounds)
	}
	if n := must(c.Count(ctx, store.Query{}))(t); n != rounds+1 || won.Load() != rounds {
		t.Fatalf("%d documents, %d inserts won, want %d", n, won.Load(), rounds)
	}
}

func keys[T any](items []store.Item[T]) string {
	var out []string
	for _, i := range items {
		out = append(out, i.Key)
	}
	return strings.Join(out, " ")
}

func testList(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	for i, v := range []Thing{
		{Name: "delta", Owner: "ann", Labels: []string{"red", "round"}}, {Name: "alpha", Owner: "bob", Labels: []string{"red"}},
		{Name: "beta", Owner: "ann", Labels: []string{"green", "rough", "red"}}, {Name: "betamax", Owner: "ann"}, {Name: "Ω", Owner: "annabel"},
	} {
		must(c.Insert(ctx, fmt.Sprintf("k%d", i), v))(t)
	}
	for _, row := range []struct {
		q    store.Query
		want string
	}{
		{store.Query{}, "k0 k1 k2 k3 k4"},
		{store.Query{Reverse: true}, "k4 k3 k2 k1 k0"},
		{store.Query{Prefix: "k3"}, "k3"},
		{store.Query{From: "k1", To: "k3"}, "k1 k2"},
		{store.Query{Index: "owner", Equal: "ann"}, "k0 k2 k3"},
		{store.Query{Index: "owner", Equal: "an"}, ""},
		{store.Query{Index: "owner", Equal: "ann", Reverse: true}, "k3 k2 k0"},
		{store.Query{Index: "owner", Prefix: "ann"}, "k0 k2 k3 k4"},
		{store.Query{Index: "name"}, "k1 k2 k3 k0 k4"},
		{store.Query{Index: "name", Reverse: true}, "k4 k0 k3 k2 k1"},
		{store.Query{Index: "name", Prefix: "beta"}, "k2 k3"},
		{store.Query{Index: "name", From: "b", To: "betamax"}, "k2"},
		{store.Query{Index: "name", From: "b", Prefix: "a"}, ""},
		{store.Query{Index: "name", Contains: "eta"}, "k2 k3"},
		{store.Query{Index: "name", Contains: "%"}, ""},
		{store.Query{Index: "label", Contains: "r"}, "k0 k1 k2"},
		{store.Query{Index: "label", Equal: "red"}, "k0 k1 k2"},
		{store.Query{Index: "label", Prefix: "r"}, "k0 k1 k2 k2 k0"}, // red red red rough round
	} {
		items, next, err := c.List(ctx, row.q)
		if err != nil || keys(items) != row.want || next != "" {
			t.Errorf("%+v: %q %q %v, want %q", row.q, keys(items), next, err, row.want)
		}
		if n := must(c.Count(ctx, row.q))(t); n != int64(len(strings.Fields(row.want))) {
			t.Errorf("%+v: counted %d", row.q, n)
		}
	}
}

// testPages reads everything in pages of every size and finds it once.
func testPages(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	for i := range 23 {
		must(c.Insert(ctx, fmt.Sprintf("k%02d", i), Thing{Name: fmt.Sprint(i%7, " ", i), Owner: fmt.Sprint(i % 3), Labels: []string{"x", fmt.Sprint(i % 2)}}))(t)
	}
	for _, q := range []store.Query{{}, {Index: "name"}, {Index: "owner"}, {Index: "owner", Equal: "1"}, {Index: "label", Contains: "x"}, {Index: "label"}, {Prefix: "k1"}} {
		for _, q.Reverse = range []bool{false, true} {
			q.Limit = 0
			all, _, err := c.List(ctx, q)
			if err != nil || len(all) < 7 {
				t.Fatal(len(all), err)
			}
			for _, q.Limit = range []int{1, 2, 7, 22, 23, 24} {
				var got []store.Item[Thing]
				for i, err := range c.All(ctx, q) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, i)
				}
				if keys(got) != keys(all) {
					t.Fatalf("%+v: %s, want %s", q, keys(got), keys(all))
				}
			}
		}
	}
}

func testExpiry(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	must(c.Insert(ctx, "stays", Thing{Name: "stays", Ends: time.Now().Add(time.Hour)}))(t)
	for i := range 3 {
		must(c.Insert(ctx, fmt.Sprint("gone", i), Thing{Name: fmt.Sprint("name", i), Owner: "o", Ends: time.Now().Add(-time.Second)}))(t)
	}
	_, err := c.Get(ctx, "gone0")
	want(t, err, store.ErrNotFound)
	want(t, c.Delete(ctx, "gone0", 0), store.ErrNotFound)
	if items, _, err := c.List(ctx, store.Query{Index: "owner", Equal: "o"}); err != nil || len(items) != 0 {
		t.Fatal(items, err)
	}
	if n := must(c.Count(ctx, store.Query{}))(t); n != 1 {
		t.Fatalf("%d documents", n)
	}
	// Key and unique value are free at once.
	must(c.Insert(ctx, "gone0", Thing{Name: "new"}))(t)
	must(c.Insert(ctx, "other", Thing{Name: "name1"}))(t)
	if n := must(r.Sweep(ctx))(t); n != 1 {
		t.Fatalf("%d swept, want 1: the others gave way", n)
	}
	for _, key := range []string{"stays", "gone0", "other"} {
		must(c.Get(ctx, key))(t)
	}
}

func testBad(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	for _, key := range []string{"", "a\x00b", "\xff", strings.Repeat("k", store.MaxKey+1)} {
		_, err := c.Insert(ctx, key, Thing{})
		want(t, err, store.ErrInvalid)
	}
	_, err := c.Insert(ctx, "a", Thing{Name: strings.Repeat("v", store.MaxValue+1)})
	want(t, err, store.ErrInvalid)
	_, err = c.Insert(ctx, "a", Thing{Owner: "x\x00"})
	want(t, err, store.ErrInvalid)
	_, err = r.Insert(ctx, "things", store.Doc{Key: "a", Data: make([]byte, store.MaxDocument+1)})
	want(t, err, store.ErrInvalid)
	_, err = r.Insert(ctx, "things", store.Doc{Key: "a", Data: []byte("{}"), Index: map[string][]string{"nosuch": {"v"}}})
	want(t, err, store.ErrInvalid)
	_, err = r.Insert(ctx, "nosuch", store.Doc{Key: "a"})
	want(t, err, store.ErrInvalid)
	for _, q := range []store.Query{{Index: "nosuch"}, {Equal: "x"}, {Limit: -1}, {Limit: store.MaxPage + 1}, {After: "?"}, {After: "YQ"}, {Prefix: "\xff"}, {Index: "name", Contains: "\x00"}} {
		_, err := r.List(ctx, "things", q)
		want(t, err, store.ErrInvalid)
	}
	want(t, r.Define(ctx, store.Schema{Name: "a; DROP TABLE record"}, nil), store.ErrInvalid)
	if n := must(c.Count(ctx, store.Query{}))(t); n != 0 {
		t.Fatalf("%d documents", n)
	}
}

// testHostile: text of a document or query is never a part of a command, of
// whatever language (SC-147).
func testHostile(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	hostile := []string{`'; DROP TABLE record; --`, `" OR 1=1`, `{"$ne": null}`, `$where`, "a.b", "%", "_", "*", ".*", "^a", `\`, "a\nb", "é́", "\U0010FFFE"}
	for _, text := range hostile {
		must(c.Insert(ctx, text, Thing{Name: text, Owner: text, Labels: []string{text}}))(t)
	}
	for _, text := range hostile {
		if got := must(c.Get(ctx, text))(t); got.Value.Name != text {
			t.Errorf("%q: got %+v", text, got)
		}
		for _, q := range []store.Query{{Index: "name", Equal: text}, {Index: "label", Equal: text}} {
			if items, _, err := c.List(ctx, q); err != nil || len(items) != 1 || items[0].Key != text {
				t.Errorf("%q: %v %v", text, items, err)
			}
		}
		items, _, err := c.List(ctx, store.Query{Index: "owner", Contains: text})
		n := 0
		for _, h := range hostile {
			if strings.Contains(h, text) {
				n++
			}
		}
		if err != nil || len(items) != n {
			t.Errorf("%q: %d documents contain it, want %d, %v", text, len(items), n, err)
		}
	}
	items, _, err := c.List(ctx, store.Query{})
	sorted := slices.Clone(hostile)
	slices.Sort(sorted)
	if err != nil || keys(items) != strings.Join(sorted, " ") {
		t.Errorf("order: %q, %v", keys(items), err)
	}
}

// testReindex opens the collection with other indexes than before.
func testReindex(t *testing.T, r store.Records) {
	ctx, c := t.Context(), things(t, r, "things")
	for i := range 150 {
		must(c.Insert(ctx, fmt.Sprintf("k%03d", i), Thing{Name: fmt.Sprint(i), Owner: fmt.Sprint("o", i%3)}))(t)
	}
	c2, err := store.Open(ctx, r, "things", store.Options[Thing]{Indexes: []store.Index[Thing]{
		{Name: "name", Unique: true, Of: func(v *Thing) []string { return []string{"new " + v.Name} }},
		{Name: "third", Of: func(v *Thing) []string { return []string{v.Owner} }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if n := must(c2.Count(ctx, store.Query{Index: "third", Equal: "o1"}))(t); n != 50 {
		t.Fatalf("%d in the new index", n)
	}
	if found := must(c2.Find(ctx, "name", "new 7"))(t); found.Key != "k007" {
		t.Fatalf("found %+v", found)
	}
	_, _, err = c2.List(ctx, store.Query{Index: "owner"})
	want(t, err, store.ErrInvalid)
}

func testCancel(t *testing.T, r store.Records) {
	c := things(t, r, "things")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Insert(ctx, "a", Thing{}); err == nil {
		t.Fatal("a write went on for a caller that has gone")
	}
	must(c.Insert(t.Context(), "b", Thing{}))(t)
}

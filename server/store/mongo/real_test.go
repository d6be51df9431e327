package mongo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"singularity/server/store"
	"singularity/server/store/mongo/mongotest"
)

// TestRefused: neither a wrong password nor an unknown user gets in, nothing is
// done without a log-in, and who does not speak TLS gets no answer (SC-147).
func TestRefused(t *testing.T) {
	f := mongotest.Real(t)
	host := mongotest.Host(f.URI)
	for _, login := range []string{mongotest.User + ":geheim", "nobody:geheim"} {
		_, err := Open(t.Context(), Options{URI: "mongodb://" + login + "@" + host + "/?tls=true", CAFile: f.CAFile})
		if err == nil || !strings.Contains(err.Error(), "uthenticat") || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", login, err)
		}
	}
	if _, err := Open(t.Context(), Options{URI: f.URI}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server of an authority that nobody trusts: %v", err)
	}
	count := func(o *options.ClientOptions) error {
		c, err := mongo.Connect(o.SetServerSelectionTimeout(2 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Disconnect(context.WithoutCancel(t.Context()))
		_, err = c.Database("singularity").Collection("things").EstimatedDocumentCount(t.Context())
		return err
	}
	if err := count(options.Client().ApplyURI(strings.Replace(f.URI, "/?tls=true", "/", 1))); err == nil {
		t.Error("the TLS listener answers without TLS")
	}
	tls, err := clientOptions(Options{URI: f.URI, CAFile: f.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	if err := count(options.Client().SetHosts(tls.Hosts).SetTLSConfig(tls.TLSConfig)); err == nil {
		t.Error("a command is carried out without a log-in")
	}
	if err := count(tls); err != nil {
		t.Errorf("with TLS and the log-in: %v", err)
	}
}

// TestKilled: the database is killed while several write, and comes back. Whoever
// heard of success finds the document, nothing is there twice, and nobody hears
// of a failure that passes by itself.
func TestKilled(t *testing.T) {
	f := mongotest.Real(t)
	r := open(t, f.Orderly, f.CAFile, false)
	c := sums(t, r)
	if _, err := c.Insert(t.Context(), "sum", sum{}); err != nil {
		t.Fatal(err)
	}
	const writers, kills = 4, 2
	var done, unknown atomic.Int64
	var stop atomic.Bool
	var kept [writers]int
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for ; !stop.Load(); kept[w]++ {
				if _, err := c.Insert(t.Context(), fmt.Sprintf("%d-%04d", w, kept[w]), sum{N: kept[w]}); err != nil {
					t.Error(err)
					return
				}
				switch _, err := c.Update(t.Context(), "sum", func(v *sum) error { v.N++; return nil }); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, errUnknown):
					unknown.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	reached := func(n int64) {
		for !t.Failed() && done.Load()+unknown.Load() < n {
			time.Sleep(time.Millisecond)
		}
	}
	for range kills {
		reached(done.Load() + unknown.Load() + 20)
		f.Kill()
		if err := f.Start(); err != nil {
			t.Error(err)
			break
		}
	}
	reached(done.Load() + unknown.Load() + 20)
	stop.Store(true)
	group.Wait()
	total := 1
	for w, n := range kept {
		total += n
		for i := range n {
			if d, err := c.Get(t.Context(), fmt.Sprintf("%d-%04d", w, i)); err != nil || d.Value.N != i {
				t.Errorf("%d-%04d was acknowledged: %+v %v", w, i, d, err)
			}
		}
	}
	if n, err := c.Count(t.Context(), store.Query{}); err != nil || n != int64(total) {
		t.Errorf("%d documents, want %d, %v", n, total, err)
	}
	i, err := c.Get(t.Context(), "sum")
	if have := int64(i.Value.N); err != nil || have < done.Load() || have > done.Load()+unknown.Load() {
		t.Errorf("%d changes are there, %d were acknowledged and of %d it is not known, %v", have, done.Load(), unknown.Load(), err)
	}
	t.Logf("%d kills, %d inserts and %d changes acknowledged, of %d changes it is not known", kills, total-1, done.Load(), unknown.Load())
}

// TestUniqueRace: of several servers that give one value of a unique index to
// different documents at once one succeeds, also where it is free because its
// document has expired.
func TestUniqueRace(t *testing.T) {
	f := mongotest.Real(t)
	type named struct {
		Name string
		Ends time.Time
	}
	name := "test_" + store.NewID()
	const servers, rounds = 4, 12
	var all []*store.Collection[named]
	for range servers {
		r, err := Open(t.Context(), Options{URI: f.URI, CAFile: f.CAFile, Database: name, Trial: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		c, err := store.Open(t.Context(), r, "names", store.Options[named]{
			Expires: func(v *named) time.Time { return v.Ends },
			Indexes: []store.Index[named]{{Name: "name", Unique: true, Of: func(v *named) []string { return []string{v.Name} }}}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for round := range rounds {
		n := strconv.Itoa(round)
		if round%2 == 1 {
			if _, err := all[0].Insert(t.Context(), "old"+n, named{Name: n, Ends: time.Now().Add(-time.Minute)}); err != nil {
				t.Fatal(err)
			}
		}
		var won atomic.Int64
		var group sync.WaitGroup
		for s, c := range all {
			group.Go(func() {
				switch _, err := c.Insert(t.Context(), fmt.Sprint(n, "-", s), named{Name: n}); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrExists):
					t.Error(err)
				}
			})
		}
		group.Wait()
		if won.Load() != 1 {
			t.Errorf("round %d: %d have the name", round, won.Load())
		}
		if i, err := all[0].Find(t.Context(), "name", n); err != nil || !strings.HasPrefix(i.Key, n+"-") {
			t.Errorf("round %d: %+v %v", round, i, err)
		}
	}
}

package mongo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singularity/server/store"
	"singularity/server/store/mongo/mongotest"
	"singularity/server/store/storetest"
)

func fake(t *testing.T) *mongotest.Server {
	t.Helper()
	s, err := mongotest.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestRecords runs the contract on the server of the tests.
func TestRecords(t *testing.T) {
	s := fake(t)
	storetest.Records(t, func(t *testing.T) store.Records { return open(t, s.URI, s.CAFile, false) })
}

// TestFaultyRecords runs the contract while some calls break, before or
// after they were carried out, or are refused as in an election.
func TestFaultyRecords(t *testing.T) {
	s := fake(t)
	storetest.Records(t, func(t *testing.T) store.Records {
		if strings.HasSuffix(t.Name(), "/concurrent") {
			t.Skip("see TestFaultyConcurrent")
		}
		r := open(t, s.URI, s.CAFile, false)
		var n atomic.Int64
		s.Fail(func(string) mongotest.Fault {
			// Few in all: after a broken connection the driver waits for half a second.
			switch n.Add(1) {
			case 15, 40:
				return mongotest.Fault{Before: true}
			case 20, 45:
				return mongotest.Fault{After: true}
			case 25, 30, 50:
				return mongotest.Fault{Code: 11602}
			}
			return mongotest.Fault{}
		})
		t.Cleanup(func() { s.Fail(nil) })
		return tolerant{r}
	})
}

// tolerant takes a delete of a revision that may have happened for one that did:
// the tests delete alone.
type tolerant struct{ *Records }

func (r tolerant) Delete(ctx context.Context, collection, key string, rev int64) error {
	err := r.Records.Delete(ctx, collection, key, rev)
	if errors.Is(err, errUnknown) {
		return nil
	}
	return err
}

type sum struct{ N int }

func sums(t *testing.T, r *Records) *store.Collection[sum] {
	t.Helper()
	c, err := store.Open(t.Context(), r, "sums", store.Options[sum]{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFaultyConcurrent: of changes that break off, each is made once or not at
// all, and whoever hears of success or of a conflict hears the truth.
func TestFaultyConcurrent(t *testing.T) {
	s := fake(t)
	r := open(t, s.URI, s.CAFile, false)
	c := sums(t, r)
	if _, err := c.Insert(t.Context(), "a", sum{}); err != nil {
		t.Fatal(err)
	}
	var n, done, unknown atomic.Int64
	s.Fail(func(command string) mongotest.Fault {
		if command != "update" {
			return mongotest.Fault{}
		}
		k := n.Add(1)
		return mongotest.Fault{Before: k == 13 || k == 33, After: k == 7 || k == 27 || k == 47}
	})
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range 20 {
				switch _, err := c.Update(t.Context(), "a", func(v *sum) error { v.N++; return nil }); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, errUnknown):
					unknown.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	s.Fail(nil)
	i, err := c.Get(t.Context(), "a")
	if have := int64(i.Value.N); err != nil || have < done.Load() || have > done.Load()+unknown.Load() {
		t.Errorf("%d changes are there, %d were acknowledged and of %d it is not known, %v", have, done.Load(), unknown.Load(), err)
	}
	t.Logf("%d changes acknowledged, of %d it is not known", done.Load(), unknown.Load())
}

// TestDeleteOnce: of two who delete one revision one at most believes it, also
// when the answer is lost.
func TestDeleteOnce(t *testing.T) {
	s := fake(t)
	r := open(t, s.URI, s.CAFile, false)
	c := sums(t, r)
	i, err := c.Insert(t.Context(), "a", sum{})
	if err != nil {
		t.Fatal(err)
	}
	broken := false
	s.Fail(func(command string) mongotest.Fault {
		after := command == "delete" && !broken
		broken = broken || after
		return mongotest.Fault{After: after}
	})
	if err := c.Delete(t.Context(), "a", i.Rev); !errors.Is(err, errUnknown) {
		t.Errorf("a delete whose answer is lost: %v", err)
	}
	if err := c.Delete(t.Context(), "a", i.Rev); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the second: %v", err)
	}
}

// TestFaults: a refusal that does not pass is reported, a slow server keeps
// nobody longer than the caller waits, and a wrong password does not get in.
func TestFaults(t *testing.T) {
	s := fake(t)
	r := open(t, s.URI, s.CAFile, false)
	c := sums(t, r)
	s.Fail(func(string) mongotest.Fault { return mongotest.Fault{Code: 13} })
	if _, err := c.Get(t.Context(), "a"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("without a right to read: %v", err)
	}
	s.Fail(func(string) mongotest.Fault { return mongotest.Fault{Code: 14031} })
	if _, err := c.Insert(t.Context(), "a", sum{}); !errors.Is(err, store.ErrFull) {
		t.Errorf("with a full disk: %v", err)
	}
	s.Fail(func(string) mongotest.Fault { return mongotest.Fault{Delay: time.Second} })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Insert(ctx, "slow", sum{}); !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		t.Errorf("a slow server: %v", err)
	}
	s.Fail(nil)
	wrong := fmt.Sprintf("mongodb://%s:geheim@%s/?tls=true", mongotest.User, s.Host)
	if _, err := Open(t.Context(), Options{URI: wrong, CAFile: s.CAFile}); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a wrong password: %v", err)
	}
	short, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	if _, err := Open(short, Options{URI: s.URI}); err == nil {
		t.Error("a server of an authority that nobody trusts was taken")
	}
}

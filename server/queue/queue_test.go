package queue

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, lease time.Duration) *Queue {
	t.Helper()
	q, err := Open(t.Context(), Options{Dir: dir, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// next takes the next ticket of amd64, or nil.
func next(t *testing.T, q *Queue, running map[string]int, limit int) *Lease {
	t.Helper()
	var got *Lease
	_, err := q.Next(t.Context(), []string{"amd64"}, limit, func(_ context.Context, user string) (int, error) { return running[user], nil },
		func(l *Lease) (bool, error) { got = l; return true, nil })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func push(t *testing.T, q *Queue, id, user, priority string) uint64 {
	t.Helper()
	seq, err := q.Push(t.Context(), Ticket{ID: id, User: user, Arch: "amd64", Priority: priority})
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// TestFair: users take turns, whoever has many tickets; a higher priority comes
// first; nobody gets more than the limit.
func TestFair(t *testing.T) {
	q := open(t, t.TempDir(), time.Minute)
	defer q.Close()
	for i := range 4 {
		push(t, q, fmt.Sprintf("a%d", i), "alice", "normal")
	}
	push(t, q, "b0", "bob", "normal")
	push(t, q, "c0", "carol", "low")
	push(t, q, "d0", "dave", "high")
	if _, err := q.Push(t.Context(), Ticket{ID: "x", User: "u", Arch: "a.b", Priority: "normal"}); err == nil {
		t.Error("an architecture that is none is taken")
	}
	running := map[string]int{}
	var got []string
	for l := next(t, q, running, 2); l != nil; l = next(t, q, running, 2) {
		got = append(got, l.ID)
		running[map[byte]string{'a': "alice", 'b': "bob", 'c': "carol", 'd': "dave"}[l.ID[0]]]++
	}
	if s := strings.Join(got, " "); s != "d0 a0 b0 a1 c0" && s != "d0 b0 a0 a1 c0" {
		t.Errorf("got %s", s)
	}
}

// TestLease: a ticket that nobody extends comes out again, also after a start of
// the queue; one that is done does not.
func TestLease(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 500*time.Millisecond)
	first, second := push(t, q, "one", "alice", "normal"), push(t, q, "two", "alice", "normal")
	l := next(t, q, nil, 2)
	done := next(t, q, nil, 2)
	if l == nil || done == nil || l.Seq != first || done.Seq != second {
		t.Fatalf("got %v, %v", l, done)
	}
	if err := q.Done(done.Hold); err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = open(t, dir, 500*time.Millisecond)
	defer q.Close()
	again := next(t, q, nil, 2)
	for again == nil { // until the lease has ended
		again = next(t, q, nil, 2)
	}
	if again.ID != "one" || again.Seq != first {
		t.Fatalf("got %v", again)
	}
	if err := q.Return(again.Hold); err != nil {
		t.Fatal(err)
	}
	for again = nil; again == nil; {
		again = next(t, q, nil, 2)
	}
	if err := q.Drop(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := q.Drop(t.Context(), first); err != nil {
		t.Errorf("a ticket that is gone: %v", err)
	}
	if here, err := q.Has(t.Context(), first); err != nil || here {
		t.Errorf("got %v, %v", here, err)
	}
	for _, hold := range []string{"", "build.amd64.high.00", "$JS.ACK.x y"} {
		if q.Done(hold) == nil {
			t.Errorf("%q is a lease", hold)
		}
	}
}

// TestLog: what is said twice is there once, and what does not follow is refused.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, time.Minute)
	ctx := t.Context()
	add := func(offset int64, text string, want int64) {
		t.Helper()
		if end, err := q.Append(ctx, "ab12", offset, []byte(text)); err != nil || end != want {
			t.Errorf("got %d, %v, want %d", end, err, want)
		}
	}
	add(-1, "hello ", 6)
	add(6, "world", 11)
	add(6, "world", 11)
	if _, err := q.Append(ctx, "ab12", 20, []byte("x")); err == nil {
		t.Error("a gap is taken")
	}
	if _, err := q.Append(ctx, "ab12.>", 0, []byte("x")); err == nil {
		t.Error("an id that is none is taken")
	}
	q.Close()
	q = open(t, dir, time.Minute)
	defer q.Close()
	add(-1, "!", 12)
	read := func() (text string) {
		for seq := uint64(0); ; {
			c, ok, err := q.Read(ctx, "ab12", seq+1)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return text
			}
			text, seq = text+string(c.Text), c.Seq
		}
	}
	if got := read(); got != "hello world!" {
		t.Errorf("got %q", got)
	}
	if err := q.Forget(ctx, "ab12"); err != nil || read() != "" {
		t.Errorf("the log is not forgotten: %v", err)
	}
}

// TestCluster: nothing is sent in the clear or without credentials.
func TestCluster(t *testing.T) {
	for _, o := range []Options{{URL: "nats://127.0.0.1:1", Credentials: "x"}, {URL: "tls://127.0.0.1:1"}, {URL: "tls://me:secret@127.0.0.1:1", Credentials: "x"}} {
		if q, err := Open(t.Context(), o); err == nil {
			q.Close()
			t.Errorf("%+v is taken", o)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("an error tells a secret: %v", err)
		}
	}
}

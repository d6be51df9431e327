package queue

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// users is a site in a model: who waits with how many builds, and who has how many
// running, on a number of slots.
type users struct {
	q                *Queue
	waiting, running map[string]int
	rank             map[string]int
	clock            time.Time
}

func newUsers() *users {
	return &users{q: &Queue{served: map[string]time.Time{}}, waiting: map[string]int{}, running: map[string]int{}, rank: map[string]int{}, clock: time.Unix(1e9, 0)}
}

// next gives a slot to whose turn it is, or returns "".
func (u *users) next(r *rand.Rand, limit int) string {
	var list []line
	for name, n := range u.waiting {
		if n > 0 || u.running[name] > 0 { // a ticket that is out is in the queue, too
			list = append(list, line{user: name, rank: u.rank[name], running: u.running[name]})
		}
	}
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	u.q.order(list)
	for _, l := range list {
		if u.waiting[l.user] > 0 && l.running < limit {
			u.clock = u.clock.Add(time.Second)
			u.q.served[l.user] = u.clock
			u.waiting[l.user]--
			u.running[l.user]++
			return l.user
		}
	}
	return ""
}

// finish ends a random build.
func (u *users) finish(r *rand.Rand) {
	var list []string
	for name, n := range u.running {
		for range n {
			list = append(list, name)
		}
	}
	if len(list) > 0 {
		u.running[list[r.IntN(len(list))]]--
	}
}

func (u *users) busy() (n int) {
	for _, k := range u.running {
		n += k
	}
	return n
}

// TestNobodyStarves: whatever users submit and whenever builds end, a user of the same
// priority who waits with nothing running is served before anybody is served twice;
// and nobody with more running builds comes before one with fewer.
func TestNobodyStarves(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		u, slots, limit := newUsers(), 1+r.IntN(8), 1+r.IntN(4)
		people := 2 + r.IntN(12)
		for i := range people {
			u.rank[fmt.Sprint("u", i)] = r.IntN(2)
		}
		since := map[string]map[string]int{} // how often others were served while one waited with nothing
		for step := range 400 {
			if r.IntN(3) == 0 { // one of them may be greedy
				name := fmt.Sprint("u", min(r.IntN(people), r.IntN(people)))
				u.waiting[name] += 1 + r.IntN(20)
			}
			if r.IntN(2) == 0 {
				u.finish(r)
			}
			for u.busy() < slots {
				before := map[string]int{}
				for name := range u.waiting {
					before[name] = u.running[name]
				}
				got := u.next(r, limit)
				if got == "" {
					break
				}
				delete(since, got)
				for name, n := range u.waiting {
					if name == got || n == 0 || u.rank[name] != u.rank[got] {
						if u.rank[name] < u.rank[got] && n > 0 && before[name] < limit {
							t.Fatalf("seed %d, step %d: %s waits with a higher priority than %s", seed, step, name, got)
						}
						continue
					}
					if before[name] < before[got] {
						t.Fatalf("seed %d, step %d: %s, who has %d, comes before %s, who has %d", seed, step, got, before[got], name, before[name])
					}
					if before[name] > 0 {
						delete(since, name)
						continue
					}
					if since[name] == nil {
						since[name] = map[string]int{}
					}
					if since[name][got]++; since[name][got] > 1 {
						t.Fatalf("seed %d, step %d: %s waits while %s is served again", seed, step, name, got)
					}
				}
			}
		}
	}
}

// TestShares: users who always have work waiting share the slots of the workers within
// one of each other, in whatever order builds end, by the real queue; each of their
// builds comes out once, and in the order in which they were submitted.
func TestShares(t *testing.T) {
	q := open(t, t.TempDir(), time.Minute)
	defer q.Close()
	const people, slots, rounds, backlog = 4, 6, 30, 20
	for i := range backlog {
		for p := range people { // one after another: who came first has no advantage
			push(t, q, fmt.Sprintf("u%db%02d", p, i), fmt.Sprint("u", p), "normal")
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	running, last := map[string]int{}, map[string]string{}
	var out []*Lease
	user := func(l *Lease) string { name, _, _ := strings.Cut(l.ID, "b"); return name }
	for round := range rounds {
		for len(out) < slots {
			l := next(t, q, running, 100)
			if l == nil {
				t.Fatalf("round %d: nothing comes out", round)
			}
			if name := user(l); l.ID <= last[name] {
				t.Fatalf("%s comes after %s", l.ID, last[name])
			} else {
				running[name]++
				last[name] = l.ID
			}
			out = append(out, l)
		}
		least, most := slots, 0
		for p := range people {
			n := running[fmt.Sprint("u", p)]
			least, most = min(least, n), max(most, n)
		}
		if most-least > 1 {
			t.Fatalf("round %d: shares of %d slots: %v", round, slots, running)
		}
		i := r.IntN(len(out))
		if err := q.Done(out[i].Hold); err != nil {
			t.Fatal(err)
		}
		running[user(out[i])]--
		out = append(out[:i], out[i+1:]...)
	}
}

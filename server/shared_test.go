package server

import (
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store/embedded"
)

// TestSharedRates: servers with the same records allow together what one would,
// whichever of them a caller asks.
func TestSharedRates(t *testing.T) {
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	c := Defaults()
	c.RateUser, c.RateSearch = 100, 7
	now := time.Now()
	var servers []*rates
	for range 3 {
		l, err := newRates(&c)
		if err != nil {
			t.Fatal(err)
		}
		l.now = func() time.Time { return now }
		if l.shared, err = openBuckets(t.Context(), st.Records); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, l)
	}
	ask := func(l *rates, class route.Class, who string) bool {
		err := l.allow(t.Context(), httptest.NewRecorder(), class, auth.Caller{ID: who}, netip.MustParseAddr("192.0.2.1"))
		if err != nil && !strings.Contains(err.Error(), "too many") {
			t.Error(err)
		}
		return err == nil
	}
	for class, limit := range map[route.Class]int64{route.Normal: 100, route.Search: 7} {
		var got atomic.Int64
		var group sync.WaitGroup
		for _, l := range servers {
			for range 4 {
				group.Go(func() {
					for range 30 {
						if ask(l, class, "alice") {
							got.Add(1)
						}
					}
				})
			}
		}
		group.Wait()
		if n := got.Load(); n > limit || n < limit*8/10 {
			t.Errorf("%d requests were allowed, want %d", n, limit)
		}
	}
	if !ask(servers[0], route.Search, "bob") {
		t.Error("another caller is refused")
	}
	now = now.Add(time.Minute)
	if !ask(servers[1], route.Search, "alice") {
		t.Error("the allowance does not come back with time")
	}
}

package keystore

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkLookUp gets keys by their 64-bit id, as a check of a signature does,
// from a store of KEYS keys (1,000 if not said), and tells the 99th percentile.
func BenchmarkLookUp(b *testing.B) {
	count := 1000
	if n, err := strconv.Atoi(os.Getenv("KEYS")); err == nil {
		count = n
	}
	v := newSite(b, Options{})
	e := entity(b, "Alice", "alice@example.org")
	v.want(v.add(alice, public(b, e)), 200)
	i, err := v.keys.Get(b.Context(), fpr(e))
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for n := w; n < count; n += 32 {
				r := i.Value
				r.IDs = []string{fmt.Sprintf("%040X", uint64(n)*0x9E3779B97F4A7C15), fmt.Sprintf("F%039X", uint64(n)*0x9E3779B97F4A7C15+1)}
				if _, err := v.keys.Insert(b.Context(), r.IDs[0], r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h := v.handler(nobody)
	var next atomic.Int64
	var mu sync.Mutex
	var times []time.Duration
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var own []time.Duration
		for pb.Next() {
			n := uint64(next.Add(7919)) % uint64(count)
			r := httptest.NewRequest(http.MethodGet, fmt.Sprintf("/pks/lookup?op=get&exact=on&options=mr&search=0x%x", n*0x9E3779B97F4A7C15), nil)
			w := httptest.NewRecorder()
			begun := time.Now()
			h.ServeHTTP(w, r)
			own = append(own, time.Since(begun))
			if w.Code != 200 {
				b.Errorf("key %d: %d %s", n, w.Code, w.Body)
				return
			}
		}
		mu.Lock()
		times = append(times, own...)
		mu.Unlock()
	})
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "look-ups/s")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
}

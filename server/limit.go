package server

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// rates counts requests: for each token, or for each address without one, since
// many people of a cluster share an address.
type rates struct {
	allowed map[route.Class][2]int // in a span, without and with a token
	free    []netip.Prefix
	mu      sync.Mutex
	buckets map[bucketKey]*bucket
	now     func() time.Time
	shared  *store.Collection[sharedBucket] // of several servers; nil for one
	leases  map[bucketKey]*lease
}

type bucketKey struct {
	class route.Class
	who   string
}

// bucket holds as many tokens as may be used at once, and fills in the span of its
// class.
type bucket struct {
	left float64
	at   time.Time
}

// span is the time for which the numbers of a class are.
func span(class route.Class) time.Duration {
	if class == route.KeyAdd {
		return time.Hour
	}
	return time.Minute
}

// maxBuckets bounds the memory that many addresses take.
const maxBuckets = 200_000

func newRates(c *Config) (*rates, error) {
	free, err := prefixes(c.RateFree)
	return &rates{free: free, buckets: map[bucketKey]*bucket{}, leases: map[bucketKey]*lease{}, now: time.Now, allowed: map[route.Class][2]int{
		route.Normal: {c.RateAnonymous, c.RateUser}, route.Push: {c.RatePush, c.RatePush}, route.Search: {c.RateSearch, c.RateSearch}, route.Login: {c.RateLogin, c.RateLogin},
		route.KeyID: {c.RateKeys, 2 * c.RateKeys}, route.KeyText: {c.RateKeys / 10, c.RateKeys / 10}, route.KeyAdd: {c.RateKeyAdd, c.RateKeyAdd},
	}}, err
}

// allow returns a refusal if the caller has no request of that class left.
func (l *rates) allow(ctx context.Context, w http.ResponseWriter, class route.Class, c auth.Caller, from netip.Addr) error {
	limits, counted := l.allowed[class]
	if !counted || slices.ContainsFunc(l.free, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return nil
	}
	// Whoever makes tokens gets no more by it: the account counts.
	limit, who := limits[1], c.ID
	if !c.Known() {
		limit, who = limits[0], addressKey(from)
	}
	wait, err := l.take(ctx, bucketKey{class, who}, float64(limit))
	if err != nil {
		return err
	}
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		return route.Errorf(http.StatusTooManyRequests, "too many requests: at most %d in %s", limit, span(class))
	}
	return nil
}

// addressKey is the address, or the network that one customer has of IPv6.
func addressKey(a netip.Addr) string {
	if a.Is6() && !a.Is4In6() {
		p, _ := a.Prefix(64)
		return p.String()
	}
	return a.String()
}

func (l *rates) take(ctx context.Context, k bucketKey, limit float64) (time.Duration, error) {
	if l.shared != nil {
		return l.takeShared(ctx, k, limit)
	}
	return l.takeOwn(k, limit), nil
}

func (l *rates) takeOwn(k bucketKey, limit float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[k]
	if !ok {
		l.makeRoom(now)
		b = &bucket{left: limit, at: now}
		l.buckets[k] = b
	}
	full := span(k.class)
	b.left = min(limit, b.left+float64(now.Sub(b.at))/float64(full)*limit)
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / limit * float64(full))
	}
	b.left--
	return 0
}

func (l *rates) makeRoom(now time.Time) {
	if len(l.buckets) < maxBuckets {
		return
	}
	for k, b := range l.buckets {
		if now.Sub(b.at) >= span(k.class) {
			delete(l.buckets, k)
		}
	}
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
}

package auth

import (
	"net/netip"
	"testing"
	"time"
)

// TestSharedGuesses: failed log-ins count for all processes together.
func TestSharedGuesses(t *testing.T) {
	one := newSite(t, Options{Shared: true, GuessesPerMin: 4})
	two := &guesses{limit: 4, shared: one.guesses.shared}
	a, now := netip.MustParseAddr("2001:db8::1"), time.Now()
	for range 2 {
		one.guesses.failed(a, now)
		two.failed(a, now)
	}
	if one.guesses.check(a, now) == nil || two.check(a, now) == nil {
		t.Error("four guesses at two processes are not four")
	}
	if two.check(netip.MustParseAddr("2001:db8:0:1::1"), now) != nil {
		t.Error("another network is refused")
	}
	if later := now.Add(time.Minute); two.check(a, later) != nil {
		t.Error("the address is refused for ever")
	}
	two.failed(a, now.Add(time.Minute))
	if two.check(a, now.Add(time.Minute)) != nil {
		t.Error("old guesses count in a new minute")
	}
}

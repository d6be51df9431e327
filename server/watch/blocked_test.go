package watch

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"singularity/api"
	"singularity/server/auth"
)

// named is an image with an id of its own in its header.
func named(image []byte, n byte) []byte {
	image = bytes.Clone(image)
	copy(image[48:64], bytes.Repeat([]byte{n}, 16))
	return image
}

// TestBlocked: hosts and administrators, and nobody else, learn which images do not run by
// the rule of the site, and from when on; nobody has the image of another blocked.
func TestBlocked(t *testing.T) {
	v := newWatched(t, nil)
	admin, alice, bob := v.user("admin", auth.User, ""), v.user("alice", auth.User, ""), v.user("bob", auth.User, "")
	host, fake := v.user("node1", auth.Robot, "admin", auth.RunsWrite), v.user("node2", auth.Robot, "bob", auth.RunsWrite)
	bad := listed(t, "debian:12", deb("zlib1g", "1"), deb("dash", "1"))
	hash := v.push(alice, "alice/c/bad", named(bad, 1), true)
	v.push(alice, "alice/c/good", named(listed(t, "debian:12", deb("bash", "9")), 2), false)
	v.push(alice, "alice/c/none", bad, false) // without an id
	v.known(3)
	get := func(token string) (out api.BlockedImages) {
		t.Helper()
		v.want(200, token, "GET", "/v1/watch/blocked", nil, &out)
		return out
	}
	rule := func(block, grace string) {
		t.Helper()
		v.want(200, admin, "PUT", "/v1/watch/rules", api.WatchRules{Block: block, Grace: grace}, nil)
	}
	rule("high", "48h")
	v.want(503, host, "GET", "/v1/watch/blocked", nil, nil) // no list is better than an empty one
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "2", "critical", "CVE-3-1"), rec("A-2", day1, "Debian:12", "dash", "", "low", "CVE-3-2"))
	v.wait("the day of faults", func() bool {
		v.watch.ruling.mu.RLock()
		defer v.watch.ruling.mu.RUnlock()
		return len(v.watch.ruling.first) == 2
	})
	for _, token := range []string{alice, bob, fake} {
		v.want(403, token, "GET", "/v1/watch/blocked", nil, nil)
	}
	v.want(401, "", "GET", "/v1/watch/blocked", nil, nil)
	first := get(host)
	id := "01010101-0101-0101-0101-010101010101"
	if len(first.Images) != 1 || first.Block != "high" || first.Grace != "48h" || first.Records != 2 || first.Made.IsZero() {
		t.Fatalf("%+v", first)
	}
	b := first.Images[0]
	if b.ID != id || b.Hash != hash || b.Severity != "critical" || b.Advisory != "CVE-3-1" || b.Text != "zlib1g 1, corrected in 2" ||
		b.From.Before(v.watch.now().Add(47*time.Hour)) || b.From.After(v.watch.now().Add(48*time.Hour)) {
		t.Errorf("%+v", b)
	}
	// The date stays, and a smaller grace counts from the same day.
	v.later(24 * time.Hour)
	if again := get(admin); fmt.Sprint(again.Images) != fmt.Sprint(first.Images) {
		t.Errorf("%+v became %+v", first.Images, again.Images)
	}
	rule("low", "1h")
	if got := get(host).Images; len(got) != 1 || !got[0].From.Equal(b.From.Add(-47*time.Hour)) || got[0].Advisory != "CVE-3-1" {
		t.Errorf("%+v", got)
	}
	// What the site excuses does not block.
	v.want(200, alice, "POST", "/v1/suppressions/alice/c", api.Suppression{ID: "CVE-3-1", Reason: "no"}, nil)
	if got := get(host).Images; len(got) != 1 || got[0].Advisory != "CVE-3-1" {
		t.Errorf("%+v", got)
	}
	v.want(200, admin, "POST", "/v1/suppressions", api.Suppression{ID: "CVE-3-1", Reason: "no"}, nil)
	if got := get(host).Images; len(got) != 1 || got[0].Advisory != "CVE-3-2" || got[0].Text != "dash 1" {
		t.Errorf("%+v", got)
	}
	v.want(200, admin, "DELETE", "/v1/suppressions?id=CVE-3-1", nil, nil)
	// An image with the id of another one blocks it not.
	v.push(bob, "bob/c/forged", named(listed(t, "debian:12", deb("zlib1g", "1"), deb("forged", "1")), 2), false)
	v.known(4)
	if got := get(host).Images; len(got) != 1 || got[0].ID != id {
		t.Errorf("%+v", got)
	}
	rule("", "")
	if got := get(host); len(got.Images) != 0 || got.Block != "" {
		t.Errorf("%+v", got)
	}
}

package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"singularity/api"
	"singularity/sbom"
	"singularity/server/auth"
)

const (
	day1 = "2026-01-02T03:04:05Z"
	day2 = "2026-02-02T03:04:05Z"
)

// TestInjected: of many images and jobs one new advisory flags exactly those that have
// the package in the version.
func TestInjected(t *testing.T) {
	v := newWatched(t, nil)
	admin, alice := v.user("admin", auth.User, ""), v.user("alice", auth.User, "")
	host := v.user("node1", auth.Robot, "admin", auth.RunsWrite)
	v.advise("base.json", rec("DEBIAN-CVE-2026-1", day1, "Debian:12", "unrelated", "9", "low", "CVE-2026-1"))
	want := map[string]bool{} // digests
	digests := []string{}
	for n := range 40 {
		version := fmt.Sprintf("1.2.%d-1", n%4)
		list := []sbom.Package{deb("base-files", "12"), deb(fmt.Sprint("own", n), "1"), deb("zlib1g", version)}
		if n%5 == 0 {
			list = list[:2] // without it
		}
		distro := "debian:12"
		if n%7 == 0 {
			distro = "debian:11" // for which the advisory is not
		}
		hash := v.push(alice, fmt.Sprintf("alice/c%d/k%d", n%3, n), listed(t, distro, list...), n%3 == 0)
		digests = append(digests, hash)
		if n%5 != 0 && n%7 != 0 && n%4 < 2 {
			want[hash] = true
		}
	}
	status := "Package: zlib1g\nStatus: install ok installed\nVersion: %s\nArchitecture: amd64\n\n"
	for name, version := range map[string]string{"old": "1.2.1-1", "new": "1.2.9-1"} {
		hash := v.push(alice, "alice/real/"+name, packed(t, map[string]string{"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n", "var/lib/dpkg/status": fmt.Sprintf(status, version)}), false)
		digests = append(digests, hash)
		want[hash] = name == "old"
	}
	v.known(len(digests))
	var runs api.Runs
	wantRuns := []string{}
	for n, hash := range digests {
		r := api.Run{ID: fmt.Sprint("r", n), Start: time.Now().Add(-time.Hour), Host: "node1.cluster", User: "u" + fmt.Sprint(n), Job: fmt.Sprint("SLURM:", n), Verb: "exec", Image: "/images/x.sif", Digest: "sha256:" + hash}
		if n%2 == 1 {
			r.End = time.Now()
		} else if want[hash] {
			wantRuns = append(wantRuns, r.ID)
		}
		runs.Records = append(runs.Records, r)
	}
	var taken api.RunsTaken
	if v.want(200, host, "POST", "/v1/runs", runs, &taken); taken.Done != len(runs.Records) || len(taken.Refused) > 0 {
		t.Fatalf("%+v", taken)
	}
	v.advise("new.json", rec("DEBIAN-CVE-2026-2", day2, "Debian:12", "zlib", "1.2.2-1", "high", "CVE-2026-2"), rec("X-1", day2, "Debian:12", "zlib1g", "1.2.2-1", "high", "CVE-2026-2"))
	for _, name := range []string{"CVE-2026-2", "X-1"} {
		var touched []api.TouchedImage
		v.want(200, admin, "GET", "/v1/findings/images?limit=1000&id="+name, nil, &touched)
		got := map[string]bool{}
		for _, x := range touched {
			got[strings.TrimPrefix(x.Image.Hash, "sha256.")] = true
			if len(x.Findings) != 1 || !slices.Equal(x.Findings[0].Fixed, []string{"1.2.2-1"}) || x.Findings[0].Severity != "high" {
				t.Errorf("%s: %+v", x.Image.Hash, x.Findings)
			}
		}
		for _, hash := range digests {
			if got[hash] != want[hash] {
				t.Errorf("%s: image %s is touched: %v, want %v", name, hash, got[hash], want[hash])
			}
		}
		var touchedRuns []api.TouchedRun
		v.want(200, admin, "GET", "/v1/findings/runs?id="+name, nil, &touchedRuns)
		gotRuns := []string{}
		for _, x := range touchedRuns {
			gotRuns = append(gotRuns, x.Run.ID)
		}
		slices.Sort(gotRuns)
		slices.Sort(wantRuns)
		if !slices.Equal(gotRuns, wantRuns) || len(wantRuns) < 5 {
			t.Errorf("%s: jobs %q, want %q", name, gotRuns, wantRuns)
		}
	}
	// The same for one who may read nothing but what is public, and from a job back.
	var o api.WatchOverview
	v.want(200, "", "GET", "/v1/findings", nil, &o)
	if o.Images >= len(digests) || o.Images == 0 || o.Affected == 0 || o.Done != o.Images || len(o.Faults) != 1 || o.Faults[0].ID != "CVE-2026-2" || o.Faults[0].Images != o.Affected || o.Counts["high"] != o.Affected {
		t.Errorf("an overview for everybody: %+v", o)
	}
	var list []api.StoredRun
	v.want(200, admin, "GET", "/v1/runs?digest=sha256:"+digests[len(digests)-1], nil, &list)
	if len(list) != 1 || list[0].Shipper != "node1" || (list[0].Counts["high"] == 1) != want[digests[len(digests)-1]] {
		t.Errorf("from a job back: %+v", list)
	}
	var found api.WatchSearch
	v.want(200, admin, "GET", "/v1/findings/search?q=zlib", nil, &found)
	n := 0
	for _, p := range found.Packages {
		n += p.Images
	}
	if n != 34 || len(found.Faults) != 1 || found.Faults[0].Images != count(want) {
		t.Errorf("a search: %+v, %d", found, n)
	}
}

func count(m map[string]bool) (n int) {
	for _, v := range m {
		if v {
			n++
		}
	}
	return n
}

// TestWhoSees: findings, lists and statements of an image are for those who may read it.
func TestWhoSees(t *testing.T) {
	v := newWatched(t, nil)
	alice, bob := v.user("alice", auth.User, ""), v.user("bob", auth.User, "")
	hash := v.push(alice, "alice/hidden/k", listed(t, "debian:12", deb("zlib1g", "1")), true)
	v.known(1)
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "2", "critical", "CVE-2026-9"))
	if f := v.findings(alice, "alice/hidden/k:latest?arch=amd64"); f.Counts["critical"] != 1 || f.State != "done" || f.Packages != 1 {
		t.Errorf("%+v", f)
	}
	for _, token := range []string{"", bob} {
		for _, path := range []string{"/v1/findings/images/alice/%s/k:latest?arch=amd64", "/v1/findings/images/alice/%s/k:sha256." + hash, "/v1/inventories/alice/%s/k:latest?arch=amd64", "/v1/suppressions/alice/%s"} {
			s1, a1 := v.call(token, "GET", fmt.Sprintf(path, "hidden"), nil)
			s2, a2 := v.call(token, "GET", fmt.Sprintf(path, "nothing"), nil)
			if s1 != 404 || s2 != 404 || a1 != a2 {
				t.Errorf("%s: %d %s, and %d %s for what is not there", path, s1, a1, s2, a2)
			}
		}
		for _, path := range []string{"/v1/findings/images?id=CVE-2026-9", "/v1/findings/search?q=zlib", "/v1/findings/search?q=cve"} {
			if text := v.want(200, token, "GET", path, nil, nil); strings.Contains(text, "zlib") || strings.Contains(text, "CVE") {
				t.Errorf("%s tells %s", path, text)
			}
		}
		var o api.WatchOverview
		if text := v.want(200, token, "GET", "/v1/findings", nil, &o); o.Images != 0 || strings.Contains(text, "CVE") {
			t.Errorf("an overview tells %s", text)
		}
	}
	// Whoever claims to run it learns no more.
	run := api.Run{ID: "x", Start: time.Now(), Host: "laptop", User: "bob", Verb: "exec", Image: "x", Digest: "sha256:" + hash}
	v.want(200, bob, "POST", "/v1/runs", api.Runs{Records: []api.Run{run}}, nil)
	var list []api.StoredRun
	if v.want(200, bob, "GET", "/v1/runs", nil, &list); len(list) != 1 || list[0].Counts != nil {
		t.Errorf("%+v", list)
	}
	if text := v.want(200, bob, "GET", "/v1/findings/runs?id=CVE-2026-9", nil, nil); strings.Contains(text, "zlib") {
		t.Errorf("a claimed run tells %s", text)
	}
	for _, format := range []string{"cyclonedx", "spdx"} {
		status, text := v.call(alice, "GET", "/v1/inventories/alice/hidden/k:latest?arch=amd64&format="+format, nil)
		inv, err := sbom.Decode(strings.NewReader(text))
		if status != 200 || err != nil || len(inv.Packages) != 1 || inv.Packages[0].Name != "zlib1g" {
			t.Errorf("%s: %d %v %s", format, status, err, text)
		}
	}
	v.want(400, alice, "GET", "/v1/inventories/alice/hidden/k:latest?format=csv", nil, nil)
}

// TestSC161DataBack: data that goes back in time or shrinks is refused, the last good one
// stays, also over a restart, and its age is shown.
func TestSC161DataBack(t *testing.T) {
	var o Options
	v := newWatched(t, func(x *Options) { o = *x })
	alice := v.user("alice", auth.User, "")
	v.push(alice, "alice/c/k", listed(t, "debian:12", deb("zlib1g", "1")), false)
	v.known(1)
	var many []string
	for n := range 30 {
		many = append(many, rec(fmt.Sprint("A-", n), day2, "Debian:12", "zlib1g", "2", "high", fmt.Sprint("CVE-2026-", n)))
	}
	v.advise("a.json", many...)
	refused := func(word string) {
		t.Helper()
		v.wait("a refusal", func() bool { return strings.Contains(v.watch.state().Problem, word) })
		if f := v.findings(alice, "alice/c/k:latest"); len(f.Findings) != 30 || f.Data.Problem == "" || f.Data.Newest.Format(time.RFC3339) != day2 || !f.Data.Old {
			t.Errorf("after data that is refused: %d findings, %+v", len(f.Findings), f.Data)
		}
	}
	v.put("a.json", many[:20]...)
	refused("too few")
	old := slices.Clone(many)
	for n := range old {
		old[n] = strings.Replace(old[n], day2, day1, 1)
	}
	v.put("a.json", old...)
	refused("back in time")
	v.put("a.json", `{"id":`)
	refused("no usable record")
	// After a restart too.
	v.put("a.json", old...)
	refused("back in time")
	v.stop()
	v.open(o)
	refused("back in time")
	if n := v.watch.Figures(t.Context()); n.Refused != 1 || !n.Problem || n.Images != 1 {
		t.Errorf("%+v", n)
	}
	many = append(many, rec("A-99", "2999-01-01T00:00:00Z", "Debian:12", "zlib1g", "2", "high"))
	v.advise("a.json", many...)
	// A record from the future must not shut out what comes afterwards.
	many[len(many)-1] = rec("A-98", time.Now().Add(time.Minute).UTC().Format(time.RFC3339), "Debian:12", "zlib1g", "2", "high")
	v.advise("a.json", many...)
	if s := v.watch.state(); s.Problem != "" || s.Old {
		t.Errorf("%+v", s)
	}
	if err := os.RemoveAll(v.dir); err != nil {
		t.Fatal(err)
	}
	v.wait("a directory that is gone", func() bool { return v.watch.state().Problem != "" })
	if s := v.watch.state(); !s.Loaded {
		t.Errorf("%+v", s)
	}
}

// TestUnreadable: an image that cannot be read is tried a few times, and says why; what
// was there before a watch is read as well, and what is deleted is forgotten.
func TestUnreadable(t *testing.T) {
	v := newWatched(t, nil)
	alice := v.user("alice", auth.User, "")
	bad := v.push(alice, "alice/c/bad", newImage(t, []byte("rubbish")), false)
	good := v.push(alice, "alice/c/good", listed(t, "debian:12", deb("zlib1g", "1")), false)
	v.known(1)
	tries := func() int {
		i, err := v.watch.inventories.Get(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		return i.Value.Tries
	}
	for n := 1; n <= maxTries; n++ {
		v.wait(fmt.Sprint("try ", n), func() bool {
			v.watch.rouse()
			i, _ := v.watch.inventories.Get(t.Context(), bad)
			return i.Value.Tries == n && i.Value.Error != "" && (i.Value.Next.IsZero() || i.Value.Next.Sub(v.watch.now()) < time.Hour && i.Value.Next.Sub(v.watch.now()) != leaseTime)
		})
		v.later(time.Hour)
	}
	v.later(24 * time.Hour)
	f := v.findings(alice, "alice/c/bad:latest")
	v.wait("the end of tries", func() bool { f = v.findings(alice, "alice/c/bad:latest"); return f.State == "failed" })
	if !strings.Contains(f.Problem, "no list of packages [31m") || tries() != maxTries {
		t.Errorf("%+v, %d tries", f, tries())
	}
	v.want(409, alice, "GET", "/v1/inventories/alice/c/bad:latest", nil, nil)
	// Another version of the program tries again; a list that is lost is made again.
	if _, err := v.watch.inventories.Update(t.Context(), bad, func(i *inventory) error { i.Program = "older"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := v.store.Blobs.Delete(t.Context(), blobName(good)); err != nil {
		t.Fatal(err)
	}
	v.stop()
	v.open(v.watch.o)
	v.wait("another try", func() bool { i, _ := v.watch.inventories.Get(t.Context(), bad); return i.Value.Program != "older" })
	v.known(1)
	// From before: nobody has written it down.
	v.stop()
	if err := v.watch.forget(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	v.open(v.watch.o)
	v.known(1)
	if err := v.watch.forget(t.Context(), strings.Repeat("0", 64)); err != nil {
		t.Error("what is not there cannot be forgotten:", err)
	}
	// Nothing stays of an image that is gone.
	if err := v.store.Blobs.Delete(t.Context(), "sha256/"+good); err != nil {
		t.Fatal(err)
	}
	v.want(200, alice, "DELETE", "/v1/images/alice/c/good:latest?arch=amd64", nil, nil)
	if err := v.watch.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.store.Blobs.Stat(t.Context(), blobName(good)); err == nil || v.watch.corpus.has(good) {
		t.Error("the list outlives its image")
	}
}

// TestCrashing: an image that ends the server is not read for ever.
func TestCrashing(t *testing.T) {
	v := newWatched(t, func(o *Options) {
		o.Read = func(ctx context.Context, f *os.File) (*sbom.Inventory, error) {
			<-ctx.Done() // as long as this server lives
			return nil, ctx.Err()
		}
	})
	alice := v.user("alice", auth.User, "")
	hash := v.push(alice, "alice/c/k", listed(t, "debian:12"), false)
	for n := 1; n <= maxTries; n++ {
		v.wait(fmt.Sprint("try ", n), func() bool { i, _ := v.watch.inventories.Get(t.Context(), hash); return i.Value.Tries == n })
		v.stop()
		v.later(leaseTime + time.Minute)
		v.open(v.watch.o)
	}
	v.wait("the end", func() bool { return v.findings(alice, "alice/c/k:latest").State == "failed" })
}

// TestSuppressions: owners say what does not count in their collection, administrators
// for all, until a day, with a reason.
func TestSuppressions(t *testing.T) {
	v := newWatched(t, nil)
	admin, alice, bob := v.user("admin", auth.User, ""), v.user("alice", auth.User, ""), v.user("bob", auth.User, "")
	image := listed(t, "debian:12", deb("zlib1g", "1"), deb("bash", "1"))
	v.push(alice, "alice/c/k", image, false)
	v.push(bob, "bob/c/k", image, false)
	v.known(1)
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "2", "high", "CVE-1-1"), rec("A-2", day1, "Debian:12", "bash", "2", "low", "CVE-1-2"))
	counts := func(who string) (high, low, off int) {
		f := v.findings(admin, who+"/c/k:latest")
		return f.Counts["high"], f.Counts["low"], f.Suppressed
	}
	is := func(who string, high, low, off int) {
		t.Helper()
		if h, l, o := counts(who); h != high || l != low || o != off {
			t.Errorf("%s: high %d, low %d, suppressed %d; want %d %d %d", who, h, l, o, high, low, off)
		}
	}
	is("alice", 1, 1, 0)
	until := time.Now().AddDate(0, 0, 2).Format(time.DateOnly)
	in := api.Suppression{ID: "CVE-1-1", Reason: "zlib is <b>never</b> called", Until: until}
	v.want(404, bob, "POST", "/v1/suppressions/alice/x", in, nil)
	v.want(403, bob, "POST", "/v1/suppressions/alice/c", in, nil)
	v.want(403, alice, "POST", "/v1/suppressions", in, nil)
	v.want(401, "", "POST", "/v1/suppressions", in, nil)
	v.want(200, alice, "POST", "/v1/suppressions/alice/c", in, nil)
	is("alice", 0, 1, 1)
	is("bob", 1, 1, 0)
	if f := v.findings(bob, "alice/c/k:latest"); !strings.Contains(f.Findings[0].Suppressed, in.Reason) {
		t.Errorf("no reason: %+v", f.Findings)
	}
	for _, bad := range []api.Suppression{{ID: "CVE-1-1"}, {Reason: "x"}, {ID: "CVE-1-1", Reason: "x", Until: "2020-01-01"}, {ID: "CVE-1-1", Reason: "x", Until: "soon"}, {ID: "a b", Reason: "x"}, {ID: "a\x1b", Reason: "x"}, {ID: "A", Reason: "x", Product: "zlib"}} {
		v.want(400, alice, "POST", "/v1/suppressions/alice/c", bad, nil)
	}
	v.want(200, admin, "POST", "/v1/suppressions", api.Suppression{ID: "A-2", Product: "pkg:deb/debian/bash", Reason: "not here"}, nil)
	is("alice", 0, 0, 2)
	is("bob", 1, 0, 1)
	// Out, in again, and out of date.
	_, vex := v.call(alice, "GET", "/v1/suppressions/alice/c", nil)
	if !strings.Contains(vex, "https://openvex.dev/ns") || !strings.Contains(vex, "never") {
		t.Errorf("no OpenVEX: %s", vex)
	}
	v.want(200, alice, "DELETE", "/v1/suppressions/alice/c?id=CVE-1-1", nil, nil)
	v.want(404, alice, "DELETE", "/v1/suppressions/alice/c?id=CVE-1-1", nil, nil)
	is("alice", 1, 0, 1)
	v.want(200, bob, "PUT", "/v1/suppressions/bob/c", vex, nil)
	is("bob", 0, 0, 2)
	for _, bad := range []string{"", "{}", `{"@context":"https://openvex.dev/ns/v0.2.0","statements":[{"status":"not_affected","vulnerability":{"name":"A"}}]}`} {
		v.want(400, bob, "PUT", "/v1/suppressions/bob/c", bad, nil)
	}
	v.later(4 * 24 * time.Hour)
	is("bob", 1, 0, 1)
	var o api.WatchOverview
	v.want(200, bob, "GET", "/v1/findings", nil, &o)
	if o.Affected != 2 || o.Counts["high"] != 2 {
		t.Errorf("%+v", o)
	}
}

// TestForgedRuns: nobody speaks for another user or another host, and what is told can
// be told again.
func TestForgedRuns(t *testing.T) {
	v := newWatched(t, nil)
	admin, alice, bob := v.user("admin", auth.User, ""), v.user("alice", auth.User, ""), v.user("bob", auth.User, "")
	host := v.user("node1", auth.Robot, "admin", auth.RunsWrite)
	fake := v.user("node2", auth.Robot, "bob", auth.RunsWrite)
	narrow := v.user("bob", auth.User, "", auth.LibraryRead)
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	run := func(id, host, user string) api.Run {
		return api.Run{ID: id, Start: start, Host: host, User: user, UID: 1000, Verb: "exec", Image: "/x.sif"}
	}
	ship := func(token string, list ...api.Run) (kept int, refused string) {
		t.Helper()
		var taken api.RunsTaken
		v.want(200, token, "POST", "/v1/runs", api.Runs{Records: list}, &taken)
		for _, r := range taken.Refused {
			refused += r.ID + ": " + r.Message + "\n"
		}
		return taken.Done - len(taken.Refused), refused
	}
	v.want(403, fake, "POST", "/v1/runs", api.Runs{Records: []api.Run{run("a", "node2", "alice")}}, nil)
	v.want(403, narrow, "POST", "/v1/runs", api.Runs{Records: []api.Run{run("a", "h", "bob")}}, nil)
	v.want(401, "", "POST", "/v1/runs", api.Runs{}, nil)
	v.want(400, host, "POST", "/v1/runs", api.Runs{Records: slices.Repeat([]api.Run{run("a", "node1", "x")}, api.MaxRuns+1)}, nil)
	v.want(400, host, "POST", "/v1/runs", "[", nil)
	if n, why := ship(host, run("a", "node1", "alice"), run("b", "Node1.cluster", "alice"), run("c", "node2", "alice"), run("d", "node1evil", "alice")); n != 2 || !strings.Contains(why, "c:") || !strings.Contains(why, "d:") {
		t.Errorf("a host: %d %s", n, why)
	}
	if n, why := ship(bob, run("a", "node1", "bob"), run("b", "node1", "alice")); n != 1 || !strings.Contains(why, "speaks for no other user") {
		t.Errorf("a user: %d %s", n, why)
	}
	for _, bad := range []func(*api.Run){func(r *api.Run) { r.ID = "../x" }, func(r *api.Run) { r.ID = "" }, func(r *api.Run) { r.Image = "/x\x1b[2J" }, func(r *api.Run) { r.Image = strings.Repeat("x", 5000) }, func(r *api.Run) { r.Job = "a\nb" },
		func(r *api.Run) { r.Start = time.Now().Add(48 * time.Hour) }, func(r *api.Run) { r.End = start.Add(-time.Hour) }, func(r *api.Run) { r.Digest = "sha256:x" }, func(r *api.Run) { r.Start = time.Time{} }, func(r *api.Run) { r.User = "" },
		func(r *api.Run) { r.Start, r.End = start.AddDate(-1, 0, 0), start.AddDate(-1, 0, 1) }} {
		r := run("z", "node1", "alice")
		bad(&r)
		if n, _ := ship(host, r); n != 0 {
			t.Errorf("kept: %+v", r)
		}
	}
	get := func(token, query string) (list []api.StoredRun) {
		v.want(200, token, "GET", "/v1/runs"+query, nil, &list)
		return list
	}
	if list := get(admin, ""); len(list) != 3 {
		t.Errorf("an administrator sees %d runs", len(list))
	}
	// A host says that alice runs something; alice's account here may be another's.
	if list := get(alice, ""); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if list := get(bob, "?user=alice"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	if list := get(bob, ""); len(list) != 1 || !list[0].Claimed || list[0].Shipper != "bob" {
		t.Errorf("%+v", list)
	}
	v.watch.o.SameUsers = true
	if list := get(alice, ""); len(list) != 2 || list[0].Claimed || list[0].Shipper != "node1" {
		t.Errorf("%+v", list)
	}
	// Again, with an end, and again; another run under an id that is taken.
	ended := run("a", "node1", "alice")
	ended.End, ended.Digest = start.Add(time.Minute), "sha256:"+strings.Repeat("a", 64)
	for range 2 {
		if n, why := ship(host, ended, run("b", "Node1.cluster", "alice")); n != 2 {
			t.Error(why)
		}
	}
	if n, why := ship(host, run("a", "node1", "alice")); n != 1 {
		t.Error(why)
	}
	other := run("a", "node1", "alice")
	other.Image = "/y.sif"
	if n, _ := ship(host, other); n != 0 {
		t.Error("a record was changed")
	}
	list := get(admin, "?host=node1")
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	for _, r := range list {
		if r.ID == "a" && r.Shipper == "node1" && (!r.End.Equal(ended.End) || r.Digest != ended.Digest || r.Running) {
			t.Errorf("%+v", r)
		}
	}
	if list := get(admin, "?running=true"); len(list) != 2 {
		t.Errorf("%+v", list)
	}
	v.later(silence + time.Hour)
	if list := get(admin, "?running=true"); len(list) != 0 {
		t.Errorf("nobody has spoken of %+v", list)
	}
	// A robot speaks no longer when its owner is no administrator.
	a, err := v.auth.Account(t.Context(), "admin")
	if err == nil {
		_, err = v.auth.UpdateAccount(t.Context(), a.ID, func(a *auth.Account) error { a.Admin = false; return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	v.want(403, host, "POST", "/v1/runs", api.Runs{Records: []api.Run{run("q", "node1", "alice")}}, nil)
	for _, q := range []string{"?limit=0", "?limit=x", "?after=%ff"} {
		v.want(400, bob, "GET", "/v1/runs"+q, nil, nil)
	}
	v.want(400, bob, "GET", "/v1/findings/images?id=", nil, nil)
	v.want(400, bob, "GET", "/v1/findings/images?id=x&after=-1", nil, nil)
	v.want(400, bob, "GET", "/v1/findings/search?q="+url.QueryEscape("é"), nil, nil)
}

// TestLarge: an image with more packages than memory is given is compared all the same.
func TestLarge(t *testing.T) {
	v := newWatched(t, nil)
	alice := v.user("alice", auth.User, "")
	list := make([]sbom.Package, maxShared+1)
	for n := range list {
		list[n] = deb(fmt.Sprint("p", n), "1")
	}
	v.push(alice, "alice/c/k", listed(t, "debian:12", list...), false)
	v.known(1)
	v.advise("a.json", rec("A-1", day1, "Debian:12", fmt.Sprint("p", maxShared), "2", "high"))
	if f := v.findings(alice, "alice/c/k:latest"); len(f.Findings) != 1 || f.Packages != len(list) {
		t.Errorf("%d findings, %d packages", len(f.Findings), f.Packages)
	}
	if _, packages := v.watch.corpus.size(); packages != 0 {
		t.Errorf("%d packages are in memory", packages)
	}
	v.push(alice, "alice/c/l", listed(t, "debian:12", append(list, deb("another", "1"))...), false)
	v.known(2)
	v.wait("a finding", func() bool { return len(v.findings(alice, "alice/c/l:latest").Findings) == 1 })
	var touched []api.TouchedImage
	if v.want(200, alice, "GET", "/v1/findings/images?id=A-1&limit=1", nil, &touched); len(touched) != 1 {
		t.Errorf("%+v", touched)
	}
	if v.want(200, alice, "GET", "/v1/findings/images?id=A-1&limit=1&after=1", nil, &touched); len(touched) != 1 {
		t.Errorf("%+v", touched)
	}
}

// TestHours: times are written as people write them into the configuration.
func TestHours(t *testing.T) {
	for d, want := range map[time.Duration]string{168 * time.Hour: "168h", 90 * time.Minute: "1h30m", 10 * time.Minute: "10m", 30 * time.Second: "30s", 2*time.Hour + 30*time.Second: "2h0m30s", 100 * time.Second: "1m40s"} {
		if got := hours(d); got != want {
			t.Errorf("%v: %q", d, got)
		}
	}
}

// FuzzRun: a record of a host that is kept can be shown: it has bounds and no control
// characters.
func FuzzRun(f *testing.F) {
	f.Add(`{"id":"1","start":"2026-01-01T00:00:00Z","host":"node1","user":"a","verb":"exec","image":"/x","digest":"sha256:` + strings.Repeat("0", 64) + `"}`)
	f.Add(`{"id":"1","start":"0001-01-01T00:00:00Z","end":"9999-01-01T00:00:00+23:59","host":"node1.x","user":"\u001b","image":"\u202e"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var r api.Run
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		by := speaker{host: "node1"}
		if by.check(&r, time.Now()) != nil {
			return
		}
		for _, s := range []string{r.ID, r.Host, r.User, r.Job, r.Verb, r.Image, r.Digest} {
			if hasControl(s) || len(s) > 4096 {
				t.Errorf("kept: %q", s)
			}
		}
		if host, _, _ := strings.Cut(strings.ToLower(r.Host), "."); host != "node1" {
			t.Errorf("it speaks for %q", r.Host)
		}
	})
}

// TestShort: what an image says in an error does nothing to a terminal.
func TestShort(t *testing.T) {
	if got := short(errors.New("a\x1b]0;x\x07\n" + strings.Repeat("é", 1000))); strings.ContainsAny(got, "\x1b\x07\n") || len(got) > maxErrorLen {
		t.Errorf("%q", got)
	}
	if _, err := look(filepath.Join(t.TempDir(), "none"), time.Now()); err == nil {
		t.Error("a place that is not there has a state")
	}
}

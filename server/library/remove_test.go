package library

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"singularity/server/auth"
	"singularity/server/store"
)

// TestUndo: what was deleted can be restored with its tags for some days, and is
// gone then.
func TestUndo(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	b := newSIF(t, "amd64", 20_000, "undo", false)
	id := v.push(alice, "alice/c/k", b, "amd64", "latest", "v1")
	used := func() string { return field(t, v.want(200, alice, "GET", "/v1/entities/alice", nil), "size") }
	before := used()
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:v1?arch=amd64", nil)
	if got := field(t, v.want(200, alice, "GET", "/v1/entities/alice", nil)); strings.Contains(got, "size:") {
		t.Errorf("what was deleted counts: %s", got)
	}
	if text := v.want(200, alice, "GET", "/v1/containers/alice/c/k/images?deleted=true", nil); !strings.Contains(text, id) || !strings.Contains(text, `"deletedBy":"alice"`) {
		t.Errorf("the bin holds %s", text)
	}
	v.want(403, bob, "GET", "/v1/containers/alice/c/k/images?deleted=true", nil)
	v.want(403, bob, "POST", "/v1/images/"+id+"/_restore", nil)
	// Another image takes one of the tags meanwhile.
	other := v.push(alice, "alice/c/k", newSIF(t, "amd64", 20_000, "other", false), "amd64", "latest")
	v.want(200, alice, "POST", "/v1/images/"+id+"/_restore", nil)
	v.want(404, alice, "POST", "/v1/images/"+id+"/_restore", nil)
	for tag, want := range map[string]string{"v1": id, "latest": other} {
		if got := field(t, v.want(200, "", "GET", "/v1/images/alice/c/k:"+tag+"?arch=amd64", nil), "id"); got != want {
			t.Errorf("the tag %s leads to %s, want %s", tag, got, want)
		}
	}
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:latest?arch=amd64", nil)
	if got := used(); got != before {
		t.Errorf("%s bytes are in use, want %s", got, before)
	}
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:v1?arch=amd64", nil)
	// Pushed again, the deleted one cannot come back beside it.
	v.push(alice, "alice/c/k", b, "amd64", "v1")
	v.want(409, alice, "POST", "/v1/images/"+id+"/_restore", nil)
	v.skew = 8 * 24 * time.Hour
	if err := v.lib.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.skew = 0
	v.want(404, alice, "POST", "/v1/images/"+id+"/_restore", nil)
	if n := v.blobs(); n != 1 {
		t.Errorf("%d contents are left, want 1", n)
	}
	// A container with what is in it.
	v.want(200, alice, "DELETE", "/v1/containers/alice/c/k", nil)
	v.want(404, alice, "GET", "/v1/images/alice/c/k:v1?arch=amd64", nil)
	v.want(409+0, alice, "DELETE", "/v1/collections/alice/"+v.filled(alice), nil)
	v.want(200, alice, "DELETE", "/v1/collections/alice/c", nil)
	v.skew = 20 * 24 * time.Hour
	for range 2 {
		v.lib.swept = time.Time{}
		if err := v.lib.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	v.skew = 0
	if n := v.blobs(); n != 1 { // that of the other collection
		t.Errorf("%d contents are left, want 1", n)
	}
	if n, err := v.lib.containers.Count(t.Context(), store.Query{}); err != nil || n != 1 {
		t.Errorf("%d containers are left, want 1: %v", n, err)
	}
}

func (v *site) filled(token string) string {
	v.push(token, "alice/filled/k", newSIF(v.t, "amd64", 1000, "filled", false), "amd64", "latest")
	return "filled"
}

func (v *site) blobs() int {
	v.t.Helper()
	n := 0
	for _, err := range v.store.Blobs.List(v.t.Context(), "") {
		if n++; err != nil {
			v.t.Fatal(err)
		}
	}
	return n
}

// TestRetention: a rule says first what it would do; tags that are kept and the
// newest images stay.
func TestRetention(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	var ids []string
	for n := range 5 {
		v.skew = time.Duration(n) * time.Hour
		ids = append(ids, v.push(alice, "alice/c/k", newSIF(t, "amd64", 1000, fmt.Sprint("image ", n), false), "amd64", fmt.Sprintf("v%d", n)))
	}
	v.push(alice, "alice/c/k", newSIF(t, "arm64", 1000, "arm", false), "arm64", "v0")
	list := func(body string) []string {
		var out []string
		text := v.want(200, alice, "POST", "/v1/containers/alice/c/k/retention", body)
		for n, id := range ids {
			if strings.Contains(text, `"id":"`+id) {
				out = append(out, fmt.Sprint(n))
			}
		}
		return out
	}
	for body, want := range map[string]string{
		`{"retention":{"keepLast":2},"dryRun":true}`:                     "0 1 2",
		`{"retention":{"keepLast":2,"keepTags":["v1"]},"dryRun":true}`:   "0 2",
		`{"retention":{"keepLast":1,"days":1},"dryRun":true}`:            "",
		`{"retention":{"keepLast":0,"days":0},"dryRun":true}`:            "",
		`{"retention":{"keepLast":1,"keepTags":["v*"]},"dryRun":true}`:   "",
		`{"retention":{"keepLast":4,"keepTags":["v[1]"]},"dryRun":true}`: "0",
	} {
		if got := strings.Join(list(body), " "); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	v.want(400, alice, "POST", "/v1/containers/alice/c/k/retention", `{"dryRun":true}`)
	v.want(400, alice, "PATCH", "/v1/containers/alice/c/k", `{"retention":{"keepLast":-1}}`)
	v.want(403, v.user("alice", auth.LibraryRead, auth.LibraryWrite), "POST", "/v1/containers/alice/c/k/retention", `{"retention":{"keepLast":1}}`)
	v.want(200, alice, "PATCH", "/v1/containers/alice/c/k", `{"retention":{"keepLast":3,"keepTags":["v0"]}}`)
	v.lib.swept = time.Time{}
	if err := v.lib.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, want := range []int{200, 404, 200, 200, 200} {
		v.want(want, "", "GET", fmt.Sprintf("/v1/images/alice/c/k:v%d?arch=amd64", n), nil)
	}
	v.want(200, "", "GET", "/v1/images/alice/c/k:v0?arch=arm64", nil)
}

// TestArchitectures: one tag, several architectures.
func TestArchitectures(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	arm, ppc, amd := newSIF(t, "arm64", 1000, "a", false), newSIF(t, "ppc64le", 1000, "p", false), newSIF(t, "amd64", 1000, "x", false)
	v.push(alice, "alice/c/k", arm, "arm64", "latest")
	if got := v.want(200, "", "GET", "/v1/imagefile/alice/c/k", nil); got != string(arm) {
		t.Error("the one architecture is not taken")
	}
	v.push(alice, "alice/c/k", ppc, "ppc64le", "latest")
	if text := v.want(400, "", "GET", "/v1/imagefile/alice/c/k", nil); !strings.Contains(text, "arm64, ppc64le") {
		t.Errorf("of two: %s", text)
	}
	v.push(alice, "alice/c/k", amd, "amd64", "latest", "only")
	if got := v.want(200, "", "GET", "/v1/imagefile/alice/c/k", nil); got != string(amd) {
		t.Error("amd64 is not preferred")
	}
	if got := v.want(200, "", "GET", "/v1/imagefile/alice/c/k?arch=arm64", nil); got != string(arm) {
		t.Error("the architecture that was asked for is not taken")
	}
	if text := v.want(404, "", "GET", "/v1/images/alice/c/k:nothing?arch=amd64", nil); !strings.Contains(text, "latest, only") {
		t.Errorf("the tags are not named: %s", text)
	}
	// The identity that an image carries leads to it.
	found := field(t, v.want(200, "", "GET", "/v1/images/alice/c/k:sif.00000000-0000-0000-0000-000000000000", nil), "uploaded")
	if found != "true" {
		t.Errorf("by the image's own id: %s", found)
	}
	v.want(404, "", "GET", "/v1/images/alice/c/k:sif.11111111-0000-0000-0000-000000000000", nil)
}

// TestCollectMarks: a content that is being freed is not named at the same
// moment, whichever comes first.
func TestCollectMarks(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	b := newSIF(t, "amd64", 1000, "marks", false)
	v.push(alice, "alice/c/k", b, "amd64", "latest")
	if freed, err := v.lib.free(t.Context(), hexOf(b)); freed || err != nil {
		t.Errorf("a content that is named was freed: %v", err)
	}
	i, err := v.lib.images.Find(t.Context(), "blob", hexOf(b))
	if err != nil {
		t.Fatal(err)
	}
	// Its file goes as it would if the collector had looked before the image was
	// written: the image is as before the upload.
	if err := v.store.Blobs.Delete(t.Context(), BlobName(hexOf(b))); err != nil {
		t.Fatal(err)
	}
	if err := v.lib.secure(t.Context(), i); err == nil {
		t.Error("an image without a content is taken for whole")
	}
	v.want(404, "", "GET", "/v1/images/alice/c/k:latest", nil)
	v.push(alice, "alice/c/k", b, "amd64", "latest")
	v.want(200, "", "GET", "/v1/imagefile/alice/c/k:latest", nil)
}

// TestFingerprints: a signer is who is known to be one, and never who an image
// says; what is known is looked at anew when a key comes or goes.
func TestFingerprints(t *testing.T) {
	known := []string{}
	v := newSite(t, Options{Fingerprints: func(context.Context, io.ReaderAt, int64) ([]string, error) { return known, nil }})
	alice := v.user("alice")
	v.push(alice, "alice/c/k", newSIF(t, "amd64", 1000, "signed", true), "amd64", "latest")
	v.push(alice, "alice/c/k", newSIF(t, "amd64", 1000, "unsigned", false), "amd64", "plain")
	prints := func(tag string) string {
		return field(t, v.want(200, "", "GET", "/v1/images/alice/c/k:"+tag+"?arch=amd64", nil), "fingerprints")
	}
	if got := prints("latest"); got != "<nil>" {
		t.Errorf("what the image claims is believed: %s", got)
	}
	const claimed = "AB01000000000000000000000000000000000000"
	for _, now := range [][]string{{claimed}, nil} {
		known = now
		if err := v.lib.Reverify(t.Context(), strings.ToLower(claimed)); err != nil {
			t.Fatal(err)
		}
		want := "<nil>"
		if now != nil {
			want = fmt.Sprint(now)
		}
		if got := prints("latest"); got != want {
			t.Errorf("the signers are %s, want %s", got, want)
		}
		if got := prints("plain"); got != "<nil>" {
			t.Errorf("an image without signature has signers: %s", got)
		}
	}
}

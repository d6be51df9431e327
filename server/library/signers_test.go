package library

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"singularity/server/store/embedded"
)

const claimed = "AB01000000000000000000000000000000000000" // as newSIF says

// A key that was changing when the server died is believed again only when its
// images were looked at; and an image that comes while a key changes has the
// signer that it has after that.
func TestRejudge(t *testing.T) {
	known := []string{claimed}
	o := Options{Fingerprints: func(context.Context, io.ReaderAt, int64) ([]string, error) { return known, nil }}
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	v := openSite(t, st, st.Records, st.Blobs, o)
	alice := v.user("alice")
	v.push(alice, "alice/c/k", newSIF(t, "amd64", 1000, "one", true), "amd64", "latest")
	shown := func(v *site, want ...string) {
		t.Helper()
		i, err := newClient(t, v.http.URL, alice, nil).Find(t.Context(), "alice/c/k", "latest", "amd64")
		if err != nil || !slices.Equal(i.Fingerprints, want) {
			t.Errorf("signed by %v, %v, want %v", i.Fingerprints, err, want)
		}
	}
	shown(v, claimed)
	if _, err := v.lib.KeyChanging(t.Context(), claimed); err != nil {
		t.Fatal(err)
	}
	shown(v)
	if err := v.lib.rejudgeAll(t.Context()); err != nil { // the change goes on
		t.Fatal(err)
	}
	shown(v)

	v = openSite(t, st, st.Records, st.Blobs, o) // as after kill -9
	shown(v)
	if err := v.lib.rejudgeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown(v, claimed)

	// The signatures are looked at, the key goes, the image is published.
	done, err := v.lib.KeyChanging(t.Context(), claimed)
	if err != nil {
		t.Fatal(err)
	}
	v.lib.o.Fingerprints = func(context.Context, io.ReaderAt, int64) ([]string, error) {
		before := known
		if known != nil {
			known = nil
			done()
		}
		return before, nil
	}
	v.push(alice, "alice/c/k", newSIF(t, "amd64", 1000, "two", true), "amd64", "latest")
	if err := v.lib.rejudgeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown(v)
	if len(v.lib.changing) > 0 {
		t.Errorf("left to do: %v", v.lib.changing)
	}
}

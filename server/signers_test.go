package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/api"
	"singularity/client/library"
	"singularity/pgp"
	"singularity/server/auth"
	"singularity/sif"
	"singularity/sign"
)

// user makes an account and returns a token of it.
func (r *running) user(t *testing.T, name string, admin bool) string {
	t.Helper()
	a, err := r.auth.AddAccount(t.Context(), auth.Account{Kind: auth.User, Name: name, Email: name + "@example.org", Admin: admin})
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := r.auth.AddToken(t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Kind: auth.User, Admin: admin, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "test", Scopes: auth.Scopes})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (r *running) do(t *testing.T, token, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.config.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if strings.HasPrefix(path, "/pks/") {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, text.String()
}

func signedImage(t *testing.T, k *pgp.Key) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: strings.NewReader("an image")}); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Sign(t.Context(), f, fi.Size(), sign.Request{Signer: sign.OpenPGP(k, nil, time.Now()), Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Who is shown to have signed an image follows the keys: one that comes after the
// image, is hidden, blocked, or revoked.
func TestSignersFollowKeys(t *testing.T) {
	r := start(t, nil)
	alice, admin := r.user(t, "alice", false), r.user(t, "root2", true)
	k, err := pgp.Generate(pgp.Options{Name: "Alice", Email: "alice@example.org", Bits: 2048, Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(k.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	e := ring[0]
	send := func() {
		t.Helper()
		var b bytes.Buffer
		if err := e.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		text, err := pgp.ArmorPublic(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if status, text := r.do(t, alice, "POST", "/pks/add", url.Values{"keytext": {string(text)}}.Encode()); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
	}
	image := signedImage(t, k)
	c, err := library.New(r.config.URL, alice, r.client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Push(t.Context(), bytes.NewReader(image), &library.Push{Name: "alice/tools/tool", Tags: []string{"latest"}, Arch: "amd64", Size: int64(len(image))}); err != nil {
		t.Fatal(err)
	}
	shown := func() []string {
		t.Helper()
		i, err := c.Find(t.Context(), "alice/tools/tool", "latest", "amd64")
		if err != nil {
			t.Fatal(err)
		}
		return i.Fingerprints
	}
	by := func() int {
		t.Helper()
		var l api.Listing[api.Image]
		status, text := r.do(t, alice, "GET", "/v1/signers/"+k.Fingerprint().String()+"/images", "")
		if err := json.Unmarshal([]byte(text), &l); err != nil || status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		return len(l.Data)
	}
	none := func(when string) {
		t.Helper()
		if got, n := shown(), by(); len(got) > 0 || n > 0 {
			t.Errorf("%s: signed by %v, and the key has %d images", when, got, n)
		}
	}
	signed := func(when string) {
		t.Helper()
		for !slices.Equal(shown(), []string{k.Fingerprint().String()}) {
			select {
			case <-t.Context().Done():
				t.Fatalf("%s: no signer", when)
			case <-time.After(5 * time.Millisecond):
			}
		}
		if n := by(); n != 1 {
			t.Errorf("%s: the key has %d images", when, n)
		}
	}
	none("no key")
	send()
	signed("a key that came later")
	key := "/v1/keys/" + k.Fingerprint().String()
	for _, step := range []struct{ token, method, path, when string }{{alice, "DELETE", key, "hidden"}, {admin, "PUT", key + "/block", "blocked"}} {
		if status, text := r.do(t, step.token, step.method, step.path, ""); status != 200 {
			t.Fatalf("%s: %d %s", step.when, status, text)
		}
		none(step.when) // at once
		if status, text := r.do(t, admin, "DELETE", key+"/block", ""); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		send()
		signed("after it was " + step.when)
	}
	if err := e.RevokeKey(packet.KeyCompromised, "stolen", nil); err != nil {
		t.Fatal(err)
	}
	send()
	none("revoked")
}

package keystore

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/pgp"
	"singularity/server/auth"
)

// SC-114: signatures of others, however many, are not kept; what is too large is
// refused before it is read.
func TestFlood(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice", "alice@example.org")
	v.want(v.add(alice, public(t, e)), 200)
	want := v.want(v.get(fpr(e)), 200)
	plain := len(public(t, e))
	stranger := entity(t, "Stranger", "s@example.net")
	for range 300 {
		if err := e.SignIdentity(e.PrimaryIdentity().Name, stranger, nil); err != nil {
			t.Fatal(err)
		}
	}
	flooded := public(t, e)
	if len(flooded) < 20*plain {
		t.Fatalf("the flood has %d bytes only", len(flooded))
	}
	v.want(v.add(mallet, flooded), 200)
	if got := v.want(v.get(fpr(e)), 200); got != want {
		t.Errorf("the key grew from %d to %d bytes", len(want), len(got))
	}
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	var sig bytes.Buffer
	if err := e.PrimaryIdentity().Signatures[1].Serialize(&sig); err != nil {
		t.Fatal(err)
	}
	b.Write(bytes.Repeat(sig.Bytes(), 150_000))
	huge, err := pgp.ArmorPublic(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	v.want(v.add(mallet, huge), 413)
	half, err := pgp.ArmorPublic(b.Bytes()[:300<<10/len(sig.Bytes())*len(sig.Bytes())+b.Len()-150_000*sig.Len()])
	if err != nil {
		t.Fatal(err)
	}
	v.want(v.add(mallet, half), 413)
	v.proven(e, 0)
}

// SC-115: what a stranger sends with a key does not change a byte of it.
func TestGarbageOfStrangers(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice", "alice@example.org")
	v.want(v.add(alice, public(t, e)), 200)
	want := v.want(v.get(fpr(e)), 200)
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	id := []byte("Alice <root@example.org>")
	for what, more := range map[string][]byte{
		"user id": append([]byte{0xc0 | 13, byte(len(id))}, id...),
		"picture": append([]byte{0xc0 | 17, 100}, make([]byte, 100)...),
		"unknown": append([]byte{0xc0 | 60, 100}, make([]byte, 100)...),
	} {
		text, err := pgp.ArmorPublic(append(bytes.Clone(b.Bytes()), more...))
		if err != nil {
			t.Fatal(err)
		}
		v.want(v.add(mallet, text), 200)
		if got := v.want(v.get(fpr(e)), 200); got != want {
			t.Errorf("%s: the key changed", what)
		}
	}
	v.want(v.get("root@example.org"), 404)
}

// SC-116: an old copy of a key brings nothing back: not the time before its
// revocation, and not its earlier end.
func TestReplay(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice", "alice@example.org")
	old := public(t, e)
	life := uint32(10 * 365 * 86400)
	id := e.PrimaryIdentity()
	id.SelfSignature.KeyLifetimeSecs, id.SelfSignature.CreationTime = &life, time.Now()
	if err := id.SelfSignature.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, nil); err != nil {
		t.Fatal(err)
	}
	v.want(v.add(alice, old), 200)
	v.want(v.add(alice, public(t, e)), 200)
	extended := v.want(v.get(fpr(e)), 200)
	v.want(v.add(mallet, old), 200)
	if v.want(v.get(fpr(e)), 200) != extended {
		t.Error("an older copy changed the key")
	}
	v.proven(e, 1)
	if err := e.RevokeKey(packet.KeyCompromised, "stolen", nil); err != nil {
		t.Fatal(err)
	}
	// A revocation is taken from anybody, with the key or alone, and nothing else.
	if err := e.AddUserId("Alice", "", "two@example.org", nil); err != nil {
		t.Fatal(err)
	}
	v.want(v.add(nobody, public(t, e)), 200)
	revoked := v.want(v.get(fpr(e)), 200)
	if list := v.want(v.index(fpr(e)), 200); !strings.Contains(list, ":r\n") || strings.Contains(list, "two@") {
		t.Errorf("index %s", list)
	}
	for _, c := range []auth.Caller{alice, mallet} {
		v.want(v.add(c, old), 200)
	}
	if v.want(v.get(fpr(e)), 200) != revoked {
		t.Error("the revocation is gone")
	}
	v.proven(e, 2)
	// Not even by taking the key away and bringing it again.
	v.want(v.do(mallet, "DELETE", "/v1/keys/"+fpr(e), nil), 403)
	v.want(v.do(nobody, "DELETE", "/v1/keys/"+fpr(e), nil), 401)
	v.want(v.do(alice, "DELETE", "/v1/keys/"+fpr(e), nil), 200)
	v.want(v.get(fpr(e)), 404)
	v.want(v.add(mallet, old), 200)
	v.want(v.get(fpr(e)), 404)
	v.want(v.add(alice, old), 200)
	if v.want(v.get(fpr(e)), 200) != revoked {
		t.Error("the revocation is gone")
	}
}

// A stranger's revocation is the owner's signature or nothing.
func TestRevocationByStranger(t *testing.T) {
	v := newSite(t, Options{})
	e, other := entity(t, "Alice", "alice@example.org"), entity(t, "Other", "o@example.net")
	if err := other.RevokeKey(packet.KeyCompromised, "", nil); err != nil {
		t.Fatal(err)
	}
	bare := func(e *openpgp.Entity) []byte {
		var b bytes.Buffer
		if err := e.Revocations[0].Serialize(&b); err != nil {
			t.Fatal(err)
		}
		text, err := pgp.ArmorPublic(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	v.want(v.add(nobody, bare(other)), 401)
	v.want(v.add(nobody, public(t, other)), 401) // a key that is not here
	v.want(v.add(alice, public(t, e)), 200)
	v.want(v.add(nobody, bare(other)), 401)
	if err := e.RevokeKey(packet.KeyCompromised, "", nil); err != nil {
		t.Fatal(err)
	}
	v.want(v.add(nobody, bare(e)), 200)
	if list := v.want(v.index(fpr(e)), 200); !strings.Contains(list, ":r\n") {
		t.Errorf("index %s", list)
	}
	v.proven(e, 1)
}

// SC-117: a user id is found by text once its address is known to be the
// uploader's, and not before.
func TestForeignAddress(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "The Boss", "boss@example.org")
	v.want(v.add(mallet, public(t, e)), 200)
	for _, s := range []string{"boss@example.org", "@example.org", "boss", "The Boss", "The Boss <boss@example.org>"} {
		v.want(v.get(s), 404)
		v.want(v.index(s), 404)
	}
	v.want(v.get(fpr(e)), 200)
	v.want(v.index(fpr(e)), 200)
	v.want(v.do(mallet, "PUT", "/v1/keys/"+fpr(e)+"/addresses/boss@example.org", nil), 403)
	v.want(v.do(admin, "PUT", "/v1/keys/"+fpr(e)+"/addresses/other@example.org", nil), 404)
	v.want(v.do(admin, "PUT", "/v1/keys/"+fpr(e)+"/addresses/Boss@example.org", nil), 200)
	v.want(v.get("boss@example.org"), 200)
	// One proven address does not vouch for the others of a key.
	two := entity(t, "Alice", "alice@example.org")
	if err := two.AddUserId("Boss", "", "ceo@example.org", nil); err != nil {
		t.Fatal(err)
	}
	v.want(v.add(alice, public(t, two)), 200)
	if list := v.want(v.index("alice@example.org"), 200); strings.Contains(list, "ceo@") {
		t.Errorf("a search tells an address that nobody proved: %s", list)
	}
	v.want(v.index("ceo@example.org"), 404)
	open := newSite(t, Options{Open: true})
	open.want(open.add(nobody, public(t, e)), 200)
	open.want(open.index("boss@example.org"), 200)
}

// SC-119: two keys of one id.
func TestSameID(t *testing.T) {
	v := newSite(t, Options{})
	a, b := entity(t, "A", "a@example.org"), entity(t, "B", "b@example.org")
	v.want(v.add(alice, public(t, a)), 200)
	v.want(v.add(alice, public(t, b)), 200)
	_, err := v.keys.Update(t.Context(), fpr(b), func(r *record) error { r.IDs = append(r.IDs, "00000000"+"0000000000000000"+fpr(a)[24:]); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if w := v.get("0x" + fpr(a)[32:]); w.Code != 409 || !strings.Contains(w.Body.String(), "2 keys have the id") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	ring, err := pgp.ParseRing([]byte(v.want(v.get("0x"+fpr(a)[24:]), 200)))
	if err != nil || len(ring.Keys()) != 2 {
		t.Errorf("%v, %v", ring, err)
	}
	if got := v.want(v.index("0x"+fpr(a)[24:]), 200); !strings.HasPrefix(got, "info:1:2\n") {
		t.Errorf("index %s", got)
	}
}

func TestRefusedKeys(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice", "alice@example.org")
	var secret bytes.Buffer
	if err := e.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	text, err := pgp.ArmorPublic(secret.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	odd := entity(t, "Alice\x1b[2J", "alice@example.org")
	var five, six []byte // keys differ in length: leading zeros are left out
	for range 6 {
		five = six
		var b bytes.Buffer
		if err := entity(t, "X", "x@example.org").Serialize(&b); err != nil {
			t.Fatal(err)
		}
		six = append(six, b.Bytes()...)
	}
	many, err := pgp.ArmorPublic(six)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		text   []byte
		status int
	}{
		"secret": {text, 400}, "secret as such": {bytes.ReplaceAll(text, []byte("PUBLIC"), []byte("PRIVATE")), 400}, "escape": {public(t, odd), 422}, "garbage": {[]byte("x"), 422},
		"message": {[]byte("-----BEGIN PGP MESSAGE-----\n\naaaa\n-----END PGP MESSAGE-----"), 422}, "six": {many, 413}, "nothing": {nil, 400},
	} {
		if w := v.add(alice, c.text); w.Code != c.status || !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("%s gives %d, want %d: %s", what, w.Code, c.status, w.Body)
		}
	}
	v.want(v.get(fpr(e)), 404)
	some, err := pgp.ArmorPublic(five)
	if err != nil {
		t.Fatal(err)
	}
	v.want(v.add(alice, some), 200)
}

func TestBlock(t *testing.T) {
	v := newSite(t, Options{})
	e, later := entity(t, "Alice", "alice@example.org"), entity(t, "Later", "l@example.org")
	v.want(v.add(alice, public(t, e)), 200)
	for _, k := range []*openpgp.Entity{e, later} {
		v.want(v.do(alice, "PUT", "/v1/keys/"+fpr(k)+"/block", nil), 403)
		v.want(v.do(admin, "PUT", "/v1/keys/"+fpr(k)+"/block", nil), 200)
		v.want(v.get(fpr(k)), 404)
		v.want(v.do(nobody, "GET", "/v1/keys/"+fpr(k)+"/proof", nil), 404)
		v.want(v.add(alice, public(t, k)), 403)
		v.want(v.do(admin, "DELETE", "/v1/keys/"+fpr(k)+"/block", nil), 200)
		v.want(v.add(alice, public(t, k)), 200)
		v.want(v.get(fpr(k)), 200)
	}
}

// Pages give every key once; their tokens serve for their search and some minutes.
func TestPages(t *testing.T) {
	v := newSite(t, Options{})
	want := map[string]bool{}
	for i := range 5 {
		e := entity(t, fmt.Sprintf("Alice %d", i), "alice@example.org")
		v.want(v.add(alice, public(t, e)), 200)
		want[fpr(e)] = true
	}
	next, pages := "", 0
	for {
		w := v.do(nobody, "GET", "/pks/lookup?op=index&options=mr&search=alice&x-pagesize=2&x-pagetoken="+url.QueryEscape(next), nil)
		list := strings.Split(v.want(w, 200), "\n")
		count := 0
		for _, l := range list {
			if f := strings.Split(l, ":"); f[0] == "pub" {
				if len(f) != 7 || !want[f[1]] {
					t.Errorf("line %q", l)
				}
				delete(want, f[1])
				count++
			}
		}
		if list[0] != fmt.Sprintf("info:1:%d", count) {
			t.Errorf("%q of %d keys", list[0], count)
		}
		pages++
		if next = w.Header().Get("X-HKP-Next-Page-Token"); next == "" {
			break
		}
		v.want(v.do(nobody, "GET", "/pks/lookup?op=index&options=mr&search=bob&x-pagetoken="+url.QueryEscape(next), nil), 400)
	}
	if len(want) != 0 || pages != 3 {
		t.Errorf("%d keys are on no page of %d", len(want), pages)
	}
	w := v.do(nobody, "GET", "/pks/lookup?op=index&options=mr&search=alice&x-pagesize=2", nil)
	v.skew = pageLife + time.Minute
	v.want(v.do(nobody, "GET", "/pks/lookup?op=index&options=mr&search=alice&x-pagetoken="+url.QueryEscape(w.Header().Get("X-HKP-Next-Page-Token")), nil), 400)
}

func TestExpiry(t *testing.T) {
	v := newSite(t, Options{})
	life := uint32(7200)
	e, err := openpgp.NewEntity("Short", "", "alice@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: life, Time: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	v.want(v.add(alice, public(t, e)), 200)
	line := fmt.Sprintf(":%d:%d:", e.PrimaryKey.CreationTime.Unix(), e.PrimaryKey.CreationTime.Unix()+7200)
	if got := v.want(v.index("short"), 200); !strings.Contains(got, line+"\n") {
		t.Errorf("index %s", got)
	}
	v.skew = 2 * time.Hour
	if got := v.want(v.index("short"), 200); !strings.Contains(got, line+"e\n") {
		t.Errorf("index %s", got)
	}
	v.want(v.get(fpr(e)), 200)
}

// Adds of one key at the same time come to the same as one after another.
func TestConcurrentAdds(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice", "alice@example.org")
	texts := [][]byte{public(t, e)}
	for i := range 4 {
		if err := e.AddUserId("Alice", "", fmt.Sprintf("a%d@example.org", i), nil); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, public(t, e))
	}
	var wg sync.WaitGroup
	for _, text := range texts {
		wg.Go(func() {
			if w := v.add(alice, text); w.Code != 200 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	if got := strings.Count(v.want(v.index(fpr(e)), 200), "uid:"); got != 5 {
		t.Errorf("%d user ids, want 5", got)
	}
}

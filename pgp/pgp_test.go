package pgp

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var pass = []byte("open sesame")

// alice has an unprotected secret key, bob a protected one. They are shared by
// the tests because making them takes time; tests parse their own copies.
var (
	alice = sync.OnceValue(func() []byte { return generate("Alice", nil) })
	bob   = sync.OnceValue(func() []byte { return generate("Bob", pass) })
)

func generate(name string, passphrase []byte) []byte {
	k, err := Generate(Options{
		Name: name, Comment: "test", Email: "mail@example.org", Bits: MinBits,
		Passphrase: passphrase, Time: now.Add(-24 * time.Hour),
	})
	if err != nil {
		panic(err)
	}
	return k.Bytes()
}

func key(t testing.TB, raw []byte) *Key {
	t.Helper()
	r, err := ParseRing(raw)
	if err != nil || len(r.Keys()) != 1 {
		t.Fatalf("ring has %d keys, want 1 (%v, %v)", len(r.Keys()), err, r.Problems())
	}
	return r.Keys()[0]
}

func public(t testing.TB, raw []byte) *Key {
	t.Helper()
	k, err := key(t, raw).Public()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestGenerate(t *testing.T) {
	k := key(t, bob())
	if got, want := k.UserID(), "Bob (test) <mail@example.org>"; got != want {
		t.Errorf("user id %q, want %q", got, want)
	}
	if k.Bits() != MinBits || !k.Secret() || !k.Locked() || !k.Protected() {
		t.Errorf("bits %d, secret %v, locked %v, protected %v", k.Bits(), k.Secret(), k.Locked(), k.Protected())
	}
	list, err := packets(k.raw)
	if err != nil {
		t.Fatal(err)
	}
	secrets := 0
	for _, p := range list {
		p2, err := packet.Read(bytes.NewReader(p.data))
		if err != nil {
			t.Fatal(err)
		}
		switch p2 := p2.(type) {
		case *packet.PrivateKey:
			secrets++
			if !p2.Encrypted {
				t.Errorf("secret packet %d is in clear", secrets)
			}
			// Version, time, algorithm and two MPIs come first; then usage 254,
			// cipher 9 (AES-256), S2K 3 with hash 8, salt, count 0xff.
			if !bytes.Contains(p.data, []byte{254, 9, 3, 8}) {
				t.Error("secret packet is not protected as specified")
			}
		case *packet.Signature:
			if p2.Hash.String() != "SHA-384" && secrets == 1 {
				t.Errorf("self-signature with %v, want SHA-384", p2.Hash)
			}
		}
	}
	if secrets != 2 {
		t.Errorf("%d secret packets, want 2", secrets)
	}
	for _, o := range []Options{{}, {Name: "a(b"}, {Name: "a\nb"}, {Name: "a", Bits: 1024}, {Email: "<x>"}} {
		if _, err := Generate(o); err == nil {
			t.Errorf("Generate(%+v) succeeded", o)
		}
	}
}

func TestUnlock(t *testing.T) {
	k := key(t, bob())
	if err := k.Unlock([]byte("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if err := k.Unlock(pass); err != nil || k.Locked() {
		t.Errorf("right passphrase: %v, locked %v", err, k.Locked())
	}
	p, err := k.Protect(pass, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Unlock(pass); !errors.Is(err, ErrPassphrase) || !p.Protected() {
		t.Errorf("old passphrase: %v, protected %v", err, p.Protected())
	}
	if err := p.Unlock([]byte("new")); err != nil {
		t.Errorf("new passphrase: %v", err)
	}
	a, err := key(t, alice()).Protect(nil, pass)
	if err != nil || !a.Protected() || a.Unlock(pass) != nil {
		t.Errorf("protecting a clear key: %v", err)
	}
	if _, err := key(t, bob()).Protect([]byte("wrong"), pass); !errors.Is(err, ErrPassphrase) {
		t.Errorf("protect with wrong passphrase: %v", err)
	}
}

func TestRing(t *testing.T) {
	r, err := ParseRing(append(alice(), bob()...))
	if err != nil || len(r.Keys()) != 2 {
		t.Fatalf("%d keys, %v", len(r.Keys()), err)
	}
	a, b := r.Keys()[0], r.Keys()[1]
	if r.Find(b.Fingerprint()) != b || len(r.ByID(b.entity.PrimaryKey.KeyId)) != 1 {
		t.Error("lookup of the second key failed")
	}
	if len(r.ByID(b.entity.Subkeys[0].PublicKey.KeyId)) != 1 {
		t.Error("lookup by sub-key id failed")
	}
	if !r.Remove(a.Fingerprint()) || r.Remove(a.Fingerprint()) {
		t.Error("remove does not tell what it did")
	}
	// The secret part of the other key must survive.
	left := key(t, r.Bytes())
	if !left.Secret() || left.Unlock(pass) != nil || !bytes.Equal(left.Bytes(), bob()) {
		t.Error("the remaining key was changed")
	}
	r.Add(a)
	if !bytes.Equal(r.Bytes(), append(bob(), alice()...)) {
		t.Error("added key is not at the end")
	}
}

func TestArmor(t *testing.T) {
	secret, err := key(t, bob()).Armor()
	if err != nil {
		t.Fatal(err)
	}
	open, err := public(t, alice()).Armor()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRing(append(append([]byte("some text\n\n"), secret...), open...))
	if err != nil || len(r.Keys()) != 2 || !r.Keys()[0].Secret() || r.Keys()[1].Secret() {
		t.Fatalf("%d keys, %v", len(r.Keys()), err)
	}
	if bytes.Contains(open, []byte("PRIVATE")) || !bytes.Contains(secret, []byte("PRIVATE")) {
		t.Error("wrong armor type")
	}
	for _, bad := range []string{"hello", "-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n"} {
		if r, err := ParseRing([]byte(bad)); err == nil {
			t.Errorf("%q gave %d keys", bad, len(r.Keys()))
		}
	}
}

// A key in the middle that is cut short claims bytes of the next one; the others
// must load, and a rewrite must not lose the damaged bytes.
func TestSC118_DamagedKeyInTheMiddle(t *testing.T) {
	a, b := public(t, alice()).Bytes(), public(t, bob()).Bytes()
	c := key(t, alice()).Bytes()
	for _, cut := range []int{1, 2, 3, 50, 200, 290, 400, 700, len(b) - 10, len(b) - 1} {
		all := append(append(append([]byte{}, a...), b[:cut]...), c...)
		r, err := ParseRing(all)
		if err != nil {
			t.Fatal(err)
		}
		keys := r.Keys()
		// A long cut leaves the middle key with its user id, but no sub-key.
		if len(keys) < 2 || !bytes.Equal(keys[0].raw, a) || !bytes.Equal(keys[len(keys)-1].raw, c) {
			t.Errorf("cut at %d: %d keys; problems %v", cut, len(keys), r.Problems())
			continue
		}
		if p := r.Problems(); len(p) != 1 {
			t.Errorf("cut at %d: problems %v", cut, p)
		}
		if again, err := ParseRing(r.Bytes()); err != nil || len(again.Keys()) < len(keys) || len(again.Bytes()) != len(all) {
			t.Errorf("cut at %d: rewrite lost something: %d of %d keys", cut, len(again.Keys()), len(keys))
		}
	}
}

func TestClearSign(t *testing.T) {
	k := key(t, alice())
	text := []byte(`{"version":1}`)
	msg, err := k.ClearSign(text, now)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(msg, []byte("-----END PGP SIGNATURE-----")) {
		t.Errorf("message ends in %q", msg[len(msg)-10:])
	}
	ring, _ := ParseRing(public(t, alice()).Bytes())
	got, err := VerifyClear(msg, ring.ByID, now)
	if err != nil || !bytes.Equal(got.Text, text) || got.Key.Fingerprint() != k.Fingerprint() || !got.Time.Equal(now) {
		t.Fatalf("%+v, %v", got, err)
	}
	other, _ := ParseRing(public(t, bob()).Bytes())
	var unknown *UnknownKeyError
	if _, err := VerifyClear(msg, other.ByID, now); !errors.As(err, &unknown) {
		t.Errorf("unknown key: %v", err)
	}
	if _, err := key(t, bob()).ClearSign(text, now); err == nil {
		t.Error("a locked key signed")
	}
}

// The frame of a message may not hold anything that was not signed.
func TestSC113_FrameTricks(t *testing.T) {
	k := key(t, alice())
	ring, _ := ParseRing(alice())
	msg, err := k.ClearSign([]byte("SIFHASH:\nabc\n"), now)
	if err != nil {
		t.Fatal(err)
	}
	s := string(msg)
	if _, err := VerifyClear([]byte(" \n"+strings.ReplaceAll(s, "\n", "\r\n")+"\n\n"), ring.ByID, now); err != nil {
		t.Errorf("line ends and outer blanks: %v", err)
	}
	edit := map[string]string{
		"text before":      "x\n" + s,
		"text after":       s + "\nx",
		"two messages":     s + "\n" + s,
		"header added":     strings.Replace(s, "Hash: SHA256\n", "Hash: SHA256\nComment: x\n", 1),
		"hash added":       strings.Replace(s, "Hash: SHA256\n", "Hash: SHA256, SHA512\n", 1),
		"hash line added":  strings.Replace(s, "Hash: SHA256\n", "Hash: SHA256\nHash: SHA256\n", 1),
		"other hash":       strings.Replace(s, "Hash: SHA256\n", "Hash: SHA512\n", 1),
		"dash escape":      strings.Replace(s, "\nabc", "\n- abc", 1),
		"trailing blank":   strings.Replace(s, "\nabc\n", "\nabc \n", 1),
		"text changed":     strings.Replace(s, "\nabc\n", "\nabd\n", 1),
		"blank first line": strings.Replace(s, "\n\nSIF", "\n \nSIF", 1),
		"no signature":     s[:strings.Index(s, "-----BEGIN PGP SIGNATURE")],
		"empty":            "",
	}
	for name, data := range edit {
		if got, err := VerifyClear([]byte(data), ring.ByID, now); err == nil {
			t.Errorf("%s: verified as %q", name, got.Text)
		}
	}
}

// TestSC107_Times judges signatures against the life of key and signature.
func TestSC107_Times(t *testing.T) {
	born := now.Add(-time.Hour)
	config := &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 7200,
		Time: func() time.Time { return born },
	}
	e, err := openpgp.NewEntity("Short", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	k := entityKey(t, e)
	ring := &Ring{}
	ring.Add(k)
	msg, err := k.ClearSign([]byte("x"), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyClear(msg, ring.ByID, now); err != nil {
		t.Errorf("inside the validity: %v", err)
	}
	for name, c := range map[string]struct {
		at   time.Time
		want string
	}{
		"key expired since": {born.Add(3 * time.Hour), "openpgp: key expired"},
		"future signature":  {now.Add(-time.Minute), "openpgp: signature not valid before " + now.UTC().Format(time.RFC3339)},
		"future key":        {born.Add(-time.Minute), "openpgp: key not valid before " + born.UTC().Format(time.RFC3339)},
	} {
		if _, err := VerifyClear(msg, ring.ByID, c.at); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := k.ClearSign([]byte("x"), born.Add(3*time.Hour)); err == nil {
		t.Error("an expired key signed")
	}
	if _, err := k.ClearSign([]byte("x"), born.Add(-time.Hour)); err == nil {
		t.Error("a signature older than its key was accepted")
	}
	if err := e.RevokeKey(packet.KeyCompromised, "", &packet.Config{Time: func() time.Time { return now }}); err != nil {
		t.Fatal(err)
	}
	revoked := &Ring{}
	revoked.Add(entityKey(t, e))
	if _, err := VerifyClear(msg, revoked.ByID, now); err == nil || err.Error() != "openpgp: signature made by revoked key" {
		t.Errorf("revoked key: %v", err)
	}
}

// A signature dated before its key verifies cryptographically and must not count.
func TestSC107_SignatureOlderThanKey(t *testing.T) {
	k := key(t, alice())
	old := k.Created().Add(-time.Hour)
	msg, err := k.ClearSign([]byte("x"), now)
	if err != nil {
		t.Fatal(err)
	}
	block, err := decodeClear(msg)
	if err != nil {
		t.Fatal(err)
	}
	sig, _, err := readSignature(block.ArmoredSignature.Body)
	if err != nil {
		t.Fatal(err)
	}
	sig.CreationTime = old
	if err := checkSigner(k, sig); err == nil {
		t.Error("accepted")
	}
}

func TestSC102_WeakSignatureHash(t *testing.T) {
	for id := range 16 {
		body := []byte{4, 1, 1, byte(id), 0, 16, 5, 2, 1, 2, 3, 4, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 1, 1}
		raw := append([]byte{0xc2, byte(len(body))}, body...)
		_, _, err := readSignature(bytes.NewReader(raw))
		if accepted := id >= 8 && id <= 11; accepted != (err == nil) {
			t.Errorf("hash %d: %v", id, err)
		}
	}
}

func TestSC119_KeyIDCollision(t *testing.T) {
	k := key(t, alice())
	msg, err := k.ClearSign([]byte("x"), now)
	if err != nil {
		t.Fatal(err)
	}
	both := func(uint64) []*Key { return []*Key{k, key(t, bob())} }
	if _, err := VerifyClear(msg, both, now); err == nil {
		t.Error("verified although two keys have the id")
	}
}

func entityKey(t testing.TB, e *openpgp.Entity) *Key {
	t.Helper()
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		t.Fatal(err)
	}
	return key(t, b.Bytes())
}

// quick returns an Ed25519 key, which takes no time to make or check.
func quick(t testing.TB) *Key {
	t.Helper()
	e, err := openpgp.NewEntity("Quick", "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	return entityKey(t, e)
}

func FuzzRing(f *testing.F) {
	k := quick(f)
	f.Add(k.raw)
	f.Add(append(append([]byte{}, k.raw[:len(k.raw)/2]...), k.raw...))
	armored, _ := k.Armor()
	f.Add(armored)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRing(data)
		if err != nil {
			return
		}
		for _, k := range r.Keys() {
			k.UserID()
			k.Bits()
			k.Expires()
			if p, err := k.Public(); err == nil && p.Fingerprint() != k.Fingerprint() {
				t.Error("public part has another fingerprint")
			}
		}
		again, err := ParseRing(r.Bytes())
		if err == nil && len(again.Keys()) < len(r.Keys()) {
			t.Errorf("rewriting lost keys: %d of %d left", len(again.Keys()), len(r.Keys()))
		}
	})
}

func FuzzSignatureObject(f *testing.F) {
	k := quick(f)
	msg, err := k.ClearSign([]byte(`{"version":1}`), now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	ring := &Ring{}
	ring.Add(k)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := VerifyClear(data, ring.ByID, now)
		if err == nil && string(got.Text) != `{"version":1}` {
			t.Errorf("a text that nobody signed verifies: %q", got.Text)
		}
	})
}

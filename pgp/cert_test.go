package pgp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// owner makes a small key that tests can sign with.
func owner(t testing.TB) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("Alice", "", "alice@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AddSigningSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	return e
}

func serialized(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func cert(t testing.TB, data []byte) *Cert {
	t.Helper()
	list, err := ReadCerts(data, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// selfSigned returns the key with one more self-signature of its user id.
func selfSigned(t testing.TB, e *openpgp.Entity, at time.Time, life uint32) []byte {
	t.Helper()
	id := e.PrimaryIdentity()
	s := &packet.Signature{Version: 4, SigType: packet.SigTypePositiveCert, PubKeyAlgo: e.PrimaryKey.PubKeyAlgo, Hash: id.SelfSignature.Hash, CreationTime: at, IssuerKeyId: &e.PrimaryKey.KeyId,
		IssuerFingerprint: e.PrimaryKey.Fingerprint, KeyLifetimeSecs: &life, FlagsValid: true, FlagSign: true, FlagCertify: true}
	if err := s.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, nil); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.PrimaryKey.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	if err := id.UserId.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	if err := s.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Copies of a key merge to the same bytes in every order, and again.
func TestCertMerge(t *testing.T) {
	e := owner(t)
	parts := [][]byte{serialized(t, e)}
	for i := range 7 {
		parts = append(parts, selfSigned(t, e, now.Add(time.Duration(i)*time.Minute), uint32(1000*(1+i*5%7))))
	}
	if err := e.RevokeKey(packet.KeyCompromised, "lost", &packet.Config{Time: func() time.Time { return now }}); err != nil {
		t.Fatal(err)
	}
	parts = append(parts, serialized(t, e))
	var want []byte
	for range 20 {
		order := rand.Perm(len(parts))
		c := cert(t, parts[order[0]])
		for _, i := range order[1:] {
			c.Merge(cert(t, parts[i]))
			c.Merge(cert(t, parts[order[0]]))
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = c.Bytes()
		}
		if !bytes.Equal(c.Bytes(), want) {
			t.Fatalf("the order %v gives other bytes", order)
		}
		again, err := ReadCert(c.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), want) {
			t.Fatalf("read again it is another: %v", err)
		}
	}
	k := key(t, want)
	if !k.Revoked(now.Add(time.Hour)) || len(k.entity.Subkeys) != 2 || len(k.entity.PrimaryIdentity().Signatures) > maxSelf {
		t.Errorf("revoked %v, %d sub-keys, %d signatures", k.Revoked(now.Add(time.Hour)), len(k.entity.Subkeys), len(k.entity.PrimaryIdentity().Signatures))
	}
}

// What others add to a key is not there afterwards, byte for byte.
func TestCertDropsForeign(t *testing.T) {
	e := owner(t)
	plain := serialized(t, e)
	want := cert(t, plain).Bytes()
	stranger := owner(t)
	if err := e.SignIdentity(e.PrimaryIdentity().Name, stranger, nil); err != nil {
		t.Fatal(err)
	}
	if got := cert(t, serialized(t, e)).Bytes(); !bytes.Equal(got, want) {
		t.Error("the signature of a stranger stays")
	}
	list, err := packets(plain)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := packets(serialized(t, stranger))
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	for what, data := range map[string][]byte{
		"user id without signature": join(plain, writePacket(tagUserID, []byte("Mallet <m@example.net>"))),
		"foreign sub-key":           join(plain, foreign[3].data, foreign[4].data),
		"picture":                   join(plain, writePacket(17, make([]byte, 3000))),
		"unknown packet":            join(plain, writePacket(60, make([]byte, 3000))),
		"signature of another":      join(plain, foreign[2].data),
		"unhashed area":             unhashed(t, list),
		"twice":                     join(list[0].data, list[1].data, list[2].data, list[2].data, list[3].data, list[4].data, list[5].data, list[6].data),
	} {
		if got := cert(t, data).Bytes(); !bytes.Equal(got, want) {
			t.Errorf("%s: the key is another", what)
		}
	}
}

// unhashed returns the key with something in the area that nobody signed.
func unhashed(t *testing.T, list []rawPacket) []byte {
	t.Helper()
	var out []byte
	for _, p := range list {
		if p.tag != tagSignature {
			out = append(out, p.data...)
			continue
		}
		b := p.body()
		n := 6 + int(b[4])<<8 + int(b[5])
		m := int(b[n])<<8 + int(b[n+1])
		note := append([]byte{40, 20}, bytes.Repeat([]byte{'x'}, 39)...)
		body := append(bytes.Clone(b[:n]), byte((m+len(note))>>8), byte(m+len(note)))
		body = append(append(body, note...), b[n+2:]...)
		out = append(out, writePacket(tagSignature, body)...)
	}
	return out
}

func TestCertRefusals(t *testing.T) {
	e := owner(t)
	plain := serialized(t, e)
	var secret bytes.Buffer
	if err := e.SerializePrivate(&secret, nil); err != nil {
		t.Fatal(err)
	}
	list, _ := packets(plain)
	odd, err := openpgp.NewEntity("Alice\x1b[31m", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	small, err := openpgp.NewEntity("Small", "", "", &packet.Config{RSABits: 1024})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		data []byte
		want error
		text string
	}{
		"secret":         {secret.Bytes(), ErrSecret, ""},
		"nothing":        {nil, nil, "no OpenPGP key"},
		"garbage":        {[]byte("garbage"), errFraming, ""},
		"cut":            {plain[:len(plain)-3], errFraming, ""},
		"no user id":     {bytes.Join([][]byte{list[0].data, list[3].data, list[4].data}, nil), nil, "no user id"},
		"no signature":   {bytes.Join([][]byte{list[0].data, list[1].data}, nil), nil, "no user id"},
		"escape":         {serialized(t, odd), nil, "no user id"},
		"RSA 1024":       {serialized(t, small), nil, "1024 bits"},
		"two at once":    {append(bytes.Clone(plain), serialized(t, owner(t))...), ErrLimit, ""},
		"large":          {append(bytes.Clone(plain), bytes.Repeat(writePacket(17, make([]byte, 60000)), 5)...), ErrLimit, ""},
		"sub-key first":  {list[3].data, nil, "tag 14"},
		"signature only": {list[2].data, nil, "without the key"},
	} {
		if _, err := ReadCerts(c.data, 1, nil); err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range MaxUserIDs {
		if err := e.AddUserId("", "", fmt.Sprintf("a%d@example.org", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadCerts(serialized(t, e), 1, nil); !errors.Is(err, ErrLimit) {
		t.Errorf("%d user ids: %v", MaxUserIDs+1, err)
	}
}

// A revocation comes alone, and is of the key that made it.
func TestBareRevocation(t *testing.T) {
	e := owner(t)
	c := cert(t, serialized(t, e))
	if err := e.RevokeKey(packet.KeyCompromised, "", nil); err != nil {
		t.Fatal(err)
	}
	var rev bytes.Buffer
	if err := e.Revocations[0].Serialize(&rev); err != nil {
		t.Fatal(err)
	}
	known := func(id uint64) []*Cert {
		if id == e.PrimaryKey.KeyId {
			return []*Cert{c}
		}
		return nil
	}
	list, err := ReadCerts(rev.Bytes(), 1, known)
	if err != nil {
		t.Fatal(err)
	}
	c.Merge(list[0].Revocation())
	if k, err := c.Key(); err != nil || !k.Revoked(time.Now()) || c.Check() != nil {
		t.Errorf("the key is not revoked: %v", err)
	}
	other := cert(t, serialized(t, owner(t)))
	if _, err := ReadCerts(rev.Bytes(), 1, func(uint64) []*Cert { return []*Cert{other} }); err == nil {
		t.Error("the revocation of one key is taken for another's")
	}
}

// Whatever is kept reads again as the same, with all of its own limits.
func FuzzReadCerts(f *testing.F) {
	e := owner(f)
	f.Add(serialized(f, e))
	f.Add(selfSigned(f, e, now, 1000))
	f.Add(alice())
	text, _ := ArmorPublic(serialized(f, e))
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ReadCerts(data, 3, nil)
		if err != nil {
			return
		}
		for _, c := range list {
			if err := c.Check(); err != nil {
				t.Fatal(err)
			}
			again, err := ReadCert(c.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			again.Merge(c)
			if !bytes.Equal(again.Bytes(), c.Bytes()) {
				t.Fatal("read again it is another")
			}
		}
	})
}

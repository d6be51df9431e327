package sign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/pgp"
	"singularity/sif"
)

func dsseKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]crypto.Signer{"rsa": r, "ed25519": ed}
	for name, c := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		list[name] = k
	}
	return list
}

func public(t testing.TB, k crypto.Signer) *PublicKey {
	t.Helper()
	p, err := NewPublicKey(k.Public(), "test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *storage) signDSSE(t testing.TB, k crypto.Signer) {
	t.Helper()
	signer, err := DSSE(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(context.Background(), s, int64(len(s.b)), Request{Signer: signer, Now: now}); err != nil {
		t.Fatal(err)
	}
}

func TestDSSE(t *testing.T) {
	keys := dsseKeys(t)
	for name, k := range keys {
		s := create(t, inputs()...)
		s.signDSSE(t, k)
		for _, how := range hows {
			r, err := s.verify(t, Options{Keys: []*PublicKey{public(t, keys["p384"]), public(t, k)}, How: how})
			if err != nil || r.Signatures[0].Public.ID != public(t, k).ID || r.Signatures[0].Key != nil {
				t.Errorf("%s: %+v, %v", name, r.Signatures, err)
			}
		}
		if _, err := s.verify(t, Options{}); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s without a key: %v", name, err)
		}
		if name != "p384" {
			if _, err := s.verify(t, Options{Keys: []*PublicKey{public(t, keys["p384"])}}); !errors.Is(err, errDSSE) {
				t.Errorf("%s with another key: %v", name, err)
			}
		}
		s.b[33000] ^= 1
		if _, err := s.verify(t, Options{Keys: []*PublicKey{public(t, k)}}); err == nil {
			t.Errorf("%s: a changed image verifies", name)
		}
	}
}

// TestKeyIDs compares the names of keys with what ssh-keygen prints.
func TestKeyIDs(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not there")
	}
	for name, k := range dsseKeys(t) {
		if name == "ed25519" {
			continue // ssh-keygen reads no PEM of these; the form is the same
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		ssh, err := exec.Command("ssh-keygen", "-i", "-m", "PKCS8", "-f", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, ssh, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("ssh-keygen", "-l", "-f", path).Output()
		if err != nil || !strings.Contains(string(out), " "+public(t, k).ID+" ") {
			t.Errorf("%s: %s, ssh-keygen prints %s, %v", name, public(t, k).ID, out, err)
		}
	}
}

// TestBothKinds: an image with an OpenPGP and a DSSE signature.
func TestBothKinds(t *testing.T) {
	k := dsseKeys(t)["ed25519"]
	s := create(t, inputs()...)
	s.sign(t, alice(), Selection{})
	s.signDSSE(t, k)
	if _, err := s.verify(t, Options{}); !errors.Is(err, ErrNoKey) {
		t.Errorf("keyring alone: %v", err)
	}
	if _, err := s.verify(t, Options{Any: true}); err != nil {
		t.Errorf("keyring alone, any: %v", err)
	}
	if r, err := s.verify(t, Options{Keys: []*PublicKey{public(t, k)}}); err != nil || len(r.Signatures) != 2 {
		t.Errorf("both: %v", err)
	}
	// Who names a key asks about that key.
	only := create(t, inputs()...)
	only.sign(t, alice(), Selection{})
	for _, any := range []bool{false, true} {
		if _, err := only.verify(t, Options{Keys: []*PublicKey{public(t, k)}, Any: any}); !errors.Is(err, errDSSE) {
			t.Errorf("not signed by the key that was given, any %v: %v", any, err)
		}
	}
}

// TestSC106_DSSEFingerprint: a DSSE signature whose descriptor names an OpenPGP
// key is not valid.
func TestDSSEFingerprint(t *testing.T) {
	k := dsseKeys(t)["p256"]
	s := create(t, inputs()...)
	signer, err := DSSE(k)
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := signer.Sign([]byte(s.statementOf(t)))
	if err != nil {
		t.Fatal(err)
	}
	s.add(t, data, alice().Fingerprint())
	if _, err := s.verify(t, Options{Keys: []*PublicKey{public(t, k)}}); !errors.Is(err, errFingerprint) {
		t.Errorf("%v", err)
	}
	good := create(t, inputs()...)
	data, _, _ = signer.Sign([]byte(good.statementOf(t)))
	good.add(t, data, pgp.Fingerprint{})
	if _, err := good.verify(t, Options{Keys: []*PublicKey{public(t, k)}}); err != nil {
		t.Errorf("without it: %v", err)
	}
}

// Envelopes of another type, with another payload, or that cannot be read are no
// signatures (SC-105).
func TestEnvelopes(t *testing.T) {
	k := dsseKeys(t)["ed25519"]
	signer, err := DSSE(k)
	if err != nil {
		t.Fatal(err)
	}
	statement := []byte(`{"version":1}`)
	data, extra, err := signer.Sign(statement)
	if err != nil || extra != (sif.Signature{Hash: sif.HashSHA256}) {
		t.Fatalf("%+v, %v", extra, err)
	}
	keys := []*PublicKey{public(t, k)}
	if text, by, err := openEnvelope(data, keys); err != nil || string(text) != string(statement) || by != keys[0] {
		t.Fatalf("%s, %v", text, err)
	}
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	good := string(data)
	raw, _ := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
	for _, c := range []struct {
		data string
		ok   bool
	}{
		{strings.Replace(good, e.Signatures[0].Sig, base64.URLEncoding.EncodeToString(raw), 1), true},
		{strings.Replace(good, `"keyid":"`+e.Signatures[0].KeyID+`",`, "", 1), true},
		{strings.Replace(good, e.Signatures[0].KeyID, "SHA256:other", 1), false},
		{strings.Replace(good, `"payload"`, `"Payload"`, 1), false},
		{strings.Replace(good, `{"payloadType"`, `{"payload":"e30=","payloadType"`, 1), false},
		{strings.Replace(good, "sif-metadata", "sif-metadata2", 1), false},
		{strings.Replace(good, e.Payload, "e30=", 1), false},
		{strings.Replace(good, e.Payload, "!", 1), false},
		{`{"payloadType":"` + payloadType + `","payload":"e30=","signatures":[]}`, false},
		{good + "x", false},
		{"null", false},
	} {
		if _, _, err := openEnvelope([]byte(c.data), keys); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.data, err)
		}
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		if _, err := NewPublicKey(small.Public(), ""); err == nil {
			t.Error("an RSA key of 1024 bits is taken")
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	_, k, _ := ed25519.GenerateKey(rand.Reader)
	signer, err := DSSE(k)
	if err != nil {
		f.Fatal(err)
	}
	data, _, _ := signer.Sign([]byte("{}"))
	f.Add(data)
	p, _ := NewPublicKey(k.Public(), "")
	f.Fuzz(func(t *testing.T, data []byte) {
		if text, by, err := openEnvelope(data, []*PublicKey{p}); err == nil && (by == nil || string(text) != "{}") {
			t.Errorf("%s is taken as signed", text)
		}
	})
}

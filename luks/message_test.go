package luks

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeyForms(t *testing.T) {
	k := newRSA(t, 2048)
	pkix, _ := x509.MarshalPKIXPublicKey(&k.PublicKey)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(k)
	for name, text := range map[string][]byte{
		"PKCS #1":    block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.PublicKey)),
		"PKIX":       block("PUBLIC KEY", pkix),
		"other type": block("KEY", pkix),
	} {
		if got, err := ParsePublicKey(text); err != nil || !got.Equal(&k.PublicKey) {
			t.Errorf("public, %s: %v", name, err)
		}
		if _, err := ParsePrivateKey(text); err == nil {
			t.Errorf("public, %s: taken as private", name)
		}
	}
	for name, text := range map[string][]byte{
		"PKCS #1": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)),
		"PKCS #8": block("PRIVATE KEY", pkcs8),
	} {
		if got, err := ParsePrivateKey(text); err != nil || !got.Equal(k) {
			t.Errorf("private, %s: %v", name, err)
		}
		if _, err := ParsePublicKey(text); err == nil {
			t.Errorf("private, %s: taken as public", name)
		}
	}
	small := newRSA(t, 1024)
	for name, text := range map[string][]byte{
		"nothing":    nil,
		"no PEM":     []byte("key"),
		"1024 bits":  block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&small.PublicKey)),
		"other DER":  block("PUBLIC KEY", []byte{4, 1, 0}),
		"huge":       bytes.Repeat([]byte("-----BEGIN X-----\n"), 10_000),
		"cut":        block("PUBLIC KEY", pkix[:40]),
		"small PKCS": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)),
	} {
		if _, err := ParsePublicKey(text); err == nil {
			t.Errorf("%s: a public key", name)
		}
		if _, err := ParsePrivateKey(text); err == nil {
			t.Errorf("%s: a private key", name)
		}
	}
}

func TestWrapUnwrap(t *testing.T) {
	k := newRSA(t, 2048)
	secret, err := NewSecret(Limits{})
	if err != nil || len(secret) != 64 || zero(secret) {
		t.Fatalf("%x, %v", secret, err)
	}
	message, err := WrapKey(&k.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	got, err := UnwrapKey(k, message)
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("%x, %v", got, err)
	}
	old, _ := rsa.EncryptPKCS1v15(rand.Reader, &k.PublicKey, secret)
	oldDER, _ := asn1.Marshal(old)
	otherHash, _ := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.PublicKey, secret, []byte("label"))
	otherDER, _ := asn1.Marshal(otherHash)
	b, _ := pem.Decode(message)
	flipped := bytes.Clone(b.Bytes)
	flipped[40] ^= 1
	for name, m := range map[string][]byte{
		"nothing":      nil,
		"other type":   block("KEY", b.Bytes),
		"PKCS #1 v1.5": block("MESSAGE", oldDER),
		"with a label": block("MESSAGE", otherDER),
		"flipped":      block("MESSAGE", flipped),
		"cut":          block("MESSAGE", b.Bytes[:100]),
		"more":         block("MESSAGE", append(bytes.Clone(b.Bytes), 0)),
		"huge":         bytes.Repeat([]byte("x"), 1<<20),
	} {
		if _, err := UnwrapKey(k, m); err == nil || err != ErrMessage {
			t.Errorf("%s: %v, want the one error for all", name, err)
		}
	}
	if _, err := UnwrapKey(newRSA(t, 2048), message); !errors.Is(err, ErrMessage) {
		t.Errorf("another key: %v", err)
	}
}

// TestOpenSSLUnwraps: the message and openssl's own read each other.
func TestOpenSSLUnwraps(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("the referee is openssl, which is not here")
	}
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(in []byte, args ...string) []byte {
		cmd := exec.Command("openssl", args...)
		cmd.Stdin = bytes.NewReader(in)
		var diag strings.Builder
		cmd.Stderr = &diag
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %q: %v: %s", args, err, diag.String())
		}
		return out
	}
	private := run(nil, "genrsa", "2048")
	k, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := file("key", private)
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	secret := pattern(64)
	message, err := WrapKey(&k.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(message)
	var wrapped []byte
	if _, err := asn1.Unmarshal(b.Bytes, &wrapped); err != nil {
		t.Fatal(err)
	}
	if got := run(wrapped, append([]string{"pkeyutl", "-decrypt", "-inkey", key}, oaep...)...); !bytes.Equal(got, secret) {
		t.Errorf("openssl unwraps %x, want %x", got, secret)
	}
	theirs := run(secret, append([]string{"pkeyutl", "-encrypt", "-inkey", key}, oaep...)...)
	der, _ := asn1.Marshal(theirs)
	if got, err := UnwrapKey(k, block("MESSAGE", der)); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("of openssl's: %x, %v", got, err)
	}
	public := run(nil, "rsa", "-in", key, "-RSAPublicKey_out")
	if got, err := ParsePublicKey(public); err != nil || !got.Equal(&k.PublicKey) {
		t.Errorf("openssl's public key: %v", err)
	}
}

package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func openssl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not there")
	}
}

func pass(word string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(word), nil }
}

func noPass() ([]byte, error) { return nil, errors.New("asked for a passphrase") }

// TestFormsOfOpenSSL: every form in which openssl writes a private key gives the
// same key, and the wrong passphrase is told from damage.
func TestFormsOfOpenSSL(t *testing.T) {
	needOpenSSL(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	kinds := map[string][]string{
		"rsa":     {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
		"p256":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"p521":    {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
		"ed25519": {"-algorithm", "ED25519"},
	}
	for kind, args := range kinds {
		plain := at(kind)
		openssl(t, append([]string{"genpkey", "-out", plain}, args...)...)
		openssl(t, "pkey", "-in", plain, "-pubout", "-out", at(kind+".pub"))
		data, err := os.ReadFile(at(kind + ".pub"))
		if err != nil {
			t.Fatal(err)
		}
		public, err := Public(data)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		check := func(form string, ask func() ([]byte, error)) {
			t.Helper()
			data, err := os.ReadFile(at("form"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := Private(data, ask)
			if err != nil {
				t.Errorf("%s, %s: %v", kind, form, err)
				return
			}
			if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
				t.Errorf("%s, %s: another key", kind, form)
			}
		}
		openssl(t, "pkcs8", "-topk8", "-nocrypt", "-in", plain, "-out", at("form"))
		check("PKCS#8", noPass)
		for _, v2 := range []string{"aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "des3"} {
			if kind != "p256" {
				break
			}
			for _, prf := range []string{"hmacWithSHA1", "hmacWithSHA256", "hmacWithSHA384", "hmacWithSHA512"} {
				openssl(t, "pkcs8", "-topk8", "-v2", v2, "-v2prf", prf, "-passout", "pass:secret", "-in", plain, "-out", at("form"))
				check(v2+" "+prf, pass("secret"))
			}
		}
		openssl(t, "pkcs8", "-topk8", "-scrypt", "-passout", "pass:secret", "-in", plain, "-out", at("form"))
		check("scrypt", pass("secret"))
		data, _ = os.ReadFile(at("form"))
		for _, word := range []string{"wrong", "", "secret "} {
			if _, err := Private(data, pass(word)); !errors.Is(err, ErrPassphrase) {
				t.Errorf("%s: passphrase %q gives %v", kind, word, err)
			}
		}
		if kind != "ed25519" {
			openssl(t, "pkey", "-traditional", "-in", plain, "-out", at("form"))
			check("traditional", noPass)
			openssl(t, "pkey", "-traditional", "-aes256", "-passout", "pass:secret", "-in", plain, "-out", at("form"))
			check("traditional, encrypted", pass("secret"))
			data, _ = os.ReadFile(at("form"))
			if _, err := Private(data, pass("wrong")); err == nil {
				t.Errorf("%s: the wrong passphrase opens it", kind)
			}
		}
	}
	openssl(t, "ecparam", "-name", "prime256v1", "-genkey", "-out", at("form")) // with EC PARAMETERS before it
	data, _ := os.ReadFile(at("form"))
	if key, err := Private(data, noPass); err != nil {
		t.Errorf("with parameters: %v", err)
	} else if _, ok := key.(*ecdsa.PrivateKey); !ok {
		t.Errorf("with parameters: %T", key)
	}
	openssl(t, "rsa", "-in", at("rsa"), "-RSAPublicKey_out", "-out", at("form"))
	data, _ = os.ReadFile(at("form"))
	if _, err := Public(data); err != nil {
		t.Errorf("RSA PUBLIC KEY: %v", err)
	}
}

func TestCosign(t *testing.T) {
	private, public, err := Cosign([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := Private(private, pass("secret"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := Public(public)
	if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(pub) {
		t.Errorf("the public key is another: %v", err)
	}
	if _, err := Private(private, pass("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	old := bytes.ReplaceAll(private, []byte("SIGSTORE"), []byte("COSIGN"))
	if _, err := Private(old, pass("secret")); err != nil {
		t.Errorf("the older name: %v", err)
	}
	other, _, err := Cosign([]byte("secret"))
	if err != nil || bytes.Equal(other, private) {
		t.Errorf("two keys are the same: %v", err)
	}
}

func TestRefused(t *testing.T) {
	_, public, err := Cosign(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ data, want string }{
		{"", "no PEM file"},
		{"-----BEGIN PRIVATE KEY-----\n", "no key in PEM form"},
		{"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", `it holds "CERTIFICATE"`},
		{"-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n-----END OPENSSH PRIVATE KEY-----\n", "ssh-keygen"},
		{"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n", "damaged"},
		{"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "not supported"},
		{string(public), "public key"},
		{strings.Repeat("x", MaxSize+1), "more than"},
	} {
		if _, err := Private([]byte(c.data), pass("x")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %q", c.data, err, c.want)
		}
	}
	asked := errors.New("no terminal")
	private, _, _ := Cosign([]byte("x"))
	if _, err := Private(private, func() ([]byte, error) { return nil, asked }); !errors.Is(err, asked) {
		t.Errorf("the error of asking is lost: %v", err)
	}
	if _, err := scryptKey(nil, nil, 1<<20, 8, 1, 32); err == nil {
		t.Error("scrypt with 1 GiB is done")
	}
	if _, err := scryptKey(nil, nil, 1<<10, 8, 1<<20, 32); err == nil {
		t.Error("scrypt that lasts for ever is done")
	}
}

func FuzzPrivate(f *testing.F) {
	private, _, err := Cosign([]byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(private)
	f.Add([]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := Private(data, pass("x"))
		if err == nil && key == nil {
			t.Error("no key and no error")
		}
	})
}

func FuzzPKCS8(f *testing.F) {
	f.Add([]byte{0x30, 0}, []byte("x"))
	f.Fuzz(func(t *testing.T, der, word []byte) { openPKCS8(der, word) })
}

// TestOpenSSH: public keys as ssh-keygen writes them.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not there")
	}
	dir := t.TempDir()
	lines := map[string][]byte{}
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		path := filepath.Join(dir, kind)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		line, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		lines[kind] = line
		key, err := Public(line)
		if err != nil {
			t.Fatal(kind, err)
		}
		// ssh-keygen itself tells the same key in PEM, where it can.
		text, err := exec.Command("ssh-keygen", "-e", "-m", "PKCS8", "-f", path+".pub").Output()
		if kind == "ed25519" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := Public(text)
		if err != nil || !want.(interface{ Equal(crypto.PublicKey) bool }).Equal(key) {
			t.Errorf("%s: another key, %v", kind, err)
		}
	}
	for name, bad := range map[string][]byte{
		"two keys": append(bytes.Clone(lines["rsa"]), lines["ed25519"]...),
		"cut":      lines["rsa"][:100],
		"token":    []byte("sk-ssh-ed25519@openssh.com AAAA"),
		"dss":      []byte("ssh-dss AAAAB3NzaC1kc3MAAAAB"),
		"options":  append([]byte(`command="x" `), lines["rsa"]...),
		"garbage":  []byte("ssh-ed25519 !!!"),
		"long":     append([]byte("ssh-rsa "), bytes.Repeat([]byte("A"), MaxSize)...),
	} {
		if key, err := Public(bad); err == nil {
			t.Errorf("%s: %T", name, key)
		}
	}
}

func FuzzPublic(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5wYXNzd29yZGlzbm90aGVyZWJ1dGtleXNhcmU= x\n"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := Public(data); err == nil && key == nil {
			t.Error("neither key nor error")
		}
	})
}

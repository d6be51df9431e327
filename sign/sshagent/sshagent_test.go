package sshagent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// startAgent starts a real ssh-agent and returns its socket. tool runs a program
// that talks to it.
func startAgent(t *testing.T) (socket string, tool func(name string, args ...string)) {
	t.Helper()
	for _, name := range []string{"ssh-agent", "ssh-add"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name)
		}
	}
	dir, err := os.MkdirTemp("", "ssh") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	a := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := a.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Process.Kill()
		a.Wait()
		os.RemoveAll(dir)
	})
	// It writes once it listens.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return socket, func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
}

// check signs by the key named name, and checks with the public key want.
func check(t *testing.T, socket, name string, want crypto.PublicKey) {
	t.Helper()
	k, err := Find(socket, name)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if p, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !p.Equal(want) {
		t.Errorf("%s: another key", name)
	}
	message := []byte("a message")
	sum := sha256.Sum256(message)
	hash := crypto.SHA256
	if _, ok := want.(ed25519.PublicKey); ok {
		hash = 0
	}
	sig, err := crypto.SignMessage(k, rand.Reader, message, hash)
	if err != nil {
		t.Fatal(name, err)
	}
	good := false
	switch p := want.(type) {
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(p, crypto.SHA256, sum[:], sig) == nil
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(p, sum[:], sig)
	case ed25519.PublicKey:
		good = ed25519.Verify(p, message, sig)
	}
	if !good {
		t.Errorf("%s: the signature is not good", name)
	}
	if _, err := crypto.SignMessage(k, rand.Reader, message, crypto.SHA512); err == nil {
		t.Errorf("%s signs with SHA-512", name)
	}
	if _, err := k.Sign(rand.Reader, sum[:], hash); err == nil {
		t.Errorf("%s signs a digest", name)
	}
}

// writeKey writes the key as PKCS #8 and returns the path.
func writeKey(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// add gives the agent a key with that comment.
func add(t *testing.T, socket string, key crypto.Signer, comment string) {
	t.Helper()
	a := agentAt(t, socket)
	if err := a.Add(agent.AddedKey{PrivateKey: key, Comment: comment}); err != nil {
		t.Fatal(err)
	}
}

func agentAt(t *testing.T, socket string) agent.ExtendedAgent {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return agent.NewClient(c)
}

func newKeys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"rsa": r, "ecdsa": e, "ed25519": d}
}

func id(t *testing.T, key crypto.Signer) string {
	t.Helper()
	p, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(p)
}

func TestRealAgent(t *testing.T) {
	socket, _ := startAgent(t)
	keys := newKeys(t)
	for comment, key := range keys {
		add(t, socket, forAgent(key), comment)
	}
	for comment, key := range keys {
		check(t, socket, comment, key.Public())
		check(t, socket, id(t, key), key.Public())
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	add(t, socket, p384, "p384")
	add(t, socket, newKeys(t)["ecdsa"], "rsa")
	// A comment that looks like the fingerprint of another key changes nothing.
	add(t, socket, newKeys(t)["ecdsa"], id(t, keys["rsa"]))
	check(t, socket, id(t, keys["rsa"]), keys["rsa"].Public())
	for name, want := range map[string]string{
		"nobody": `no key "nobody" among its 6`, "rsa": `2 keys "rsa": SHA256:`, "p384": "cannot sign images: use RSA, ECDSA on P-256, or Ed25519",
	} {
		if k, err := Find(socket, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %q", name, k, err, want)
		}
	}
	for _, path := range []string{"", "/nonexistent", t.TempDir()} {
		if _, err := Find(path, "rsa"); !errors.Is(err, ErrNoAgent) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// forAgent returns key in the form in which the library adds it.
func forAgent(key crypto.Signer) crypto.Signer {
	if k, ok := key.(ed25519.PrivateKey); ok {
		return &k
	}
	return key
}

// TestToken: a key of a PKCS #11 token, by ssh-add -s.
func TestToken(t *testing.T) {
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		t.Skip("needs softhsm2-util")
	}
	if _, err := os.Stat(module); err != nil {
		t.Skip("needs ", module)
	}
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "tokens"), 0o700)
	conf, ask := filepath.Join(dir, "conf"), filepath.Join(dir, "ask")
	os.WriteFile(conf, []byte("directories.tokendir = "+dir+"/tokens\nobjectstore.backend = file\n"), 0o600)
	os.WriteFile(ask, []byte("#!/bin/sh\necho 1234\n"), 0o700)
	t.Setenv("SOFTHSM2_CONF", conf)
	t.Setenv("SSH_ASKPASS", ask)
	t.Setenv("SSH_ASKPASS_REQUIRE", "force")
	socket, tool := startAgent(t)
	keys := newKeys(t)
	tool("softhsm2-util", "--init-token", "--free", "--label", "signing", "--pin", "1234", "--so-pin", "12345678")
	tool("softhsm2-util", "--import", writeKey(t, keys["rsa"]), "--token", "signing", "--label", "rsa", "--id", "01", "--pin", "1234")
	tool("softhsm2-util", "--import", writeKey(t, keys["ecdsa"]), "--token", "signing", "--label", "ecdsa", "--id", "02", "--pin", "1234")
	tool("ssh-add", "-s", module)
	check(t, socket, id(t, keys["rsa"]), keys["rsa"].Public())
	check(t, socket, id(t, keys["ecdsa"]), keys["ecdsa"].Public())
}

// liar is an agent that signs otherwise than it was asked to.
type liar struct {
	agent.ExtendedAgent
	sig *ssh.Signature
}

func (l liar) SignWithFlags(ssh.PublicKey, []byte, agent.SignatureFlags) (*ssh.Signature, error) {
	return l.sig, nil
}

func TestLyingAgent(t *testing.T) {
	ring := agent.NewKeyring().(agent.ExtendedAgent)
	for comment, key := range newKeys(t) {
		if err := ring.Add(agent.AddedKey{PrivateKey: forAgent(key), Comment: comment}); err != nil {
			t.Fatal(err)
		}
	}
	for comment, sig := range map[string]*ssh.Signature{
		"rsa": {Format: ssh.KeyAlgoRSA}, "ecdsa": {Format: ssh.KeyAlgoECDSA256, Blob: []byte("garbage")}, "ed25519": {Format: ssh.KeyAlgoSKED25519},
	} {
		k, err := find(liar{ring, sig}, comment)
		if err != nil {
			t.Fatal(err)
		}
		hash := crypto.SHA256
		if comment == "ed25519" {
			hash = 0
		}
		if sig, err := crypto.SignMessage(k, rand.Reader, []byte("x"), hash); err == nil {
			t.Errorf("%s: %x", comment, sig)
		}
	}
}

func FuzzFromSSH(f *testing.F) {
	f.Add(ssh.Marshal(struct{ A, B []byte }{[]byte{1}, []byte{2}}))
	f.Fuzz(func(t *testing.T, blob []byte) { fromSSH(blob) })
}

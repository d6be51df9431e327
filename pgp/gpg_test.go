package pgp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// gpgHome gives a GnuPG home of its own; its agent ends with the test.
type gpgHome string

func newGPG(t *testing.T) gpgHome {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("needs gpg")
	}
	// The agent's socket path must be short.
	dir, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+dir)
		cmd.Run()
		os.RemoveAll(dir)
	})
	return gpgHome(dir)
}

func (g gpgHome) run(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "loopback"}, args...)...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+string(g), "LC_ALL=C")
	cmd.Stdin = bytes.NewReader(stdin)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		t.Fatalf("gpg %v: %v\n%s", args, err, &msg)
	}
	return out.Bytes()
}

func TestGPGVerifiesOurs(t *testing.T) {
	g := newGPG(t)
	armored, err := public(t, alice()).Armor()
	if err != nil {
		t.Fatal(err)
	}
	g.run(t, armored, "--import")
	k := key(t, alice())
	msg, err := k.ClearSign([]byte(`{"version":1}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(file, msg, 0o600); err != nil {
		t.Fatal(err)
	}
	status := g.run(t, nil, "--status-fd", "1", "--verify", file)
	if want := "VALIDSIG " + k.Fingerprint().String(); !bytes.Contains(status, []byte(want)) {
		t.Errorf("gpg says %s, want %s", status, want)
	}
}

// Our protected secret key works in gpg, and what gpg signs with it verifies.
func TestGPGSignsWithOurKey(t *testing.T) {
	g := newGPG(t)
	secret, err := key(t, bob()).Armor()
	if err != nil {
		t.Fatal(err)
	}
	g.run(t, secret, "--import")
	ring := &Ring{}
	ring.Add(public(t, bob()))
	for _, hash := range []string{"SHA224", "SHA256", "SHA384", "SHA512"} {
		msg := g.run(t, []byte(`{"version":1}`), "--passphrase", string(pass), "--digest-algo", hash, "--clearsign")
		got, err := VerifyClear(msg, ring.ByID, time.Now())
		if err != nil || string(got.Text) != `{"version":1}` {
			t.Errorf("%s: %v\n%s", hash, err, msg)
		}
	}
}

func TestGPGKeysImport(t *testing.T) {
	g := newGPG(t)
	for _, algo := range []string{"rsa2048", "ed25519", "nistp384"} {
		g.run(t, nil, "--passphrase", "", "--quick-gen-key", algo+" <k@example.org>", algo, "default", "1y")
	}
	g.run(t, nil, "--passphrase", "", "--quick-gen-key", "combined <c@example.org>", "default", "default", "0")
	out, err := ParseRing(g.run(t, nil, "--export"))
	if err != nil || len(out.Keys()) != 4 || len(out.Problems()) != 0 {
		t.Fatalf("%d keys, %v, %v", len(out.Keys()), err, out.Problems())
	}
	secret, err := ParseRing(g.run(t, nil, "--armor", "--export-secret-keys"))
	if err != nil || len(secret.Keys()) != 4 {
		t.Fatalf("%d secret keys, %v, %v", len(secret.Keys()), err, secret.Problems())
	}
	for _, k := range secret.Keys() {
		msg, err := k.ClearSign([]byte("x"), time.Now())
		if err != nil {
			t.Errorf("%s: %v", k.UserID(), err)
			continue
		}
		if _, err := VerifyClear(msg, out.ByID, time.Now()); err != nil {
			t.Errorf("%s: %v", k.UserID(), err)
		}
		// A signature from gpg itself, as a statement would be signed by hand.
		msg = g.run(t, []byte("x"), "--local-user", k.Fingerprint().String(), "--clearsign")
		if _, err := VerifyClear(msg, out.ByID, time.Now()); err != nil {
			t.Errorf("gpg with %s: %v", k.UserID(), err)
		}
	}
}

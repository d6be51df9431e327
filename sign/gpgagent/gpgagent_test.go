package gpgagent

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/pgp"
)

// newGPG makes a home for gpg in this process, whose agent ends with the test.
func newGPG(t *testing.T) func(args ...string) []byte {
	t.Helper()
	for _, name := range []string{"gpg", "gpg-agent", "gpgconf"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name)
		}
	}
	home, err := os.MkdirTemp("", "gpg") // the path of the agent's socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Setenv("GPG_TTY", "")
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	return func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "loopback"}, args...)...)
		var msg bytes.Buffer
		cmd.Stderr = &msg
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %q: %v: %s", args, err, msg.String())
		}
		return out
	}
}

// fingerprint returns that of the only key of this user id.
func fingerprint(t *testing.T, gpg func(...string) []byte, name string) pgp.Fingerprint {
	t.Helper()
	for line := range strings.Lines(string(gpg("--with-colons", "--list-keys", name))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			fp, err := pgp.ParseFingerprint(f[9])
			if err != nil {
				t.Fatal(err)
			}
			return fp
		}
	}
	t.Fatal("no fingerprint")
	return pgp.Fingerprint{}
}

// clearSign signs a text by the agent.
func clearSign(t *testing.T, k *Key, text string, now time.Time) ([]byte, error) {
	return k.Public.ClearSignBy(k.By, []byte(text), now, func(digest []byte) ([][]byte, error) { return k.Sign(t.Context(), digest) })
}

func TestRealAgent(t *testing.T) {
	gpg := newGPG(t)
	var now time.Time
	const text = `{"version":1}`
	for _, algorithm := range []string{"rsa2048", "ed25519", "nistp256", "dsa2048"} {
		gpg("--passphrase", "", "--quick-generate-key", algorithm, algorithm, "sign", "never")
		now = time.Now().Add(time.Second) // not before the key
		fp := fingerprint(t, gpg, algorithm)
		k, err := Find(t.Context(), fp)
		if err != nil {
			t.Fatal(algorithm, err)
		}
		if k.By != fp || k.Public.SecretPackets() {
			t.Errorf("%s: signs by %s", algorithm, k.By)
		}
		data, err := clearSign(t, k, text, now)
		if err != nil {
			t.Fatal(algorithm, err)
		}
		signed, err := pgp.VerifyClear(data, func(uint64) []*pgp.Key { return []*pgp.Key{k.Public} }, now)
		if err != nil || string(signed.Text) != text || signed.Key.Fingerprint() != fp {
			t.Errorf("%s: %v", algorithm, err)
		}
		path := filepath.Join(t.TempDir(), "signed")
		os.WriteFile(path, data, 0o600)
		if status := gpg("--status-fd", "1", "--verify", path); !bytes.Contains(status, []byte("GOODSIG")) || !bytes.Contains(status, []byte("VALIDSIG "+fp.String())) {
			t.Errorf("%s: gpg says %s", algorithm, status)
		}
	}
	if _, err := Find(t.Context(), pgp.Fingerprint{1}); err == nil || !strings.Contains(err.Error(), "No secret key") {
		t.Errorf("unknown key: %v", err)
	}
}

// TestSubkey: where the key itself may only certify, as on many cards, a sub-key
// signs.
func TestSubkey(t *testing.T) {
	gpg := newGPG(t)
	gpg("--passphrase", "", "--quick-generate-key", "Sub", "ed25519", "cert", "never")
	fp := fingerprint(t, gpg, "Sub")
	if _, err := Find(t.Context(), fp); err == nil || !strings.Contains(err.Error(), "that can sign now") {
		t.Errorf("a key that cannot sign: %v", err)
	}
	gpg("--passphrase", "", "--quick-add-key", fp.String(), "ed25519", "sign", "never")
	k, err := Find(t.Context(), fp)
	if err != nil || k.By == fp || k.Public.Fingerprint() != fp {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := clearSign(t, k, "text", time.Now().Add(2*time.Second)); err != nil {
		t.Error(err)
	}
}

// TestPassphrase: the agent knows the passphrase, or asks for it, or refuses.
func TestPassphrase(t *testing.T) {
	gpg := newGPG(t)
	// The program that asks cancels.
	pinentry := filepath.Join(os.Getenv("GNUPGHOME"), "pinentry")
	os.WriteFile(pinentry, []byte("#!/bin/sh\necho OK\nwhile read c rest; do case $c in GETPIN) echo 'ERR 83886179 canceled';; BYE) exit;; *) echo OK;; esac; done\n"), 0o700)
	os.WriteFile(filepath.Join(os.Getenv("GNUPGHOME"), "gpg-agent.conf"), []byte("pinentry-program "+pinentry+"\n"), 0o600)
	gpg("--passphrase", "secret", "--quick-generate-key", "Locked", "ed25519", "sign", "never")
	k, err := Find(t.Context(), fingerprint(t, gpg, "Locked"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Second)
	exec.Command("gpgconf", "--reload", "gpg-agent").Run() // forgets passphrases
	if _, err := clearSign(t, k, "text", now); err == nil || !strings.Contains(err.Error(), "gpg-agent does not sign: Operation cancelled") {
		t.Errorf("cancelled: %v", err)
	}
	os.WriteFile(pinentry, []byte("#!/bin/sh\necho OK\nwhile read c rest; do case $c in GETPIN) echo 'D secret'; echo OK;; BYE) exit;; *) echo OK;; esac; done\n"), 0o700)
	if _, err := clearSign(t, k, "text", now); err != nil {
		t.Errorf("answered: %v", err)
	}
	os.Remove(pinentry)
	if _, err := clearSign(t, k, "text", now); err != nil {
		t.Errorf("remembered: %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"(7:sig-val(3:rsa(1:s3:abc)))":          "abc",
		"(7:sig-val(5:ecdsa(1:r2:xy)(1:s1:z)))": "xy,z",
	} {
		got, err := numbers([]byte(in))
		if err != nil || string(bytes.Join(got, []byte(","))) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
		for i := range in {
			if got, err := numbers([]byte(in[:i])); err == nil {
				t.Errorf("%q: %q", in[:i], got)
			}
		}
	}
	for _, bad := range []string{"(3:foo(3:rsa(1:s1:a)))", "(7:sig-val(3:rsa(1:x1:a)))", "(7:sig-val(3:rsa(1:s99999:a)))", "(7:sig-val(3:rsa(1:r1:a)(1:r1:b)))", "(7:sig-val(3:rsa(1:s-1:a)))"} {
		if got, err := numbers([]byte(bad)); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

// TestAnswer: what a hostile or broken agent can send.
func TestAnswer(t *testing.T) {
	var out bytes.Buffer
	read := func(in string) ([]byte, error) {
		return (&conn{Writer: &out, r: bufio.NewReaderSize(strings.NewReader(in), maxLine)}).answer()
	}
	if got, err := read("# comment\nS PROGRESS x\nINQUIRE PINENTRY_LAUNCHED 5\nD a%0Ab\nD c%25\nOK done\n"); err != nil || string(got) != "a\nbc%" || out.String() != "END\n" {
		t.Errorf("got %q, %v, sent %q", got, err, out.String())
	}
	for _, bad := range []string{"", "D x\n", "ERR 1 no\n", "what\n", "D %\n", "D %zz\n", strings.Repeat("x", maxLine+1), strings.Repeat("D "+strings.Repeat("x", 900)+"\n", 100) + "OK\n"} {
		if got, err := read(bad); err == nil {
			t.Errorf("%.40q: %q", bad, got)
		}
	}
}

func TestSigningKey(t *testing.T) {
	fp, _ := pgp.ParseFingerprint(strings.Repeat("AB", 20))
	grip := strings.Repeat("CD", 20)
	for name, list := range map[string]string{
		"empty":     "",
		"other key": "sec:u:255:22:X:1:::u:::scSC:::+:::\nfpr:::::::::" + strings.Repeat("00", 20) + ":\ngrp:::::::::" + grip + ":\n",
		"revoked":   "sec:r:255:22:X:1:::u:::scSC:::+:::\nfpr:::::::::" + fp.String() + ":\ngrp:::::::::" + grip + ":\n",
		"stub":      "sec:u:255:22:X:1:::u:::scSC:::#:::\nfpr:::::::::" + fp.String() + ":\ngrp:::::::::" + grip + ":\n",
		"bad grip":  "sec:u:255:22:X:1:::u:::scSC:::+:::\nfpr:::::::::" + fp.String() + ":\ngrp:::::::::x y:\n",
		"short":     "sec:u\nfpr:\n",
	} {
		if _, got, err := signing(list, fp); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestOptions(t *testing.T) {
	got := options(func(name string) string {
		return map[string]string{"GPG_TTY": "/dev/pts/1\nRESET", "TERM": "xterm", "DISPLAY": ":0"}[name]
	})
	if strings.Join(got, ",") != "ttytype=xterm,display=:0" {
		t.Errorf("got %q", got)
	}
}

func TestNoGPG(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(context.Background(), pgp.Fingerprint{}); err == nil || !strings.Contains(err.Error(), `"gpg"`) {
		t.Errorf("got %v", err)
	}
}

func FuzzNumbers(f *testing.F) {
	f.Add([]byte("(7:sig-val(5:ecdsa(1:r2:xy)(1:s1:z)))"))
	f.Fuzz(func(t *testing.T, raw []byte) { numbers(raw) })
}

func FuzzSigning(f *testing.F) {
	f.Add("sec:u:255:22:X:1:::u:::scSC:::+:::\nfpr:::::::::" + strings.Repeat("AB", 20) + ":\ngrp:::::::::" + strings.Repeat("AB", 20) + ":\n")
	f.Fuzz(func(t *testing.T, list string) {
		if _, grip, err := signing(list, pgp.Fingerprint{}); err == nil && !isGrip(grip) {
			t.Errorf("grip %q", grip)
		}
	})
}

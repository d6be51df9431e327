package certificate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a certificate authority of openssl with an OCSP responder.
type authority struct {
	t    *testing.T
	dir  string
	port int
}

func (a *authority) run(args ...string) {
	a.t.Helper()
	c := exec.Command("openssl", args...)
	c.Dir = a.dir
	if out, err := c.CombinedOutput(); err != nil {
		a.t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

func (a *authority) read(name string) []byte {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not there")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	l.Close()
	conf := fmt.Sprintf(`[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[code]
extendedKeyUsage = codeSigning
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
authorityInfoAccess = OCSP;URI:http://127.0.0.1:%d/
[web]
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
[responder]
extendedKeyUsage = OCSPSigning
noCheck = yes
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
[badresponder]
extendedKeyUsage = codeSigning
authorityKeyIdentifier = keyid
`, a.port)
	for name, text := range map[string]string{"ca.cnf": conf, "index.txt": "", "serial": "1000\n"} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Root", "-days", "60", "-config", "ca.cnf", "-extensions", "root")
	return a
}

func (a *authority) issue(name, kind string, more ...string) {
	a.t.Helper()
	a.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+name, "-config", "ca.cnf")
	a.run(append([]string{"ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", kind, "-in", name + ".csr", "-out", name + ".pem"}, more...)...)
}

// respond starts the responder of openssl with the given certificate.
func (a *authority) respond(signer string) {
	a.t.Helper()
	c := exec.Command("openssl", "ocsp", "-index", "index.txt", "-port", fmt.Sprint(a.port), "-rsigner", signer+".pem", "-rkey", signer+".key", "-CA", "ca.pem", "-nmin", "5", "-nrequest", "20")
	c.Dir = a.dir
	if err := c.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	// A connection without a request would be served for ever: look at the
	// table of sockets.
	want := fmt.Sprintf(":%04X 00000000:0000 0A", a.port)
	for range 200 {
		for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			b, err := os.ReadFile(table)
			if err == nil && (strings.Contains(string(b), want) || strings.Contains(string(b), fmt.Sprintf(":%04X 00000000000000000000000000000000:0000 0A", a.port))) {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Fatal("the responder does not listen")
}

func (a *authority) revoked(name string) error {
	a.t.Helper()
	leaf, err := Parse(a.read(name + ".pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	roots, err := Pool(a.read("ca.pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	now := time.Now()
	chains, err := Chains(leaf, nil, roots, now)
	if err != nil {
		a.t.Fatal(err)
	}
	return Revoked(context.Background(), http.DefaultClient, chains, now)
}

// A chain whose links have expired or may not sign is none (SC-107).
func TestChains(t *testing.T) {
	a := newAuthority(t)
	a.issue("good", "code")
	a.issue("web", "web")
	a.issue("old", "code", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z")
	roots, err := Pool(a.read("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"good": "", "web": "usage", "old": "expired"} {
		leaf, err := Parse(a.read(name + ".pem"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Chains(leaf, nil, roots, time.Now())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := Parse([]byte("-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n")); err == nil {
		t.Error("a key is taken for a certificate")
	}
}

// TestOCSP asks the responder of openssl.
func TestOCSP(t *testing.T) {
	for _, signer := range []string{"ca", "delegate"} {
		t.Run(signer, func(t *testing.T) {
			a := newAuthority(t)
			a.issue("good", "code")
			a.issue("bad", "code")
			a.issue("delegate", "responder")
			a.run("ca", "-config", "ca.cnf", "-revoke", "bad.pem")
			a.respond(signer)
			if err := a.revoked("good"); err != nil {
				t.Errorf("good: %v", err)
			}
			if err := a.revoked("bad"); !errors.Is(err, ErrOCSP) || !strings.Contains(fmt.Sprint(err), "revoked since") {
				t.Errorf("revoked: %v", err)
			}
		})
	}
}

func TestOCSPOfAnUnfitResponder(t *testing.T) {
	a := newAuthority(t)
	a.issue("good", "code")
	a.issue("unfit", "badresponder")
	if err := a.revoked("good"); !errors.Is(err, ErrOCSP) {
		t.Errorf("without a server: %v", err)
	}
	a.respond("unfit")
	if err := a.revoked("good"); !errors.Is(err, ErrOCSP) || !strings.Contains(fmt.Sprint(err), "not for OCSP") {
		t.Errorf("%v", err)
	}
}

func TestPostIsBounded(t *testing.T) {
	big := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxAnswer+1)) }))
	defer big.Close()
	away := httptest.NewServer(http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	defer away.Close()
	for _, to := range []string{big.URL, away.URL, "ldap://127.0.0.1/", "http://127.0.0.1:1/", "::"} {
		if b, err := post(context.Background(), http.DefaultClient, to, nil); err == nil {
			t.Errorf("%s: %d bytes", to, len(b))
		}
	}
}

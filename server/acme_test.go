package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer says that every name is on this host.
func nameServer(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Authoritative, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
			}
			if out, err := m.Pack(); err == nil {
				c.WriteTo(out, from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// pebbled is a running pebble, the test authority of Let's Encrypt.
type pebbled struct {
	directory string
	root      []byte // of what it issues
	client    *http.Client
	stop      func()
}

// pebble starts one that connects to a port for its challenges.
func pebble(t *testing.T, port string) *pebbled {
	t.Helper()
	program, err := exec.LookPath("pebble")
	if err != nil {
		t.Skip("pebble is not installed")
	}
	dir := t.TempDir()
	a := &authority{dir: dir}
	if err := a.create(); err != nil {
		t.Fatal(err)
	}
	own, err := a.issue("pebble", []string{"127.0.0.1"}, x509.ExtKeyUsageServerAuth, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: own.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &pebbled{client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.pool()}}}}
	t.Cleanup(p.client.CloseIdleConnections)
	dns := nameServer(t)
	for range 5 { // somebody else may take the ports meanwhile
		listen, manage := freePort(t), freePort(t)
		config := fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": %q, "certificate": %q, "privateKey": %q, "httpPort": 1, "tlsPort": %s, "ocspResponderURL": ""}}`,
			listen, manage, dir+"/cert.pem", dir+"/key.pem", port)
		if err := os.WriteFile(dir+"/config.json", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		p.directory = "https://" + listen + "/dir"
		if p.run(t, exec.Command(program, "-strict", "-config", dir+"/config.json", "-dnsserver", dns), "https://"+manage+"/roots/0") {
			return p
		}
	}
	t.Fatal("pebble does not start")
	return nil
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run tells whether pebble answers before it ends.
func (p *pebbled) run(t *testing.T, c *exec.Cmd, roots string) bool {
	log := &syncBuffer{}
	c.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	p.stop = func() { c.Process.Kill(); <-ended }
	t.Cleanup(p.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log)
		}
	})
	for {
		root, err := p.get(roots)
		if err == nil {
			p.root = root
			_, err = p.get(p.directory)
		}
		if err == nil {
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *pebbled) get(url string) ([]byte, error) {
	res, err := p.client.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// TestACME: the first client that names our host makes the server get a
// certificate, by a challenge on its own TLS port; after a restart it is there, and
// for other names there is none.
func TestACME(t *testing.T) {
	c := Defaults()
	c.Data, c.Listen, c.Internal, c.ACMEHosts = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", "127.0.0.1:0", []string{"images.test"}
	c.DialNetworks = []string{"127.0.0.0/8"}
	c.ACMEDirectory, c.ACMEEmail = "https://127.0.0.1:1/dir", "admin@images.test"
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = transport })
	var authority *pebbled
	var serial string
	for round := range 2 {
		log := &syncBuffer{}
		s, err := Open(t.Context(), c, io.Discard, log)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(s.public.Addr().String())
		if round == 0 {
			authority = pebble(t, port)
			http.DefaultTransport = authority.client.Transport
		} else {
			authority.stop()
		}
		s.config.ACMEDirectory = authority.directory
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(authority.root) {
			t.Fatalf("no root: %s", authority.root)
		}
		conn, err := tls.Dial("tcp", s.public.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "images.test", NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, log)
		}
		leaf := conn.ConnectionState().PeerCertificates[0]
		conn.Close()
		if got := fmt.Sprint(leaf.SerialNumber); round == 0 {
			serial = got
		} else if got != serial {
			t.Error("the certificate was not kept")
		}
		if _, err := tls.Dial("tcp", s.public.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "other.test"}); err == nil {
			t.Error("there is a certificate for another name")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"images.test", "acme_account+key"} {
		if st, err := os.Stat(filepath.Join(c.Data, "acme", name)); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

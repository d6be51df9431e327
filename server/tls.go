package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"singularity/conf"
	"singularity/server/dial"
)

// authority is the server's own, in DIR/tls: it signs the certificate of the
// internal listener, those of other services, and that of the public listener
// if no other is given.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour
)

func (a *authority) path() string { return filepath.Join(a.dir, "ca.pem") }

// openAuthority reads the authority, or makes it at the first start.
func openAuthority(data string) (*authority, error) {
	a := &authority{dir: filepath.Join(data, "tls")}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(a.path(), filepath.Join(a.dir, "ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := os.Stat(a.path()); e == nil {
			return nil, fmt.Errorf("cannot use the authority in %q: %w", a.dir, err)
		}
		return a, a.create()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the authority in %q: %w", a.dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA || time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("cannot use the authority in %q: it has expired or is none", a.dir)
	}
	a.cert, a.key = pair.Leaf, key
	return a, nil
}

func (a *authority) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	t := template(pkix.Name{CommonName: "singularity-server authority of " + host}, authorityLife)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero, t.KeyUsage = true, true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	// The certificate comes last: without it the next start begins anew.
	if err := writeKey(filepath.Join(a.dir, "ca.key"), key); err != nil {
		return err
	}
	return writeFile(a.path(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func template(name pkix.Name, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: name, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}
}

// issue makes a certificate for hosts and addresses, or for a client.
func (a *authority) issue(name string, hosts []string, usage x509.ExtKeyUsage, life time.Duration) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := template(pkix.Name{CommonName: name}, life)
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writeFile writes a small file as a whole.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// leaf is a certificate of the own authority, in memory alone: it is made at
// each start and anew before it expires.
type leaf struct {
	a     *authority
	hosts []string
	mu    sync.Mutex
	cert  *tls.Certificate
}

func (l *leaf) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cert == nil || time.Until(l.cert.Leaf.NotAfter) < renewBefore {
		c, err := l.a.issue("singularity-server", l.hosts, x509.ExtKeyUsageServerAuth, leafLife)
		if err != nil {
			return nil, err
		}
		l.cert = &c
	}
	return l.cert, nil
}

// given is a certificate in files of the administrator, read again when they
// have changed.
type given struct {
	cert, key string
	mu        sync.Mutex
	read      *tls.Certificate
	changed   [2]time.Time
	looked    time.Time
}

func (g *given) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.looked) < 10*time.Second && g.read != nil {
		return g.read, nil
	}
	g.looked = time.Now()
	if err := g.load(); err != nil {
		if g.read == nil {
			return nil, err
		}
		slog.Error("the new certificate cannot be used, the old one stays", "error", err.Error())
	}
	return g.read, nil
}

func (g *given) load() error {
	var now [2]time.Time
	for i, name := range []string{g.cert, g.key} {
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		now[i] = st.ModTime()
	}
	if g.read != nil && now == g.changed {
		return nil
	}
	c, err := tls.LoadX509KeyPair(g.cert, g.key)
	if err != nil {
		return fmt.Errorf("cannot use the certificate %q: %w", g.cert, err)
	}
	if time.Now().After(c.Leaf.NotAfter) {
		return fmt.Errorf("cannot use the certificate %q: it expired on %s", g.cert, c.Leaf.NotAfter.Format(time.DateOnly))
	}
	g.read, g.changed = &c, now
	return nil
}

// baseTLS is what every listener asks for at least.
func baseTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// publicTLS returns the configuration of the public listener, or nil for plain
// HTTP.
func (c *Config) publicTLS(a *authority) (*tls.Config, error) {
	t := baseTLS()
	switch {
	case c.InsecureHTTP:
		return nil, nil
	case c.TLSCert != "":
		g := &given{cert: c.TLSCert, key: c.TLSKey}
		if _, err := g.get(nil); err != nil {
			return nil, err
		}
		t.GetCertificate = g.get
	case len(c.ACMEHosts) > 0:
		m := &autocert.Manager{Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(filepath.Join(c.Data, "acme")), HostPolicy: autocert.HostWhitelist(c.ACMEHosts...), Email: c.ACMEEmail}
		networks, err := prefixes(c.DialNetworks)
		if err != nil {
			return nil, err
		}
		m.Client = &acme.Client{DirectoryURL: c.ACMEDirectory, HTTPClient: dial.Client(nil, networks), UserAgent: "singularity-server/" + conf.Version}
		t.GetCertificate, t.NextProtos = m.GetCertificate, append(t.NextProtos, acme.ALPNProto)
	default:
		t.GetCertificate = (&leaf{a: a, hosts: c.hosts()}).get
	}
	return t, nil
}

// hosts are the names of the own certificate: that of the address, and those by
// which programs on this host come.
func (c *Config) hosts() []string {
	list := []string{"localhost", "127.0.0.1", "::1"}
	if u, err := url.Parse(c.URL); err == nil && u.Hostname() != "localhost" {
		list = append(list, u.Hostname())
	}
	if name, err := os.Hostname(); err == nil {
		list = append(list, name)
	}
	if host, _, err := net.SplitHostPort(c.Internal); err == nil && net.ParseIP(host) != nil {
		list = append(list, host)
	}
	return list
}

// internalTLS asks callers for a certificate of ours, and lets those without one
// see health and metrics alone.
func (c *Config) internalTLS(a *authority) *tls.Config {
	t := baseTLS()
	t.GetCertificate = (&leaf{a: a, hosts: c.hosts()}).get
	t.ClientAuth, t.ClientCAs = tls.VerifyClientCertIfGiven, a.pool()
	return t
}

// limited is a listener with a bound on its connections: more wait in the
// kernel's queue.
type limited struct {
	net.Listener
	places chan struct{}
	ctx    context.Context
}

func (l limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placed{Conn: c, free: sync.OnceFunc(func() { <-l.places })}, nil
}

type placed struct {
	net.Conn
	free func()
}

func (p *placed) Close() error {
	defer p.free()
	return p.Conn.Close()
}

package queue

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// cluster is three servers of NATS as a site has them: with TLS, and credentials
// of an account that an operator vouches for.
type cluster struct {
	servers         []*server.Server
	credentials, ca string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	c := &cluster{credentials: filepath.Join(dir, "queue.creds"), ca: filepath.Join(dir, "ca.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	must(err)
	must(os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	secure := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}

	operator, err := nkeys.CreateOperator()
	must(err)
	id := func(k nkeys.KeyPair) string {
		text, err := k.PublicKey()
		must(err)
		return text
	}
	resolver := &server.MemAccResolver{}
	account := func(limits jwt.JetStreamLimits) nkeys.KeyPair {
		k, err := nkeys.CreateAccount()
		must(err)
		claims := jwt.NewAccountClaims(id(k))
		claims.Limits.JetStreamLimits = limits
		text, err := claims.Encode(operator)
		must(err)
		must(resolver.Store(id(k), text))
		return k
	}
	system, builds := account(jwt.JetStreamLimits{}), account(jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1})
	trusted := jwt.NewOperatorClaims(id(operator))
	trusted.SystemAccount = id(system)
	user, err := nkeys.CreateUser()
	must(err)
	claims := jwt.NewUserClaims(id(user))
	text, err := claims.Encode(builds)
	must(err)
	seed, err := user.Seed()
	must(err)
	file, err := jwt.FormatUserConfig(text, seed)
	must(err)
	must(os.WriteFile(c.credentials, file, 0o600))

	// A server of a cluster has routes; to this one nobody answers.
	routes := []*url.URL{{Scheme: "nats", Host: "127.0.0.1:1"}}
	for n := range 3 {
		s, err := server.NewServer(&server.Options{ServerName: fmt.Sprint("nats", n), Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprint(n)), TLSConfig: secure,
			TrustedOperators: []*jwt.OperatorClaims{trusted}, AccountResolver: resolver, SystemAccount: id(system), Cluster: server.ClusterOpts{Name: "site", Host: "127.0.0.1", Port: -1}, Routes: routes})
		must(err)
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(time.Minute) {
			t.Fatal("a server of the cluster does not start")
		}
		c.servers = append(c.servers, s)
		routes = append(routes, &url.URL{Scheme: "nats", Host: s.ClusterAddr().String()})
	}
	// The servers agree on a leader before there are streams.
	end := time.Now().Add(time.Minute)
	for !slices.ContainsFunc(c.servers, func(s *server.Server) bool { return s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == 3 }) {
		if time.Now().After(end) {
			t.Fatal("the servers of the cluster find no leader")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return c
}

func nobody(context.Context, string) (int, error) { return 0, nil }

// TestClusterLosesOne: a queue in a cluster of three loses neither a ticket nor a line when
// one of them, the one that it talks to, is gone for good.
func TestClusterLosesOne(t *testing.T) {
	c := newCluster(t)
	o := Options{URL: "tls://" + c.servers[0].Addr().String(), Credentials: c.credentials, CA: c.ca, Replicas: 3, Lease: time.Minute}
	for name, bad := range map[string]Options{"no credentials": {URL: o.URL, CA: o.CA}, "in the clear": {URL: "nats://" + c.servers[0].Addr().String(), CA: o.CA, Credentials: o.Credentials}, "an unknown authority": {URL: o.URL, Credentials: o.Credentials}} {
		if q, err := Open(t.Context(), bad); err == nil {
			q.Close()
			t.Errorf("%s: a queue is open", name)
		}
	}
	q, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for n := range 4 {
		push(t, q, fmt.Sprint("a", n), "alice", "normal")
	}
	const id = "0123456789abcdef01234567"
	if _, err := q.Append(t.Context(), id, -1, []byte("before\n")); err != nil {
		t.Fatal(err)
	}
	got := []string{next(t, q, nil, 10).ID}
	gone := q.conn.ConnectedServerName()
	for _, s := range c.servers {
		if s.Name() == gone {
			s.Shutdown()
			s.WaitForShutdown()
		}
	}
	// While the others choose a leader, calls may be refused: the service asks again.
	patiently := func(what string, f func() error) {
		t.Helper()
		end := time.Now().Add(2 * time.Minute)
		for err := f(); err != nil; err = f() {
			if time.Now().After(end) {
				t.Fatalf("%s: %v", what, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	offset := int64(len("before\n"))
	patiently("append", func() error { _, err := q.Append(t.Context(), id, offset, []byte("after\n")); return err })
	for len(got) < 4 {
		patiently("next", func() error {
			_, err := q.Next(t.Context(), []string{"amd64"}, 10, nobody, func(l *Lease) (bool, error) { got = append(got, l.ID); return true, nil })
			return err
		})
	}
	slices.Sort(got)
	if want := []string{"a0", "a1", "a2", "a3"}; !slices.Equal(got, want) {
		t.Errorf("tickets %q, want %q", got, want)
	}
	var text string
	for seq := uint64(0); ; {
		chunk, ok, err := q.Read(t.Context(), id, seq+1)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		text, seq = text+string(chunk.Text), chunk.Seq
	}
	if text != "before\nafter\n" {
		t.Errorf("the log is %q", text)
	}
	if now := q.conn.ConnectedServerName(); now == gone || now == "" {
		t.Errorf("the queue talks to %q", now)
	}
}

// Package mongotest is a small server of MongoDB's wire protocol for tests: in
// this process, in memory, with TLS and SCRAM-SHA-256, and with faults on demand.
//
// It knows what package mongo asks of a server and refuses everything else, so
// that nothing creeps in which a compatible server lacks. What it answers was
// compared with FerretDB 1.24.2.
//
// It also starts FerretDB, a real server, where SINGULARITY_TEST_FERRETDB names its
// program, for the same tests.
//
//   - mongotest.go: from start to stop, faults; wire.go: messages and log-in
//   - ferret.go: FerretDB; front.go: what lets its writes in one after another
//   - command.go: the commands; match.go: filters, order, pipelines
package mongotest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// Who may log in.
const (
	User     = "singularity"
	Password = "correct horse"
)

// Server is a running server.
type Server struct {
	Host   string
	CAFile string // its authority
	URI    string // with user, password and TLS

	listener net.Listener
	log      scram.StoredCredentials

	mu      sync.Mutex
	colls   map[string]*collection // by database and name
	cursors map[int64][]bson.D
	next    int64
	fault   func(command string) Fault
	calls   map[string]int
	conns   map[net.Conn]bool
}

// Fault is what happens to one command.
type Fault struct {
	Before bool          // the connection breaks and nothing is done
	After  bool          // it is done and the connection breaks
	Code   int32         // it is refused with this code
	Delay  time.Duration // it waits first
}

// New starts a server that keeps its certificate in dir.
func New(dir string) (*Server, error) {
	cert, ca, err := Certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{CAFile: filepath.Join(dir, "mongo-ca.pem"), colls: map[string]*collection{}, cursors: map[int64][]bson.D{}, calls: map[string]int{}, conns: map[net.Conn]bool{}}
	if err := os.WriteFile(s.CAFile, ca, 0o600); err != nil {
		return nil, err
	}
	client, err := scram.SHA256.NewClient(User, Password, "")
	if err != nil {
		return nil, err
	}
	s.log = client.GetStoredCredentials(scram.KeyFactors{Salt: "sixteen bytes of", Iters: 4096})
	if s.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}); err != nil {
		return nil, err
	}
	s.Host = s.listener.Addr().String()
	s.URI = "mongodb://" + User + ":correct%20horse@" + s.Host + "/?tls=true"
	go s.serve()
	return s, nil
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.listener.Close()
	s.Break()
}

// Break breaks all connections.
func (s *Server) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Fail has f asked about each command after the log-in; nil for no faults.
func (s *Server) Fail(f func(command string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Calls tells how often a command came.
func (s *Server) Calls(command string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[command]
}

// Total tells how many commands came.
func (s *Server) Total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

func (s *Server) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		go func() {
			(&conn{Server: s, Conn: c}).run()
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
	}
}

// Certificate makes one for the loopback, and the authority that signed it.
func Certificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

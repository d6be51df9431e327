package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"

	"singularity/server/store/mongo/mongotest"
	"singularity/server/store/s3/s3test"
)

// replicasCommand starts two servers on the same records (FerretDB, or the test's
// own server of MongoDB's protocol where that is not here) and blobs, behind a proxy that gives requests
// to them in turn: replicas NAME USER... It sets what the command site sets, with
// $NAME_pid for the first server and $NAME-b_pid for the second.
func replicasCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: replicas NAME USER...")
	}
	name, dir := args[0], ts.MkAbs(args[0]+"-stores")
	ts.Check(os.MkdirAll(dir, 0o700))
	cert, ca, err := mongotest.Certificate()
	ts.Check(err)
	uri, uriCA := database(ts, dir)
	bucket, err := s3test.New(dir, cert, ca)
	ts.Check(err)
	ts.Defer(bucket.Close)
	p := &inTurn{}
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme = "https"; r.SetXForwarded() }, Transport: p})
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	proxy.StartTLS()
	ts.Defer(proxy.Close)
	host := strings.TrimPrefix(proxy.URL, "https://")
	ts.Check(os.WriteFile(dir+"/proxy-ca.pem", ca, 0o644))
	ts.Check(os.WriteFile(dir+"/uri", []byte(uri+"\n"), 0o600))
	ts.Check(os.WriteFile(dir+"/keys", []byte(s3test.AccessKey+"\n"+s3test.SecretKey+"\n"), 0o600))
	config := fmt.Sprintf("url = %q\ntrusted_proxies = [\"127.0.0.1\"]\n[storage]\nrecords = \"mongodb\"\nmongodb_uri_file = \"%s/uri\"\nmongodb_ca_file = %q\n"+
		"blobs = \"s3\"\ns3_endpoint = %q\ns3_bucket = %q\ns3_region = \"us-east-1\"\ns3_key_file = \"%s/keys\"\ns3_ca_file = %q\n",
		"https://"+host, dir, uriCA, bucket.Endpoint, s3test.Bucket, dir, bucket.CAFile)
	ts.Check(os.WriteFile(dir+"/server.toml", []byte(config), 0o600))
	pool := x509.NewCertPool()
	var said string
	for _, n := range []string{name, name + "-b"} {
		text, log := startServer(ts, n, []string{"--config", dir + "/server.toml"})
		p.hosts = append(p.hosts, replicaAddress.FindStringSubmatch(log)[1])
		own, err := os.ReadFile(ts.MkAbs(n + "/data/tls/ca.pem"))
		ts.Check(err)
		pool.AppendCertsFromPEM(own)
		said = text
	}
	p.base = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	publish(ts, name, host, dir+"/proxy-ca.pem")
	outer := x509.NewCertPool()
	outer.AppendCertsFromPEM(ca)
	s := &runningSite{ts: ts, host: host, link: siteLink.FindString(said), tls: &tls.Config{RootCAs: outer}}
	admin := s.member(s.link)
	ts.Setenv(name+"_admin", admin.token("admin"))
	for _, u := range args[1:] {
		var made struct{ Data struct{ Link string } }
		admin.call("POST", "/v1/admin/users", map[string]any{"name": u}, &made)
		ts.Setenv(name+"_"+u, s.member(made.Data.Link).token(u))
	}
}

// database starts one and returns its address and its authority.
func database(ts *testscript.TestScript, dir string) (uri, caFile string) {
	program := filepath.Join(os.Getenv("SINGULARITY_E2E_PREFIX"), "libexec/ferretdb")
	if _, err := os.Stat(program); err != nil {
		ts.Logf("no FerretDB is here, see e2e/mongodb/build")
		db, err := mongotest.New(dir)
		ts.Check(err)
		ts.Defer(db.Close)
		return db.URI, db.CAFile
	}
	db, err := mongotest.StartFerret(program, dir, mongotest.Quick)
	ts.Check(err)
	ts.Defer(db.Close)
	return db.Orderly, db.CAFile
}

var replicaAddress = regexp.MustCompile(`listen=(\S+)`)

// inTurn gives each request to the next server, and to the other if that one
// cannot be reached.
type inTurn struct {
	hosts []string
	next  atomic.Int64
	base  http.RoundTripper
}

func (p *inTurn) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		n := int(p.next.Add(1)) % len(p.hosts)
		out := r.Clone(r.Context())
		out.URL = &url.URL{Scheme: "https", Host: p.hosts[n], Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		res, err := p.base.RoundTrip(out)
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" && try < len(p.hosts) {
			continue
		}
		if err == nil {
			res.Header.Set("X-Test-Server", fmt.Sprint(n))
		}
		return res, err
	}
}

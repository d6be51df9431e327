package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"singularity/client/endpoint"
	"singularity/server/auth"
	"singularity/server/route"
)

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type running struct {
	*Server
	client *http.Client
	log    *syncBuffer
	stop   func() error
}

func start(t *testing.T, change func(*Config), routes ...route.Route) *running {
	t.Helper()
	return startTimed(t, usualTimes, change, routes...)
}

// startTimed is start with other times for clients.
func startTimed(t *testing.T, limits times, change func(*Config), routes ...route.Route) *running {
	t.Helper()
	c := Defaults()
	c.Data, c.Listen, c.Internal, c.LogLevel = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", "127.0.0.1:0", "debug"
	if change != nil {
		change(&c)
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	r := &running{log: &syncBuffer{}}
	var err error
	if r.Server, err = Open(t.Context(), c, io.Discard, r.log); err != nil {
		t.Fatal(err)
	}
	r.front.times = limits
	for _, x := range routes {
		r.front.add(x)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { r.stop() })
	r.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.ca.pool()}}}
	t.Cleanup(r.client.CloseIdleConnections)
	return r
}

func (r *running) get(t *testing.T, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", r.config.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// TestDiscovery: our own client finds the services.
func TestDiscovery(t *testing.T) {
	r := start(t, nil)
	services, err := endpoint.Discover(t.Context(), r.client, strings.TrimPrefix(r.config.URL, "https://"), false)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"library": "", "keyserver": "", "builder": "", "token": "/token", "consent": "/consent"} {
		if services[name] != r.config.URL+want {
			t.Errorf("%s: %q", name, services[name])
		}
		if res, text := r.get(t, want+"/version"); res.StatusCode != 200 || !strings.Contains(text, `"apiVersion":"2.0.0"`) {
			t.Errorf("%s: %d %s", name, res.StatusCode, text)
		}
	}
	_, text := r.get(t, "/assets/config/config.prod.json")
	var top map[string]map[string]string
	if err := json.Unmarshal([]byte(text), &top); err != nil {
		t.Errorf("the top level is not objects alone: %v", err)
	}
}

// TestPaths: what could be read in two ways is refused before any route, and
// the check of tokens is on the route that answers (SC-158).
func TestPaths(t *testing.T) {
	seen := func(w http.ResponseWriter, r *http.Request) {
		route.Data(w, auth.From(r.Context()).Invalid)
	}
	r := start(t, nil, route.Route{Pattern: "GET /v1/paths/{ref...}", Handler: seen})
	for path, want := range map[string]int{
		"/v1/paths/e/c/k:t": 200, "/v1/paths/e/c/k:t?arch=amd64": 200, "/v1/paths/a/../b": 400, "/v1/paths/%2e%2e/b": 400, "/v1/paths/a%2fb": 400, "/v1/paths/a%5cb": 400, "/v1/paths/a%00": 400,
		"//v1/paths/a": 400, "/v1/paths//a": 400, "/v1/paths/a\\b": 400, "/v1/paths/a%0ab": 400, "/v1/paths/" + strings.Repeat("a", 3000): 414, "/v1/paths/" + strings.Repeat("a/", 40): 400,
		"/v1/paths/a?q=" + strings.Repeat("a", 9000): 414, "/nosuch": 404, "/v1/paths/é": 200, "/v1/paths/%ff": 400,
	} {
		conn, err := tls.Dial("tcp", r.public.Addr().String(), &tls.Config{RootCAs: r.ca.pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nX-User: admin\r\nX_Forwarded_For: 127.0.0.1\r\nConnection: close\r\n\r\n", path)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(path, err)
		}
		conn.Close()
		if res.StatusCode != want {
			t.Errorf("%.40s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if res, text := r.get(t, "/v1/paths/a", "Authorization", "Bearer x"); !strings.Contains(text, "true") || res.Header.Get("X-Token-Status") != "invalid" {
		t.Errorf("%v %s", res.Header, text)
	}
}

// TestLimits: large bodies, slow bodies and fast callers are refused, and one
// caller's panic is no other's.
func TestLimits(t *testing.T) {
	echo := route.Func(func(w http.ResponseWriter, r *http.Request) error {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return err
		}
		route.Data(w, n)
		return nil
	})
	r := start(t, func(c *Config) { c.RateAnonymous, c.RateSearch = 20, 3 },
		route.Route{Pattern: "POST /small", Handler: echo, Body: 100, Class: route.Free}, route.Route{Pattern: "POST /usual", Handler: echo, Class: route.Free},
		route.Route{Pattern: "GET /search", Handler: echo, Class: route.Search},
		route.Route{Pattern: "GET /panic", Handler: func(http.ResponseWriter, *http.Request) { panic("a fault with a secret") }, Class: route.Free},
		route.Route{Pattern: "GET /half", Class: route.Free, Handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("12345"))
			panic("in the middle")
		}},
		route.Route{Pattern: "GET /fault", Class: route.Free, Handler: route.Func(func(http.ResponseWriter, *http.Request) error {
			return fmt.Errorf("open /secret/path: connection refused")
		})})
	post := func(path string, n int) int {
		res, err := r.client.Post(r.config.URL+path, "", bytes.NewReader(make([]byte, n)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, row := range [][3]int{{0, 100, 200}, {0, 101, 413}, {1, 1 << 20, 200}, {1, 1<<20 + 1, 413}} {
		if got := post([]string{"/small", "/usual"}[row[0]], row[1]); got != row[2] {
			t.Errorf("%v: %d", row, got)
		}
	}
	codes := map[int]int{}
	for range 5 {
		res, _ := r.get(t, "/search")
		codes[res.StatusCode]++
		if res.StatusCode == 429 && res.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if codes[200] != 3 || codes[429] != 2 {
		t.Errorf("%v", codes)
	}
	for _, path := range []string{"/panic", "/fault"} {
		res, text := r.get(t, path)
		if res.StatusCode != 500 || strings.Contains(text, "secret") || res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d %s", path, res.StatusCode, text)
		}
		if !strings.Contains(r.log.String(), res.Header.Get("X-Request-Id")) {
			t.Error("the log does not know the request")
		}
	}
	res, err := r.client.Get(r.config.URL + "/half")
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("a client takes half an answer for whole")
	}
}

// TestRates: an account has one allowance for all its tokens, networks that are
// free none, and the memory of many addresses is bounded.
func TestRates(t *testing.T) {
	c := Defaults()
	c.RateUser, c.RateAnonymous, c.RateFree = 2, 1, []string{"10.0.0.0/8"}
	l, err := newRates(&c)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	l.now = func() time.Time { return now }
	ok := func(c auth.Caller, from string) bool {
		return l.allow(t.Context(), httptest.NewRecorder(), route.Normal, c, netip.MustParseAddr(from)) == nil
	}
	alice, other := auth.Caller{ID: "a", TokenID: "1"}, auth.Caller{ID: "a", TokenID: "2"}
	if !ok(alice, "192.0.2.1") || !ok(other, "192.0.2.2") || ok(alice, "192.0.2.3") {
		t.Error("an account does not have one allowance")
	}
	if !ok(auth.Caller{}, "192.0.2.1") || ok(auth.Caller{}, "192.0.2.1") || !ok(auth.Caller{}, "192.0.2.2") || !ok(auth.Caller{}, "2001:db8::1") || ok(auth.Caller{}, "2001:db8::2") {
		t.Error("addresses are not told apart")
	}
	for range 100 {
		if !ok(auth.Caller{}, "10.1.2.3") {
			t.Fatal("a free network is counted")
		}
	}
	now = now.Add(31 * time.Second)
	if !ok(alice, "192.0.2.1") || ok(alice, "192.0.2.1") {
		t.Error("the allowance does not come back with time")
	}
	for i := range maxBuckets + 10 {
		ok(auth.Caller{}, netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}).String())
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("%d buckets", len(l.buckets))
	}
}

// TestClientAddress: only a proxy that the administrator named is believed.
func TestClientAddress(t *testing.T) {
	proxies, _ := prefixes([]string{"10.0.0.0/8"})
	f := &front{proxies: proxies}
	for _, row := range [][3]string{
		{"192.0.2.1:1", "1.1.1.1", "192.0.2.1"}, {"10.0.0.1:1", "", "10.0.0.1"}, {"10.0.0.1:1", "1.1.1.1", "1.1.1.1"}, {"10.0.0.1:1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"},
		{"10.0.0.1:1", "rubbish", "10.0.0.1"}, {"10.0.0.1:1", "1.1.1.1, x", "10.0.0.1"}, {"[::ffff:192.0.2.1]:1", "", "192.0.2.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = row[0]
		if row[1] != "" {
			r.Header.Set("X-Forwarded-For", row[1])
		}
		if got := f.client(r).String(); got != row[2] {
			t.Errorf("%v: %s", row, got)
		}
	}
}

// TestPaced: a body that comes too slowly is cut, and one that goes on is not,
// however long it takes.
func TestPaced(t *testing.T) {
	p := &paced{ReadCloser: io.NopCloser(bytes.NewReader(make([]byte, 100))), control: http.NewResponseController(httptest.NewRecorder()), time: time.Minute, begun: time.Now().Add(-2 * time.Minute), got: 3 * 60 * minRate}
	if n, err := p.Read(make([]byte, 10)); n != 10 || err != nil {
		t.Error(n, err)
	}
	p.begun, p.got = time.Now().Add(-2*time.Minute), 60*minRate
	var refused *route.Error
	if _, err := p.Read(make([]byte, 10)); !errors.As(err, &refused) || refused.Status != http.StatusRequestTimeout {
		t.Error(err)
	}
}

// TestStop: a request that runs is let end, a new one finds nobody.
func TestStop(t *testing.T) {
	in, out := make(chan bool), make(chan bool)
	r := start(t, nil, route.Route{Pattern: "GET /long", Class: route.Free, Handler: func(w http.ResponseWriter, r *http.Request) {
		close(in)
		<-out
		route.Data(w, "whole")
	}})
	got := make(chan string, 1)
	go func() {
		_, text := r.get(t, "/long")
		got <- text
	}()
	<-in
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	for !strings.Contains(r.log.String(), "stopping") {
		time.Sleep(time.Millisecond)
	}
	close(out)
	if text := <-got; !strings.Contains(text, "whole") {
		t.Error(text)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", r.public.Addr().String()); err == nil {
		c.Close()
		t.Error("a stopped server takes connections")
	}
}

// TestConnections: more connections than are allowed wait, and come in when
// others end.
func TestConnections(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxConnections = 2 })
	dial := func() *tls.Conn {
		raw, err := net.Dial("tcp", r.public.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return tls.Client(raw, &tls.Config{RootCAs: r.ca.pool(), ServerName: "localhost"})
	}
	a, b, c := dial(), dial(), dial()
	defer a.Close()
	if err := errors.Join(a.Handshake(), b.Handshake()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	select {
	case err := <-done:
		t.Fatal("a third connection is served", err)
	case <-time.After(50 * time.Millisecond):
	}
	b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.Close()
}

// TestGivenCertificate: files of the administrator, read again when they change;
// an expired or unreadable one stops the start, and later the old one stays.
func TestGivenCertificate(t *testing.T) {
	dir := t.TempDir()
	a, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &given{cert: filepath.Join(dir, "c.pem"), key: filepath.Join(dir, "c.key")}
	put := func(life time.Duration) {
		c, err := a.issue("x", []string{"localhost"}, 0, life)
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(g.cert, []byte("-----BEGIN CERTIFICATE-----\n"+base64Lines(c.Certificate[0])+"-----END CERTIFICATE-----\n"), 0o600)
		keyOf(t, g.key, c)
		later := time.Now().Add(life)
		os.Chtimes(g.cert, later, later)
		g.looked = time.Time{}
	}
	if _, err := g.get(nil); err == nil {
		t.Error("a file that is not there")
	}
	put(-time.Minute)
	if _, err := g.get(nil); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
	put(time.Hour)
	first, err := g.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	put(2 * time.Hour)
	second, err := g.get(nil)
	if err != nil || bytes.Equal(first.Certificate[0], second.Certificate[0]) {
		t.Error("a new certificate is not read", err)
	}
	os.WriteFile(g.cert, []byte("rubbish"), 0o600)
	g.looked = time.Time{}
	if third, err := g.get(nil); err != nil || third != second {
		t.Error("the old certificate does not stay", err)
	}
	again, err := openAuthority(dir)
	if err != nil || !again.cert.Equal(a.cert) {
		t.Error("the authority changes", err)
	}
	os.Remove(filepath.Join(dir, "tls", "ca.key"))
	if _, err := openAuthority(dir); err == nil {
		t.Error("an authority without its key is made anew")
	}
}

func TestConfig(t *testing.T) {
	load := func(file string, args ...string) (Config, error) {
		flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
		AddFlags(flags)
		name := filepath.Join(t.TempDir(), "server.toml")
		os.WriteFile(name, []byte(file), 0o600)
		if err := flags.Parse(append(args, "--config", name)); err != nil {
			return Config{}, err
		}
		return LoadConfig(flags)
	}
	t.Setenv("SINGULARITY_SERVER_RATE_USER", "7")
	t.Setenv("SINGULARITY_SERVER_RATE_PUSH", "8")
	t.Setenv("SINGULARITY_SERVER_RATE_FREE", "10.0.0.0/8,192.0.2.1")
	c, err := load("data = '/srv'\nlisten = '192.0.2.1:443'\nrate_user = 5\nrate_search = 6\n[[provider]]\nname='x'\n", "--rate-push", "9", "--trusted-proxies", "10.0.0.1")
	if err != nil || c.Data != "/srv" || c.RateUser != 7 || c.RateSearch != 6 || c.RatePush != 9 || len(c.RateFree) != 2 || len(c.TrustedProxies) != 1 || c.URL != "https://192.0.2.1" || len(c.Providers) != 1 {
		t.Errorf("%+v %v", c, err)
	}
	for text, want := range map[string]string{
		"a = 1": `there is no key "a"`, "[[provider]]\nissuerr = 'x'": `"provider.issuerr"`, "listen = 1": "line 1", "data = 'relative'": "no absolute path", "listen = 'x'": "is no address",
		"insecure_http = true": "no loopback", "insecure_http = true\nlisten = '192.0.2.1:80'": "no loopback", "tls_cert = '/x'": "needs tls_key", "url = 'http://x'": "https", "url = 'https://x/'": "slash", "url = 'https://x/y'": "path",
		"url = 'https://u:p@x'": "is no address", "rate_user = 0": "less than 1", "token_life = '1s'": "no time", "trusted_proxies = ['x']": "no network", "log_level = 'loud'": "loud", "acme_hosts = ['x']\ntls_cert = 'a'\ntls_key = 'b'": "choose one",
	} {
		os.Unsetenv("SINGULARITY_SERVER_RATE_USER")
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if c, err := load("data = '/srv'\ninsecure_http = true\nlisten = '127.0.0.1:8080'"); err != nil || c.URL != "http://127.0.0.1:8080" {
		t.Errorf("%+v %v", c, err)
	}
	t.Setenv("SINGULARITY_SERVER_RATE_USER", "many")
	if _, err := load(""); err == nil || !strings.Contains(err.Error(), "SINGULARITY_SERVER_RATE_USER") {
		t.Error(err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("listen = ':8443'\n[[provider]]\nname = 'x'\n"))
	f.Add([]byte("acme_hosts = ['a', 'b']\nrate_free = ['10.0.0.0/8']\nurl = 'https://x'\n"))
	f.Add([]byte("listen = '''\n'''\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Defaults()
		if ParseConfig(text, &c) != nil || c.check() != nil {
			return
		}
		if c.InsecureHTTP && !strings.HasPrefix(c.Listen, "localhost:") {
			host, _, _ := net.SplitHostPort(c.Listen)
			if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
				t.Errorf("plain HTTP on %q", c.Listen)
			}
		}
		if c.URL != "" && !strings.HasPrefix(c.URL, c.scheme()+"://") {
			t.Errorf("the address %q", c.URL)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/v1/images/a:b", "/a/%2e%2e/b", "/a//b", "/%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || checkPath(r) != nil {
			return
		}
		if p := r.URL.Path; strings.Contains(p, "..") && strings.Contains("/"+p+"/", "/../") || strings.Contains(p, "\x00") || strings.Contains(p, "//") || strings.Contains(p, "\\") {
			t.Errorf("%q is let through as %q", path, p)
		}
	})
}

// TestNewLog: the form that the configuration asks for.
func TestNewLog(t *testing.T) {
	var b bytes.Buffer
	newLog(Config{LogFormat: "json", LogLevel: "warn"}, &b).Warn("x", slog.String("who", "a\nb"))
	newLog(Config{LogFormat: "text", LogLevel: "warn"}, &b).Info("unseen")
	if b.String()[0] != '{' || strings.Contains(b.String(), "unseen") || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("%q", b.String())
	}
}

func keyOf(t *testing.T, path string, c tls.Certificate) {
	t.Helper()
	if err := writeKey(path, c.PrivateKey.(*ecdsa.PrivateKey)); err != nil {
		t.Fatal(err)
	}
}

func base64Lines(der []byte) string { return base64.StdEncoding.EncodeToString(der) + "\n" }

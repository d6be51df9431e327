package e2e

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"

	"singularity/client/keyserver/keyservertest"
	"singularity/client/library/librarytest"
)

// The user that registries of tests know.
const registryUser, registryPassword = "ada", "open sesame"

// registryCommand starts docker-registry on loopback, with TLS, for the script:
//
//	registry NAME open|basic|bearer|named
//
// It sets $NAME to its address, and puts its certificate into a file
// certs/ADDRESS/ca.crt. With bearer, $NAME_TOKENS is the address of its token
// server. With named, it is a basic one at the name of this machine, which
// programs reach by a proxy, as they do not what is at localhost.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: registry NAME open|basic|bearer|named")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	key := writeCertificate(ts, dir)
	auth, address := "", "127.0.0.1"
	switch args[1] {
	case "named":
		var err error
		_, address, err = machine()
		ts.Check(err)
		fallthrough
	case "basic":
		hash, err := bcrypt.GenerateFromPassword([]byte(registryPassword), bcrypt.MinCost)
		ts.Check(err)
		ts.Check(os.WriteFile(dir+"/htpasswd", []byte(registryUser+":"+string(hash)+"\n"), 0o600))
		auth = "auth: {htpasswd: {realm: test, path: " + dir + "/htpasswd}}\n"
	case "bearer":
		address := tokenServer(ts, dir, key)
		ts.Setenv(args[0]+"_TOKENS", address)
		auth = "auth: {token: {realm: 'https://" + address + "/token', service: test, issuer: test, rootcertbundle: " + dir + "/cert.pem}}\n"
	}
	config := "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}, delete: {enabled: true}}\n" +
		"http: {addr: '" + address + ":0', secret: x, tls: {certificate: " + dir + "/cert.pem, key: " + dir + "/key.pem}}\n" + auth
	ts.Check(os.WriteFile(dir+"/config.yml", []byte(config), 0o600))
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	out, err := cmd.StderrPipe()
	ts.Check(err)
	log, err := os.Create(dir + "/log")
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	port := make(chan string, 1)
	go func() {
		listening := regexp.MustCompile(`listening on [\d.]+:(\d+)`)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := listening.FindSubmatch(lines.Bytes()); m != nil {
				port <- string(m[1])
			}
			log.WriteString(lines.Text() + "\n")
		}
		close(port)
	}()
	a := <-port
	if a == "" {
		text, _ := os.ReadFile(dir + "/log")
		ts.Fatalf("docker-registry does not start:\n%s", text)
	}
	if args[1] == "named" {
		address, _, err = machine()
		ts.Check(err)
	}
	publish(ts, args[0], net.JoinHostPort(address, a), dir+"/cert.pem")
}

// machine returns the name of this machine and an address that it stands for.
func machine() (name, address string, err error) {
	if name, err = os.Hostname(); err != nil {
		return "", "", err
	}
	list, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", name)
	if err != nil {
		return "", "", err
	}
	if name == "localhost" || len(list) == 0 {
		return "", "", fmt.Errorf("%q is no name for it", name)
	}
	return name, list[0].Unmap().String(), nil
}

// publish tells the script about a server and puts its certificate where
// singularity and skopeo look for it.
func publish(ts *testscript.TestScript, name, address, cert string) {
	ts.Setenv(name, address)
	text, err := os.ReadFile(cert)
	ts.Check(err)
	dir := ts.MkAbs("certs/" + address)
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(dir+"/ca.crt", text, 0o644))
	all, err := os.OpenFile(ts.MkAbs("certs/all.pem"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	ts.Check(err)
	_, err = all.Write(text)
	ts.Check(err)
	ts.Check(all.Close())
}

// writeCertificate makes cert.pem and key.pem in dir, for loopback.
func writeCertificate(ts *testscript.TestScript, dir string) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(dir+"/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644))
	ts.Check(os.WriteFile(dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return key
}

// tokenServer gives tokens to the user that it knows, as the distribution
// specification has it, and returns its address.
func tokenServer(ts *testscript.TestScript, dir string, key *rsa.PrivateKey) string {
	pair, err := tls.LoadX509KeyPair(dir+"/cert.pem", dir+"/key.pem")
	ts.Check(err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != registryUser || password != registryPassword {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"details":"wrong user or password"}`)
			return
		}
		var access []map[string]any
		for _, scope := range r.URL.Query()["scope"] {
			if w := strings.Split(scope, ":"); len(w) == 3 {
				access = append(access, map[string]any{"type": w[0], "name": w[1], "actions": strings.Split(w[2], ",")})
			}
		}
		now := time.Now().Unix()
		head, _ := json.Marshal(map[string]any{"typ": "JWT", "alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(pair.Certificate[0])}})
		claims, _ := json.Marshal(map[string]any{"iss": "test", "sub": user, "aud": "test", "exp": now + 60, "nbf": now - 60, "iat": now, "jti": fmt.Sprint(now), "access": access})
		text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		json.NewEncoder(w).Encode(map[string]any{"token": text + "." + base64.RawURLEncoding.EncodeToString(signature)})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	ts.Defer(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return "localhost:" + port
}

// libraryCommand starts a container library for the script: library NAME TOKEN.
// It sets $NAME to its URL.
func libraryCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: library NAME TOKEN")
	}
	s := librarytest.New(args[1], true)
	s.Redirect = true
	ts.Defer(s.Close)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(dir+"/cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate()}), 0o644))
	publish(ts, args[0], strings.TrimPrefix(s.URL, "https://"), dir+"/cert.pem")
}

// keyserverCommand starts a key server for the script: keyserver NAME TOKEN. It
// sets $NAME to its address, and wants the token for additions.
func keyserverCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keyserver NAME TOKEN")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	writeCertificate(ts, dir)
	pair, err := tls.LoadX509KeyPair(dir+"/cert.pem", dir+"/key.pem")
	ts.Check(err)
	s := httptest.NewUnstartedServer(&keyservertest.Server{Token: args[1]})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	ts.Defer(s.Close)
	publish(ts, args[0], s.Listener.Addr().String(), dir+"/cert.pem")
}

// webCommand starts a web server that misbehaves, for the script:
//
//	web NAME DIR
//
// It serves the files of DIR over TLS and sets $NAME to its address.
// /plain/FILE is a file, /break/FILE breaks off in the middle of the first two
// answers, /lie/FILE sends less than it announces, /away/HOST/FILE leads to
// another host, /unsized/FILE does not say how much comes, /rude refuses with
// signs that command a terminal, /api/container/ is what Singularity Hub said
// about its images. NAME/count holds how many files were sent.
func webCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: web NAME DIR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	writeCertificate(ts, dir)
	pair, err := tls.LoadX509KeyPair(dir+"/cert.pem", dir+"/key.pem")
	ts.Check(err)
	s := httptest.NewUnstartedServer(&web{files: http.FileServer(http.Dir(ts.MkAbs(args[1]))), count: dir + "/count"})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	ts.Defer(s.Close)
	publish(ts, args[0], s.Listener.Addr().String(), dir+"/cert.pem")
}

type web struct {
	files        http.Handler
	count        string
	sent, broken atomic.Int32
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch verb {
	case "break", "plain":
		r.URL.Path = "/" + rest
	case "lie":
		w.Header().Set("Etag", "\"x\"")
		w.Header().Set("Content-Length", "1000000")
		if r.Method == http.MethodGet {
			w.Write([]byte("lies"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		return
	case "away":
		host, file, _ := strings.Cut(rest, "/")
		http.Redirect(w, r, "https://"+host+"/plain/"+file, http.StatusFound)
		return
	case "api":
		fmt.Fprintf(w, `{"id":1,"name":%q,"image":"https://%s/plain/image.sif","tag":"latest","version":"3f2e6c1b5a"}`, rest, r.Host)
		return
	case "rude":
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "\x1b]52;c;aGk=\x07\u202ered")
		return
	case "unsized":
		w = &unsized{w}
		r.URL.Path = "/" + rest
	default:
		http.NotFound(w, r)
		return
	}
	if r.Method == http.MethodGet {
		os.WriteFile(s.count, []byte(fmt.Sprintln(s.sent.Add(1))), 0o644)
		if verb == "break" && s.broken.Add(1) < 3 {
			w = &half{ResponseWriter: w, left: 3000}
		}
	}
	w.Header().Set("Etag", "\"x\"")
	s.files.ServeHTTP(w, r)
}

// unsized sends what is written as soon as it is, without a length.
type unsized struct{ http.ResponseWriter }

func (u *unsized) WriteHeader(code int) {
	u.Header().Del("Content-Length")
	u.ResponseWriter.WriteHeader(code)
	u.ResponseWriter.(http.Flusher).Flush()
}

// half lets a part of an answer by and breaks the connection.
type half struct {
	http.ResponseWriter
	left int
}

func (h *half) Write(p []byte) (int, error) {
	n := min(len(p), h.left)
	h.left -= n
	h.ResponseWriter.Write(p[:n])
	if h.left == 0 {
		h.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

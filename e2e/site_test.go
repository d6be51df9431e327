package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// siteCommand starts singularity-server for the script: site NAME USER... [--
// FLAG...]. It sets $NAME to its address, makes the users, and sets $NAME_USER to
// a token of each, with all rights that a user has. The user "admin" is there
// always. The data directory is NAME/data, and what
// the server logs goes to NAME/log.
func siteCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: site NAME USER... [-- FLAG...]")
	}
	name, users, flags := args[0], args[1:], []string(nil)
	for i, a := range users {
		if a == "--" {
			users, flags = users[:i], users[i+1:]
			break
		}
	}
	s := startSite(ts, name, flags)
	publish(ts, name, s.host, ts.MkAbs(name+"/data/tls/ca.pem"))
	admin := s.member(s.link)
	ts.Setenv(name+"_admin", admin.token("admin"))
	for _, u := range users {
		var made struct{ Data struct{ Link string } }
		admin.call("POST", "/v1/admin/users", map[string]any{"name": u}, &made)
		ts.Setenv(name+"_"+u, s.member(made.Data.Link).token(u))
	}
}

type runningSite struct {
	ts         *testscript.TestScript
	host, link string
	tls        *tls.Config
}

// output is what a program has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var (
	siteAddress = regexp.MustCompile(`singularity-server at https://(\S+)`)
	siteLink    = regexp.MustCompile(`https://\S+/auth/setup\?code=\S+`)
)

func startSite(ts *testscript.TestScript, name string, flags []string) *runningSite {
	said, _ := startServer(ts, name, flags)
	s := &runningSite{ts: ts, host: siteAddress.FindStringSubmatch(said)[1], link: siteLink.FindString(said)}
	ca, err := os.ReadFile(ts.MkAbs(name + "/data/tls/ca.pem"))
	ts.Check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	s.tls = &tls.Config{RootCAs: pool}
	return s
}

// startServer starts singularity-server with NAME/data and waits until it is
// ready. It returns what it said to its administrator and what it logged.
func startServer(ts *testscript.TestScript, name string, flags []string) (said, log string) {
	data := ts.MkAbs(name + "/data")
	ts.Check(os.MkdirAll(ts.MkAbs(name), 0o755))
	cmd := exec.Command("singularity-server", append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--internal", "127.0.0.1:0", "--stop-time", "1s", "--rate-free", "127.0.0.0/8"}, flags...)...)
	if file := ts.Getenv("SSL_CERT_FILE"); file != "" { // what its builds trust
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+file)
	}
	out, logged := &output{}, &output{}
	file, err := os.Create(ts.MkAbs(name + "/log"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = out, io.MultiWriter(logged, file)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		file.Close()
	})
	ts.Setenv(name+"_pid", fmt.Sprint(cmd.Process.Pid))
	var why string
	poll(ts, "singularity-server does not start", func() bool {
		why = logged.String()
		return strings.Contains(why, "msg=ready") && siteLink.MatchString(out.String())
	}, &why)
	return out.String(), why
}

// siteMember is somebody in front of a browser.
type siteMember struct {
	*runningSite
	client *http.Client
	csrf   string
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// member sets a password by a one-time link, and is logged in by that.
func (s *runningSite) member(link string) *siteMember {
	jar, err := cookiejar.New(nil)
	s.ts.Check(err)
	m := &siteMember{s, &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: s.tls}}, ""}
	u, err := url.Parse(link)
	s.ts.Check(err)
	form := url.Values{"code": {u.Query().Get("code")}, "password": {"correct horse battery staple"}}
	req, err := http.NewRequest("POST", "https://"+s.host+"/auth/setup", strings.NewReader(form.Encode()))
	s.ts.Check(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	page := m.send(req)
	found := csrfField.FindSubmatch(page)
	if found == nil {
		s.ts.Fatalf("nobody is logged in: %s", page)
	}
	m.csrf = string(found[1])
	return m
}

func (m *siteMember) send(req *http.Request) []byte {
	req.Header.Set("Origin", "https://"+m.host)
	res, err := m.client.Do(req)
	m.ts.Check(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	m.ts.Check(err)
	if res.StatusCode != http.StatusOK {
		m.ts.Fatalf("%s %s: %s: %s", req.Method, req.URL, res.Status, text)
	}
	return text
}

// call makes a call of the API with the session.
func (m *siteMember) call(method, path string, in, out any) {
	body, err := json.Marshal(in)
	m.ts.Check(err)
	req, err := http.NewRequest(method, "https://"+m.host+path, bytes.NewReader(body))
	m.ts.Check(err)
	req.Header.Set("X-CSRF-Token", m.csrf)
	m.ts.Check(json.Unmarshal(m.send(req), out))
}

func (m *siteMember) token(user string) string {
	var made struct{ Data struct{ Token string } }
	scopes := []string{"library:read", "library:create", "library:write", "library:delete", "library:manage", "keys:write", "build", "account:read", "account:write"}
	if user == "admin" {
		scopes = append(scopes, "runs:write", "admin")
	}
	m.call("POST", "/v1/users/"+user+"/tokens", map[string]any{"name": "script", "scopes": scopes, "days": 1}, &made)
	return made.Data.Token
}

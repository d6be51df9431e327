package watch

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/dial"
)

// TestRules: an image with a fault that is too bad is not served when the grace is over,
// and whoever asks learns why and what to do; its maintainers get it all the same.
func TestRules(t *testing.T) {
	v := newWatched(t, nil)
	admin, alice, bob := v.user("admin", auth.User, ""), v.user("alice", auth.User, ""), v.user("bob", auth.User, "")
	v.push(alice, "alice/c/bad", listed(t, "debian:12", deb("zlib1g", "1")), false)
	v.push(alice, "alice/c/good", listed(t, "debian:12", deb("bash", "9")), false)
	v.push(alice, "alice/d/low", listed(t, "debian:12", deb("dash", "1")), false)
	v.known(3)
	pull := func(status int, token, name string, words ...string) {
		t.Helper()
		got, text := v.call(token, "GET", "/v1/imagefile/alice/"+name+":latest?arch=amd64", nil)
		if got != status {
			t.Errorf("%s: %d, want %d: %.300s", name, got, status, text)
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in %s", name, w, text)
			}
		}
	}
	set := func(status int, token, path string, r api.WatchRules) (out api.WatchRules) {
		t.Helper()
		v.want(status, token, "PUT", "/v1/watch/rules"+path, r, map[bool]any{true: &out}[status == 200])
		return out
	}
	set(200, admin, "", api.WatchRules{Block: "high", Grace: "48h"})
	pull(200, bob, "c/bad") // without data nothing is refused unless asked for
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "2", "critical", "CVE-3-1"), rec("A-2", day1, "Debian:12", "dash", "", "low", "CVE-3-2"))
	v.wait("the day of faults", func() bool {
		v.watch.ruling.mu.RLock()
		defer v.watch.ruling.mu.RUnlock()
		return len(v.watch.ruling.first) == 2
	})
	pull(200, bob, "c/bad")
	v.later(47 * time.Hour)
	pull(200, bob, "c/bad")
	v.later(2 * time.Hour)
	for _, token := range []string{bob, ""} {
		pull(403, token, "c/bad", "zlib1g 1 has CVE-3-1 (critical)", "corrected in 2", "made anew", "this site")
		pull(200, token, "c/good")
		pull(200, token, "d/low")
	}
	pull(200, alice, "c/bad")
	pull(200, admin, "c/bad")
	// What the owners of a collection say does not weaken the site's rule; what the site
	// says does.
	v.want(200, alice, "POST", "/v1/suppressions/alice/c", api.Suppression{ID: "CVE-3-1", Reason: "no"}, nil)
	pull(403, bob, "c/bad")
	v.want(200, admin, "POST", "/v1/suppressions", api.Suppression{ID: "CVE-3-1", Reason: "no"}, nil)
	pull(200, bob, "c/bad")
	// Rules of a collection are its owners'.
	set(403, bob, "/alice/d", api.WatchRules{Block: "low"})
	set(403, alice, "", api.WatchRules{})
	v.want(403, bob, "GET", "/v1/watch/rules/alice/d", nil, nil)
	set(200, alice, "/alice/d", api.WatchRules{Block: "low"})
	pull(403, bob, "d/low", "no correction is known yet", "the collection alice/d")
	v.want(200, alice, "POST", "/v1/suppressions/alice/d", api.Suppression{ID: "CVE-3-2", Reason: "no"}, nil)
	pull(200, bob, "d/low")
	// A new push begins the grace anew, as for the data.
	v.later(-49 * time.Hour)
	set(200, admin, "", api.WatchRules{BlockUnknown: true})
	pull(403, bob, "c/good", "young enough") // the newest advisory is of January
	for _, bad := range []api.WatchRules{{Block: "bad"}, {Block: "unknown"}, {Grace: "x"}, {Grace: "-1h"}, {Webhook: "http://example.org/"}, {Webhook: "https://u:p@example.org/"}, {Webhook: "https:///x"}} {
		set(400, admin, "", bad)
	}
	var got api.WatchRules
	v.want(200, admin, "GET", "/v1/watch/rules", nil, &got)
	if got != (api.WatchRules{BlockUnknown: true}) {
		t.Errorf("%+v", got)
	}
}

// hook is a webhook of the site, with TLS.
type hook struct {
	*httptest.Server
	mu      sync.Mutex
	notices []api.Notice
	headers []http.Header
	bodies  [][]byte
	status  int
}

func newHook(t *testing.T) *hook {
	h := &hook{status: 200}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		var n api.Notice
		if h.status == 200 && json.Unmarshal(body, &n) == nil {
			h.notices, h.headers, h.bodies = append(h.notices, n), append(h.headers, r.Header), append(h.bodies, body)
		}
		w.WriteHeader(h.status)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) count() int { h.mu.Lock(); defer h.mu.Unlock(); return len(h.notices) }

func (h *hook) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(h.Certificate())
	return p
}

// TestWebhook: owners hear once of each new finding, in batches that are signed; no
// address within is reached unless the administrator names it (SC-155).
func TestWebhook(t *testing.T) {
	h := newHook(t)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.pool()}}
	v := newWatched(t, func(o *Options) { o.HTTP, o.URL = dial.Client(transport, loopback), "https://images.example.org" })
	alice := v.user("alice", auth.User, "")
	v.push(alice, "alice/c/k", listed(t, "debian:12", deb("zlib1g", "1"), deb("bash", "1")), false)
	v.push(alice, "alice/d/k", listed(t, "debian:12", deb("zlib1g", "1")), false)
	v.known(2)
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "2", "high", "CVE-1-1"), rec("A-2", day1, "Debian:12", "bash", "2", "low", "CVE-1-2"))
	rules := api.WatchRules{Notify: "medium", Webhook: h.URL + "/hook"}
	var set, again api.WatchRules
	v.want(200, alice, "PUT", "/v1/watch/rules/alice/c", rules, &set)
	if len(set.Secret) != 64 {
		t.Errorf("%+v", set)
	}
	if text := v.want(200, alice, "GET", "/v1/watch/rules/alice/c", nil, &again); again.Secret != "" || strings.Contains(text, set.Secret) {
		t.Error("the secret is shown again")
	}
	v.wait("a notice", func() bool { return h.count() == 1 })
	n := h.notices[0]
	if n.About != "alice/c" || n.Counts["high"] != 1 || len(n.Counts) != 1 || len(n.Images) != 1 || n.Images[0].Image != "alice/c/k" || n.Images[0].Findings[0].ID != "CVE-1-1" || !strings.HasPrefix(n.Images[0].URL, "https://images.example.org/security/images/alice/c/k:sha256.") {
		t.Errorf("%+v", n)
	}
	at := h.headers[0].Get("X-Singularity-Timestamp")
	if got := h.headers[0].Get("X-Singularity-Signature"); got != "sha256="+Signature(set.Secret, at, h.bodies[0]) || got == "sha256="+Signature(set.Secret, at+"0", h.bodies[0]) {
		t.Errorf("the signature %q is of something else", got)
	}
	// A fault that the hook does not take is told of later, and nothing twice.
	h.mu.Lock()
	h.status = 500
	h.mu.Unlock()
	v.advise("b.json", rec("A-3", day2, "Debian:12", "bash", "3", "critical", "CVE-1-3"))
	v.later(2 * noticeEvery)
	v.wait("an error", func() bool {
		again = api.WatchRules{}
		v.want(200, alice, "GET", "/v1/watch/rules/alice/c", nil, &again)
		return strings.Contains(again.LastError, "500")
	})
	h.mu.Lock()
	h.status = 200
	h.mu.Unlock()
	v.later(2 * maxBackoff)
	v.wait("a second notice", func() bool { return h.count() == 2 })
	if n := h.notices[1]; len(n.Images) != 1 || len(n.Images[0].Findings) != 1 || n.Images[0].Findings[0].ID != "CVE-1-3" || n.ID == h.notices[0].ID {
		t.Errorf("%+v", n)
	}
	v.wait("the end of the error", func() bool {
		again = api.WatchRules{}
		v.want(200, alice, "GET", "/v1/watch/rules/alice/c", nil, &again)
		return again.LastError == "" && !again.LastSent.IsZero()
	})
	v.stop()
	v.open(v.watch.o) // a new process knows what was told
	v.known(2)
	v.later(2 * maxBackoff)
	v.wait("a look", func() bool {
		v.watch.ruling.mu.RLock()
		defer v.watch.ruling.mu.RUnlock()
		return len(v.watch.ruling.told) == 1 && !v.watch.ruling.by[keyOf(v)].Next.IsZero()
	})
	if h.count() != 2 {
		t.Errorf("%d notices", h.count())
	}
	// Not allowed to go there.
	v.watch.o.HTTP = dial.Client(transport, nil)
	rules.Webhook += "2"
	v.want(200, alice, "PUT", "/v1/watch/rules/alice/c", rules, nil)
	v.push(alice, "alice/c/l", listed(t, "debian:12", deb("zlib1g", "1.5")), false)
	v.known(3)
	v.later(2 * noticeEvery)
	v.wait("a refusal", func() bool {
		again = api.WatchRules{}
		v.want(200, alice, "GET", "/v1/watch/rules/alice/c", nil, &again)
		return strings.Contains(again.LastError, "does not connect to this network")
	})
	if h.count() != 2 {
		t.Error("an address within was reached")
	}
}

func keyOf(v *watched) string {
	for key := range v.watch.ruling.by {
		return key
	}
	return ""
}

// post is a mail server that takes letters, with STARTTLS if it has a certificate.
type post struct {
	net.Listener
	config  *tls.Config
	mu      sync.Mutex
	letters []string
	to      []string
	plain   bool // a letter came without TLS
}

func newPost(t *testing.T, config *tls.Config) *post {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &post{Listener: l, config: config}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *post) serve(c net.Conn) {
	defer func() { c.Close() }()
	secure := false
	r := bufio.NewReader(c)
	say := func(text string) { io.WriteString(c, text+"\r\n") }
	say("220 mail.test ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb := strings.ToUpper(line[:min(4, len(line))]); verb {
		case "EHLO":
			if p.config != nil && !secure {
				say("250-mail.test")
				say("250 STARTTLS")
			} else {
				say("250-mail.test")
				say("250 AUTH PLAIN")
			}
		case "STAR":
			say("220 go on")
			s := tls.Server(c, p.config)
			if s.Handshake() != nil {
				return
			}
			c, r, secure = s, bufio.NewReader(s), true
		case "DATA":
			say("354 go on")
			var letter strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				letter.WriteString(line)
			}
			p.mu.Lock()
			p.letters, p.plain = append(p.letters, letter.String()), p.plain || !secure
			p.mu.Unlock()
			say("250 taken")
		case "RCPT":
			p.mu.Lock()
			p.to = append(p.to, strings.TrimSpace(line))
			p.mu.Unlock()
			say("250 ok")
		case "AUTH":
			say("235 ok")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// TestMail: owners get a letter by a mail server that offers STARTTLS, and by no other.
func TestMail(t *testing.T) {
	h := newHook(t)
	server := newPost(t, &tls.Config{Certificates: h.TLS.Certificates})
	bare := newPost(t, nil)
	v := newWatched(t, func(o *Options) {
		o.Mail = Mail{Server: server.Addr().String(), From: "watch@example.org", User: "watch", Password: "secret", TLS: &tls.Config{RootCAs: h.pool()}}
	})
	alice := v.user("alice", auth.User, "")
	a, err := v.auth.Account(t.Context(), "alice")
	if err == nil {
		_, err = v.auth.UpdateAccount(t.Context(), a.ID, func(a *auth.Account) error { a.Email = "alice@example.org"; return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	v.push(alice, "alice/c/k", listed(t, "debian:12", deb("zlib1g", "1\r\nBcc: eve@example.org")), false)
	v.known(1)
	v.want(200, alice, "PUT", "/v1/watch/rules/alice/c", api.WatchRules{Notify: "low", Mail: true}, nil)
	v.advise("a.json", rec("A-1", day1, "Debian:12", "zlib1g", "", "high", "CVE-1-1"))
	count := func() int { server.mu.Lock(); defer server.mu.Unlock(); return len(server.letters) }
	v.later(2 * noticeEvery)
	v.wait("a letter", func() bool { return count() == 1 })
	head, body, _ := strings.Cut(server.letters[0], "\r\n\r\n")
	text, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(body)))
	if err != nil || !strings.Contains(string(text), "CVE-1-1 (high) zlib1g 1  Bcc: eve@example.org, no correction") || !strings.Contains(head, "To: alice@example.org\r\n") || !strings.Contains(head, "Subject: 1 new findings in images of alice/c\r\n") || strings.Contains(head, "Bcc") || server.plain || len(server.to) != 1 {
		t.Errorf("%v %q %v\n%s\n%s", err, server.to, server.plain, head, text)
	}
	m := v.watch.o.Mail
	m.Server = bare.Addr().String()
	if err := m.send(context.Background(), "alice@example.org", []byte("x")); err == nil || !strings.Contains(err.Error(), "does not offer STARTTLS") || len(bare.letters) > 0 {
		t.Errorf("without TLS: %v", err)
	}
	m.Server, m.TLS = server.Addr().String(), nil
	if err := m.send(context.Background(), "alice@example.org", []byte("x")); err == nil || count() != 1 {
		t.Errorf("with a certificate that nobody knows: %v", err)
	}
	if got := fmt.Sprint(v.watch.Figures(t.Context()).Images); got != "1" {
		t.Error(got)
	}
}

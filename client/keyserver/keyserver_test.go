package keyserver

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/client/keyserver/keyservertest"
	"singularity/client/transfer"
	"singularity/pgp"
)

// newKey returns a public key, and the same with its secret parts.
func newKey(t *testing.T, name string) (public, secret *pgp.Key) {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		t.Fatal(err)
	}
	r, err := pgp.ParseRing(b.Bytes())
	if err != nil || len(r.Keys()) != 1 {
		t.Fatal(err)
	}
	secret = r.Keys()[0]
	if public, err = secret.Public(); err != nil {
		t.Fatal(err)
	}
	return public, secret
}

// subkeyID returns the id of the first sub-key of k.
func subkeyID(t *testing.T, k *pgp.Key) uint64 {
	t.Helper()
	list, err := openpgp.ReadKeyRing(bytes.NewReader(k.Bytes()))
	if err != nil || len(list[0].Subkeys) == 0 {
		t.Fatalf("no sub-key: %v", err)
	}
	return list[0].Subkeys[0].PublicKey.KeyId
}

func newClient(t *testing.T, list ...Server) *Client {
	t.Helper()
	c, err := New(list, transfer.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestGet(t *testing.T) {
	a, _ := newKey(t, "A")
	b, _ := newKey(t, "B")
	s := &keyservertest.Server{}
	s.Put(a)
	s.Put(b)
	c := newClient(t, Server{URL: serve(t, s), Auth: "Bearer secret"})
	fp := a.Fingerprint().String()
	for _, id := range []string{fp, strings.ToLower(fp), "0x" + fp, fp[24:], fmt.Sprintf("%016x", subkeyID(t, a))} {
		parsed, err := ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := c.Get(t.Context(), parsed)
		if err != nil || len(keys) != 1 || !bytes.Equal(keys[0].Bytes(), a.Bytes()) {
			t.Errorf("%s: %v, %v", id, keys, err)
		}
	}
	if _, err := c.Get(t.Context(), ByLongID(5)); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "404 Not Found: no matching keys found") {
		t.Errorf("no such key: %v", err)
	}
	// Security: a token never goes over plain HTTP.
	for _, r := range s.Requests() {
		if strings.Contains(r, "token") || !strings.Contains(r, "exact=on&op=get&options=mr&search=0x") {
			t.Errorf("request %q", r)
		}
	}
	if last := s.Requests()[len(s.Requests())-1]; !strings.HasSuffix(last, "search=0x0000000000000005") {
		t.Errorf("leading zeros: %q", last)
	}
	for _, bad := range []string{"", "12EE233B", fp[1:], "0x", strings.Repeat("g", 16), "a name"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID takes %q", bad)
		}
	}
}

// TestSubstituted: a server that answers with another key is found out (SC-137).
func TestSubstituted(t *testing.T) {
	a, secret := newKey(t, "A")
	b, _ := newKey(t, "B")
	armorOf := func(k *pgp.Key) string {
		text, err := k.Armor()
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var both bytes.Buffer
	both.Write(a.Bytes())
	both.Write(b.Bytes())
	for name, c := range map[string]struct{ answer, want string }{
		"other":     {armorOf(b), "not the one that was asked for"},
		"one more":  {both.String(), "not the one that was asked for"},
		"secret":    {armorOf(secret), "secret key"},
		"empty":     {"", "no keys"},
		"page":      {"<html>hello</html>", "no OpenPGP keys"},
		"truncated": {armorOf(a)[:200], "not usable"},
		"packet":    {string(a.Bytes()[:60]), "not usable"},
		"long":      {strings.Repeat("\x99", maxKeys+1), "more than"},
	} {
		client := newClient(t, Server{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(c.answer))
		}))})
		for _, id := range []ID{ByFingerprint(a.Fingerprint()), mustID(t, a.Fingerprint().String()[24:])} {
			if keys, err := client.Get(t.Context(), id); err == nil || keys != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s by %s: %v, want %q", name, id, err, c.want)
			}
		}
	}
}

// TestPoisoned: a key with as many signatures as the limit lets pass costs little
// time, whatever comes of it (SC-114).
func TestPoisoned(t *testing.T) {
	k, _ := newKey(t, "A")
	raw := k.Bytes()
	var packets [][]byte // of the new form, with all its lengths
	for rest := raw; len(rest) > 0; {
		n := 2 + int(rest[1])
		switch {
		case rest[1] == 255:
			n = 6 + int(binary.BigEndian.Uint32(rest[2:]))
		case rest[1] >= 192:
			n = 3 + 192 + (int(rest[1])-192)<<8 + int(rest[2])
		}
		packets = append(packets, rest[:n])
		rest = rest[n:]
	}
	good := packets[2] // after the key and the user id
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	for name, sig := range map[string][]byte{"false": bad, "good": good, "somebody else's": bytes.ReplaceAll(good, id8(k), make([]byte, 8))} {
		poisoned := slices.Concat(packets[0], packets[1], bytes.Repeat(sig, (maxKeys-len(raw))/len(sig)), good)
		start := time.Now()
		keys, err := readKeys(poisoned, ByFingerprint(k.Fingerprint()))
		if d := time.Since(start); d > 5*time.Second { // 0.6 s are usual
			t.Errorf("%s: %v, %d keys, %v", name, d, len(keys), err)
		}
	}
}

// id8 is the id of k as its signatures hold it.
func id8(k *pgp.Key) []byte {
	fp := k.Fingerprint()
	return fp[12:]
}

func mustID(t *testing.T, s string) ID {
	t.Helper()
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestServersInOrder(t *testing.T) {
	a, _ := newKey(t, "A")
	empty, full, never := &keyservertest.Server{}, &keyservertest.Server{}, &keyservertest.Server{}
	full.Put(a)
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "out of order\nline 2", http.StatusBadGateway)
	}))
	closed := httptest.NewServer(empty)
	closed.Close()
	id := ByFingerprint(a.Fingerprint())
	c := newClient(t, Server{URL: closed.URL}, Server{URL: broken}, Server{URL: serve(t, empty)}, Server{URL: serve(t, full)}, Server{URL: serve(t, never)})
	if keys, err := c.Get(t.Context(), id); err != nil || len(keys) != 1 {
		t.Errorf("got %v, %v", keys, err)
	}
	if len(empty.Requests()) != 1 || len(never.Requests()) != 0 {
		t.Errorf("requests: %q and %q", empty.Requests(), never.Requests())
	}
	// Not every server was heard, so it is not known that there is no such key.
	_, err := newClient(t, Server{URL: broken}, Server{URL: serve(t, empty)}).Get(t.Context(), id)
	if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "502 Bad Gateway: out of order line 2;") {
		t.Errorf("one broken: %v", err)
	}
	_, err = newClient(t, Server{URL: serve(t, empty)}, Server{URL: serve(t, empty)}).Get(t.Context(), id)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("all without it: %v", err)
	}
	if _, err := New(nil, transfer.Settings{}); !errors.Is(err, ErrNoServer) {
		t.Errorf("no servers: %v", err)
	}
}

// TestToken: a token goes to its server by TLS and nowhere else, wherever
// redirections lead (SC-132, SC-134).
func TestToken(t *testing.T) {
	a, _ := newKey(t, "A")
	home, elsewhere := &keyservertest.Server{Token: "secret"}, &keyservertest.Server{}
	elsewhere.Put(a)
	plain, other := httptest.NewServer(elsewhere), httptest.NewTLSServer(elsewhere)
	t.Cleanup(plain.Close)
	t.Cleanup(other.Close)
	to := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if to == "" {
			home.ServeHTTP(w, r)
			return
		}
		http.Redirect(w, r, to+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem") // both have the same certificate
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client := func(auth string) *Client {
		c, err := New([]Server{{URL: s.URL, Auth: auth, AuthSource: "the test"}}, transfer.Settings{CAs: []string{ca}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, err := client("").Add(t.Context(), a); err == nil || !strings.Contains(err.Error(), "401 Unauthorized: unauthorized or missing token (no credentials were sent)") {
		t.Errorf("without a token: %v", err)
	}
	if _, err := client("Bearer wrong").Add(t.Context(), a); err == nil || !strings.Contains(err.Error(), "(with the credentials of the test)") {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := client("Bearer secret").Add(t.Context(), a); err != nil {
		t.Error(err)
	}
	if n := len(home.Requests()); n != 3 || !strings.HasSuffix(home.Requests()[2], "+token") {
		t.Errorf("requests %q", home.Requests())
	}
	id := ByFingerprint(a.Fingerprint())
	to = other.URL
	if keys, err := client("Bearer secret").Get(t.Context(), id); err != nil || len(keys) != 1 {
		t.Errorf("redirected to another host: %v", err)
	}
	if r := elsewhere.Requests(); len(r) != 1 || strings.Contains(r[0], "token") {
		t.Errorf("the other host got %q", r)
	}
	if _, err := client("Bearer secret").Add(t.Context(), a); err == nil || !strings.Contains(err.Error(), "307") {
		t.Errorf("an addition that is redirected: %v", err)
	}
	to = plain.URL
	if _, err := client("Bearer secret").Get(t.Context(), id); err == nil || !strings.Contains(err.Error(), "redirects from https to http") {
		t.Errorf("redirected to plain HTTP: %v", err)
	}
	to = s.URL
	if _, err := client("Bearer secret").Get(t.Context(), id); err == nil || !strings.Contains(err.Error(), "redirects more than") {
		t.Errorf("redirected in circles: %v", err)
	}
	if r := elsewhere.Requests(); len(r) != 1 {
		t.Errorf("the other host got %q", r)
	}
}

// TestCertificate: a server that cannot prove its name is not asked (SC-136).
func TestCertificate(t *testing.T) {
	s := &keyservertest.Server{}
	h := httptest.NewUnstartedServer(s)
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.StartTLS()
	t.Cleanup(h.Close)
	a, _ := newKey(t, "A")
	c := newClient(t, Server{URL: h.URL, Auth: "Bearer secret"})
	_, err := c.Get(t.Context(), ByLongID(1))
	_, err2 := c.Add(t.Context(), a)
	_, _, err3 := c.Search(t.Context(), "abc")
	for _, err := range []error{err, err2, err3} {
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v", err)
		}
	}
	if len(s.Requests()) != 0 {
		t.Errorf("requests %q", s.Requests())
	}
	// With leave to take any, the token stays here.
	c = newClient(t, Server{URL: h.URL, Auth: "Bearer secret", Insecure: true})
	if _, err := c.Get(t.Context(), ByLongID(1)); !errors.Is(err, ErrNotFound) || strings.Contains(s.Requests()[0], "token") {
		t.Errorf("insecure: %v, %q", err, s.Requests())
	}
	// Nobody is asked offline.
	c, err = New([]Server{{URL: h.URL}}, transfer.Settings{Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), ByLongID(1)); !errors.Is(err, transfer.ErrOffline) {
		t.Errorf("offline: %v", err)
	}
}

func TestAdd(t *testing.T) {
	a, secret := newKey(t, "A")
	s := &keyservertest.Server{Moderate: true}
	c := newClient(t, Server{URL: serve(t, s)})
	if _, err := c.Add(t.Context(), secret); err == nil || len(s.Requests()) != 0 {
		t.Errorf("a secret key was sent: %v, %q", err, s.Requests())
	}
	moderated, err := c.Add(t.Context(), a)
	if err != nil || !moderated {
		t.Errorf("moderated %v, %v", moderated, err)
	}
	if keys, err := c.Get(t.Context(), ByFingerprint(a.Fingerprint())); err != nil || !bytes.Equal(keys[0].Bytes(), a.Bytes()) {
		t.Errorf("what was added comes back as %v, %v", keys, err)
	}
}

func TestSearch(t *testing.T) {
	s := &keyservertest.Server{PageSize: 2}
	var want []string
	for i := range 5 {
		k, _ := newKey(t, fmt.Sprintf("Someone 100%% +%d: ü", i))
		s.Put(k)
		want = append(want, k.Fingerprint().String()+" "+k.UserID())
	}
	c := newClient(t, Server{URL: serve(t, s)})
	list, more, err := c.Search(t.Context(), "someone")
	if err != nil || more {
		t.Fatal(more, err)
	}
	var got []string
	for _, r := range list {
		got = append(got, r.ID+" "+r.UserIDs[0])
		if r.Algorithm != 22 || r.Created.IsZero() || !r.Expires.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(got, want) || len(s.Requests()) != 3 {
		t.Errorf("got %q by %q, want %q", got, s.Requests(), want)
	}
	if list, _, err := c.Search(t.Context(), want[0][24:40]); err != nil || len(list) != 1 {
		t.Errorf("by id: %v, %v", list, err)
	}
	if _, _, err := c.Search(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

func TestSearchWithoutEnd(t *testing.T) {
	for name, c := range map[string]struct {
		token func(n int) string
		body  string
		more  bool
	}{
		"same page":   {func(int) string { return "x" }, "info:1:1\npub:" + strings.Repeat("A", 40) + ":::::\n", false},
		"empty pages": {func(n int) string { return fmt.Sprint(n) }, "info:1:0\n", false},
		"many":        {func(n int) string { return fmt.Sprint(n) }, strings.Repeat("pub:"+strings.Repeat("A", 40)+":::::\n", 4000), true},
	} {
		n := 0
		client := newClient(t, Server{URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n++
			w.Header().Set(pageHeader, c.token(n))
			w.Write([]byte(c.body))
		}))})
		list, more, err := client.Search(t.Context(), "abc")
		if more != c.more || (err == nil) != c.more || more && len(list) != maxResults || n > 5 {
			t.Errorf("%s: %d keys, %v, %v, %d requests", name, len(list), more, err, n)
		}
	}
}

func TestSlow(t *testing.T) {
	hold := make(chan struct{})
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("-----BEGIN"))
		w.(http.Flusher).Flush()
		<-hold
	}))
	defer close(hold)
	c := newClient(t, Server{URL: url})
	c.timeout = 50 * time.Millisecond
	if _, err := c.Get(t.Context(), ByLongID(1)); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("got %v", err)
	}
}

func TestURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://k.org": "https://k.org", "http://k.org:8080/": "http://k.org:8080", "hkp://k.org": "http://k.org:11371",
		"hkp://[::1]": "http://[::1]:11371", "hkps://k.org": "https://k.org", "hkp://k.org:80": "http://k.org:80",
	} {
		if u, err := parseURL(in); err != nil || u.String() != want {
			t.Errorf("%q: %v, %v, want %q", in, u, err, want)
		}
	}
	for _, in := range []string{"", "k.org", "ftp://k.org", "https://", "https://k.org/path", "https://k.org?x=1", "https://u:pass@k.org", "https://k.org:pass@", "://"} {
		if u, err := parseURL(in); err == nil || strings.Contains(err.Error(), "pass@") || strings.Contains(err.Error(), "u:pass") {
			t.Errorf("%q: %v, %v", in, u, err)
		}
	}
}

func TestIndexBad(t *testing.T) {
	pub := "pub:" + strings.Repeat("0A", 20) + ":1:4096:1533078000::\n"
	for _, bad := range []string{"", "<html>", "info:1:2\n" + pub, "info:1:0\n" + pub, "info:1:x\n", "info:1:1\ninfo:1:1\n" + pub, "uid:x:::\n" + pub,
		"pub:zz:::::\n", "pub:" + strings.Repeat("A", 39) + ":::::\n", strings.Replace(pub, "4096", "-1", 1), strings.Replace(pub, "1533078000", "1e9", 1),
		pub + "uid:%zz:::\n"} {
		if list, err := parseIndex(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, list)
		}
	}
	list, err := parseIndex("info:1:1\r\n" + pub + "uid:A %3A+B:1::\r\nunknown:1\r\n")
	if err != nil || len(list) != 1 || list[0].Bits != 4096 || list[0].UserIDs[0] != "A : B" || list[0].Created.Unix() != 1533078000 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestGPG: keys that gpg made and sends are served, and gpg takes what is pulled.
func TestGPG(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("needs gpg")
	}
	run := func(home string, stdin []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		var out, msg bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &msg
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpg %q: %v: %s", args, err, msg.String())
		}
		return append(out.Bytes(), msg.Bytes()...)
	}
	home := func() string {
		dir, err := os.MkdirTemp("", "gpg") // the agent's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			exec.Command("gpgconf", "--homedir", dir, "--kill", "all").Run()
			os.RemoveAll(dir)
		})
		return dir
	}
	maker, taker, third := home(), home(), home()
	run(maker, nil, "--quick-generate-key", "Maker <maker@example.org>", "rsa2048", "default", "1y")
	ring, err := pgp.ParseRing(run(maker, nil, "--export", "maker@example.org"))
	if err != nil || len(ring.Keys()) != 1 {
		t.Fatal(err)
	}
	key := ring.Keys()[0]
	s := &keyservertest.Server{PageSize: 10}
	url := "hkp" + strings.TrimPrefix(serve(t, s), "http")
	c := newClient(t, Server{URL: url})
	if _, err := exec.LookPath("dirmngr"); err == nil {
		run(maker, nil, "--keyserver", url, "--send-keys", key.Fingerprint().String())
		if r := s.Requests(); len(r) != 1 || !strings.HasPrefix(r[0], "POST /pks/add") {
			t.Errorf("gpg asks %q", r)
		}
		if out := run(third, nil, "--keyserver", url, "--recv-keys", key.Fingerprint().String()); !bytes.Contains(out, []byte("imported: 1")) {
			t.Errorf("gpg says %s", out)
		}
	} else if _, err := c.Add(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	list, _, err := c.Search(t.Context(), "maker@")
	if err != nil || len(list) != 1 || list[0].Bits != 2048 || list[0].Expires.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	keys, err := c.Get(t.Context(), ByFingerprint(key.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys[0].Armor()
	if err != nil {
		t.Fatal(err)
	}
	if out := run(taker, text, "--import"); !bytes.Contains(out, []byte("imported: 1")) {
		t.Errorf("gpg says %s", out)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add("info:1:1\npub:" + strings.Repeat("0A", 20) + ":1:4096:1533078000::r\nuid:A %3A+B:1::\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseIndex(text)
		for _, r := range list {
			if err == nil && (!isHex(r.ID) || len(r.UserIDs) > maxUserIDs) {
				t.Errorf("%+v", r)
			}
		}
	})
}

package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"singularity/client/keyserver"
	"singularity/client/keyserver/keyservertest"
	"singularity/conf"
	"singularity/conf/registries"
	"singularity/conf/remote"
	"singularity/pgp"
)

// keyServer starts a key server and returns its address.
func keyServer(t *testing.T) (*keyservertest.Server, string) {
	t.Helper()
	s := &keyservertest.Server{}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return s, h.URL
}

func TestKeyServerVerbs(t *testing.T) {
	ringHome(t)
	s, url := keyServer(t)
	fp := importKey(t, keyA())
	stdout, _ := mustRun(t, "", "key", "push", "-u", url, fp)
	if want := "public key `" + fp + "' pushed to server successfully\n"; stdout != want {
		t.Errorf("push: %q, want %q", stdout, want)
	}
	mustRun(t, "", "key", "push", "--url", url, fp[24:])
	t.Setenv("SINGULARITY_KEYSERVER_URL", url)
	stdout, _ = mustRun(t, "", "key", "search", "key a")
	if want := "Showing 1 results\n\nKEY ID            BITS  NAME/EMAIL\n" + fp[24:] + "  263   Key A\n\n"; stdout != want {
		t.Errorf("search: %q, want %q", stdout, want)
	}
	stdout, _ = mustRun(t, "", "key", "search", "-l", fp)
	if !strings.Contains(stdout, fp+"  EdDSA      263   2") || !strings.Contains(stdout, "[ultimate]") || !strings.Contains(stdout, "[enabled]  Key A\n") {
		t.Errorf("search -l: %q", stdout)
	}
	// Another user pulls it.
	dir := ringHome(t)
	stdout, _ = mustRun(t, "", "key", "pull", fp)
	if want := "1 key(s) added to keyring of trust " + dir + "/pgp-public\n"; stdout != want {
		t.Errorf("pull: %q, want %q", stdout, want)
	}
	stdout, stderr := mustRun(t, "", "key", "pull", "0x"+strings.ToLower(fp))
	if !strings.HasPrefix(stdout, "0 key(s) added") || !strings.Contains(stderr, "The keyring has the key "+fp) {
		t.Errorf("pull again: %q, %q", stdout, stderr)
	}
	stdout, _ = mustRun(t, "", "key", "list")
	if strings.Count(stdout, fp) != 1 {
		t.Errorf("list: %q", stdout)
	}
	if err := os.MkdirAll(conf.Prefix+"/etc/singularity", 0o755); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "key", "pull", "-g", fp) // into the administrator's, in an installation of one's own
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"key", "pull", strings.Repeat("0", 40)}, "404 Not Found: no matching keys found"},
		{[]string{"key", "pull", "12EE233B"}, "names no key: want its fingerprint"},
		{[]string{"key", "push", strings.Repeat("0", 40)}, "no key with the fingerprint or id"},
		{[]string{"key", "search", "nobody"}, "404 Not Found"},
		{[]string{"key", "pull", "-u", "http://127.0.0.1:1", fp}, "cannot reach key server"},
		{[]string{"key", "pull", "-u", "http://u:secret@h", fp}, "no address of a key server"},
	} {
		if _, stderr, code := callIn("", c.args...); code != 2 || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "secret") {
			t.Errorf("%q: status %d: %s", c.args, code, stderr)
		}
	}
	// Nobody is asked who was not named.
	t.Setenv("SINGULARITY_KEYSERVER_URL", "")
	for _, args := range [][]string{{"key", "search", "abc"}, {"key", "pull", fp}, {"key", "push", fp}, {"key", "newpair", "--push", "-N", "x", "-E", "", "-C", "", "-P", ""}} {
		if _, stderr, code := callIn("", args...); code != 2 || !strings.Contains(stderr, "no key server is known\nhint: name one with --url") {
			t.Errorf("%q without a server: status %d: %s", args, code, stderr)
		}
	}
	for _, r := range s.Requests() {
		if strings.Contains(r, "token") {
			t.Errorf("request %q", r)
		}
	}
}

func TestKeyNewpairPush(t *testing.T) {
	ringHome(t)
	s, url := keyServer(t)
	args := []string{"key", "newpair", "-N", "Pusher", "-E", "p@example.org", "-C", "", "-P", "", "-b", "2048", "--push", "--url", url}
	stdout, _ := mustRun(t, "", args...)
	if !strings.Contains(stdout, "pushed to server successfully") {
		t.Errorf("printed %q", stdout)
	}
	if stdout, _ = mustRun(t, "", "key", "search", "-u", url, "p@example.org"); !strings.Contains(stdout, "Pusher <p@example.org>") {
		t.Errorf("search: %q", stdout)
	}
	// A push that is refused does not undo the key.
	s.Token = "wanted"
	_, stderr, code := callIn("", args...)
	if code != 2 || !strings.Contains(stderr, "was not sent: key server") || !strings.Contains(stderr, "401 Unauthorized: unauthorized or missing token (no credentials were sent)\nhint: singularity key push ") {
		t.Errorf("refused: status %d: %s", code, stderr)
	}
	if stdout, _ = mustRun(t, "", "key", "list", "--secret"); strings.Count(stdout, "Pusher") != 2 {
		t.Errorf("list: %s", stdout)
	}
}

// TestSC137_SubstitutedKey: nothing is imported when a server answers with a key
// that was not asked for, or a secret one.
func TestSC137_SubstitutedKey(t *testing.T) {
	dir := ringHome(t)
	wanted := onlyKey(keyA())
	for name, text := range map[string][]byte{"another": publicOf(keyB()), "secret": keyA(), "two": append(publicBytes(keyA()), publicBytes(keyB())...)} {
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(text) }))
		t.Cleanup(h.Close)
		for _, id := range []string{wanted.Fingerprint().String(), wanted.Fingerprint().String()[24:]} {
			if _, stderr, code := callIn("", "key", "pull", "-u", h.URL, id); code != 2 || !strings.Contains(stderr, "is not usable: it has ") {
				t.Errorf("%s by %s: status %d: %s", name, id, code, stderr)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pgp-public")); !os.IsNotExist(err) {
		t.Errorf("something was imported: %v", err)
	}
}

// TestSC119_TwoKeysOfAnID: an id of 16 digits that two keys have is refused, and
// one of 8 is none.
func TestSC119_TwoKeysOfAnID(t *testing.T) {
	a, b := onlyKey(publicOf(keyA())), onlyKey(publicOf(keyB()))
	id, err := keyserver.ParseID(a.Fingerprint().String()[24:])
	if err != nil {
		t.Fatal(err)
	}
	if k, err := oneOf(id, []*pgp.Key{a, b}); err == nil || !strings.Contains(err.Error(), a.Fingerprint().String()+", "+b.Fingerprint().String()) {
		t.Errorf("got %v, %v", k, err)
	}
	if _, err := keyserver.ParseID(a.Fingerprint().String()[32:]); err == nil {
		t.Error("8 digits are taken")
	}
}

// TestSC164_ServerTexts: what a server says does not drive the terminal.
func TestSC164_ServerTexts(t *testing.T) {
	ringHome(t)
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("search") == "refuse" {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusTeapot)
			w.Write([]byte("\x1b[31mgo away\rINFO\u202e"))
			return
		}
		w.Write([]byte("info:1:1\npub:" + strings.Repeat("AB", 20) + ":1:2048:1::\nuid:%1B]52;c;x%07%0Apub%C2%85:::\n"))
	}))
	t.Cleanup(h.Close)
	for _, args := range [][]string{{"search", "refuse"}, {"search", "x"}, {"search", "-l", "x"}} {
		stdout, stderr, _ := callIn("", append([]string{"key"}, append(args, "-u", h.URL)...)...)
		if strings.ContainsAny(stdout+stderr, "\x1b\x07\r\u0085\u202e") || strings.Count(stdout, "\n") > 5 {
			t.Errorf("%q: %q, %q", args, stdout, stderr)
		}
	}
}

func publicOf(armored []byte) []byte {
	k, err := onlyKey(armored).Public()
	if err != nil {
		panic(err)
	}
	text, err := k.Armor()
	if err != nil {
		panic(err)
	}
	return text
}

func publicBytes(armored []byte) []byte { return onlyKey(publicOf(armored)).Bytes() }

// TestPullRevocation: the revocation of a key in the ring is taken over, and a
// copy without it does not undo it.
func TestPullRevocation(t *testing.T) {
	ringHome(t)
	home, gpg := newGPG(t)
	gpg(nil, "--quick-generate-key", "Gone <gone@example.org>", "ed25519", "default", "never")
	key := onlyKey(gpg(nil, "--export", "gone@example.org"))
	fp := key.Fingerprint().String()
	cert, err := os.ReadFile(filepath.Join(home, "openpgp-revocs.d", fp+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	// gpg puts a colon before the block, against use by mistake.
	gpg([]byte(strings.ReplaceAll(string(cert), "\n:", "\n")), "--import")
	after := onlyKey(gpg(nil, "--export", "gone@example.org"))
	s, url := keyServer(t)
	s.Put(key)
	mustRun(t, "", "key", "pull", "-u", url, fp)
	revoked, url2 := keyServer(t)
	revoked.Put(after)
	if _, stderr := mustRun(t, "", "key", "pull", "-u", url2, fp); !strings.Contains(stderr, "takes over the revocation") {
		t.Errorf("messages %q", stderr)
	}
	if stdout, _ := mustRun(t, "", "key", "list", "--json"); !strings.Contains(stdout, `"Revoked": true`) || strings.Count(stdout, fp) != 1 {
		t.Errorf("list: %s", stdout)
	}
	mustRun(t, "", "key", "pull", "-u", url, fp)
	if stdout, _ := mustRun(t, "", "key", "list", "--json"); !strings.Contains(stdout, `"Revoked": true`) {
		t.Errorf("list: %s", stdout)
	}
}

// verifyAnswers runs verify --json and returns the answers.
func verifyAnswers(t *testing.T, wantCode int, args ...string) answersJSON {
	t.Helper()
	stdout, stderr, code := callIn("", append([]string{"verify", "--json"}, args...)...)
	var out verifyJSON
	if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != wantCode {
		t.Fatalf("%q: status %d, %v: %s%s", args, code, err, stdout, stderr)
	}
	return out.Answers
}

func TestVerifyRemote(t *testing.T) {
	ringHome(t)
	fp := importKey(t, keyA())
	image := signable(t)
	mustRun(t, "", "sign", image)
	s, url := keyServer(t)
	ringHome(t) // somebody else, who has no keys
	s.Put(onlyKey(publicOf(keyA())))
	stdout, stderr := mustRun(t, "", "verify", "--url", url, image)
	if !strings.HasPrefix(stdout, "[REMOTE]           Signing entity: Key A\n[REMOTE]           Fingerprint: "+fp+"\n") {
		t.Errorf("printed %q", stdout)
	}
	if !strings.Contains(stderr, "WARNING: the key "+fp+" is in no keyring of this host") {
		t.Errorf("messages %q", stderr)
	}
	if r := s.Requests(); len(r) != 1 || !strings.HasSuffix(r[0], "search=0x"+strings.ToLower(fp[24:])) {
		t.Errorf("requests %q", r)
	}
	a := verifyAnswers(t, 0, "-u", url, image)
	if a.Integrity.Answer != "intact" || a.Signer.Answer != "known" || !slices.Equal(a.Signer.Signers, []string{fp}) || a.Trust.Answer != "not trusted" || a.Trust.ExitCode != 30 {
		t.Errorf("answers %+v", a)
	}
	if stdout, _ := mustRun(t, "", "verify", "--json", "-u", url, image); !strings.Contains(stdout, `"KeyLocal": false,
        "KeyCheck": true,
        "DataCheck": true`) {
		t.Errorf("JSON %s", stdout)
	}
	n := len(s.Requests())
	if _, stderr, code := callIn("", "verify", "--local", "--url", url, image); code != 255 || len(s.Requests()) != n {
		t.Errorf("--local: status %d, %q: %s", code, s.Requests()[n:], stderr)
	}
	// A key that a ring has is not asked for.
	mustRun(t, "", "key", "pull", "-u", url, fp)
	n = len(s.Requests())
	if stdout, _ := mustRun(t, "", "verify", "-u", url, image); !strings.HasPrefix(stdout, "[LOCAL]") || len(s.Requests()) != n {
		t.Errorf("printed %q after %q", stdout, s.Requests()[n:])
	}
	// A server that fails is a warning, and the key is unknown.
	ringHome(t)
	if _, stderr, code := callIn("", "verify", "--url", "http://127.0.0.1:1", image); code != 255 ||
		!strings.Contains(stderr, "WARNING: cannot get the key "+fp[24:]+": cannot reach key server") || !strings.Contains(stderr, "signature made by unknown entity") {
		t.Errorf("no server: status %d: %s", code, stderr)
	}
	if _, stderr, code := callIn("", "verify", "--url", "nonsense", image); code != 255 || !strings.Contains(stderr, "no address of a key server") {
		t.Errorf("bad address: status %d: %s", code, stderr)
	}
}

func TestVerifyAnswers(t *testing.T) {
	ringHome(t)
	image := signable(t)
	check := func(what string, a answersJSON, integrity, signer, trust answerJSON) {
		t.Helper()
		for _, c := range []struct{ got, want answerJSON }{{a.Integrity, integrity}, {a.Signer, signer}, {a.Trust, trust}} {
			if c.got.Answer != c.want.Answer || c.got.ExitCode != c.want.ExitCode {
				t.Errorf("%s: %+v, want %+v", what, a, c.want)
			}
		}
	}
	check("no signature", verifyAnswers(t, 255, image), integrityUnknown, unsigned, trustUnknown)
	fp := importKey(t, keyA())
	mustRun(t, "", "sign", image)
	check("good", verifyAnswers(t, 0, image), intact, signerKnown, trusted)
	check("required", verifyAnswers(t, 255, "--require-fingerprint", strings.Repeat("AB", 20), image), intact, signerKnown, notTrusted)
	mustRun(t, "", "key", "remove", fp)
	check("unknown key", verifyAnswers(t, 255, image), integrityUnknown, signerUnknown, trustUnknown)
	other := importKey(t, publicOf(keyB()))
	check("other key", verifyAnswers(t, 255, image), integrityUnknown, signerUnknown, trustUnknown)
	mustRun(t, "", "key", "remove", other)
	importKey(t, publicOf(keyA()))
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteAt([]byte("y"), 32768)
	a := verifyAnswers(t, 255, image)
	check("damaged", a, damaged, signerKnown, trusted)
	if !slices.Equal(a.Signer.Signers, []string{fp}) {
		t.Errorf("signers %q", a.Signer.Signers)
	}
	check("damaged, --any", verifyAnswers(t, 255, "--any", image), damaged, signerKnown, trusted)
	f.WriteAt([]byte("x"), 32768)
	// A signature that is not what it was.
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.LastIndex(string(data), `{"version":1`)
	f.WriteAt([]byte(`{"version":2`), int64(i))
	check("forged", verifyAnswers(t, 255, image), integrityUnknown, notValid, trustUnknown)
}

// TestRemoteServers: which servers a remote.yaml names, and what each is told.
func TestRemoteServers(t *testing.T) {
	ringHome(t)
	dir := t.TempDir()
	t.Setenv("SINGULARITY_CONFIGDIR", dir)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a token was sent to find services")
		}
		w.Write([]byte(`{"keystoreAPI":{"uri":"https://found.example.org"}}`))
	}))
	t.Cleanup(endpoint.Close)
	host := strings.TrimPrefix(endpoint.URL, "http://")
	path := filepath.Join(dir, "remote.yaml")
	for name, c := range map[string]struct {
		text string
		want []keyserver.Server
	}{
		"none":  {"", nil},
		"found": {"Active: a\nRemotes: {a: {URI: '" + host + "', Token: tok, Insecure: true}}", []keyserver.Server{{URL: "https://found.example.org", Auth: "Bearer tok", AuthSource: `the remote endpoint "a"`}}},
		"listed": {"Active: a\nRemotes: {a: {URI: h, Token: tok, Keyservers: [{URI: 'https://own'}, {URI: 'https://gone', Skip: true}, {URI: 'https://else', External: true, Insecure: true}, {URI: 'https://logged.in', External: true}]}}\n" +
			"Credentials: [{URI: 'https://logged.in/', Auth: 'Basic eA=='}, {URI: 'http://else', Auth: 'Bearer no'}, {URI: 'https://else:444', Auth: 'Bearer no'}]",
			[]keyserver.Server{{URL: "https://own", Auth: "Bearer tok", AuthSource: `the remote endpoint "a"`}, {URL: "https://else", Insecure: true}, {URL: "https://logged.in", Auth: "Basic eA==", AuthSource: path}}},
		"all skipped": {"Active: a\nRemotes: {a: {URI: h, Token: tok, Keyservers: [{URI: 'https://own', Skip: true}]}}", nil},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := remoteServers(t.Context(), &registries.File{}, path)
		logIns, err2 := remote.Credentials(path)
		if err != nil || err2 != nil {
			t.Fatal(name, err, err2)
		}
		for i := range got {
			logIn(&got[i], logIns, path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	// The whole way, past a server that does not answer.
	key := onlyKey(publicOf(keyA()))
	s, url := keyServer(t)
	s.Put(key)
	os.WriteFile(path, []byte("Active: a\nRemotes: {a: {URI: h, Token: tok, Keyservers: [{URI: 'http://127.0.0.1:1'}, {URI: '"+url+"'}]}}"), 0o600)
	mustRun(t, "", "key", "pull", key.Fingerprint().String())
	if r := s.Requests(); len(r) != 1 || strings.Contains(r[0], "token") {
		t.Errorf("requests %q", r)
	}
	// A file that cannot be read is a warning for verify, when a key is wanted.
	image := signable(t)
	ringHome(t)
	importKey(t, keyB())
	mustRun(t, "secret\n", "sign", image)
	os.WriteFile(path, []byte("Nonsense: 1\n"), 0o600)
	if _, stderr := mustRun(t, "", "verify", image); strings.Contains(stderr, "WARNING") {
		t.Errorf("a key that is here: %s", stderr)
	}
	ringHome(t)
	if _, stderr, code := callIn("", "verify", image); code != 255 || !strings.Contains(stderr, "WARNING: cannot get the key") || !strings.Contains(stderr, "Nonsense not found") {
		t.Errorf("status %d: %s", code, stderr)
	}
}

// newGPG makes a home for gpg, whose agent ends with the test.
func newGPG(t *testing.T) (home string, run func(stdin []byte, args ...string) []byte) {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("needs gpg")
	}
	home, err := os.MkdirTemp("", "gpg") // the path of the agent's socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		os.RemoveAll(home)
	})
	return home, func(stdin []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		var out, msg bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &msg
		if err := cmd.Run(); err != nil {
			t.Fatalf("gpg %q: %v: %s", args, err, msg.String())
		}
		return out.Bytes()
	}
}

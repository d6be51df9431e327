package server

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/api"
	"singularity/catalog"
	"singularity/client/library"
	"singularity/server/openapi"
	"singularity/sif"
	"singularity/squashfs"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == catalog.Verb { // the server starts itself to read an image
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// debianImage makes an image with a database of packages.
func debianImage(t *testing.T, status string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range map[string]string{"etc/os-release": "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian <b>12</b>\"\n", "var/lib/dpkg/status": status} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	w.Close()
	dir := t.TempDir()
	tree, err := os.Create(filepath.Join(dir, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	out, err := squashfs.NewWriter(tree, squashfs.WriterOptions{Digest: func(b []byte) [squashfs.DigestSize]byte { return sha256.Sum256(b) }})
	if err == nil {
		err = out.AddTar(&archive, squashfs.TarOptions{})
	}
	if err == nil {
		_, err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := tree.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: tree}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func (r *running) pushFile(t *testing.T, token, name, file string) {
	t.Helper()
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := library.New(r.config.URL, token, r.client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Push(t.Context(), bytes.NewReader(image), &library.Push{Name: name, Tags: []string{"latest"}, Arch: "amd64", Size: int64(len(image))}); err != nil {
		t.Fatal(err)
	}
}

// TestWatchPages: after a push the pages say what is wrong with the image, and names that
// somebody has put into it are text (SC-149).
func TestWatchPages(t *testing.T) {
	const evil = `<img/src=x/onerror=alert(1)>`
	dir := t.TempDir()
	record := `{"id":%q,"modified":"2026-01-02T03:04:05Z","summary":%q,"aliases":[%q],"affected":[{"package":{"ecosystem":"Debian:12","name":%q},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2"}]}],"database_specific":{"severity":"high"}}]}`
	for name, pkg := range map[string]string{"A-1": "zlib1g", "A-2" + evil: evil} {
		if err := os.WriteFile(filepath.Join(dir, name[:3]+".json"), fmt.Appendf(nil, record, name, "a fault of "+evil, "CVE-2026-"+name[2:], pkg), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := start(t, func(c *Config) { c.WatchAdvisories = dir })
	token := r.user(t, "alice", false)
	r.pushFile(t, token, "alice/c/k", debianImage(t, "Package: zlib1g\nStatus: install ok installed\nVersion: 1\n\nPackage: "+evil+"\nStatus: install ok installed\nVersion: 1\n\n"))
	text := ""
	for end := time.Now().Add(time.Minute); !strings.Contains(text, `"state":"done"`) || !strings.Contains(text, `"loaded":true`); time.Sleep(20 * time.Millisecond) {
		if _, text = r.get(t, "/v1/findings/images/alice/c/k:latest"); time.Now().After(end) {
			t.Fatalf("the image is not read: %s", text)
		}
	}
	id := "CVE-2026-1"
	for path, target := range map[string]string{"/v1/findings/images/{ref}": "/v1/findings/images/alice/c/k:latest", "/v1/findings": "/v1/findings", "/v1/findings/search": "/v1/findings/search?q=zlib", "/v1/findings/images": "/v1/findings/images?id=" + id} {
		o, err := openapi.Find("GET", path)
		if err == nil {
			_, text := r.get(t, target)
			err = o.Check([]byte(text), true)
		}
		if err != nil {
			t.Errorf("%s is not as described: %v", target, err)
		}
	}
	for path, words := range map[string][]string{
		"/library/alice/c/k:latest":            {"Signed by nobody", "2 high advisories", "as of 2026-01-02<strong>, which is too long ago", `href="/security/images/alice/c/k:latest?arch=amd64"`},
		"/security/images/alice/c/k:latest":    {id, "zlib1g", evil, "The advisories are old", "Debian <b>12</b>", "a fault of " + evil},
		"/security":                            {"alice/c/k:latest", id, "2 high", "a fault of " + evil},
		"/security?q=zlib":                     {id, "zlib1g"},
		"/security?q=" + url.QueryEscape(evil): {evil},
		"/security?q=x":                        {"at least", "from 3"},
		"/security/fault?id=" + id:             {"alice/c/k:latest", "zlib1g", "Corrected in"},
		"/security/fault?id=" + url.QueryEscape("CVE-2026-2"+evil): {evil, "alice/c/k:latest"},
	} {
		res, text := r.get(t, path)
		if res.StatusCode != 200 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		plain := html.UnescapeString(text)
		found := 0
		for _, w := range words {
			if strings.Contains(plain, w) {
				found++
			}
		}
		if found != len(words) && !(path == "/security?q=x" && found > 0) {
			t.Errorf("%s says %d of %q", path, found, words)
		}
		if strings.Contains(text, "<img") || strings.Contains(text, "<b>12") || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: a name is markup", path)
		}
	}
	// The caller sees jobs, too; strangers do not.
	if status, text := r.do(t, token, "POST", "/v1/runs", `{"records":[{"id":"1","start":"`+time.Now().UTC().Format(time.RFC3339)+`","host":"h","user":"alice","verb":"exec","image":"/x/<b>.sif","digest":"sha256:`+r.digestOf(t)+`"}]}`); status != 200 || !strings.Contains(text, `"done":1`) || strings.Contains(text, "refused") {
		t.Fatal(status, text)
	}
	r.logIn(t, "alice")
	_, text = r.get(t, "/security/images/alice/c/k:latest")
	if !strings.Contains(text, "alice, of themselves") || !strings.Contains(text, "/x/&lt;b&gt;.sif") {
		t.Error("no run on the page of its image")
	}
	if _, text := r.get(t, "/security/fault?id="+id); !strings.Contains(text, "by their own word") {
		t.Error("no run on the page of its fault")
	}
	if _, text := r.get(t, "/security/running"); !strings.Contains(text, "alice, of themselves") || !strings.Contains(text, "2 high") {
		t.Error("no run on the page of runs")
	}
	// An owner lets a fault not count, and count again.
	form := func(values ...string) string {
		t.Helper()
		_, out := r.submit(t, "/security/images/alice/c/k:latest", values...)
		return out
	}
	if out := form("id", id); !strings.Contains(out, "say why") {
		t.Error("a reason is not asked for")
	}
	if out := form("id", id, "reason", "never <i>called</i>"); !strings.Contains(out, "Faults that do not count here") || !strings.Contains(out, "never <i>called</i>") {
		t.Error("the fault counts")
	}
	if out := form("id", id, "again", "yes"); strings.Contains(out, "Faults that do not count here") {
		t.Error("the fault does not count again")
	}
	r.client.Jar = nil
	if _, text = r.get(t, "/security/images/alice/c/k:latest"); strings.Contains(text, "of themselves") {
		t.Error("a run on a page for everybody")
	}
	if res, _ := r.get(t, "/security/images/alice/c/none:latest"); res.StatusCode != 404 {
		t.Error(res.Status)
	}
	// A rule of the site holds on every way to the bytes.
	boss := r.user(t, "boss", true)
	if status, text := r.do(t, boss, "PUT", "/v1/watch/rules", `{"block":"high"}`); status != 200 {
		t.Fatal(status, text)
	}
	for _, way := range []string{"/v1/imagefile/alice/c/k:latest?arch=amd64", "/v2/alice/c/k/blobs/sha256:" + r.digestOf(t)} {
		if res, text := r.get(t, way); res.StatusCode != 403 || !strings.Contains(text, "the image is not served") || !strings.Contains(text, "corrected in 2") {
			t.Errorf("%s: %s %.300q", way, res.Status, text)
		}
		if res, _ := r.get(t, way, "Authorization", "Bearer "+token); res.StatusCode != 200 {
			t.Errorf("%s, for its owner: %s", way, res.Status)
		}
	}
	// Metrics say how old the data is.
	if text := r.metricsText(t); !strings.Contains(text, "singularity_watch_advisories_age_seconds") || !strings.Contains(text, `singularity_watch_images{state="done"} 1`) {
		t.Error("no metrics of the watch")
	}
}

// submit gets a page and sends its form with other values; it follows where that leads.
func (r *running) submit(t *testing.T, at string, values ...string) (*http.Response, string) {
	t.Helper()
	_, text := r.get(t, at)
	_, csrf, _ := strings.Cut(text, `name="csrf" value="`)
	csrf, _, _ = strings.Cut(csrf, `"`)
	v := url.Values{"csrf": {csrf}}
	for i := 0; i < len(values); i += 2 {
		v.Set(values[i], values[i+1])
	}
	req, err := http.NewRequest("POST", r.config.URL+at, strings.NewReader(v.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", r.config.URL)
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, html.UnescapeString(string(out))
}

// TestRulesPages: administrators see and change what the site does not serve, owners what
// holds for their collection, and nobody else either of them; a form of another site
// changes nothing (SC-148).
func TestRulesPages(t *testing.T) {
	r := start(t, func(c *Config) { c.WatchAdvisories = t.TempDir() })
	alice, boss := r.user(t, "alice", false), r.user(t, "boss", true)
	r.user(t, "bob", false)
	r.pushFile(t, alice, "alice/c/k", debianImage(t, "Package: zlib1g\nStatus: install ok installed\nVersion: 1\n\n"))
	const of = "/security/rules/alice/c"
	status := func(at string, want int) string {
		t.Helper()
		res, text := r.get(t, at)
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", at, res.StatusCode, want)
		}
		return html.UnescapeString(text)
	}
	rules := func(token, at string) (v api.WatchRules) {
		t.Helper()
		code, text := r.do(t, token, "GET", at, "")
		if err := json.Unmarshal([]byte(text), &struct{ Data *api.WatchRules }{&v}); code != 200 || err != nil {
			t.Fatal(code, text)
		}
		return v
	}
	for _, at := range []string{"/security/rules", of} {
		if text := status(at, 200); !strings.Contains(text, `name="password"`) || strings.Contains(text, "Do not serve") {
			t.Errorf("%s without a log-in: %.200q", at, text)
		}
	}
	r.logIn(t, "bob")
	status("/security/rules", 403)
	status(of, 403)
	if res, _ := r.submit(t, of, "block", "low"); res.StatusCode != 403 {
		t.Errorf("another's rules are changed: %s", res.Status)
	}
	r.logIn(t, "alice")
	status("/security/rules", 403)
	if text := status("/library/alice/c", 200); !strings.Contains(text, `href="`+of+`"`) {
		t.Error("no way from the collection to its rules")
	}
	if res, _ := r.submit(t, of, "block", "low", "csrf", "wrong"); res.StatusCode != 403 {
		t.Errorf("a form without its secret: %s", res.Status)
	}
	for _, bad := range [][]string{{"grace", "two <i>weeks</i>"}, {"block", "worst"}, {"webhook", `http://a"><b>`}, {"notify", "high"}} {
		res, text := r.submit(t, of, bad...)
		if res.StatusCode != 400 || !strings.Contains(text, `role="alert"`) || bad[0] != "block" && bad[0] != "notify" && !strings.Contains(text, bad[1]) {
			t.Errorf("%q: %s", bad, res.Status)
		}
	}
	if v := rules(alice, "/v1/watch/rules/alice/c"); v != (api.WatchRules{}) {
		t.Errorf("a refused form has changed %+v", v)
	}
	res, text := r.submit(t, of, "block", "high", "grace", "336h", "unknown", "yes", "notify", "medium", "webhook", "https://chat.example.org/hook?a=1&b=2")
	_, secret, _ := strings.Cut(text, `aria-label="Secret of the webhook">`)
	secret, _, _ = strings.Cut(secret, "<")
	if res.StatusCode != 200 || len(secret) != 64 {
		t.Errorf("the secret of the webhook: %s %q", res.Status, secret)
	}
	if text := status(of, 200); strings.Contains(text, secret) || !strings.Contains(text, "No notice was sent yet") || !strings.Contains(text, `value="https://chat.example.org/hook?a=1&b=2"`) {
		t.Error("the page does not say what holds, or the secret once more")
	}
	want := api.WatchRules{Block: "high", Grace: "336h", BlockUnknown: true, Notify: "medium", Webhook: "https://chat.example.org/hook?a=1&b=2"}
	if v := rules(alice, "/v1/watch/rules/alice/c"); v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
	r.logIn(t, "boss")
	if text := status("/security", 200); !strings.Contains(text, `href="/security/rules"`) {
		t.Error("no way from the dashboard to the rules")
	}
	res, text = r.submit(t, "/security/rules", "block", "critical", "grace", "24h", "notify", "high", "mail", "yes")
	if res.StatusCode != 200 || res.Request.URL.Path != "/security/rules" || !strings.Contains(text, "The rules are saved") || !strings.Contains(text, "<option selected>critical") {
		t.Errorf("the rules of the site: %s %s", res.Status, res.Request.URL)
	}
	if v := rules(boss, "/v1/watch/rules"); v.Block != "critical" || v.Grace != "24h" || !v.Mail || v.Notify != "high" {
		t.Errorf("%+v", v)
	}
	if v := rules(alice, "/v1/watch/rules/alice/c"); v != want {
		t.Errorf("the rules of the collection have become %+v", v)
	}
}

// logIn gives an account a password and the client its session.
func (r *running) logIn(t *testing.T, name string) {
	t.Helper()
	a, err := r.auth.Account(t.Context(), name)
	if err == nil {
		err = r.auth.SetPassword(t.Context(), a.ID, "correct horse battery")
	}
	if err != nil {
		t.Fatal(err)
	}
	r.client.Jar, _ = cookiejar.New(nil)
	req, err := http.NewRequest("POST", r.config.URL+"/auth/login", strings.NewReader(url.Values{"name": {name}, "password": {"correct horse battery"}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", r.config.URL)
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
}

func (r *running) digestOf(t *testing.T) string {
	_, text := r.get(t, "/v1/images/alice/c/k:latest?arch=amd64")
	_, rest, _ := strings.Cut(text, `"hash":"sha256.`)
	return rest[:64]
}

func (r *running) metricsText(t *testing.T) string {
	t.Helper()
	res, err := r.client.Get("https://" + r.Server.internal.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

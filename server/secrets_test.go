package server

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"singularity/client/library"
	"singularity/pgp"
)

// TestSC152Comparisons: no secret is compared by an operator or a function that
// ends at the first difference. Secrets are looked up by their hash, or compared in
// constant time.
func TestSC152Comparisons(t *testing.T) {
	secret := regexp.MustCompile(`(?i)(secret|password|csrf|nonce|verifier|cookie|mac\b|\bsig\b|\bsum\b|challenge)`)
	quick := regexp.MustCompile(`^(bytes\.(Equal|Compare|HasPrefix|Contains)|strings\.(EqualFold|Compare|HasPrefix|Contains)|slices\.(Equal|Contains|Index)|reflect\.DeepEqual)$`)
	// What looks like a secret and is none.
	public := map[string]string{
		"hex.EncodeToString(sum[:]) != want.hash": "the hash of an image, in the program that checks servers",
		"sum != put.SHA256":                       "the hash of a blob that is moved",
		"sum != want.SHA256":                      "the hash of a part, which the client told",
		"strings.Contains(strings.ToLower(password), strings.ToLower(name))": "a password that somebody chooses, and their own name",
		"checksum(body) != sum":                      "what shows a typing error in a token: anybody can compute it",
		"hex.EncodeToString(sum.Sum(nil)) == digest": "the hash of a file of advisories",
		"sig.Entity != [20]byte{}":                   "who signed an image, as the image says",
	}
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "store/") {
			return err
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		source := func(n ast.Node) string {
			return string(text[files.Position(n.Pos()).Offset:files.Position(n.End()).Offset])
		}
		constant := func(n ast.Expr) bool {
			if _, ok := n.(*ast.BasicLit); ok {
				return true
			}
			s := source(n)
			return s == "nil" || strings.HasPrefix(s, "len(") || s == "true" || s == "false"
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && !constant(n.X) && !constant(n.Y) && (secret.MatchString(source(n.X)) || secret.MatchString(source(n.Y))) &&
					!strings.Contains(source(n), "ConstantTimeCompare") && public[source(n)] == "" {
					t.Errorf("%s: %s", files.Position(n.Pos()), source(n))
				}
			case *ast.CallExpr:
				name := source(n.Fun)
				if name == "subtle.ConstantTimeCompare" || name == "hmac.Equal" {
					found++
				}
				if quick.MatchString(name) {
					for _, a := range n.Args {
						if public[source(n)] == "" && secret.MatchString(source(a)) && !constant(n.Args[len(n.Args)-1]) {
							t.Errorf("%s: %s", files.Position(n.Pos()), source(n))
						}
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 6 {
		t.Errorf("only %d comparisons in constant time: is this the place?", found)
	}
}

// TestSC154Canaries: no secret that goes through the server is in its logs, its
// audit record, its metrics or its answers to others.
func TestSC154Canaries(t *testing.T) {
	secrets := map[string]string{"password": "canary-password-7391", "wrong password": "canary-wrong-password-4823", "client secret": "canary-client-secret-1157"}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secrets["client secret"]), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) {
		c.Providers = []ProviderConfig{{Name: "idp", Issuer: "https://127.0.0.1:1", ClientID: "us", ClientSecretFile: file}}
		c.DialNetworks = []string{"127.0.0.0/8"}
	})
	before := slog.Default()
	slog.SetDefault(r.Server.log)
	t.Cleanup(func() { slog.SetDefault(before) })
	alice, admin := r.user(t, "alice", false), r.user(t, "root2", true)
	secrets["token"], secrets["administrator's token"] = alice, admin
	var refusals bytes.Buffer
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: r.client.Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	send := func(method, path string, form url.Values) (int, string) {
		t.Helper()
		if strings.HasPrefix(path, "/") {
			path = r.config.URL + path
		}
		req, err := http.NewRequest(method, path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", r.config.URL)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode >= 400 {
			refusals.Write(text)
		}
		return res.StatusCode, string(text)
	}
	// A one-time link, a password, log-ins, a session, a device.
	a, err := r.auth.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	link, err := r.auth.AddLink(t.Context(), a.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	secrets["code of the link"] = u.Query().Get("code")
	if len(secrets["code of the link"]) < 20 {
		t.Fatal(link)
	}
	send("GET", u.RequestURI(), nil)
	send("POST", "/auth/setup", url.Values{"code": {u.Query().Get("code")}, "password": {secrets["password"]}})
	send("POST", "/auth/setup", url.Values{"code": {u.Query().Get("code")}, "password": {secrets["password"]}}) // again
	for _, p := range []string{"wrong password", "password"} {
		send("POST", "/auth/login", url.Values{"name": {"alice"}, "password": {secrets[p]}})
	}
	if status, text := send("GET", "/auth/tokens", nil); status != 200 || !strings.Contains(text, "csrf") {
		t.Fatalf("not logged in: %d", status)
	}
	for _, c := range jar.Cookies(must(url.Parse(r.config.URL))) {
		secrets["cookie "+c.Name] = c.Value
	}
	send("POST", "/auth/password", url.Values{"old": {secrets["wrong password"]}, "password": {secrets["password"]}})
	send("GET", "/auth/oidc/idp/start", nil)
	send("GET", "/auth/oidc/idp/callback?code=canary-oidc-code-2231&state=canary-state-9910", nil)
	secrets["code of a provider"], secrets["state"] = "canary-oidc-code-2231", "canary-state-9910"
	// Tokens in headers and, by mistake, in a query; presigned addresses.
	r.do(t, alice, "GET", "/v1/rbac/users/current", "")
	r.do(t, alice+"x", "GET", "/v1/rbac/users/current", "")
	r.do(t, admin, "GET", "/v1/search?value=abc&token="+alice, "")
	c, err := library.New(r.config.URL, alice, r.client)
	if err != nil {
		t.Fatal(err)
	}
	k, err := pgp.Generate(pgp.Options{Name: "Alice", Bits: 2048, Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	image := signedImage(t, k)
	if _, err := c.Push(t.Context(), bytes.NewReader(image), &library.Push{Name: "alice/tools/tool", Tags: []string{"latest"}, Arch: "amd64", Size: int64(len(image))}); err != nil {
		t.Fatal(err)
	}
	_, text := r.do(t, alice, "POST", "/v1/images", `{"hash":"sha256.`+strings.Repeat("0", 64)+`","container":"`+must(c.Find(t.Context(), "alice/tools/tool", "latest", "amd64")).Container+`"}`)
	id := regexp.MustCompile(`"id":"([0-9a-f]{24})"`).FindStringSubmatch(text)
	if id == nil {
		t.Fatal(text)
	}
	_, text = r.do(t, alice, "POST", "/v2/imagefile/"+id[1], `{"filesize":5}`)
	presigned := regexp.MustCompile(`"uploadURL":"([^"]*)"`).FindStringSubmatch(text)
	if presigned == nil {
		t.Fatal(text)
	}
	at := strings.ReplaceAll(presigned[1], `\u0026`, "&")
	secrets["signature of an address"] = must(url.Parse(at)).Query().Get("sig")
	send("PUT", at, url.Values{"x": {"y"}}) // not what was announced
	// Everything that the server wrote or tells of it.
	record, err := os.ReadFile(filepath.Join(r.config.Data, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	_, audit := r.do(t, admin, "GET", "/v1/admin/audit?limit=1000", "")
	res, err := r.client.Get("https://" + r.internal.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	metrics, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range map[string]string{"log": r.log.String(), "audit.log": string(record), "audit": audit, "metrics": string(metrics), "refusals": refusals.String()} {
		if len(text) < 100 {
			t.Errorf("nothing in the %s: %q", place, text)
		}
		for name, s := range secrets {
			// Of a token its id may be told.
			if strings.Contains(name, "token") {
				s = s[strings.LastIndexByte(s, '_')+1:]
			}
			if s == "" || strings.Contains(text, s) || strings.Contains(text, url.QueryEscape(s)) {
				t.Errorf("the %s is in the %s", name, place)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

package oracle

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store/embedded"
)

// TestProvider logs in by a certified provider of OpenID Connect, with PKCE and
// a client secret: an account appears, is the same the next time, and neither a
// wrong password there nor a used or foreign answer logs anybody in.
func TestProvider(t *testing.T) {
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS()
	defer site.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	issuer := "http://localhost:" + listener.Addr().String()[strings.LastIndexByte(listener.Addr().String(), ':')+1:]
	storage.RegisterClients(storage.WebClient("singularity", "a secret", site.URL+"/auth/oidc/site/callback"))
	provider := &http.Server{Handler: exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), slog.New(slog.DiscardHandler), false, op.WithAllowInsecure())}
	go provider.Serve(listener)
	defer provider.Close()

	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	accounts, err := auth.Open(t.Context(), st.Records, auth.Options{URL: site.URL, Secure: true, GuessesPerMin: 100,
		Networks:  []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		Providers: []auth.Provider{{Name: "site", Title: "The Site", Issuer: issuer, ClientID: "singularity", ClientSecret: "a secret", Insecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, r := range accounts.Routes() {
		mux.HandleFunc(r.Pattern, r.Handler)
	}
	site.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(route.WithRequest(r.Context(), route.Request{Addr: netip.MustParseAddr("127.0.0.1")}))
		accounts.Identified(mux).ServeHTTP(w, r)
	})

	browser := func() *http.Client {
		jar, _ := cookiejar.New(nil)
		return &http.Client{Transport: site.Client().Transport, Jar: jar}
	}
	get := func(c *http.Client, address string) (*http.Response, string) {
		t.Helper()
		req, _ := http.NewRequest("GET", address, nil)
		req.Header.Set("Accept", "text/html")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res, string(text)
	}
	field := regexp.MustCompile(`name="id" value="([^"]+)"`)
	// login goes the whole way in a browser, and returns where it ended and the
	// address of our callback.
	login := func(c *http.Client, name, password string) (final *http.Response, page, callback string) {
		t.Helper()
		c.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			if strings.HasPrefix(r.URL.String(), site.URL+"/auth/oidc/site/callback") {
				callback = r.URL.String()
			}
			return nil
		}
		_, form := get(c, site.URL+"/auth/oidc/site/start?next=/auth/tokens")
		m := field.FindStringSubmatch(form)
		if m == nil {
			t.Fatalf("the provider shows no form: %s", form)
		}
		req, _ := http.NewRequest("POST", issuer+"/login/username", strings.NewReader(url.Values{"id": {m[1]}, "username": {name}, "password": {password}}.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", "text/html")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res, string(text), callback
	}

	c := browser()
	res, page, callback := login(c, "test-user2", "verysecure")
	if res.StatusCode != 200 || res.Request.URL.Path != "/auth/tokens" || !strings.Contains(page, "test-user2") {
		t.Fatalf("%d at %s: %s", res.StatusCode, res.Request.URL, page)
	}
	a, err := accounts.Account(t.Context(), "test-user2")
	if err != nil || a.Admin || a.Email != "test-user2@zitadel.ch" || len(a.Identities) != 1 || !strings.HasPrefix(a.Identities[0], issuer+" ") {
		t.Fatalf("%+v %v", a, err)
	}
	if res, _ := get(c, callback); res.StatusCode != http.StatusBadRequest {
		t.Errorf("an answer is taken twice: %d", res.StatusCode)
	}
	login(browser(), "test-user2", "verysecure")
	if list, _, err := accounts.Accounts(t.Context(), "", "", 100); err != nil || len(list) != 1 {
		t.Errorf("%d accounts after a second log-in: %v", len(list), err)
	}
	if _, page, callback := login(browser(), "test-user2", "wrong"); callback != "" || !strings.Contains(page, "Password") {
		t.Errorf("a wrong password leads to %q", callback)
	}
	// A name of ours that a provider claims stays ours.
	if _, err := accounts.AddAccount(t.Context(), auth.Account{Kind: auth.User, Name: "test-user", Admin: true}); err != nil {
		t.Fatal(err)
	}
	login(browser(), "test-user@localhost", "verysecure")
	if a, err := accounts.Account(t.Context(), "test-user-2"); err != nil || a.Admin {
		t.Errorf("%+v %v", a, err)
	}
	// The answer for one browser is none for another.
	victim, attacker := browser(), browser()
	attacker.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), site.URL+"/auth/oidc") {
			callback = r.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	_, form := get(attacker, site.URL+"/auth/oidc/site/start")
	form = field.FindStringSubmatch(form)[1]
	callback = ""
	res, err = attacker.PostForm(issuer+"/login/username", url.Values{"id": {form}, "username": {"test-user2"}, "password": {"verysecure"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if callback == "" {
		t.Fatal("the attacker did not get an answer")
	}
	if res, _ := get(victim, callback); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a browser is logged in by the answer for another: %d", res.StatusCode)
	}
}

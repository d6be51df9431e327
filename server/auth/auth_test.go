package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"singularity/api"
	"singularity/server/route"
	"singularity/server/store/embedded"
)

const base = "https://scs.example"

// site is the service behind a mux, as package server puts it.
type site struct {
	*Service
	t    *testing.T
	mux  *http.ServeMux
	log  *strings.Builder
	skew time.Duration // how far the clock is ahead
	addr string
}

func newSite(t *testing.T, o Options) *site {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	v := &site{t: t, mux: http.NewServeMux(), log: &strings.Builder{}, addr: "192.0.2.1"}
	o.URL, o.Secure, o.AuditLog = base, true, slog.New(slog.NewTextHandler(v.log, nil))
	if v.Service, err = Open(t.Context(), st.Records, o); err != nil {
		t.Fatal(err)
	}
	v.now = func() time.Time { return time.Now().Add(v.skew) }
	for _, r := range append(v.Routes(), v.Internal()...) {
		v.mux.HandleFunc(r.Pattern, r.Handler)
	}
	v.mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		c := From(r.Context())
		fmt.Fprintf(w, "%s token=%v invalid=%v", c.Name, c.TokenID != "", c.Invalid)
	})
	return v
}

type change func(*http.Request)

func header(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

func bearer(text string) change { return header("Authorization", "Bearer "+text) }

func (v *site) do(method, path, body string, changes ...change) *httptest.ResponseRecorder {
	v.t.Helper()
	r := httptest.NewRequest(method, base+path, strings.NewReader(body))
	r.RequestURI = path
	for _, c := range changes {
		c(r)
	}
	r = r.WithContext(route.WithRequest(r.Context(), route.Request{ID: "r1", Addr: netip.MustParseAddr(v.addr)}))
	w := httptest.NewRecorder()
	v.Identified(v.mux).ServeHTTP(w, r)
	return w
}

// browser keeps cookies and fills in forms.
type browser struct {
	*site
	cookies map[string]string
}

func (v *site) browser() *browser { return &browser{v, map[string]string{}} }

func (b *browser) do(method, path, body string, changes ...change) *httptest.ResponseRecorder {
	b.t.Helper()
	w := b.site.do(method, path, body, append([]change{func(r *http.Request) {
		for name, value := range b.cookies {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		r.Header.Set("Accept", "text/html")
		if method == "POST" {
			r.Header.Set("Origin", base)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}}, changes...)...)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w
}

func form(pairs ...string) string {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f.Encode()
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

func (b *browser) csrf() string {
	b.t.Helper()
	m := csrfField.FindStringSubmatch(b.do("GET", "/auth/tokens", "").Body.String())
	if m == nil {
		b.t.Fatal("no form on the page of tokens")
	}
	return m[1]
}

const password = "correct horse battery"

// person makes a user with that password, once for all tests of a site.
func (v *site) person(name string, admin bool) Account {
	v.t.Helper()
	a, err := v.AddAccount(v.t.Context(), Account{Kind: User, Name: name, Admin: admin, Email: name + "@example.org"})
	if err != nil {
		v.t.Fatal(err)
	}
	return a
}

func (v *site) token(a Account, scopes ...Scope) string {
	v.t.Helper()
	text, _, err := v.AddToken(v.t.Context(), Caller{ID: a.ID, Scopes: Scopes}, a.ID, NewToken{Name: "test", Scopes: scopes})
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

func (v *site) as(a Account, scopes ...Scope) Caller {
	v.t.Helper()
	c, err := v.Check(v.t.Context(), v.token(a, scopes...))
	if err != nil {
		v.t.Fatal(err)
	}
	return c
}

func status(err error) int {
	var e *route.Error
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &e):
		return e.Status
	}
	return -1
}

func (v *site) want(w *httptest.ResponseRecorder, status int) *httptest.ResponseRecorder {
	v.t.Helper()
	if w.Code != status {
		v.t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	return w
}

func TestToken(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.person("alice", false)
	text := v.token(alice, LibraryRead)
	if len(text) < 200 || len(text) > 512 || strings.ContainsAny(text, "\n \t") {
		t.Fatalf("a token of %d characters", len(text))
	}
	for i := range text {
		bad := []byte(text)
		bad[i] ^= 1
		if w := v.do("GET", "/whoami", "", bearer(string(bad)), func(*http.Request) { v.addr = fmt.Sprintf("198.51.100.%d", i%250) }); !strings.Contains(w.Body.String(), "invalid=true") {
			t.Fatalf("a token with another character %d works: %s", i, w.Body)
		}
	}
	v.addr = "192.0.2.1"
	for header, want := range map[string]string{
		"Bearer " + text: "alice token=true invalid=false", "bearer  " + text: "alice token=true invalid=false", "BEARER " + text: "alice token=true invalid=false",
		"Bearer": " token=false invalid=false", "Bearer ": " token=false invalid=false", "": " token=false invalid=false",
		"Bearer " + text + "x": " token=false invalid=true", "Negotiate xyz": " token=false invalid=true", "Bearer " + strings.Repeat(".", 5000): " token=false invalid=true",
	} {
		w := v.do("GET", "/whoami", "", func(r *http.Request) {
			if header != "" {
				r.Header.Set("Authorization", header)
			}
		})
		if w.Body.String() != want || (w.Header().Get("X-Token-Status") == "invalid") != strings.Contains(want, "invalid=true") {
			t.Errorf("%.20q: %s, want %s", header, w.Body, want)
		}
	}
	basic := func(name, pass string) change { return func(r *http.Request) { r.SetBasicAuth(name, pass) } }
	if w := v.do("GET", "/whoami", "", basic("alice", text)); w.Body.String() != "alice token=true invalid=false" {
		t.Error(w.Body)
	}
	if w := v.do("GET", "/whoami", "", basic("bob", text)); w.Body.String() != " token=false invalid=true" {
		t.Error(w.Body)
	}
	v.want(v.do("GET", "/whoami", "", func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + text, "Bearer x"} }), 400)
	// The text is not in the store.
	i, err := v.tokens.Get(t.Context(), strings.Split(text, "_")[1])
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := json.Marshal(i.Value)
	if strings.Contains(string(kept), strings.Split(text, "_")[2][:20]) {
		t.Error("the store has the secret")
	}
	v.skew = 31 * 24 * time.Hour
	if w := v.do("GET", "/whoami", "", bearer(text)); !strings.Contains(w.Body.String(), "invalid=true") {
		t.Error("an expired token works")
	}
}

func TestTokenStatus(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.person("alice", false)
	text := v.token(alice, AccountRead, LibraryRead)
	var got api.Envelope[api.TokenStatus]
	json.Unmarshal(v.want(v.do("GET", "/token/v1/token-status", "", bearer(text)), 200).Body.Bytes(), &got)
	if got.Data.Username != "alice" || got.Data.TokenName != "test" || !slices.Equal(got.Data.Scopes, []string{"account:read", "library:read"}) {
		t.Errorf("%+v", got)
	}
	// The clients show 404 as wrong credentials.
	for _, bad := range []string{"", "x", text[:len(text)-1]} {
		v.want(v.do("GET", "/token/v1/token-status", "", bearer(bad)), 404)
	}
	v.want(v.do("GET", "/token/v1/token-status", ""), 404)
	// Revoked is revoked at the next request (SC-143 for tokens).
	if err := v.RevokeToken(t.Context(), alice.ID, strings.Split(text, "_")[1]); err != nil {
		t.Fatal(err)
	}
	v.want(v.do("GET", "/token/v1/token-status", "", bearer(text)), 404)
	bob := v.person("bob", false)
	text = v.token(alice, LibraryRead)
	if err := v.RevokeToken(t.Context(), bob.ID, strings.Split(text, "_")[1]); !isNotFound(err) {
		t.Errorf("bob revokes a token of alice: %v", err)
	}
}

// TestCurrentUser: the password for the registry has no more rights than the
// token that asked, and ends with it.
func TestCurrentUser(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.person("alice", false)
	v.want(v.do("GET", "/v1/rbac/users/current", ""), 401)
	v.want(v.do("GET", "/v1/rbac/users/current", "", header("Authorization", "Bearer")), 401)
	text := v.token(alice, LibraryRead, AccountWrite, KeysWrite)
	var u api.CurrentUser
	json.Unmarshal(v.want(v.do("GET", "/v1/rbac/users/current", "", bearer(text)), 200).Body.Bytes(), &u)
	if u.Username != "alice" || u.Email != "alice@example.org" || u.Meta.Secret == "" || u.Meta.Secret == text {
		t.Fatalf("%+v", u)
	}
	c, err := v.Check(t.Context(), u.Meta.Secret)
	if err != nil || !slices.Equal(c.Scopes, []Scope{LibraryRead, Registry}) {
		t.Fatalf("%v %v", c.Scopes, err)
	}
	if list, _ := v.Tokens(t.Context(), alice.ID); len(list) != 1 {
		t.Errorf("%d tokens are shown", len(list))
	}
	v.want(v.do("GET", "/v1/rbac/users/current", "", bearer(u.Meta.Secret)), 200)
	if err := v.RevokeToken(t.Context(), alice.ID, strings.Split(text, "_")[1]); err != nil {
		t.Fatal(err)
	}
	v.want(v.do("GET", "/v1/rbac/users/current", "", bearer(u.Meta.Secret)), 401)
}

func TestAllow(t *testing.T) {
	v := newSite(t, Options{})
	ctx := t.Context()
	alice, bob, carol, root := v.person("alice", false), v.person("bob", false), v.person("carol", false), v.person("boss", true)
	lab, err := v.AddAccount(ctx, Account{Kind: Group, Name: "lab", Members: map[string]Role{carol.ID: Writer}})
	if err != nil {
		t.Fatal(err)
	}
	robot, err := v.AddAccount(ctx, Account{Kind: Robot, Name: "ci", BelongsTo: alice.ID})
	if err != nil {
		t.Fatal(err)
	}
	private := Object{Entity: "alice", Within: []string{"c1", "k1"}}
	public := Object{Entity: "alice", Within: []string{"c2"}, Public: true}
	of := func(entity string) Object { return Object{Entity: entity} }
	for _, g := range []Grant{{Object: "c1", Subject: bob.ID, Role: Reader}, {Object: "c1", Subject: robot.ID, Role: Writer}, {Object: EntityObject("alice"), Subject: lab.ID, Role: Maintainer}} {
		if err := v.SetGrant(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	all := Scopes
	for _, row := range []struct {
		name   string
		caller Caller
		action Action
		object Object
		want   int
	}{
		{"anonymous, public", Caller{}, Read, public, 200}, {"anonymous, private", Caller{}, Read, private, 404},
		{"anonymous writes public", Caller{}, Write, public, 401}, {"anonymous writes private", Caller{}, Write, private, 404},
		{"bad token, public", Caller{Invalid: true}, Read, public, 200}, {"bad token, private", Caller{Invalid: true}, Read, private, 401},
		{"bad token writes", Caller{Invalid: true}, Write, public, 401},
		{"owner", v.as(alice, all...), Own, private, 200},
		{"owner without the scope", v.as(alice, LibraryRead), Write, private, 403},
		{"owner who may only create", v.as(alice, LibraryCreate), Create, private, 200},
		{"owner who may only create moves a tag", v.as(alice, LibraryCreate), Write, private, 403},
		{"a token for keys reads private", v.as(alice, KeysWrite), Read, private, 404},
		{"a token for keys reads public", v.as(alice, KeysWrite), Read, public, 200},
		{"reader", v.as(bob, all...), Read, private, 200}, {"reader writes", v.as(bob, all...), Write, private, 403},
		{"reader elsewhere", v.as(bob, all...), Read, Object{Entity: "alice", Within: []string{"c3"}}, 404},
		{"group", v.as(carol, all...), Delete, private, 200}, {"group owns not", v.as(carol, all...), Own, private, 403},
		{"group's entity", v.as(carol, all...), Write, of("lab"), 200}, {"not in the group", v.as(bob, all...), Read, of("lab"), 404},
		{"robot", v.as(robot, all...), Write, private, 200}, {"robot deletes", v.as(robot, all...), Delete, private, 403}, {"robot elsewhere", v.as(robot, all...), Read, of("alice"), 404},
		{"administrator", v.as(root, all...), Delete, private, 200}, {"administrator without the scope", v.as(root, LibraryRead), Delete, private, 403},
		{"no such action", v.as(root, all...), Action(99), private, 403},
	} {
		if got := status(v.Allow(ctx, row.caller, row.action, row.object)); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	// Hidden and missing look the same.
	hidden, missing := v.Allow(ctx, v.as(bob, all...), Read, of("lab")), v.as(bob, all...).NotFound()
	if hidden.Error() != missing.Error() {
		t.Errorf("%v, but %v", hidden, missing)
	}
	m, err := v.Readable(ctx, v.as(bob, all...))
	if err != nil || !m.May(private) || !m.May(public) || m.May(of("lab")) || m.May(Object{Entity: "alice", Within: []string{"c3"}}) {
		t.Errorf("%+v %v", m, err)
	}
	if m, _ := v.Readable(ctx, v.as(carol, all...)); !m.May(Object{Entity: "alice", Within: []string{"c9"}}) || !m.May(of("lab")) {
		t.Errorf("%+v", m)
	}
}

// TestMembership: what is taken away is gone at the next request (SC-143).
func TestMembership(t *testing.T) {
	v := newSite(t, Options{})
	ctx := t.Context()
	alice, bob := v.person("alice", false), v.person("bob", false)
	lab, _ := v.AddAccount(ctx, Account{Kind: Group, Name: "lab", Members: map[string]Role{alice.ID: Owner, bob.ID: Writer}})
	text := v.token(bob, LibraryRead, LibraryWrite)
	allow := func() int {
		c, err := v.Check(ctx, text)
		if err != nil {
			t.Fatal(err)
		}
		return status(v.Allow(ctx, c, Write, Object{Entity: "lab"}))
	}
	if got := allow(); got != 200 {
		t.Fatal(got)
	}
	if err := v.SetMember(ctx, lab.ID, bob.ID, NoRole); err != nil {
		t.Fatal(err)
	}
	if got := allow(); got != 404 {
		t.Errorf("removed from the group: %d", got)
	}
	if err := v.SetMember(ctx, lab.ID, bob.ID, Reader); err != nil {
		t.Fatal(err)
	}
	if got := allow(); got != 403 {
		t.Errorf("a reader: %d", got)
	}
	if _, err := v.UpdateAccount(ctx, lab.ID, func(a *Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if got := allow(); got != 404 {
		t.Errorf("the group is disabled: %d", got)
	}
	// A disabled account has no token left, and a deleted one's name stays taken.
	if _, err := v.UpdateAccount(ctx, bob.ID, func(a *Account) error { a.Deleted = true; return nil }); err != nil {
		t.Fatal(err)
	}
	v.want(v.do("GET", "/v1/rbac/users/current", "", bearer(text)), 401)
	if _, err := v.AddAccount(ctx, Account{Kind: User, Name: "bob"}); status(err) != 409 {
		t.Errorf("the name of a deleted account: %v", err)
	}
	if a, _ := v.Account(ctx, "bob"); a.Email != "" || !a.Deleted {
		t.Errorf("%+v", a)
	}
}

// TestGrantExpires: a grant with an end ends.
func TestGrantExpires(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.person("alice", false)
	if err := v.SetGrant(t.Context(), Grant{Object: "c1", Subject: alice.ID, Role: Reader, Expires: time.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	if got := status(v.Allow(t.Context(), v.as(alice, LibraryRead), Read, Object{Entity: "x", Within: []string{"c1"}})); got != 404 {
		t.Error(got)
	}
}

// TestFirstAdmin: there is no password until somebody used the link, which
// works once (SC-153).
func TestFirstAdmin(t *testing.T) {
	v := newSite(t, Options{})
	link, err := v.FirstAdmin(t.Context())
	if err != nil || !strings.HasPrefix(link, base+"/auth/setup?code=") {
		t.Fatal(link, err)
	}
	b := v.browser()
	for _, guess := range []string{"", "admin", "password", "changeme"} {
		b.want(b.do("POST", "/auth/login", form("name", "admin", "password", guess)), 401)
	}
	again, err := v.FirstAdmin(t.Context())
	if err != nil || again == link || again == "" {
		t.Fatalf("a second start: %q %v", again, err)
	}
	path := func(link string) string { return strings.TrimPrefix(link, base) }
	b.want(b.do("GET", path(link), ""), 404)
	w := b.want(b.do("GET", path(again), ""), 200)
	if !strings.Contains(w.Body.String(), `value="admin"`) || w.Header().Get("Content-Security-Policy") == "" {
		t.Error(w.Body)
	}
	_, code, _ := strings.Cut(again, "code=")
	b.want(b.do("POST", "/auth/setup", form("code", code, "password", "short")), 400)
	b.want(b.do("POST", "/auth/setup", form("code", code, "password", "aaaaaaaaaaaaaaaaa")), 400)
	// Two at once: one wins.
	var group sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for range 4 {
		group.Go(func() {
			w := v.browser().do("POST", "/auth/setup", form("code", code, "password", password))
			mu.Lock()
			defer mu.Unlock()
			codes[w.Code]++
		})
	}
	group.Wait()
	if !maps.Equal(codes, map[int]int{303: 1, 404: 3}) {
		t.Errorf("%v", codes)
	}
	v.addr = "192.0.2.77"
	b.want(b.do("POST", "/auth/login", form("name", "admin", "password", password)), 303)
	if link, err := v.FirstAdmin(t.Context()); link != "" || err != nil {
		t.Errorf("a link for a server that has an administrator: %q %v", link, err)
	}
}

func (v *site) loggedIn(name string) *browser {
	v.t.Helper()
	a, err := v.Account(v.t.Context(), name)
	if err != nil {
		v.t.Fatal(err)
	}
	if a.Password == "" {
		if err := v.SetPassword(v.t.Context(), a.ID, password); err != nil {
			v.t.Fatal(err)
		}
	}
	b := v.browser()
	b.want(b.do("POST", "/auth/login", form("name", name, "password", password)), 303)
	return b
}

func TestSession(t *testing.T) {
	v := newSite(t, Options{})
	v.person("alice", false)
	b := v.loggedIn("alice")
	if _, ok := b.cookies["__Host-session"]; !ok || len(b.cookies) != 1 {
		t.Fatalf("%v", b.cookies)
	}
	w := b.do("GET", "/auth/tokens", "")
	b.want(w, 200)
	csrf := b.csrf()
	w = b.want(b.do("POST", "/auth/tokens", form("csrf", csrf, "name", "laptop", "days", "30", "scope", "library:read", "scope", "keys:write")), 200)
	text := regexp.MustCompile(tokenPrefix + `_[0-9A-Za-z]{26}_[0-9A-Za-z]+`).FindString(w.Body.String())
	v.want(v.do("GET", "/token/v1/token-status", "", bearer(text)), 200)
	if strings.Contains(b.do("GET", "/auth/tokens", "").Body.String(), text) {
		t.Error("the token is shown twice")
	}
	id := strings.Split(text, "_")[1]
	b.want(b.do("POST", "/auth/tokens/revoke", form("csrf", csrf, "id", id)), 303)
	v.want(v.do("GET", "/token/v1/token-status", "", bearer(text)), 404)
	// Logged out is logged out, also for a copy of the cookie.
	copied := v.browser()
	maps.Copy(copied.cookies, b.cookies)
	b.want(b.do("POST", "/auth/logout", form("csrf", csrf)), 303)
	if w := copied.do("GET", "/auth/tokens", ""); w.Code != 303 || w.Header().Get("Location") != "/auth/login?next=%2Fauth%2Ftokens" {
		t.Errorf("%d %s", w.Code, w.Header().Get("Location"))
	}
	// Idle and old sessions end.
	b = v.loggedIn("alice")
	v.skew = 23 * time.Hour
	b.want(b.do("GET", "/auth/tokens", ""), 200)
	v.skew = 8 * 24 * time.Hour
	b.want(b.do("GET", "/auth/tokens", ""), 303)
}

// TestForeignForms: a form of another site, or one without our secret, changes
// nothing (SC-148).
func TestForeignForms(t *testing.T) {
	v := newSite(t, Options{})
	v.person("alice", false)
	b := v.loggedIn("alice")
	csrf := b.csrf()
	good := form("csrf", csrf, "name", "x", "days", "1", "scope", "library:read")
	drop := func(r *http.Request) { r.Header.Del("Origin") }
	for name, changes := range map[string][]change{
		"another site": {header("Origin", "https://evil.example")}, "null": {header("Origin", "null")}, "without TLS": {header("Origin", "http://scs.example")},
		"another port": {header("Origin", base+":8443")}, "cross-site": {header("Sec-Fetch-Site", "cross-site")}, "same-site": {header("Sec-Fetch-Site", "same-site")},
		"no origin": {drop}, "referer without TLS": {drop, header("Referer", "http://scs.example/auth/tokens")}, "referer that begins like us": {drop, header("Referer", base+".evil.example/")},
	} {
		if w := b.do("POST", "/auth/tokens", good, changes...); w.Code != 403 {
			t.Errorf("%s: %d", name, w.Code)
		}
		if w := b.do("POST", "/auth/login", form("name", "alice", "password", password), append(changes, func(r *http.Request) { r.Header.Del("Cookie") })...); w.Code != 403 {
			t.Errorf("log-in, %s: %d", name, w.Code)
		}
	}
	for name, body := range map[string]string{"no secret": form("name", "x", "days", "1", "scope", "library:read"), "another's": form("csrf", strings.Repeat("x", 32), "name", "x", "days", "1", "scope", "library:read"),
		"in JSON": `{"csrf":"` + csrf + `"}`} {
		if w := b.do("POST", "/auth/tokens", body); w.Code != 403 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	b.want(b.do("DELETE", "/v1/users/alice/tokens/x", ""), 403)
	b.want(b.do("DELETE", "/v1/users/alice/tokens/x", "", header("Origin", base), header("X-CSRF-Token", csrf)), 404)
	if list, _ := v.Tokens(t.Context(), must(v.Account(t.Context(), "alice")).ID); len(list) != 0 {
		t.Errorf("%d tokens were made", len(list))
	}
	b.want(b.do("POST", "/auth/tokens", good, drop, header("Referer", base+"/auth/tokens")), 200)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestGuesses: failed log-ins are counted by address, an account that is not
// there costs as much as one that is (SC-151), and who has a token goes on.
func TestGuesses(t *testing.T) {
	v := newSite(t, Options{GuessesPerMin: 5})
	alice := v.person("alice", false)
	v.SetPassword(t.Context(), alice.ID, password)
	text := v.token(alice, LibraryRead)
	b := v.browser()
	var known, unknown time.Duration
	for i := range 5 {
		name, sum := []string{"alice", "nobody"}[i%2], []*time.Duration{&known, &unknown}[i%2]
		begun := time.Now()
		w := b.want(b.do("POST", "/auth/login", form("name", name, "password", "wrong password")), 401)
		*sum += time.Since(begun)
		if !strings.Contains(w.Body.String(), errLogin.Message) {
			t.Error(w.Body)
		}
	}
	if unknown < known/20 {
		t.Errorf("a name that nobody has is refused in %v, one that is there in %v", unknown/2, known/3)
	}
	b.want(b.do("POST", "/auth/login", form("name", "alice", "password", password)), 429)
	v.want(v.do("GET", "/token/v1/token-status", "", bearer("guess")), 429)
	v.want(v.do("GET", "/token/v1/token-status", "", bearer(text)), 200)
	v.addr = "192.0.2.2"
	b.want(b.do("POST", "/auth/login", form("name", "alice", "password", password)), 303)
	v.addr, v.skew = "192.0.2.1", 2*time.Minute
	b.want(v.browser().do("POST", "/auth/login", form("name", "alice", "password", password)), 303)
	// One network of IPv6 is one address.
	g := newGuesses(1)
	g.failed(netip.MustParseAddr("2001:db8::1"), time.Now())
	if g.check(netip.MustParseAddr("2001:db8::2"), time.Now()) == nil || g.check(netip.MustParseAddr("2001:db8:0:1::2"), time.Now()) != nil {
		t.Error("networks are not told apart")
	}
	for i := range maxAddresses + 10 {
		g.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), time.Now())
	}
	if len(g.from) > maxAddresses {
		t.Errorf("%d addresses are kept", len(g.from))
	}
}

// TestNext: a log-in leads to our own pages alone (SC-150).
func TestNext(t *testing.T) {
	for next, want := range map[string]string{
		"/auth/device?code=X": "/auth/device?code=X", "/library/a": "/library/a", "": "/auth/tokens", "//evil.example": "/auth/tokens", `/\evil.example`: "/auth/tokens", `\\evil`: "/auth/tokens",
		"https://evil.example": "/auth/tokens", "data:text/html,x": "/auth/tokens", "javascript:alert(1)": "/auth/tokens", "/\t/evil": "/auth/tokens", "///evil": "/auth/tokens", "/%09/evil": "/%09/evil",
		"/%5cevil": "/auth/tokens", "/%2fevil": "/auth/tokens", "evil": "/auth/tokens", "/" + strings.Repeat("a", 3000): "/auth/tokens", "/a\r\nSet-Cookie: x": "/auth/tokens",
	} {
		if got := localPath(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
	v := newSite(t, Options{})
	v.person("alice", false)
	b := v.loggedIn("alice")
	if w := b.do("GET", "/auth/login?next=//evil.example", ""); w.Header().Get("Location") != "/auth/tokens" {
		t.Error(w.Header())
	}
}

func TestDevice(t *testing.T) {
	v := newSite(t, Options{})
	v.person("alice", false)
	b := v.loggedIn("alice")
	formed := header("Content-Type", "application/x-www-form-urlencoded")
	start := func(scope string) (d api.DeviceCode) {
		json.Unmarshal(v.want(v.do("POST", "/token/v1/device", form("client_id", "singularity on <node1>", "scope", scope), formed), 200).Body.Bytes(), &d)
		return d
	}
	poll := func(d api.DeviceCode) (a api.DeviceToken) {
		json.Unmarshal(v.do("POST", "/token/v1/device/token", form("grant_type", deviceGrant, "device_code", d.DeviceCode), formed).Body.Bytes(), &a)
		return a
	}
	d := start("")
	if d.VerificationURI != base+"/auth/device" || len(d.UserCode) != 9 || d.Interval < 1 {
		t.Fatalf("%+v", d)
	}
	if a := poll(d); a.Error != "authorization_pending" {
		t.Errorf("%+v", a)
	}
	if a := poll(d); a.Error != "slow_down" {
		t.Errorf("%+v", a)
	}
	v.browser().want(v.browser().do("GET", "/auth/device?code="+d.UserCode, ""), 303)
	page := b.want(b.do("GET", "/auth/device?code="+strings.ToLower(strings.ReplaceAll(d.UserCode, "-", "+")), ""), 200).Body.String()
	if !strings.Contains(page, "singularity on &lt;node1&gt;") || !strings.Contains(page, "192.0.2.1") {
		t.Error(page)
	}
	b.want(b.do("POST", "/auth/device", form("csrf", b.csrf(), "code", d.UserCode, "answer", "agree")), 200)
	b.want(b.do("POST", "/auth/device", form("csrf", b.csrf(), "code", d.UserCode, "answer", "refuse")), 404)
	got := poll(d)
	v.want(v.do("GET", "/token/v1/token-status", "", bearer(got.AccessToken)), 200)
	if a := poll(d); a.Error != "expired_token" || a.AccessToken != "" {
		t.Errorf("a second token: %+v", a)
	}
	if c, _ := v.Check(t.Context(), got.AccessToken); c.Name != "alice" || c.Has(LibraryDelete, AccountAdmin, AccountWrite) || !c.Has(LibraryWrite) {
		t.Errorf("%+v", c)
	}
	d = start("library:read")
	b.want(b.do("POST", "/auth/device", form("csrf", b.csrf(), "code", d.UserCode, "answer", "refuse")), 200)
	if a := poll(d); a.Error != "access_denied" {
		t.Errorf("%+v", a)
	}
	v.want(v.do("POST", "/token/v1/device", form("client_id", "x", "scope", "everything"), formed), 400)
	b.want(b.do("POST", "/auth/device", form("csrf", b.csrf(), "code", "BBBB-BBBB", "answer", "agree")), 404)
	if a := poll(api.DeviceCode{DeviceCode: "guess"}); a.Error != "expired_token" {
		t.Errorf("%+v", a)
	}
}

// TestAssignment: a client that sends more than it may choose gets no more
// (SC-146), and what is another's stays so.
func TestAssignment(t *testing.T) {
	v := newSite(t, Options{})
	alice, _, boss := v.person("alice", false), v.person("bob", false), v.person("boss", true)
	a, root := v.token(alice, Scopes...), v.token(boss, Scopes...)
	narrow := v.token(alice, AccountWrite, AccountRead)
	for _, row := range []struct {
		method, path, body, token string
		want                      int
	}{
		{"POST", "/v1/admin/users", `{"name":"eve","admin":true}`, a, 403}, {"GET", "/v1/admin/users", "", a, 403}, {"PATCH", "/v1/admin/users/alice", `{"admin":true}`, a, 403},
		{"GET", "/v1/admin/audit", "", a, 403}, {"POST", "/v1/admin/users/boss/link", "", a, 403},
		{"GET", "/v1/users/bob/tokens", "", a, 404}, {"POST", "/v1/users/bob/tokens", `{"name":"x","scopes":["library:read"]}`, a, 404}, {"GET", "/v1/users/nobody/tokens", "", a, 404},
		{"POST", "/v1/users/alice/tokens", `{"name":"x","scopes":["library:read"]}`, narrow, 403}, {"POST", "/v1/users/alice/tokens", `{"name":"x","scopes":["root"]}`, narrow, 400},
		{"POST", "/v1/users/alice/tokens", `{"name":"x\u001b[2J","scopes":["account:read"]}`, narrow, 400}, {"POST", "/v1/users/alice/tokens", `{"name":"x","scopes":["account:read"],"days":400}`, narrow, 400},
		{"POST", "/v1/users/alice/tokens", `{"name":"x","scopes":{"$ne":1}}`, narrow, 400}, {"POST", "/v1/users/alice/tokens", `{"name":"x","scopes":["account:read"],"owner":"boss","id":"1"}`, narrow, 200},
		{"POST", "/v1/groups", `{"name":"lab","kind":"user","admin":true,"members":{"x":"owner"}}`, a, 200}, {"PUT", "/v1/groups/lab/members/bob", `{"role":"king"}`, a, 400},
		{"PUT", "/v1/groups/lab/members/bob", `{"role":"writer"}`, a, 200}, {"PUT", "/v1/groups/lab/members/alice", `{"role":"reader"}`, a, 409}, {"DELETE", "/v1/groups/lab/members/alice", "", a, 409},
		{"POST", "/v1/robots", `{"name":"ci","admin":true,"belongsTo":"bob"}`, a, 403}, {"POST", "/v1/robots", `{"name":"ci","admin":true,"belongsTo":"lab"}`, a, 200},
		{"POST", "/v1/robots", `{"name":"../x"}`, a, 400}, {"POST", "/v1/groups", `{"name":"admin"}`, a, 400}, {"POST", "/v1/groups", `{"name":"Alice"}`, a, 400}, {"POST", "/v1/groups", `{"name":"bob"}`, a, 409},
		{"POST", "/v1/users/ci/tokens", `{"name":"x","scopes":["library:write"]}`, a, 200}, {"PATCH", "/v1/admin/users/boss", `{"admin":false}`, root, 409}, {"PATCH", "/v1/admin/users/alice", `{"id":"x","name":"y","password":"z"}`, root, 200},
		{"GET", "/v1/admin/users?limit=0", "", root, 400}, {"GET", "/v1/admin/users?limit=2147483648", "", root, 400}, {"GET", "/v1/admin/users?after='", "", root, 400}, {"GET", "/v1/admin/users?limit=2", "", root, 200},
		{"POST", "/v1/groups", `{"name":"x"} {"name":"y"}`, a, 400}, {"GET", "/v1/groups/lab", "", root, 200}, {"DELETE", "/v1/robots/ci", "", a, 200}, {"DELETE", "/v1/robots/alice", "", a, 404},
	} {
		w := v.do(row.method, row.path, row.body, bearer(row.token))
		if w.Code != row.want {
			t.Errorf("%s %s %s: %d %s, want %d", row.method, row.path, row.body, w.Code, w.Body, row.want)
		}
		for _, secret := range []string{"argon2id", `"password"`, `"secret"`} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s shows %s: %s", row.path, secret, w.Body)
			}
		}
	}
	for _, name := range []string{"alice", "ci", "lab"} {
		if a := must(v.Account(t.Context(), name)); a.Admin || len(a.Members) > 2 {
			t.Errorf("%+v", a)
		}
	}
	events, _, err := v.Events(t.Context(), "action", "robot.create", "", 10)
	if err != nil || len(events) != 2 || events[0].Actor != "alice" || events[0].From != "192.0.2.1" {
		t.Errorf("%+v %v", events, err)
	}
}

// TestSecretsInRecord: no token, password or link is in the audit record or the
// log (SC-154).
func TestSecretsInRecord(t *testing.T) {
	v := newSite(t, Options{})
	link := must(v.FirstAdmin(t.Context()))
	_, code, _ := strings.Cut(link, "code=")
	b := v.browser()
	b.do("POST", "/auth/setup", form("code", code, "password", password))
	csrf := b.csrf()
	w := b.do("POST", "/auth/tokens", form("csrf", csrf, "name", "laptop", "days", "30", "scope", "library:read"))
	text := regexp.MustCompile(tokenPrefix + `_[0-9A-Za-z]{26}_[0-9A-Za-z]+`).FindString(w.Body.String())
	v.browser().do("POST", "/auth/login", form("name", "admin", "password", "wrong canary password"))
	b.do("POST", "/auth/password", form("csrf", csrf, "old", password, "new", "another canary password"))
	v.do("GET", "/whoami", "", bearer(text))
	events, _, err := v.Events(t.Context(), "", "", "", 100)
	if err != nil || len(events) < 4 {
		t.Fatalf("%+v %v", events, err)
	}
	record, _ := json.Marshal(events)
	for _, secret := range []string{code, password, strings.Split(text, "_")[2], "canary", csrf, b.cookies["__Host-session"]} {
		if strings.Contains(string(record), secret) || strings.Contains(v.log.String(), secret) {
			t.Errorf("%q is in the record", secret)
		}
	}
	if !strings.Contains(v.log.String(), "action=token.create") {
		t.Error(v.log)
	}
}

func TestIntrospect(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.person("alice", false)
	lab, _ := v.AddAccount(t.Context(), Account{Kind: Group, Name: "lab", Members: map[string]Role{alice.ID: Writer}})
	text := v.token(alice, LibraryRead, Build)
	ask := func(text string) (i api.Introspection) {
		w := v.want(v.do("POST", "/internal/v1/introspect", form("token", text), header("Content-Type", "application/x-www-form-urlencoded")), 200)
		json.Unmarshal(w.Body.Bytes(), &i)
		return i
	}
	i := ask(text)
	if !i.Active || i.Username != "alice" || i.Scope != "build library:read" || i.Groups["lab"] != "writer" || i.Subject != alice.ID {
		t.Errorf("%+v", i)
	}
	if i := ask("x"); i.Active || i.Username != "" {
		t.Errorf("%+v", i)
	}
	v.SetMember(t.Context(), lab.ID, alice.ID, NoRole)
	if i := ask(text); len(i.Groups) != 0 {
		t.Errorf("%+v", i)
	}
}

func TestPassword(t *testing.T) {
	hash := hashPassword(password)
	p := must(parsePHC(hash))
	if !p.matches(password) || p.matches(password+"x") || p.matches("") {
		t.Error("the hash does not tell passwords apart")
	}
	// Many hashes at once take their turn, and a caller that leaves gives it up.
	v := newSite(t, Options{HashesAtOnce: 1})
	v.hashing <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.hash(ctx, func() { t.Error("hashed without a place") }); status(err) != 503 {
		t.Error(err)
	}
	<-v.hashing
}

func FuzzToken(f *testing.F) {
	body := tokenPrefix + "_" + strings.Repeat("a", tokenIDSize) + "_" + strings.Repeat("b", tokenRandom)
	f.Add(body + checksum(body))
	f.Add("sgt_x_y")
	f.Add(strings.Repeat(".", 1000))
	f.Fuzz(func(t *testing.T, text string) {
		id, secret, ok := parseToken(text)
		if !ok {
			return
		}
		body := tokenPrefix + "_" + id + "_" + secret
		if body+checksum(body) != text || len(id) != tokenIDSize {
			t.Errorf("%q is read as %q and %q", text, id, secret)
		}
	})
}

func FuzzPHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c3VtbXN1bW1zdW1tc3VtbXN1bW1zdW1tc3VtbXN1bW0")
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$$")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePHC(text); err == nil && (p.memory > 1<<20 || p.time > 20 || p.lanes > 16 || p.lanes == 0) {
			t.Errorf("%q costs too much: %+v", text, p)
		}
	})
}

func FuzzNext(f *testing.F) {
	for _, s := range []string{"/a", "//a", "/\\a", "/%2f%2fa", "http://x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, next string) {
		got := localPath(next)
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		to, err := u.Parse(got)
		if err != nil || to.Host != u.Host || to.Scheme != "https" || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\r\n\t") {
			t.Errorf("%q leads to %q", next, got)
		}
	})
}

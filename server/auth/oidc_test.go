package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile is a provider that answers with any ID token.
type hostile struct {
	*httptest.Server
	key    *rsa.PrivateKey
	nonce  string
	answer func(claims map[string]any) string
	asked  []string
	// To be asked again: nil offers no refresh token.
	again func(w http.ResponseWriter, token string)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func b64(p []byte) string { return base64.RawURLEncoding.EncodeToString(p) }

func newHostile(t *testing.T) *hostile {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		// It offers what nobody should take.
		json.NewEncoder(w).Encode(map[string]any{"issuer": h.URL, "authorization_endpoint": h.URL + "/authorize", "token_endpoint": h.URL + "/token", "jwks_uri": h.URL + "/keys",
			"scopes_supported": []string{"openid", "offline_access"}, "id_token_signing_alg_values_supported": []string{"none", "HS256", "RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		h.asked = append(h.asked, r.PostForm.Get("code_verifier"))
		w.Header().Set("Content-Type", "application/json")
		if r.PostForm.Get("grant_type") == "refresh_token" {
			h.again(w, r.PostForm.Get("refresh_token"))
			return
		}
		now := time.Now().Unix()
		token := h.answer(map[string]any{"iss": h.URL, "aud": "us", "sub": "s1", "exp": now + 300, "iat": now, "nonce": h.nonce, "preferred_username": "Eve.X", "email": "eve@example.org", "email_verified": true, "groups": []string{"staff"}})
		out := map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": token}
		if h.again != nil {
			out["refresh_token"] = "refresh-1"
		}
		json.NewEncoder(w).Encode(out)
	})
	h.Server = httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h
}

func (h *hostile) sign(header, claims map[string]any, sign func([]byte) []byte) string {
	head := map[string]any{"alg": "RS256", "kid": "1", "typ": "JWT"}
	maps.Copy(head, header)
	a, _ := json.Marshal(head)
	b, _ := json.Marshal(claims)
	text := b64(a) + "." + b64(b)
	return text + "." + b64(sign([]byte(text)))
}

func (h *hostile) rs256(text []byte) []byte {
	sum := sha256.Sum256(text)
	sig, _ := rsa.SignPKCS1v15(rand.Reader, h.key, crypto.SHA256, sum[:])
	return sig
}

// login goes the way of a browser and returns the status of our callback.
func (h *hostile) login(v *site, b *browser) *httptest.ResponseRecorder {
	v.t.Helper()
	w := b.want(b.do("GET", "/auth/oidc/idp/start?next=//evil.example", ""), 302)
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil || !strings.HasPrefix(to.String(), h.URL+"/authorize") || to.Query().Get("code_challenge_method") != "S256" {
		v.t.Fatal(w.Header())
	}
	h.nonce = to.Query().Get("nonce")
	return b.do("GET", "/auth/oidc/idp/callback?code=c&state="+url.QueryEscape(to.Query().Get("state")), "")
}

// TestHostileProvider: only a token that the provider signed with its own key,
// for us, now, and for this log-in, logs somebody in (SC-144, SC-145).
func TestHostileProvider(t *testing.T) {
	h := newHostile(t)
	v := newSite(t, Options{GuessesPerMin: 1000, Networks: loopback, Providers: []Provider{{Name: "idp", Issuer: h.URL, ClientID: "us", Insecure: true, AdminGroup: "wheel"}}})
	good := func(c map[string]any) string { return h.sign(nil, c, h.rs256) }
	with := func(key string, value any) func(map[string]any) string {
		return func(c map[string]any) string {
			if c[key] = value; value == nil {
				delete(c, key)
			}
			return good(c)
		}
	}
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	jwk := map[string]string{"kty": "EC", "crv": "P-256", "x": b64(other.X.FillBytes(make([]byte, 32))), "y": b64(other.Y.FillBytes(make([]byte, 32)))}
	es256 := func(text []byte) []byte {
		sum := sha256.Sum256(text)
		r, s, _ := ecdsa.Sign(rand.Reader, other, sum[:])
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	public, _ := x509.MarshalPKIXPublicKey(&h.key.PublicKey)
	hs256 := func(text []byte) []byte {
		m := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
		m.Write(text)
		return m.Sum(nil)
	}
	none := func([]byte) []byte { return nil }
	for name, answer := range map[string]func(map[string]any) string{
		"alg none":      func(c map[string]any) string { return h.sign(map[string]any{"alg": "none"}, c, none) },
		"no signature":  func(c map[string]any) string { return h.sign(nil, c, none) },
		"HS256":         func(c map[string]any) string { return h.sign(map[string]any{"alg": "HS256"}, c, hs256) },
		"key in header": func(c map[string]any) string { return h.sign(map[string]any{"alg": "ES256", "jwk": jwk}, c, es256) },
		"address of keys": func(c map[string]any) string {
			return h.sign(map[string]any{"alg": "ES256", "jku": h.URL + "/evil"}, c, es256)
		},
		"other key": func(c map[string]any) string {
			return h.sign(nil, c, func(text []byte) []byte {
				sig := h.rs256(text)
				sig[255] ^= 0x55
				return sig
			})
		},
		"other audience": with("aud", "them"), "no audience": with("aud", nil), "other issuer": with("iss", "https://elsewhere.example"), "expired": with("exp", time.Now().Unix()-3600),
		"no expiry": with("exp", nil), "other nonce": with("nonce", "n"), "no nonce": with("nonce", nil), "none": func(map[string]any) string { return "" },
		"dots": func(map[string]any) string { return strings.Repeat(".", 500_000) }, "long": with("x", strings.Repeat("x", 100_000)), "huge": func(map[string]any) string { return strings.Repeat("e30.", 1<<20) },
	} {
		h.answer = answer
		begun := time.Now()
		if w := h.login(v, v.browser()); w.Code != 403 && w.Code != 400 || w.Result().Cookies() != nil && slices.ContainsFunc(w.Result().Cookies(), func(c *http.Cookie) bool { return c.Name == v.cookieName() }) {
			t.Errorf("%s: %d %v", name, w.Code, w.Result().Cookies())
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	if list, _, _ := v.Accounts(t.Context(), "", "", 10); len(list) != 0 {
		t.Fatalf("%+v", list)
	}
	h.answer = good
	b := v.browser()
	if w := h.login(v, b); w.Code != 303 || w.Header().Get("Location") != "/auth/tokens" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	b.want(b.do("GET", "/auth/tokens", ""), 200)
	a, err := v.Account(t.Context(), "eve-x")
	if err != nil || a.Admin || h.asked[len(h.asked)-1] == "" {
		t.Errorf("%+v %v", a, err)
	}
}

// TestProviderGroups: groups and administrators follow what the provider says
// at each log-in, and members that people here chose stay (SC-143).
func TestProviderGroups(t *testing.T) {
	h := newHostile(t)
	v := newSite(t, Options{Networks: loopback, Providers: []Provider{{Name: "idp", Issuer: h.URL, ClientID: "us", Insecure: true, AdminGroup: "wheel", Domains: []string{"example.org"}}}})
	staff, _ := v.AddAccount(t.Context(), Account{Kind: Group, Name: "staff", External: "idp:staff"})
	mine, _ := v.AddAccount(t.Context(), Account{Kind: Group, Name: "mine"})
	say := func(groups ...string) Account {
		t.Helper()
		h.answer = func(c map[string]any) string { c["groups"] = groups; return h.sign(nil, c, h.rs256) }
		b := v.browser()
		b.want(h.login(v, b), 303)
		return must(v.Account(t.Context(), "eve-x"))
	}
	member := func(g, id string) Role { return must(v.AccountByID(t.Context(), g)).Members[id] }
	a := say("staff", "wheel")
	if !a.Admin || member(staff.ID, a.ID) != Writer || member(mine.ID, a.ID) != NoRole {
		t.Errorf("%+v", a)
	}
	if err := v.SetMember(t.Context(), mine.ID, a.ID, Reader); err != nil {
		t.Fatal(err)
	}
	a = say("other")
	if a.Admin || member(staff.ID, a.ID) != NoRole || member(mine.ID, a.ID) != Reader {
		t.Errorf("%+v", a)
	}
	for name, change := range map[string]func(map[string]any){
		"another domain": func(c map[string]any) { c["email"], c["sub"] = "eve@evil.example", "s2" }, "an address that is not verified": func(c map[string]any) { c["email_verified"], c["sub"] = false, "s3" },
	} {
		h.answer = func(c map[string]any) string { change(c); return h.sign(nil, c, h.rs256) }
		if w := h.login(v, v.browser()); w.Code != 403 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if _, err := v.UpdateAccount(t.Context(), a.ID, func(a *Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	h.answer = func(c map[string]any) string { return h.sign(nil, c, h.rs256) }
	if w := h.login(v, v.browser()); w.Code != 403 {
		t.Errorf("a disabled account: %d", w.Code)
	}
}

// TestProviderAddress: the server asks no provider on this host or in a private
// network, unless that is named (SC-155); and none without TLS.
func TestProviderAddress(t *testing.T) {
	h := newHostile(t)
	for _, networks := range [][]netip.Prefix{nil, {netip.MustParsePrefix("127.0.0.0/8")}} {
		v := newSite(t, Options{Networks: networks, Providers: []Provider{{Name: "idp", Issuer: h.URL, ClientID: "us", Insecure: true}}})
		want := 502
		if networks != nil {
			want = 302
		}
		b := v.browser()
		b.want(b.do("GET", "/auth/oidc/idp/start", ""), want)
	}
	for i, p := range []Provider{{Name: "a", Issuer: "http://x.example", ClientID: "c"}, {Name: "A b", Issuer: "https://x.example", ClientID: "c"}, {Name: "a", Issuer: "https://x.example"}, {Name: "a", Issuer: "file:///x", ClientID: "c", Insecure: true}} {
		if _, err := newProviders(Options{Providers: []Provider{p}}); err == nil {
			t.Error(fmt.Sprint("provider ", i))
		}
	}
}

// TestProviderRefresh: what a provider said holds for five minutes. Then it is asked
// again, with nobody at a browser; who is out of a group there is out of it here,
// and a provider that cannot be reached vouches for nothing (SC-143).
func TestProviderRefresh(t *testing.T) {
	h := newHostile(t)
	v := newSite(t, Options{Networks: loopback, Providers: []Provider{{Name: "idp", Issuer: h.URL, ClientID: "us", ClientSecret: "a secret", Insecure: true, AdminGroup: "wheel"}}})
	staff := must(v.AddAccount(t.Context(), Account{Kind: Group, Name: "staff", External: "idp:staff"}))
	mine := must(v.AddAccount(t.Context(), Account{Kind: Group, Name: "mine"}))
	groups, asked, token := []string{"staff", "wheel"}, 0, ""
	h.answer = func(c map[string]any) string { c["groups"] = groups; return h.sign(nil, c, h.rs256) }
	h.again = func(w http.ResponseWriter, given string) {
		asked++
		if given != token {
			t.Errorf("asked with %q, want %q", given, token)
		}
		token = fmt.Sprint("refresh-", asked+1)
		now := time.Now().Unix()
		id := h.sign(nil, map[string]any{"iss": h.URL, "aud": "us", "sub": "s1", "exp": now + 300, "iat": now, "groups": groups, "email": "other@example.org"}, h.rs256)
		json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": id, "refresh_token": token})
	}
	login := func() {
		t.Helper()
		token = "refresh-1"
		asked = 0
		b := v.browser()
		b.want(h.login(v, b), 303)
	}
	login()
	a := must(v.Account(t.Context(), "eve-x"))
	if err := v.SetMember(t.Context(), mine.ID, a.ID, Reader); err != nil {
		t.Fatal(err)
	}
	text, _, err := v.AddToken(t.Context(), Caller{ID: a.ID, Name: a.Name, Kind: User, Scopes: Scopes}, a.ID, NewToken{Name: "t", Scopes: Scopes})
	if err != nil {
		t.Fatal(err)
	}
	use := func(when string, admin bool, want ...string) {
		t.Helper()
		c, err := v.Check(t.Context(), text)
		var have []string
		for _, g := range c.groups {
			have = append(have, g.Name)
		}
		slices.Sort(have)
		if err != nil || c.Invalid || c.Admin != admin || !slices.Equal(have, want) {
			t.Errorf("%s: %v, administrator %v, groups %v, want %v", when, err, c.Admin, have, want)
		}
	}
	use("after the log-in", true, "mine", "staff")
	groups = nil
	v.skew += 4 * time.Minute
	use("after four minutes", true, "mine", "staff")
	v.skew += 2 * time.Minute
	use("after six minutes", false, "mine")
	if got := must(v.AccountByID(t.Context(), staff.ID)).Members; len(got) > 0 || asked != 1 {
		t.Errorf("members %v, asked %d times", got, asked)
	}
	if e := must(v.AccountByID(t.Context(), a.ID)).Email; e != "eve@example.org" {
		t.Errorf("an address that is not verified is taken: %q", e)
	}
	groups = []string{"staff", "wheel"}
	v.skew += 6 * time.Minute
	use("in the group again", true, "mine", "staff")

	// It cannot be reached: nothing that it said holds, until it can.
	again := h.again
	h.again = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusServiceUnavailable) }
	v.skew += 6 * time.Minute
	use("the provider is down", false, "mine")
	h.again = again
	use("the provider is not asked at each request", false, "mine")
	v.skew += time.Minute
	use("it is up", true, "mine", "staff")

	// An answer about somebody else, and one that ends the log-in.
	for name, answer := range map[string]func(w http.ResponseWriter, _ string){
		"ended": func(w http.ResponseWriter, _ string) {
			w.WriteHeader(http.StatusBadRequest)
			w.Write([]byte(`{"error":"invalid_grant"}`))
		},
		"somebody else": func(w http.ResponseWriter, _ string) {
			now := time.Now().Unix()
			id := h.sign(nil, map[string]any{"iss": h.URL, "aud": "us", "sub": "s2", "exp": now + 300, "iat": now, "groups": groups}, h.rs256)
			json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": id})
		},
	} {
		h.again = again
		login()
		use(name+": before", true, "mine", "staff")
		h.again = answer
		v.skew += 6 * time.Minute
		use(name, false, "mine")
		v.skew += 6 * time.Minute
		use(name+": later", false, "mine")
	}
	// The right to ask is not in the storage as it is.
	h.again = again
	login()
	if i := must(v.assurances.Get(t.Context(), a.ID)); strings.Contains(string(i.Value.Token), "refresh") {
		t.Error("the refresh token is kept in clear")
	}
}

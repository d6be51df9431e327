package keystore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/api"
	check "singularity/client/translog"
	"singularity/pgp"
	"singularity/server/auth"
	"singularity/server/store/embedded"
	"singularity/server/translog"
)

// site is a key server with some callers.
type site struct {
	*Service
	t    testing.TB
	auth *auth.Service
	log  *translog.Log
	skew time.Duration
}

var (
	nobody = auth.Caller{}
	alice  = auth.Caller{ID: "a1", Kind: auth.User, Name: "alice", Email: "alice@example.org", Scopes: []auth.Scope{auth.KeysWrite, auth.AccountRead}}
	mallet = auth.Caller{ID: "m1", Kind: auth.User, Name: "mallet", Email: "mallet@example.net", Scopes: []auth.Scope{auth.KeysWrite}}
	reader = auth.Caller{ID: "r1", Kind: auth.User, Name: "reader", Email: "alice@example.org", Scopes: []auth.Scope{auth.LibraryRead}}
	admin  = auth.Caller{ID: "x1", Kind: auth.User, Name: "admin", Admin: true, Scopes: []auth.Scope{auth.AccountAdmin}}
)

func newSite(t testing.TB, o Options) *site {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	a, err := auth.Open(t.Context(), st.Records, auth.Options{URL: "https://keys.example", AuditLog: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v := &site{t: t, auth: a}
	if v.log, err = translog.Open(t.Context(), st.Records, "keys.example"); err != nil {
		t.Fatal(err)
	}
	o.Log = v.log
	if v.Service, err = Open(t.Context(), st.Records, a, o); err != nil {
		t.Fatal(err)
	}
	v.Service.now = func() time.Time { return time.Now().Add(v.skew) }
	return v
}

func (v *site) do(c auth.Caller, method, path string, form url.Values) *httptest.ResponseRecorder {
	v.t.Helper()
	r := httptest.NewRequest(method, "https://keys.example"+path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return v.serve(c, r)
}

func (v *site) add(c auth.Caller, text []byte) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(c, "POST", "/pks/add", url.Values{"keytext": {string(text)}})
}

func (v *site) want(w *httptest.ResponseRecorder, status int) string {
	v.t.Helper()
	if w.Code != status {
		v.t.Fatalf("status %d, want %d: %.300s", w.Code, status, w.Body)
	}
	return w.Body.String()
}

func (v *site) get(search string) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(nobody, "GET", "/pks/lookup?op=get&exact=on&options=mr&search="+url.QueryEscape(search), nil)
}

func (v *site) index(search string) *httptest.ResponseRecorder {
	v.t.Helper()
	return v.do(nobody, "GET", "/pks/lookup?op=index&fingerprint=on&options=mr&x-pagesize=256&search="+url.QueryEscape(search), nil)
}

// entity makes a small key.
func entity(t testing.TB, name, mail string) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", mail, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func public(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	text, err := pgp.ArmorPublic(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func fpr(e *openpgp.Entity) string { return fmt.Sprintf("%X", e.PrimaryKey.Fingerprint) }

func TestAddAndLookUp(t *testing.T) {
	v := newSite(t, Options{})
	e := entity(t, "Alice 100%: ä+", "alice@example.org")
	v.want(v.add(nobody, public(t, e)), 401)
	v.want(v.add(reader, public(t, e)), 403)
	v.want(v.get("0x"+fpr(e)), 404)
	v.want(v.add(alice, public(t, e)), 200)
	first := v.want(v.get("0x"+fpr(e)), 200)
	v.want(v.add(alice, public(t, e)), 200)
	sub := fmt.Sprintf("%X", e.Subkeys[0].PublicKey.Fingerprint)
	for _, s := range []string{fpr(e), "0x" + strings.ToLower(fpr(e)), fpr(e)[24:], "0x" + fpr(e)[24:], fpr(e)[32:], "0x" + strings.ToLower(fpr(e)[32:]), "0x" + sub, sub[24:], "alice@example.org", "ALICE@Example.org"} {
		if got := v.want(v.get(s), 200); got != first {
			t.Errorf("get %q is another answer", s)
		}
	}
	ring, err := pgp.ParseRing([]byte(first))
	if err != nil || len(ring.Keys()) != 1 || ring.Keys()[0].UserID() != "Alice 100%: ä+ <alice@example.org>" || strings.Count(first, "BEGIN PGP") != 1 {
		t.Fatalf("%v, %v:\n%s", ring, err, first)
	}
	v.proven(e, 0)
	if _, err := v.log.Prove(t.Context(), 1, 0); err == nil {
		t.Error("adding a key again made a line of the log")
	}
	list := v.want(v.index("alice"), 200)
	created := e.PrimaryKey.CreationTime.Unix()
	want := fmt.Sprintf("info:1:1\npub:%s:22:%d:%d::\nuid:Alice 100%%25%%3A %%C3%%A4%%2B <alice@example.org>:%d::\n", fpr(e), ring.Keys()[0].Bits(), created, created)
	if list != want {
		t.Errorf("index\n%swant\n%s", list, want)
	}
	text := strings.Split(strings.Split(list, "\n")[2], ":")[1]
	if back, err := url.QueryUnescape(text); err != nil || back != "Alice 100%: ä+ <alice@example.org>" {
		t.Errorf("a client reads %q (%v)", back, err)
	}
	if got := v.want(v.do(nobody, "GET", "/pks/lookup?op=vindex&options=nm,mr&search=@example.org", nil), 200); got != list {
		t.Errorf("vindex is %s", got)
	}
	if got := v.do(nobody, "GET", "/pks/lookup?op=index&search=alice", nil); got.Code != 200 || !strings.Contains(got.Body.String(), "Alice 100%: ä&#43; &lt;alice") {
		t.Errorf("page %d %s", got.Code, got.Body)
	}
	if !regexp.MustCompile(`"proven":true`).MatchString(v.want(v.do(nobody, "GET", "/v1/keys/"+fpr(e), nil), 200)) || !strings.Contains(v.want(v.do(alice, "GET", "/v1/keys", nil), 200), fpr(e)) {
		t.Error("the key is not described")
	}
}

// proven checks that what is served of a key is what a line of the log says.
func (v *site) proven(e *openpgp.Entity, index int64) {
	v.t.Helper()
	ring, err := pgp.ParseRing([]byte(v.want(v.get("0x"+fpr(e)), 200)))
	if err != nil {
		v.t.Fatal(err)
	}
	var p struct{ Data api.LogProof }
	if err := json.Unmarshal([]byte(v.want(v.do(nobody, "GET", "/v1/keys/"+fpr(e)+"/proof", nil), 200)), &p); err != nil {
		v.t.Fatal(err)
	}
	if _, err := check.Check(p.Data, "key", fpr(e), digestOf(ring.Keys()[0].Bytes()), check.State{}); err != nil || p.Data.Index != index {
		v.t.Fatalf("line %d, want %d: %v", p.Data.Index, index, err)
	}
}

func TestLookUpRefusals(t *testing.T) {
	v := newSite(t, Options{})
	for query, status := range map[string]int{
		"": 400, "op=get": 400, "op=get&search=": 400, "op=index&search=ab": 400, "op=stats": 501, "op=hget&search=x": 501, "search=0x12345678": 400,
		"op=get&search=0x" + strings.Repeat("a", 32): 404, "op=get&search=0x" + strings.Repeat("a", 64): 404, "op=get&search=nobody": 404, "op=index&search=...": 404,
		"op=index&options=mr&search=0xdeadbeef": 404, "op=index&search=alice&x-pagesize=-1": 400, "op=index&search=alice&x-pagetoken=AAAA": 400,
		"op=index&search=" + strings.Repeat("x", 400): 400, "op=get&search=%00%00%00": 404,
	} {
		if w := v.do(nobody, "GET", "/pks/lookup?"+query, nil); w.Code != status || !strings.Contains(w.Body.String(), `"error":{"code":`) {
			t.Errorf("%.60q gives %d, want %d: %s", query, w.Code, status, w.Body)
		}
	}
	if w := v.do(nobody, "OPTIONS", "/pks/lookup", nil); w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("OPTIONS gives %d", w.Code)
	}
}

// A client prints a 64-bit id as a number, without the zeros in front.
func TestLeadingZeros(t *testing.T) {
	for digits, want := range map[string][]string{
		"1020304050607": {"0001020304050607"}, "F38D871E": {"F38D871E", "00000000F38D871E"}, "1": {"00000001", "0000000000000001"},
		"8883491F4268F173": {"8883491F4268F173"}, strings.Repeat("A", 40): {strings.Repeat("A", 40)}, strings.Repeat("A", 17): nil,
	} {
		if got, err := parseTerm("0x"+digits, true); err != nil || !slices.Equal(got.ids, want) {
			t.Errorf("0x%s is %q (%v), want %q", digits, got.ids, err, want)
		}
	}
	v := newSite(t, Options{})
	e := entity(t, "Z", "z@example.org")
	for e.PrimaryKey.KeyId>>60 != 0 {
		e = entity(t, "Z", "z@example.org")
	}
	v.want(v.add(alice, public(t, e)), 200)
	v.want(v.get(fmt.Sprintf("0x%x", e.PrimaryKey.KeyId)), 200)
}

func (v *site) serve(c auth.Caller, r *http.Request) *httptest.ResponseRecorder {
	v.t.Helper()
	w := httptest.NewRecorder()
	v.handler(c).ServeHTTP(w, r)
	return w
}

// handler is the service behind a mux, as package server puts it.
func (v *site) handler(c auth.Caller) http.Handler {
	mux := http.NewServeMux()
	for _, route := range v.Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			limit := route.Body
			if limit == 0 {
				limit = 1 << 20
			}
			r.Body = http.MaxBytesReader(w, r.Body, limit)
			route.Handler(w, r.WithContext(auth.With(r.Context(), c)))
		})
	}
	return mux
}

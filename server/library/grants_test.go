package library

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"singularity/server/auth"
)

// Roles are given and taken by owners alone, to users and groups, and hold at the
// next request.
func TestGrants(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob, carol := v.user("alice"), v.user("bob"), v.user("carol")
	b := newSIF(t, "amd64", 5000, "team", false)
	v.push(alice, "alice/team/k", b, "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/collections/alice/team", `{"private":true}`)
	pull := func(token string, status int) {
		t.Helper()
		v.want(status, token, "GET", "/v1/imagefile/alice/team/k:latest", nil)
	}
	pull(bob, 404)
	for _, path := range []string{"alice", "alice/team", "alice/team/k"} {
		at := "/v1/grants/" + path
		v.want(200, alice, "PUT", at, `{"name":"bob","role":"reader"}`)
		pull(bob, 200)
		if text := v.want(200, alice, "GET", at, nil); !strings.Contains(text, `"name":"bob","kind":"user","role":"reader","by":"alice"`) {
			t.Errorf("%s: %s", path, text)
		}
		// Whoever may read gives nobody anything, and does not see who may.
		v.want(403, bob, "GET", at, nil)
		v.want(403, bob, "PUT", at, `{"name":"bob","role":"owner"}`)
		v.want(403, bob, "DELETE", at+"?name=alice", nil)
		v.want(200, alice, "PUT", at, `{"name":"bob","role":"maintainer"}`)
		v.want(403, bob, "PUT", at, `{"name":"carol","role":"reader"}`)
		v.want(200, alice, "PUT", at, `{"name":"bob","role":"owner"}`)
		v.want(200, bob, "PUT", at, `{"name":"carol","role":"reader"}`)
		pull(carol, 200)
		v.want(200, bob, "DELETE", at+"?name=carol", nil)
		pull(carol, 404)
		v.want(200, alice, "DELETE", at+"?name=bob", nil)
		pull(bob, 404)
	}
	g, err := v.auth.AddAccount(t.Context(), auth.Account{Kind: auth.Group, Name: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.auth.Account(t.Context(), "carol")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.auth.SetMember(t.Context(), g.ID, c.ID, auth.Reader); err != nil {
		t.Fatal(err)
	}
	v.want(200, alice, "PUT", "/v1/grants/alice/team/k", `{"name":"lab","role":"reader"}`)
	pull(carol, 200)
	if err := v.auth.SetMember(t.Context(), g.ID, c.ID, auth.NoRole); err != nil {
		t.Fatal(err)
	}
	pull(carol, 404)
	for body, status := range map[string]int{`{"name":"nobody","role":"reader"}`: 400, `{"name":"bob","role":"king"}`: 400, `{"name":"bob"}`: 400,
		`{"name":"bob","role":"reader","expires":"2001-01-01T00:00:00Z"}`: 400, `{"name":"bob","role":"reader","expires":"soon"}`: 400} {
		v.want(status, alice, "PUT", "/v1/grants/alice/team", body)
	}
	v.want(401, "", "PUT", "/v1/grants/alice", `{"name":"bob","role":"reader"}`)
	v.want(403, v.user("alice", auth.LibraryRead, auth.LibraryWrite), "PUT", "/v1/grants/alice", `{"name":"bob","role":"reader"}`)
}

// TestSC151Hidden: what is hidden answers as what is not there, whatever is asked
// about it, to strangers and to nobody in particular.
func TestSC151Hidden(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	b := newSIF(t, "amd64", 5000, "team", false)
	id := v.push(alice, "alice/team/seen", b, "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/collections/alice/team", `{"private":true}`)
	v.push(alice, "alice/open/seen", newSIF(t, "amd64", 5000, "open", false), "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/containers/alice/open/seen", `{"private":true}`)
	k := field(t, v.want(200, alice, "GET", "/v1/containers/alice/team/seen", nil), "id")
	hash := "sha256." + hexOf(b)
	calls := [][3]string{
		{"GET", "/v1/collections/alice/team", ""}, {"GET", "/v1/collections/alice/team/containers", ""}, {"PATCH", "/v1/collections/alice/team", "{}"}, {"DELETE", "/v1/collections/alice/team", ""},
		{"GET", "/v1/grants/alice/team", ""}, {"PUT", "/v1/grants/alice/team", `{"name":"bob","role":"reader"}`}, {"DELETE", "/v1/grants/alice/team/seen?name=bob", ""},
		{"GET", "/v1/search?value=team&arch=amd64", ""}, {"GET", "/v1/latest", ""},
		{"GET", "/v1/tags/" + k, ""}, {"GET", "/v2/tags/" + k, ""}, {"POST", "/v2/tags/" + k, `{"Arch":"amd64","Tag":"x","ImageID":"` + id + `"}`},
		{"POST", "/v1/images", `{"hash":"` + hash + `","container":"` + k + `"}`}, {"POST", "/v2/imagefile/" + id, `{"filesize":5}`}, {"PUT", "/v2/imagefile/" + id + "/_complete", "{}"}, {"POST", "/v1/images/" + id + "/_restore", ""},
	}
	for _, c := range []string{"alice/team/seen", "alice/open/seen"} {
		calls = append(calls, [][3]string{{"GET", "/v1/containers/" + c, ""}, {"GET", "/v1/containers/" + c + "/images", ""}, {"PATCH", "/v1/containers/" + c, "{}"}, {"DELETE", "/v1/containers/" + c, ""},
			{"GET", "/v1/grants/" + c, ""}, {"GET", "/v1/images/" + c + ":latest?arch=amd64&proof=0", ""}, {"GET", "/v1/images/" + c + ":" + hash, ""}, {"GET", "/v1/inspect/" + c + ":latest", ""},
			{"GET", "/v1/imagefile/" + c + ":latest", ""}, {"DELETE", "/v1/images/" + c + ":latest?arch=amd64", ""}, {"POST", "/v1/containers/" + c + "/retention", `{"dryRun":true,"retention":{"days":1}}`}}...)
	}
	// The same of names and ids that nothing has, of the same length.
	absent := strings.NewReplacer("alice/team", "alice/tear", "seen", "sean", "=team", "=tear", k, "0123456789abcdef01234567", id, "123456789abcdef012345678", hash, "sha256."+strings.Repeat("0", 64))
	for who, token := range map[string]string{"nobody": "", "a stranger": bob, "a bad token": "nonsense"} {
		for _, c := range calls {
			answer := func(path, body string) (int, string, http.Header) {
				res := v.do(token, c[0], path, body)
				defer res.Body.Close()
				text, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				res.Header.Del("Date")
				res.Header.Del("X-Request-Id")
				return res.StatusCode, string(text), res.Header
			}
			status, text, header := answer(c[1], c[2])
			status2, text2, header2 := answer(absent.Replace(c[1]), absent.Replace(c[2]))
			if status != status2 || absent.Replace(text) != absent.Replace(text2) || len(header) != len(header2) {
				t.Errorf("%s: %s %s: %d %s, and of what is not there: %d %s", who, c[0], c[1], status, text, status2, text2)
			}
		}
	}
}

// TestSC157Bodies: who may do something is decided by what is done. A body that is
// empty, in pieces, too long, or read in two ways lets nobody by, and is carried
// out once or not at all.
func TestSC157Bodies(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	id := v.push(alice, "alice/c/k", newSIF(t, "amd64", 5000, "one", false), "amd64", "latest")
	other := v.push(alice, "alice/c/k", newSIF(t, "amd64", 5000, "two", false), "amd64")
	k := field(t, v.want(200, alice, "GET", "/v1/containers/alice/c/k", nil), "id")
	mine := v.push(bob, "bob/c/k", newSIF(t, "amd64", 5000, "three", false), "amd64", "latest")
	move := `{"Arch":"amd64","Tag":"latest","ImageID":"` + other + `"}`
	for name, body := range map[string]string{
		"whole": move, "empty": "", "twice": move + move, "two names": `{"Arch":"amd64","Tag":"latest","ImageID":"` + mine + `","imageid":"` + other + `"}`,
		"long": `{"x":"` + strings.Repeat("x", 2<<20) + `",` + move[1:], "spaces": strings.Repeat(" ", 1<<20) + move, "not JSON": "Tag=latest&ImageID=" + other, "null": "null", "a list": "[" + move + "]",
	} {
		for _, chunked := range []bool{false, true} {
			var r io.Reader = strings.NewReader(body)
			if chunked {
				r = struct{ io.Reader }{r} // of a length that nobody says
			}
			req, err := http.NewRequest("POST", v.http.URL+"/v2/tags/"+k, r)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+bob)
			res, err := v.http.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode < 400 || res.StatusCode >= 500 {
				t.Errorf("%s, in pieces %v: %d", name, chunked, res.StatusCode)
			}
		}
	}
	if got := field(t, v.want(200, "", "GET", "/v1/images/alice/c/k:latest?arch=amd64", nil), "id"); got != id {
		t.Error("the tag has moved")
	}
	// The owner's: two objects are none, and an image of another container is not
	// taken under either of its names.
	v.want(400, alice, "POST", "/v2/tags/"+k, move+move)
	v.want(404, alice, "POST", "/v2/tags/"+k, `{"Arch":"amd64","Tag":"latest","ImageID":"`+other+`","imageid":"`+mine+`"}`)
	if got := field(t, v.want(200, "", "GET", "/v1/images/alice/c/k:latest?arch=amd64", nil), "id"); got != id {
		t.Error("the tag has moved")
	}
}

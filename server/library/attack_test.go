package library

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"singularity/server/auth"
)

// TestSC139BlobOfAnother: whoever knows the hash of a private image gets nothing
// by it, neither its bytes nor that it is there.
func TestSC139BlobOfAnother(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	secret := newSIF(t, "amd64", 100_000, "secret", false)
	id := v.push(alice, "alice/hidden/image", secret, "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/collections/alice/hidden", `{"private":true}`)
	hash := hexOf(secret)

	// A record of bob's with that hash is as any whose bytes have not come.
	k := v.container(bob, "bob/c/k")
	other := newSIF(t, "amd64", 100_000, "other", false)
	for _, h := range []string{hash, hexOf(other)} {
		text := v.want(200, bob, "POST", "/v1/images", map[string]any{"hash": "sha256." + h, "container": k})
		if field(t, text, "uploaded") != "false" || field(t, text, "size") != "0" {
			t.Errorf("a record tells of the content: %s", text)
		}
		mine := field(t, text, "id")
		v.want(409, bob, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "stolen", "ImageID": mine})
		v.want(409, bob, "PUT", "/v2/imagefile/"+mine+"/_complete", `{}`)
		v.want(404, bob, "GET", "/v1/imagefile/bob/c/k:sha256."+h, nil)
		// Other bytes under this name are refused as for any.
		up := field(t, v.want(200, bob, "POST", "/v2/imagefile/"+mine, map[string]any{"filesize": 10}), "uploadURL")
		v.want(422, "", "PUT", up, "0123456789")
	}
	// Every call about alice's image answers bob, and nobody, as for a name that is not there.
	for _, token := range []string{"", bob} {
		for _, path := range []string{"/v1/collections/alice/%s", "/v1/containers/alice/%s/image", "/v1/images/alice/%s/image:latest?arch=amd64", "/v1/images/alice/%s/image:sha256." + hash,
			"/v1/imagefile/alice/%s/image:latest?arch=amd64", "/v1/containers/alice/%s/image/images", "/v1/collections/alice/%s/containers"} {
			s1, hidden := v.call(token, "GET", fmt.Sprintf(path, "hidden"), nil)
			s2, missing := v.call(token, "GET", fmt.Sprintf(path, "nothing"), nil)
			if s1 != 404 || s2 != 404 || hidden != missing {
				t.Errorf("%s: %d %s for what is hidden, %d %s for what is not there", path, s1, hidden, s2, missing)
			}
		}
		if text := v.want(200, token, "GET", "/v1/search?value=hidden", nil); strings.Contains(text, "alice") {
			t.Errorf("search tells %s", text)
		}
		if text := v.want(200, token, "GET", "/v1/entities/alice/collections", nil); strings.Contains(text, "hidden") {
			t.Errorf("the list tells %s", text)
		}
	}
	hiddenID := field(t, v.want(200, alice, "GET", "/v1/containers/alice/hidden/image", nil), "id")
	for _, call := range [][2]string{{"GET", "/v2/tags/" + hiddenID}, {"GET", "/v1/tags/" + hiddenID}, {"POST", "/v2/imagefile/" + id}, {"POST", "/v2/imagefile/" + id + "/_multipart"}} {
		missing := strings.NewReplacer(hiddenID, "0123456789abcdef01234567", id, "0123456789abcdef01234567").Replace(call[1])
		s1, a1 := v.call(bob, call[0], call[1], `{"filesize":5}`)
		s2, a2 := v.call(bob, call[0], missing, `{"filesize":5}`)
		if s1 != 404 || s1 != s2 || a1 != a2 {
			t.Errorf("%s %s: %d %s, and %d %s for what is not there", call[0], call[1], s1, a1, s2, a2)
		}
	}
	// With the bytes bob has the image; alice's goes, and his stays.
	v.push(bob, "bob/c/k", secret, "amd64", "mine")
	v.want(200, alice, "DELETE", "/v1/images/alice/hidden/image:latest?arch=amd64", nil)
	v.skew = 9 * 24 * time.Hour
	if err := v.lib.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.skew = 0
	if got := v.want(200, "", "GET", "/v1/imagefile/bob/c/k:mine", nil); got != string(secret) {
		t.Error("the content of one went with the image of another")
	}
}

// TestAdopt: a content that the caller may read need not be sent again.
func TestAdopt(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	b := newSIF(t, "amd64", 10_000, "shared", false)
	v.push(alice, "alice/c/k", b, "amd64", "latest")
	k := v.container(bob, "bob/c/k")
	if text := v.want(200, bob, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k}); field(t, text, "uploaded") != "true" {
		t.Errorf("a public image must be sent again: %s", text)
	}
	if got := v.want(200, "", "GET", "/v1/imagefile/bob/c/k:sha256."+hexOf(b), nil); got != string(b) {
		t.Error("the image differs")
	}
}

// TestSC140DeletedStays: an image that was deleted does not come back because
// somebody else has its content.
func TestSC140DeletedStays(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	b := newSIF(t, "amd64", 10_000, "again", false)
	v.push(alice, "alice/c/k", b, "amd64", "latest")
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:latest?arch=amd64", nil)
	v.push(bob, "bob/c/k", b, "amd64", "latest")
	v.want(404, alice, "GET", "/v1/images/alice/c/k:latest?arch=amd64", nil)
	v.want(404, alice, "GET", "/v1/images/alice/c/k:sha256."+hexOf(b), nil)
}

// TestSC141NoDelete: where deletion is off every way to it is closed.
func TestSC141NoDelete(t *testing.T) {
	v := newSite(t, Options{NoDelete: true})
	admin := v.user("admin")
	b := newSIF(t, "amd64", 10_000, "kept", false)
	v.push(admin, "admin/c/k", b, "amd64", "latest")
	for _, call := range [][2]string{{"DELETE", "/v1/images/admin/c/k:latest?arch=amd64"}, {"DELETE", "/v1/images/admin/c/k:sha256." + hexOf(b)}, {"DELETE", "/v1/containers/admin/c/k"},
		{"DELETE", "/v1/collections/admin/c"}, {"POST", "/v1/containers/admin/c/k/retention"}} {
		v.want(405, admin, call[0], call[1], `{"retention":{"days":1}}`)
	}
	v.want(200, admin, "PATCH", "/v1/containers/admin/c/k", `{"retention":{"days":1}}`)
	v.skew = 99 * 24 * time.Hour
	if err := v.lib.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.skew = 0
	v.want(200, "", "GET", "/v1/images/admin/c/k:latest?arch=amd64", nil)
}

// TestSC142CreateOnly: a token that may only create changes no tag.
func TestSC142CreateOnly(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	create := v.user("alice", auth.LibraryRead, auth.LibraryCreate)
	first, second := newSIF(t, "amd64", 10_000, "first", false), newSIF(t, "amd64", 10_000, "second", false)
	id := v.push(create, "alice/c/k", first, "amd64", "latest")
	k := v.container(create, "alice/c/k")
	other := v.push(create, "alice/c/k", second, "amd64", "new")
	for _, path := range []string{"/v1/tags/", "/v2/tags/"} {
		v.want(403, create, "POST", path+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": other})
	}
	v.want(200, create, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": id}) // as it is
	for _, call := range [][3]string{{"DELETE", "/v1/images/alice/c/k:latest?arch=amd64"}, {"PATCH", "/v1/containers/alice/c/k", `{"description":"x"}`}, {"PATCH", "/v1/containers/alice/c/k", `{"private":true}`}, {"DELETE", "/v1/containers/alice/c/k"}} {
		v.want(403, create, call[0], call[1], call[2])
	}
	if got := field(t, v.want(200, alice, "GET", "/v1/images/alice/c/k:latest?arch=amd64", nil), "id"); got != id {
		t.Error("the tag has moved")
	}
	v.want(200, alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": other})
}

// TestSC143LostRole: whoever loses a role is refused at the next request.
func TestSC143LostRole(t *testing.T) {
	v := newSite(t, Options{})
	alice, bob := v.user("alice"), v.user("bob")
	b := newSIF(t, "amd64", 10_000, "team", false)
	v.push(alice, "alice/team/k", b, "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/collections/alice/team", `{"private":true}`)
	c := field(t, v.want(200, alice, "GET", "/v1/collections/alice/team", nil), "id")
	v.grant(c, "bob", auth.Writer)
	v.want(200, bob, "GET", "/v1/imagefile/alice/team/k:latest", nil)
	v.push(bob, "alice/team/k", newSIF(t, "amd64", 10_000, "bob's", false), "amd64", "bob")
	v.want(403, bob, "DELETE", "/v1/images/alice/team/k:latest?arch=amd64", nil)
	if text := v.want(200, bob, "GET", "/v1/search?value=team&arch=amd64", nil); !strings.Contains(text, `"team"`) {
		t.Errorf("who may read does not find: %s", text)
	}
	v.grant(c, "bob", auth.NoRole)
	v.want(404, bob, "GET", "/v1/imagefile/alice/team/k:latest", nil)
	// At a container alone: the names above it lead there, and to nothing else.
	k := field(t, v.want(200, alice, "GET", "/v1/containers/alice/team/k", nil), "id")
	v.push(alice, "alice/team/other", b, "amd64", "latest")
	v.want(200, alice, "PATCH", "/v1/entities/alice", `{"defaultPrivate":true}`)
	v.want(404, bob, "GET", "/v1/entities/alice", nil)
	v.grant(k, "bob", auth.Writer)
	v.push(bob, "alice/team/k", newSIF(t, "amd64", 10_000, "bob's second", false), "amd64", "bob2")
	v.want(404, bob, "GET", "/v1/containers/alice/team/other", nil)
	if text := v.want(200, bob, "GET", "/v1/collections/alice/team/containers", nil); strings.Contains(text, "other") {
		t.Errorf("the list tells of others: %s", text)
	}
}

// TestSC146MassAssignment: what the server decides is not taken from a body.
func TestSC146MassAssignment(t *testing.T) {
	v := newSite(t, Options{Quota: 1 << 20})
	alice, bob := v.user("alice"), v.user("bob")
	own := `"id":"0123456789abcdef01234567","owner":"bob","createdBy":"bob","quota":999999999999,"size":-5,"uploaded":true,"signed":true,"fingerprints":["AA"],"Hash":1,"downloads":7,"deletedAt":"2020-01-01T00:00:00Z"`
	text := v.want(200, alice, "POST", "/v1/entities", `{"name":"alice",`+strings.Replace(own, `"Hash":1,`, "", 1)+`}`)
	if field(t, text, "createdBy") != "alice" || field(t, text, "id") == "0123456789abcdef01234567" {
		t.Errorf("entity: %s", text)
	}
	if text := v.want(200, alice, "GET", "/v1/entities/alice", nil); field(t, text, "quota") != "1.048576e+06" {
		t.Errorf("quota: %s", text)
	}
	k := v.container(alice, "alice/c/k")
	text = v.want(200, alice, "POST", "/v1/images", `{"hash":"sha256.`+hexOf([]byte("x"))+`","container":"`+k+`",`+strings.Replace(own, `"Hash":1,`, "", 1)+`}`)
	if field(t, text, "uploaded") != "false" || field(t, text, "size") != "0" || strings.Contains(text, "fingerprints") || field(t, text, "createdBy") != "alice" {
		t.Errorf("image: %s", text)
	}
	v.want(403, alice, "PATCH", "/v1/entities/alice", `{"quota":0}`)
	v.want(200, v.user("admin"), "PATCH", "/v1/entities/alice", `{"quota":5000000}`)
	// Another's objects, by name and by id.
	e := field(t, v.want(200, alice, "GET", "/v1/entities/alice", nil), "id")
	c := field(t, v.want(200, alice, "GET", "/v1/collections/alice/c", nil), "id")
	refused := v.want(403, bob, "POST", "/v1/collections", `{"name":"new","entity":"`+e+`"}`)
	if again := v.want(403, bob, "POST", "/v1/collections", `{"name":"c","entity":"`+e+`"}`); again != refused {
		t.Errorf("the refusal tells what is there: %s and %s", refused, again)
	}
	for _, call := range [][3]string{
		{"POST", "/v1/entities", `{"name":"alice"}`}, {"POST", "/v1/entities", `{"name":"group1"}`}, {"POST", "/v1/entities", `{"name":"library"}`},
		{"POST", "/v1/containers", `{"name":"k","collection":"` + c + `"}`}, {"POST", "/v1/images", `{"hash":"sha256.` + hexOf(nil) + `","container":"` + k + `"}`},
		{"PATCH", "/v1/entities/alice", `{"description":"x"}`}, {"PATCH", "/v1/collections/alice/c", `{"private":true}`}, {"PATCH", "/v1/containers/alice/c/k", `{"readOnly":true}`},
		{"DELETE", "/v1/containers/alice/c/k"}, {"DELETE", "/v1/collections/alice/c"}, {"POST", "/v2/tags/" + k, `{"Arch":"amd64","Tag":"x","ImageID":"` + c + `"}`},
	} {
		v.want(403, bob, call[0], call[1], call[2])
		v.want(401, "", call[0], call[1], call[2])
	}
	// Operators where a text belongs.
	for _, call := range [][2]string{{"/v1/entities", `{"name":{"$gt":""}}`}, {"/v1/collections", `{"name":"x","entity":{"$ne":""}}`}, {"/v1/images", `{"hash":["a"],"container":"` + k + `"}`}} {
		v.want(400, alice, "POST", call[0], call[1])
	}
}

// TestSC147Search: nothing of a search is more than a text to look for.
func TestSC147Search(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	v.push(alice, "alice/c/public", newSIF(t, "amd64", 10_000, "public", false), "amd64", "latest")
	for _, bad := range []string{"value=ab", "value=" + strings.Repeat("x", 300), "value=abc%00", "value=%ff%fe%fd", "value=abc&signed=1", "value=abc&arch=a%27b", "value=abc&arch=AMD64"} {
		v.want(400, "", "GET", "/v1/search?"+bad, nil)
	}
	for _, odd := range []string{"%25%25%25", "___", "'%20OR%20'1'='1", `%22%3B--`, "%24gt"} {
		text := v.want(200, "", "GET", "/v1/search?value="+odd, nil)
		if strings.Contains(text, "public") {
			t.Errorf("%s finds %s", odd, text)
		}
	}
	for _, q := range []string{"limit=0", "limit=1001", "limit=x", "after=x"} {
		v.want(400, "", "GET", "/v1/entities/alice/collections?"+q, nil)
	}
	text := v.want(200, "", "GET", "/v1/search?value=publ&arch=arm64,amd64&signed=false", nil)
	if !strings.Contains(text, `"containerName":"public"`) || strings.Contains(v.want(200, "", "GET", "/v1/search?value=publ&signed=true", nil), "sha256.") {
		t.Errorf("search finds %s", text)
	}
}

// TestSC149Descriptions: text is kept as it was written but for what acts on a
// terminal; nobody but its page gives it a meaning.
func TestSC149Descriptions(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	v.container(alice, "alice/c/k")
	text := v.want(200, alice, "PATCH", "/v1/containers/alice/c/k", map[string]any{"description": "a\x1b[31mb\nc\u202e", "fullDescription": "# Title\n<script>alert(1)</script>\n\x1b]0;x\x07"})
	if field(t, text, "description") != "a[31mb c" || field(t, text, "fullDescription") != "# Title\n<script>alert(1)</script>\n]0;x" {
		t.Errorf("stored: %s", text)
	}
	v.want(400, alice, "PATCH", "/v1/containers/alice/c/k", map[string]any{"fullDescription": strings.Repeat("x", 64<<10+1)})
	v.want(400, alice, "PATCH", "/v1/containers/alice/c/k", map[string]any{"description": strings.Repeat("x", 2049)})
}

// TestSC158Names: no name is looked up that could be read in two ways, or is
// none.
func TestSC158Names(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	v.push(alice, "alice/c/k", newSIF(t, "amd64", 10_000, "names", false), "amd64", "latest")
	for _, path := range []string{"/v1/images/alice/c/%2e%2e:latest", "/v1/images/alice%2fc%2fk%2f..:latest", "/v1/images/ALICE/c/k:latest", "/v1/images/a/b/c/d:latest", "/v1/images/alice/c/k%00:latest",
		"/v1/images/alice/c/k:..", "/v1/images/alice/c/k:a%2fb", "/v1/images/alice/c/k:" + strings.Repeat("a", 129), "/v1/images/alice/c/" + strings.Repeat("k", 65) + ":latest",
		"/v1/images/alice/c/k:latest?arch=../x", "/v1/entities/-x", "/v1/collections/alice/c..d", "/v1/containers/alice/c/%5c"} {
		v.want(400, alice, "GET", path, nil)
	}
	for _, name := range []string{"", "..", "a/b", "A", "a b", "a..b", "-a", "a\x00", strings.Repeat("a", 65)} {
		v.want(400, alice, "POST", "/v1/entities", map[string]any{"name": name})
		e := field(t, v.want(200, alice, "GET", "/v1/entities/alice", nil), "id")
		v.want(400, alice, "POST", "/v1/collections", map[string]any{"name": name, "entity": e})
	}
	v.want(403, alice, "POST", "/v1/entities", map[string]any{"name": "imagefile"})
	v.want(400, v.user("admin"), "POST", "/v1/entities", map[string]any{"name": "imagefile"})
	v.want(200, v.user("admin"), "POST", "/v1/entities", map[string]any{"name": "library"})
	v.push(v.user("admin"), "library/default/alpine", newSIF(t, "amd64", 10_000, "short", false), "amd64", "latest")
	for _, short := range []string{"alpine", "alpine:latest", "default/alpine"} {
		v.want(200, "", "GET", "/v1/images/"+short, nil)
	}
}

// TestPresigned: an address is good for one thing, and ends.
func TestPresigned(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	big := newSIF(t, "amd64", 9<<20, "big", false)
	id := v.push(alice, "alice/c/k", big, "amd64", "latest")
	res := v.do("", "GET", "/v1/imagefile/alice/c/k:latest", nil)
	res.Body.Close()
	to := res.Header.Get("Location")
	if res.StatusCode != 303 || !strings.HasPrefix(to, v.http.URL+"/data/image/"+id) {
		t.Fatalf("%d %s", res.StatusCode, to)
	}
	if got := v.want(200, "", "GET", to, nil); got != string(big) {
		t.Error("the image differs")
	}
	res = v.do("", "GET", to, nil, "Range", "bytes=5-14")
	res.Body.Close()
	if res.StatusCode != 206 || res.Header.Get("Content-Range") != fmt.Sprintf("bytes 5-14/%d", len(big)) || res.Header.Get("Accept-Ranges") != "bytes" || !strings.HasPrefix(res.Header.Get("ETag"), `"sha256.`) {
		t.Errorf("a range: %d %v", res.StatusCode, res.Header)
	}
	if got := v.want(200, "", "GET", to, nil, "Range", "bytes=0-1,5-6"); len(got) != len(big) {
		t.Errorf("several ranges: %d bytes", len(got))
	}
	v.want(416, "", "GET", to, nil, "Range", "bytes=99999999-")
	res = v.do("", "HEAD", to, nil)
	if res.StatusCode != 200 || res.ContentLength != int64(len(big)) {
		t.Errorf("HEAD: %d %d", res.StatusCode, res.ContentLength)
	}
	other := v.push(alice, "alice/c/k", newSIF(t, "amd64", 9<<20, "other", false), "amd64", "other")
	for _, bad := range []string{strings.Replace(to, id, other, 1), to + "0", strings.Replace(to, "exp=", "exp=9", 1), strings.Replace(to, "exp=", "by=x&exp=", 1)} {
		v.want(403, "", "GET", bad, nil)
		v.broken(bad)
	}
	v.skew = 13 * time.Hour
	v.want(403, "", "GET", to, nil)
	v.broken(to)
}

// broken checks that a range breaks off without an answer: clients write
// whatever comes into the image.
func (v *site) broken(address string) {
	v.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(v.http.URL, "http://"))
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n", strings.TrimPrefix(address, v.http.URL))
	var b [1]byte
	if n, err := conn.Read(b[:]); n > 0 || err == nil {
		v.t.Errorf("%s: a range is answered", address)
	}
}

// TestHostileUploads: sizes that do not fit, contents that are no image.
func TestHostileUploads(t *testing.T) {
	v := newSite(t, Options{MaxImage: 1 << 20, PartSize: 1 << 18, Quota: 1<<20 + 1<<19})
	alice, bob := v.user("alice"), v.user("bob")
	k := v.container(alice, "alice/c/k")
	record := func(b []byte) string {
		return field(t, v.want(200, alice, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(b), "container": k}), "id")
	}
	junk := bytes.Repeat([]byte("junk"), 1000)
	id := record(junk)
	for _, start := range []string{"", "/_multipart"} {
		v.want(400, alice, "POST", "/v2/imagefile/"+id+start, `{"filesize":0}`)
		v.want(400, alice, "POST", "/v2/imagefile/"+id+start, `{"filesize":-1}`)
		v.want(413, alice, "POST", "/v2/imagefile/"+id+start, `{"filesize":1048577}`)
		v.want(400, alice, "POST", "/v2/imagefile/"+id+start, `{"filesize":1e30}`)
		v.want(403, bob, "POST", "/v2/imagefile/"+id+start, `{"filesize":10}`)
	}
	// What is no image is refused at the end, and its bytes are not kept.
	up := field(t, v.want(200, alice, "POST", "/v2/imagefile/"+id, map[string]any{"filesize": len(junk)}), "uploadURL")
	v.want(200, "", "PUT", up, junk)
	v.want(409, bob2(v), "PUT", "/v2/imagefile/"+id+"/_complete", `{}`)
	if text := v.want(400, alice, "PUT", "/v2/imagefile/"+id+"/_complete", `{}`); !strings.Contains(text, "no sound SIF image") {
		t.Errorf("junk: %s", text)
	}
	v.noBlobs()
	v.want(409, alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "x", "ImageID": id})
	// A damaged table of an image that looks like one.
	bad := newSIF(t, "amd64", 10_000, "bad", false)
	for i := 4096; i < 4096+585; i++ {
		bad[i] = 0xff
	}
	id = record(bad)
	up = field(t, v.want(200, alice, "POST", "/v2/imagefile/"+id, map[string]any{"filesize": len(bad)}), "uploadURL")
	v.want(200, "", "PUT", up, bad)
	v.want(400, alice, "PUT", "/v2/imagefile/"+id+"/_complete", `{}`)
	v.noBlobs()
	// The quota: at the announcement, and at the end for two that fit only one by one.
	one, two := newSIF(t, "amd64", 900_000, "one", false), newSIF(t, "amd64", 900_000, "two", false)
	i1, i2 := record(one), record(two)
	u1 := field(t, v.want(200, alice, "POST", "/v2/imagefile/"+i1, map[string]any{"filesize": len(one)}), "uploadURL")
	u2 := field(t, v.want(200, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)}), "uploadURL")
	v.want(200, "", "PUT", u1, one)
	v.want(200, "", "PUT", u2, two)
	v.want(200, alice, "PUT", "/v2/imagefile/"+i1+"/_complete", `{}`)
	if text := v.want(507, alice, "PUT", "/v2/imagefile/"+i2+"/_complete", `{}`); !strings.Contains(text, "Upload would exceed quota") {
		t.Errorf("quota: %s", text)
	}
	v.want(507, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)})
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:sha256."+hexOf(one), nil)
	v.want(200, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)})
	// Uploads that never end.
	for range maxUploads - 1 {
		v.want(200, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)})
	}
	v.want(429, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)})
	v.skew = 2 * time.Hour
	v.want(200, alice, "POST", "/v2/imagefile/"+i2, map[string]any{"filesize": len(two)})
}

// bob2 may write to alice's collection, and so has uploads of his own.
func bob2(v *site) string {
	token := v.user("bob2")
	v.grant(auth.EntityObject("alice"), "bob2", auth.Writer)
	return token
}

func (v *site) noBlobs() {
	v.t.Helper()
	for b, err := range v.store.Blobs.List(v.t.Context(), "") {
		v.t.Errorf("there is a content %+v, %v", b, err)
	}
}

// TestConcurrentTag: pushes of one tag at once leave one of the images, and a
// reader finds a whole one at every moment.
func TestConcurrentTag(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	var images [][]byte
	for n := range 4 {
		images = append(images, newSIF(t, "amd64", 20_000, fmt.Sprintf("image %d", n), false))
	}
	v.push(alice, "alice/c/k", images[0], "amd64", "latest")
	var pushes, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, text := v.call("", "GET", "/v1/imagefile/alice/c/k:latest?arch=amd64", nil)
				if status != 200 || !slices.ContainsFunc(images, func(b []byte) bool { return string(b) == text }) {
					t.Errorf("a reader gets %d and %d bytes", status, len(text))
					return
				}
			}
		})
	}
	for _, b := range images {
		for range 2 { // each twice, as two clients with the same file
			pushes.Go(func() { v.push(alice, "alice/c/k", b, "amd64", "latest") })
		}
	}
	pushes.Wait()
	close(stop)
	readers.Wait()
	q := field(t, v.want(200, alice, "GET", "/v1/entities/alice", nil), "size")
	if want := fmt.Sprint(float64(4 * len(images[0]))); q != want {
		t.Errorf("%s bytes are in use, want %s", q, want)
	}
}

// TestImmutable: a tag that is immutable stays, and so does its image.
func TestImmutable(t *testing.T) {
	v := newSite(t, Options{})
	alice := v.user("alice")
	id := v.push(alice, "alice/c/k", newSIF(t, "amd64", 10_000, "v1", false), "amd64", "v1", "latest")
	other := v.push(alice, "alice/c/k", newSIF(t, "amd64", 10_000, "v2", false), "amd64", "latest")
	k := v.container(alice, "alice/c/k")
	v.want(200, alice, "PATCH", "/v1/containers/alice/c/k", `{"immutableTags":["v*"]}`)
	v.want(400, alice, "PATCH", "/v1/containers/alice/c/k", `{"immutableTags":["["]}`)
	v.want(409, alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "v1", "ImageID": other})
	v.want(200, alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "v1", "ImageID": id})
	v.want(403, alice, "DELETE", "/v1/images/alice/c/k:v1?arch=amd64", nil)
	v.want(403, alice, "DELETE", "/v1/containers/alice/c/k", nil)
	v.want(200, alice, "PATCH", "/v1/containers/alice/c/k", `{"readOnly":true}`)
	v.want(403, alice, "POST", "/v2/tags/"+k, map[string]any{"Arch": "amd64", "Tag": "x", "ImageID": id})
	v.want(403, alice, "DELETE", "/v1/images/alice/c/k:latest?arch=amd64", nil)
	v.want(http.StatusForbidden, alice, "POST", "/v1/images", map[string]any{"hash": "sha256." + hexOf(nil), "container": k})
}

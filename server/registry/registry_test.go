package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/sif"
)

// site is a registry with its library and accounts behind a listener.
type site struct {
	t     *testing.T
	auth  *auth.Service
	lib   *library.Service
	oci   *Service
	store *embedded.Store
	url   string
}

func newSite(t *testing.T, o library.Options) *site {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	h := httptest.NewServer(nil)
	t.Cleanup(h.Close)
	v := &site{t: t, store: st, url: h.URL}
	o.URL = h.URL
	if v.auth, err = auth.Open(t.Context(), st.Records, auth.Options{URL: h.URL, AuditLog: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	if v.lib, err = library.Open(t.Context(), st.Records, st.Blobs, v.auth, o); err != nil {
		t.Fatal(err)
	}
	if v.oci, err = Open(t.Context(), st.Records, st.Blobs, v.auth, v.lib, h.URL); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, r := range append(v.lib.Routes(), v.oci.Routes()...) {
		mux.HandleFunc(r.Pattern, r.Handler)
	}
	inner := v.auth.Identified(mux)
	h.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(route.WithRequest(r.Context(), route.Request{ID: "r1", Addr: netip.MustParseAddr("192.0.2.1")})))
	})
	return v
}

func (v *site) user(name string, scopes ...auth.Scope) string {
	v.t.Helper()
	a, err := v.auth.Account(v.t.Context(), name)
	if err != nil {
		if a, err = v.auth.AddAccount(v.t.Context(), auth.Account{Kind: auth.User, Name: name}); err != nil {
			v.t.Fatal(err)
		}
	}
	if len(scopes) == 0 {
		scopes = auth.Scopes
	}
	text, _, err := v.auth.AddToken(v.t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Kind: auth.User, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "test", Scopes: scopes})
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

func (v *site) do(token, method, path, body string, headers ...string) (*http.Response, string) {
	v.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = v.url + path
	}
	req, err := http.NewRequest(method, path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res, string(text)
}

func (v *site) want(status int, token, method, path, body string, headers ...string) (*http.Response, string) {
	v.t.Helper()
	res, text := v.do(token, method, path, body, headers...)
	if res.StatusCode != status {
		v.t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, text, status)
	}
	return res, text
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (v *site) blob(token, name, text string) string {
	v.t.Helper()
	res, _ := v.want(202, token, "POST", "/v2/"+name+"/blobs/uploads/", "")
	v.want(201, token, "PUT", res.Header.Get("Location")+"?digest="+digestOf(text), text)
	return digestOf(text)
}

// image pushes an image of one layer and returns its manifest.
func (v *site) image(token, name, tag, layer, layerType string) string {
	v.t.Helper()
	config := v.blob(token, name, `{"architecture":"amd64","os":"linux"}`)
	v.blob(token, name, layer)
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":37},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		typeManifest, config, layerType, digestOf(layer), len(layer))
	v.want(201, token, "PUT", "/v2/"+name+"/manifests/"+tag, text, "Content-Type", typeManifest)
	return text
}

const layerType = "application/vnd.oci.image.layer.v1.tar"

func newSIF(t *testing.T, content string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := sif.Create(f, sif.CreateOptions{Deterministic: true}, sif.Input{Type: sif.DataPartition, Group: 1,
		Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: strings.NewReader(strings.Repeat(content, 1000))}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// conformance is the version of the programme that the rules of distribution are
// tested by.
const conformance = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"

// TestConformance runs the rules of the OCI against the registry.
func TestConformance(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "install", conformance)
	build.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		t.Skipf("the conformance tests cannot be built here: %v: %s", err, text)
	}
	v := newSite(t, library.Options{})
	token := v.user("alice")
	cmd := exec.Command(filepath.Join(dir, "conformance"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(v.url, "http://"), "OCI_TLS=disabled", "OCI_REPO1=alice/conformance/one", "OCI_REPO2=alice/conformance/two",
		"OCI_USERNAME=alice", "OCI_PASSWORD="+token, "OCI_VERSION=1.1", "OCI_DATA_SHA512=false", "OCI_RESULTS_DIR="+dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	t.Logf("%s", text[max(0, len(text)-1500):])
}

// TestTokenDance is how clients of registries log in.
func TestTokenDance(t *testing.T) {
	v := newSite(t, library.Options{})
	token := v.user("alice")
	res, text := v.want(401, "", "GET", "/v2/", "")
	if c := res.Header.Get("WWW-Authenticate"); !strings.HasPrefix(c, `Bearer realm="`+v.url+`/registry/token",service="127.0.0.1:`) || !strings.Contains(text, `"code":"UNAUTHORIZED"`) {
		t.Errorf("challenge %q, %s", c, text)
	}
	res, _ = v.want(401, "", "POST", "/v2/alice/c/k/blobs/uploads/", "")
	if c := res.Header.Get("WWW-Authenticate"); !strings.HasSuffix(c, `scope="repository:alice/c/k:pull,push"`) {
		t.Errorf("challenge %q", c)
	}
	ask := func(name, password string) (int, string) {
		req, err := http.NewRequest("GET", v.url+"/registry/token?service=x&scope=repository:alice/c/k:pull", nil)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			req.SetBasicAuth(name, password)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer struct{ Token string }
		json.NewDecoder(res.Body).Decode(&answer)
		return res.StatusCode, answer.Token
	}
	if status, got := ask("alice", token); status != 200 || got != token {
		t.Errorf("with a password: %d", status)
	}
	for _, bad := range [][2]string{{"bob", token}, {"alice", "x"}} {
		if status, got := ask(bad[0], bad[1]); status != 401 || got != "" {
			t.Errorf("%s: %d %q", bad[0], status, got)
		}
	}
	status, anonymous := ask("", "")
	if status != 200 || anonymous == "" {
		t.Fatalf("anonymous: %d", status)
	}
	v.want(200, token, "GET", "/v2/", "")
	v.want(200, anonymous, "GET", "/v2/", "")
	v.image(token, "alice/c/k", "v1", "layer", layerType)
	v.want(200, anonymous, "GET", "/v2/alice/c/k/manifests/v1", "")
	v.want(401, anonymous, "POST", "/v2/alice/c/k/blobs/uploads/", "")
	// What is private and what is not there answer nobody alike.
	v.want(200, token, "PATCH", "/v1/collections/alice/c", `{"private":true}`)
	for _, who := range []string{"", anonymous} {
		for _, kind := range []string{"manifests/v1", "blobs/" + digestOf("layer"), "tags/list", "referrers/" + digestOf("layer")} {
			_, hidden := v.want(401, who, "GET", "/v2/alice/c/k/"+kind, "")
			_, missing := v.want(401, who, "GET", "/v2/alice/c/none/"+kind, "")
			if hidden != missing {
				t.Errorf("%s and %s", hidden, missing)
			}
		}
	}
}

// TestSC139ForeignBlob: the digest of a blob of another repository opens nothing.
func TestSC139ForeignBlob(t *testing.T) {
	v := newSite(t, library.Options{})
	alice, bob := v.user("alice"), v.user("bob")
	v.image(alice, "alice/secret/k", "v1", "a secret layer", layerType)
	v.want(200, alice, "PATCH", "/v1/collections/alice/secret", `{"private":true}`)
	secret, nothing := digestOf("a secret layer"), digestOf("nothing")
	v.image(bob, "bob/c/k", "v1", "bob's layer", layerType)
	for _, method := range []string{"GET", "HEAD"} {
		_, a := v.want(404, bob, method, "/v2/bob/c/k/blobs/"+secret, "")
		_, b := v.want(404, bob, method, "/v2/bob/c/k/blobs/"+nothing, "")
		if a != b {
			t.Errorf("%s and %s", a, b)
		}
		v.want(404, bob, method, "/v2/alice/secret/k/blobs/"+secret, "")
		v.want(404, bob, method, "/v2/alice/secret/k/manifests/v1", "")
	}
	for _, digest := range []string{secret, nothing} {
		v.want(202, bob, "POST", "/v2/bob/c/k/blobs/uploads/?mount="+digest+"&from=alice/secret/k", "")
		v.want(404, bob, "GET", "/v2/bob/c/k/blobs/"+digest, "")
		m := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":37},"layers":[]}`, digest)
		_, text := v.want(404, bob, "PUT", "/v2/bob/c/k/manifests/stolen", m, "Content-Type", typeManifest)
		if !strings.Contains(text, "MANIFEST_BLOB_UNKNOWN") {
			t.Error(text)
		}
	}
	// Who may read it may mount it; and what bob has goes not with alice's.
	v.want(201, alice, "POST", "/v2/alice/other/k/blobs/uploads/?mount="+secret+"&from=alice/secret/k", "")
	v.blob(bob, "bob/c/k", "a secret layer")
	v.want(200, bob, "GET", "/v2/bob/c/k/blobs/"+secret, "")
	v.want(403, bob, "POST", "/v2/alice/secret/k/blobs/uploads/", "")
	v.want(403, bob, "POST", "/v2/alice/none/k/blobs/uploads/", "")
	v.want(202, alice, "DELETE", "/v2/alice/secret/k/manifests/"+manifestDigest(v, alice, "alice/secret/k", "v1"), "")
	v.want(202, alice, "DELETE", "/v2/alice/secret/k/blobs/"+secret, "")
	v.want(404, alice, "GET", "/v2/alice/secret/k/blobs/"+secret, "")
	if _, text := v.want(200, bob, "GET", "/v2/bob/c/k/blobs/"+secret, ""); text != "a secret layer" {
		t.Error("the blob of one went with that of another")
	}
}

func manifestDigest(v *site, token, name, tag string) string {
	res, _ := v.want(200, token, "HEAD", "/v2/"+name+"/manifests/"+tag, "")
	return res.Header.Get("Docker-Content-Digest")
}

// TestSC142CreateOnlyTag: a token that may only create moves no tag, in one step
// or two.
func TestSC142CreateOnlyTag(t *testing.T) {
	v := newSite(t, library.Options{})
	alice, create := v.user("alice"), v.user("alice", auth.LibraryRead, auth.LibraryCreate)
	first := v.image(create, "alice/c/k", "v1", "one", layerType)
	v.blob(create, "alice/c/k", "two")
	second := strings.Replace(strings.Replace(first, digestOf("one"), digestOf("two"), 1), "\n", "", 1)
	v.want(403, create, "PUT", "/v2/alice/c/k/manifests/v1", second, "Content-Type", typeManifest)
	v.want(201, create, "PUT", "/v2/alice/c/k/manifests/"+digestOf(second), second, "Content-Type", typeManifest)
	v.want(403, create, "PUT", "/v2/alice/c/k/manifests/v1", second, "Content-Type", typeManifest)
	v.want(403, create, "DELETE", "/v2/alice/c/k/manifests/v1", "")
	v.want(403, create, "DELETE", "/v2/alice/c/k/manifests/"+digestOf(first), "")
	if got := manifestDigest(v, alice, "alice/c/k", "v1"); got != digestOf(first) {
		t.Error("the tag has moved")
	}
	// Immutable tags, and where nothing is deleted (SC-141).
	v.want(200, alice, "PATCH", "/v1/containers/alice/c/k", `{"immutableTags":["v*"]}`)
	v.want(409, alice, "PUT", "/v2/alice/c/k/manifests/v1", second, "Content-Type", typeManifest)
	v.want(403, alice, "DELETE", "/v2/alice/c/k/manifests/v1", "")
	v.want(403, alice, "DELETE", "/v2/alice/c/k/manifests/"+digestOf(first), "")
	off := newSite(t, library.Options{NoDelete: true})
	token := off.user("alice")
	m := off.image(token, "alice/c/k", "v1", "one", layerType)
	for _, path := range []string{"manifests/v1", "manifests/" + digestOf(m), "blobs/" + digestOf("one")} {
		off.want(405, token, "DELETE", "/v2/alice/c/k/"+path, "")
	}
}

// TestSIFArtifacts: an image that comes by ORAS is an image of the library, and
// the other way round; and what is deleted in one is not to be had in the other
// (SC-140).
func TestSIFArtifacts(t *testing.T) {
	v := newSite(t, library.Options{})
	alice := v.user("alice")
	image := newSIF(t, "oras")
	manifest := v.image(alice, "alice/c/k", "v1", image, typeSIF)
	if _, text := v.want(200, "", "GET", "/v1/imagefile/alice/c/k:v1?arch=amd64", ""); text != image {
		t.Error("the library has not the image of the registry")
	}
	if _, text := v.want(200, "", "GET", "/v2/alice/c/k/manifests/v1", ""); text != manifest {
		t.Error("the registry has another manifest than was pushed")
	}
	if _, text := v.want(200, "", "GET", "/v2/alice/c/k/blobs/"+digestOf(image), ""); text != image {
		t.Error("the blob differs")
	}
	if _, text := v.want(200, "", "GET", "/v1/search?value=alice/c/k&arch=amd64", ""); !strings.Contains(text, strings.Replace(digestOf(image), ":", ".", 1)) {
		t.Errorf("a search finds %s", text)
	}
	v.blob(alice, "alice/c/k", "no image")
	bad := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":37},"layers":[{"mediaType":%q,"digest":%q,"size":8}]}`, digestOf(`{"architecture":"amd64","os":"linux"}`), typeSIF, digestOf("no image"))
	v.want(400, alice, "PUT", "/v2/alice/c/k/manifests/v1", bad, "Content-Type", typeManifest)
	// Deleted in the library.
	v.want(200, alice, "DELETE", "/v1/images/alice/c/k:v1?arch=amd64", "")
	for _, path := range []string{"manifests/v1", "manifests/" + digestOf(manifest), "blobs/" + digestOf(image)} {
		v.want(404, alice, "GET", "/v2/alice/c/k/"+path, "")
	}
	// An OCI image in its place: the library points its clients to the registry.
	v.image(alice, "alice/c/k", "v1", "a layer", layerType)
	if _, text := v.want(400, "", "GET", "/v1/images/alice/c/k:v1?arch=amd64", ""); !strings.Contains(text, "application/vnd.oci.image.config.v1+json") {
		t.Error(text)
	}
	// Pushed again, and deleted in the registry.
	manifest = v.image(alice, "alice/c/k", "v1", image, typeSIF)
	v.want(200, "", "GET", "/v1/images/alice/c/k:v1?arch=amd64", "")
	v.want(202, alice, "DELETE", "/v2/alice/c/k/manifests/"+digestOf(manifest), "")
	v.want(404, "", "GET", "/v1/images/alice/c/k:v1?arch=amd64", "")
}

// TestNativeImages: what was pushed to the library can be pulled as an artifact.
func TestNativeImages(t *testing.T) {
	v := newSite(t, library.Options{})
	alice := v.user("alice")
	image := newSIF(t, "native")
	v.image(alice, "alice/c/k", "seed", image, typeSIF)
	// The manifest goes, the image of the library stays under another tag.
	_, text := v.want(200, alice, "GET", "/v1/containers/alice/c/k", "")
	var k struct {
		Data struct {
			ID       string
			ArchTags map[string]map[string]string
		}
	}
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	v.want(200, alice, "POST", "/v2/tags/"+k.Data.ID, fmt.Sprintf(`{"Arch":"amd64","Tag":"latest","ImageID":%q}`, k.Data.ArchTags["amd64"]["seed"]))
	res, text := v.want(200, "", "GET", "/v2/alice/c/k/manifests/latest", "")
	digest := res.Header.Get("Docker-Content-Digest")
	if digest != digestOf(text) || res.Header.Get("Content-Type") != typeManifest {
		t.Errorf("%v", res.Header)
	}
	_, again := v.want(200, "", "GET", "/v2/alice/c/k/manifests/"+digest, "")
	if again != text {
		t.Error("by digest it is another")
	}
	var d document
	if err := json.Unmarshal([]byte(text), &d); err != nil || len(d.Layers) != 1 || d.Layers[0].Digest != digestOf(image) || d.Layers[0].Annotations["org.opencontainers.image.title"] != "k.sif" {
		t.Errorf("%s %v", text, err)
	}
	if _, text := v.want(200, "", "GET", "/v2/alice/c/k/blobs/"+d.Config.Digest, ""); text != "{}" {
		t.Errorf("config %q", text)
	}
	if _, text := v.want(200, "", "GET", "/v2/alice/c/k/tags/list", ""); strings.TrimSpace(text) != `{"name":"alice/c/k","tags":["latest","seed"]}` {
		t.Errorf("tags %s", text)
	}
}

// TestSC156Bounds: what is asked for without bounds is bounded.
func TestSC156Bounds(t *testing.T) {
	v := newSite(t, library.Options{MaxImage: 1 << 20, Quota: 3 << 20})
	alice := v.user("alice")
	m := v.image(alice, "alice/c/k", "v1", "layer", layerType)
	for _, tag := range []string{"a", "b", "c"} {
		v.want(201, alice, "PUT", "/v2/alice/c/k/manifests/"+tag, m, "Content-Type", typeManifest)
	}
	v.want(400, alice, "GET", "/v2/alice/c/k/tags/list?n=x", "")
	v.want(400, alice, "GET", "/v2/alice/c/k/tags/list?n=-1", "")
	res, text := v.want(200, alice, "GET", "/v2/alice/c/k/tags/list?n=2", "")
	if strings.TrimSpace(text) != `{"name":"alice/c/k","tags":["a","b"]}` || res.Header.Get("Link") != `</v2/alice/c/k/tags/list?last=b&n=2>; rel="next"` {
		t.Errorf("%s %s", text, res.Header.Get("Link"))
	}
	_, text = v.want(200, alice, "GET", "/v2/alice/c/k/tags/list?n=2147483648&last=b", "")
	if strings.TrimSpace(text) != `{"name":"alice/c/k","tags":["c","v1"]}` {
		t.Error(text)
	}
	v.want(413, alice, "PUT", "/v2/alice/c/k/manifests/big", strings.Repeat(" ", maxManifest+1), "Content-Type", typeManifest)
	for _, bad := range []string{"", "{", "[]", `{"schemaVersion":1}`, `{"schemaVersion":2}`, `{"schemaVersion":2,"config":{"digest":"sha256:../../x"}}`, strings.Replace(m, typeManifest, typeIndex, 1)} {
		v.want(400, alice, "PUT", "/v2/alice/c/k/manifests/bad", bad, "Content-Type", typeManifest)
	}
	v.want(400, alice, "PUT", "/v2/alice/c/k/manifests/bad", m, "Content-Type", "text/html")
	v.want(400, alice, "PUT", "/v2/alice/c/k/manifests/"+digestOf("other"), m, "Content-Type", typeManifest)
	for _, name := range []string{"alice", "alice/c", "alice/c/k/x", "ALICE/c/k", "alice/../k", "alice/c/%2e%2e"} {
		res, _ := v.do(alice, "POST", "/v2/"+name+"/blobs/uploads/", "")
		if res.StatusCode < 300 || res.StatusCode >= 500 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	// A blob of another content, one that is too large, one beyond the quota.
	start := func() string {
		res, _ := v.want(202, alice, "POST", "/v2/alice/c/k/blobs/uploads/", "")
		return res.Header.Get("Location")
	}
	v.want(400, alice, "PUT", start()+"?digest="+digestOf("x"), "y")
	v.want(400, alice, "PUT", start()+"?digest=sha256:xyz", "y")
	v.want(400, alice, "PUT", start()+"?digest=sha512:"+strings.Repeat("0", 128), "y")
	v.want(413, alice, "PATCH", start(), strings.Repeat("x", 1<<20+1))
	at := start()
	v.want(202, alice, "PATCH", at, "abc", "Content-Range", "0-2")
	v.want(416, alice, "PATCH", at, "abc", "Content-Range", "0-2")
	v.want(416, alice, "PATCH", at, "abc", "Content-Range", "7-9")
	v.want(202, alice, "PATCH", at, "def", "Content-Range", "3-5")
	v.want(403, v.user("bob"), "GET", at, "")
	v.want(201, alice, "PUT", at+"?digest="+digestOf("abcdef"), "")
	for _, c := range []string{"1", "2"} {
		v.blob(alice, "alice/c/k", strings.Repeat(c, 1<<20))
	}
	large := strings.Repeat("3", 1<<20)
	if res, text := v.do(alice, "PUT", start()+"?digest="+digestOf(large), large); res.StatusCode != 403 || !strings.Contains(text, "exceed quota") {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	v.want(404, alice, "GET", "/v2/alice/c/k/blobs/"+digestOf(large), "")
}

// TestCollect: blobs that no manifest names go, and nothing else.
func TestCollect(t *testing.T) {
	v := newSite(t, library.Options{})
	alice := v.user("alice")
	v.image(alice, "alice/c/k", "v1", "kept", layerType)
	v.blob(alice, "alice/c/k", "lost")
	v.oci.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if err := v.oci.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.want(404, alice, "GET", "/v2/alice/c/k/blobs/"+digestOf("lost"), "")
	v.want(200, alice, "GET", "/v2/alice/c/k/blobs/"+digestOf("kept"), "")
	if needed, err := v.oci.holds(t.Context(), strings.TrimPrefix(digestOf("lost"), "sha256:")); needed || err != nil {
		t.Errorf("a lost blob is needed: %v", err)
	}
	n, err := v.oci.links.Count(t.Context(), store.Query{})
	if err != nil || n != 2 {
		t.Errorf("%d links are left, want 2: %v", n, err)
	}
}

// FuzzManifest: no bytes that come as a manifest do harm.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+emptySHA256+`"},"layers":[{"mediaType":"`+typeSIF+`","digest":"sha256:`+emptySHA256+`"}],"subject":{"digest":"sha256:`+emptySHA256+`"}}`), typeManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:`+emptySHA256+`"}]}`), typeIndex)
	f.Fuzz(func(t *testing.T, text []byte, mediaType string) {
		m, err := parseManifest(text, mediaType)
		if err != nil {
			return
		}
		for _, sha := range append(append([]string{m.SHA256}, m.Blobs...), m.Manifests...) {
			if _, err := parseDigest("sha256:" + sha); err != nil {
				t.Errorf("a manifest names %q", sha)
			}
		}
		if !bytes.Contains(text, []byte("schemaVersion")) && !bytes.Contains(bytes.ToLower(text), []byte("schemaversion")) && !bytes.Contains(text, []byte(`\u`)) {
			t.Errorf("taken: %q", text)
		}
	})
}

// TestTwoKinds: SC-068, a text that is a manifest and an index, or is called
// otherwise than it calls itself, is neither.
func TestTwoKinds(t *testing.T) {
	d := fmt.Sprintf(`{"mediaType":"x","digest":"sha256:%s","size":0}`, emptySHA256)
	for name, c := range map[string][2]string{
		"manifest with manifests": {`{"schemaVersion":2,"config":` + d + `,"layers":[],"manifests":[` + d + `]}`, typeManifest},
		"index with layers":       {`{"schemaVersion":2,"manifests":[],"layers":[` + d + `]}`, typeIndex},
		"index with a config":     {`{"schemaVersion":2,"manifests":[],"config":` + d + `}`, typeIndex},
		"index called a manifest": {`{"schemaVersion":2,"mediaType":"` + typeIndex + `","config":` + d + `,"layers":[]}`, typeManifest},
		"manifest without a kind": {`{"schemaVersion":2,"config":` + d + `,"layers":[]}`, "application/json"},
	} {
		if _, err := parseManifest([]byte(c[0]), c[1]); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

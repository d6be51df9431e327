package builder

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"singularity/api"
	"singularity/provenance"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/sif"
	"singularity/sign"
)

// site is a builder with its library, accounts and queue; the test is its worker.
type site struct {
	*Service
	t        *testing.T
	public   http.Handler
	internal *http.ServeMux
	lib      *library.Service
}

func newSite(t *testing.T, lib library.Options, o Options) *site {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	o.URL, o.Log = "https://images.example.org", slog.New(slog.DiscardHandler)
	lib.URL = o.URL
	o.Limits = api.BuildLimits{Time: time.Hour, Memory: 1 << 30, Disk: 1 << 30, CPUs: 1, PIDs: 100, Output: 1 << 20, Context: 1 << 20}
	o.Parallel, o.Queued, o.Lease, o.Keep, o.History, o.MaxContext = 2, 5, time.Minute, time.Hour, time.Hour, 1<<20
	a, err := auth.Open(t.Context(), st.Records, auth.Options{URL: o.URL, AuditLog: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := library.Open(t.Context(), st.Records, st.Blobs, a, lib)
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.Open(t.Context(), queue.Options{Dir: filepath.Join(t.TempDir(), "queue"), Lease: o.Lease})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	o.SecretKey = bytes.Repeat([]byte{7}, 32)
	if o.Seal != nil {
		o.Seal.Dir, o.Seal.Blob = t.TempDir(), library.BlobName
	}
	s, err := Open(t.Context(), st.Records, st.Blobs, a, q, l, o)
	if err != nil {
		t.Fatal(err)
	}
	v := &site{Service: s, t: t, internal: http.NewServeMux(), lib: l}
	public := http.NewServeMux()
	for _, r := range append(s.Routes(), l.Routes()...) {
		public.HandleFunc(r.Pattern, r.Handler)
	}
	v.public = a.Identified(public)
	for _, r := range s.Internal() {
		v.internal.HandleFunc(r.Pattern, r.Handler)
	}
	return v
}

func (v *site) user(name string, admin bool) string {
	v.t.Helper()
	a, err := v.auth.AddAccount(v.t.Context(), auth.Account{Kind: auth.User, Name: name, Admin: admin})
	if err != nil {
		v.t.Fatal(err)
	}
	text, _, err := v.auth.AddToken(v.t.Context(), auth.Caller{ID: a.ID, Name: a.Name, Kind: auth.User, Scopes: auth.Scopes, Admin: admin}, a.ID, auth.NewToken{Name: "test", Scopes: auth.Scopes})
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

// call makes a call with a token; data goes to out.
func (v *site) call(token, method, path string, in, out any) int {
	v.t.Helper()
	text, ok := in.([]byte)
	if !ok && in != nil {
		text, _ = json.Marshal(in)
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(text))
	r.Header.Set("Authorization", "Bearer "+token)
	return v.serve(v.public, r, out)
}

// work makes a call as a worker with a certificate.
func (v *site) work(path string, in, out any) int {
	v.t.Helper()
	text, ok := in.([]byte)
	if !ok {
		text, _ = json.Marshal(in)
	}
	r := httptest.NewRequest("POST", "/internal/v1/builds/"+path, bytes.NewReader(text))
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{OrganizationalUnit: []string{WorkerUnit}}}}}}
	return v.serve(v.internal, r, out)
}

func (v *site) serve(h http.Handler, r *http.Request, out any) int {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(route.WithRequest(v.t.Context(), route.Request{ID: "r1", Addr: netip.MustParseAddr("192.0.2.1")}), time.Minute)
	defer cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(ctx))
	v.tidying.Lock() // until what follows an end is done
	v.tidying.Unlock()
	if out != nil && w.Code < 300 && w.Code != 204 {
		if text, ok := out.(*string); ok {
			*text = w.Body.String()
		} else if e := (api.Envelope[json.RawMessage]{}); json.Unmarshal(w.Body.Bytes(), &e) != nil || json.Unmarshal(e.Data, out) != nil {
			v.t.Fatalf("%s %s: %s", r.Method, r.URL, w.Body)
		}
	}
	return w.Code
}

// meet makes a worker known.
func (v *site) meet() {
	v.t.Helper()
	if err := v.Service.meet(v.t.Context(), &api.WorkerClaim{Worker: "hand", Archs: []string{"amd64"}, Slots: 1}); err != nil {
		v.t.Fatal(err)
	}
}

const definition = "Bootstrap: docker\nFrom: alpine\n"

func (v *site) submit(token, ref string) (i api.BuildInfo, status int) {
	v.t.Helper()
	status = v.call(token, "POST", "/v1/build", api.BuildRequest{DefinitionRaw: []byte(definition), LibraryRef: ref, BuilderRequirements: map[string]string{"arch": "amd64"}}, &i)
	return i, status
}

func (v *site) claim() (t api.BuildTask) {
	v.t.Helper()
	if got := v.work("claim", api.WorkerClaim{Worker: "hand", Archs: []string{"amd64"}, Slots: 1}, &t); got != 200 {
		v.t.Fatalf("claim: %d", got)
	}
	return t
}

// built is an image as a build makes one.
func built(t *testing.T) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := sif.Create(f, sif.CreateOptions{}, sif.Input{Type: sif.DataDefFile, Group: 1, Data: strings.NewReader(definition)},
		sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: bytes.NewReader(make([]byte, 100_000))})
	if err != nil {
		t.Fatal(err)
	}
	text, err := provenance.New(s, provenance.Build{Version: "5.0.0", Parameters: map[string]any{"arch": "amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, err := sif.Edit(f, st.Size())
	if err == nil {
		_, err = e.Add(sif.Input{Type: sif.DataJSON, Group: 1, Name: provenance.Object, Data: bytes.NewReader(text)})
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// finish stores an image as a worker does, with the token of the build, and says
// that it is done.
func (v *site) finish(task api.BuildTask, image []byte) (api.WorkerTarget, int) {
	v.t.Helper()
	sum := sha256.Sum256(image)
	hash := hex.EncodeToString(sum[:])
	var target api.WorkerTarget
	if got := v.work(task.ID+"/upload", api.WorkerUpload{Fence: task.Fence, SHA256: hash, Size: int64(len(image))}, &target); got != 200 {
		v.t.Fatalf("upload: %d", got)
	}
	name, tag, _ := strings.Cut(strings.TrimPrefix(target.Ref, "library://"), ":")
	var k api.Container
	var i api.Image
	if v.call(target.Token, "GET", "/v1/containers/"+name, nil, &k) != 200 || v.call(target.Token, "POST", "/v1/images", map[string]string{"hash": "sha256." + hash, "container": k.ID}, &i) != 200 ||
		v.call(target.Token, "POST", "/v1/imagefile/"+i.ID, image, nil) != 200 || v.call(target.Token, "POST", "/v2/tags/"+k.ID, map[string]string{"Arch": "amd64", "Tag": tag, "ImageID": i.ID}, nil) != 200 {
		v.t.Fatalf("the image cannot be stored at %s", target.Ref)
	}
	return target, v.work(task.ID+"/done", api.WorkerDone{Fence: task.Fence, State: "succeeded"}, nil)
}

// TestSubmit: what cannot be built is refused at once, and builds are their
// owners' (SC-159).
func TestSubmit(t *testing.T) {
	v := newSite(t, library.Options{Quota: 150_000}, Options{})
	alice, bob, admin := v.user("alice", false), v.user("bob", false), v.user("admin", true)
	if _, got := v.submit(alice, ""); got != 503 {
		t.Errorf("without a worker: %d", got)
	}
	v.meet()
	var o api.BuildOptions
	if got := v.call(alice, "GET", "/v1/build-options", nil, &o); got != 200 || len(o.Archs) != 1 || o.Archs[0] != "amd64" || o.Parallel != 2 || o.Signer != "" {
		t.Errorf("options: %d %+v", got, o)
	}
	for ref, want := range map[string]int{"library://bob/x/y": 403, "library://alice/a/b/c/d": 400, "docker://alpine": 400, "library://alice/tools/x:v1": 201} {
		if _, got := v.submit(alice, ref); got != want {
			t.Errorf("%s: %d, want %d", ref, got, want)
		}
	}
	task := v.claim()
	for _, path := range []string{"", "/log", "/definition"} {
		if got, none := v.call(bob, "GET", "/v1/build/"+task.ID+path, nil, nil), v.call(bob, "GET", "/v1/build/0123456789abcdef01234567"+path, nil, nil); got != 404 || none != 404 {
			t.Errorf("bob sees %q of alice's build: %d", path, got)
		}
	}
	if got := v.call(bob, "PUT", "/v1/build/"+task.ID+"/_cancel", nil, nil); got != 404 {
		t.Errorf("bob cancels alice's build: %d", got)
	}
	if _, got := v.finish(task, built(t)); got != 204 {
		t.Fatalf("done: %d", got)
	}
	var i api.BuildInfo
	if v.call(alice, "GET", "/v1/build/"+task.ID, nil, &i); i.State != "succeeded" || i.Worker != "" || i.ImageSize == 0 {
		t.Errorf("%+v", i)
	}
	if v.call(admin, "GET", "/v1/build/"+task.ID, nil, &i); i.Worker != "hand" {
		t.Errorf("an administrator sees not which worker: %+v", i)
	}
	// The quota is used up by another image: said before anything is built.
	if _, got := v.submit(alice, "library://alice/tools/x:v2"); got != 201 {
		t.Errorf("with room: %d", got)
	}
	task = v.claim()
	if got := v.call(admin, "PATCH", "/v1/entities/alice", map[string]int{"quota": 1000}, nil); got != 200 {
		t.Fatalf("quota: %d", got)
	}
	if _, got := v.submit(alice, "library://alice/tools/x:v3"); got != 507 {
		t.Errorf("without room: %d", got)
	}
	v.used(alice, bob, admin)
}

// used: what was built is counted, and shown to administrators.
func (v *site) used(alice, bob, admin string) {
	var u api.BuildUsage
	if got := v.call(bob, "GET", "/v1/admin/builds/usage", nil, nil); got != 403 {
		v.t.Errorf("bob sees the usage: %d", got)
	}
	if got := v.call(admin, "GET", "/v1/admin/builds/usage?days=7", nil, &u); got != 200 || len(u.Days) != 7 || u.Days[6].Builds != 1 || u.Days[6].Succeeded != 1 || len(u.Users) != 1 || u.Users[0].Name != "alice" || u.Users[0].Bytes == 0 {
		v.t.Errorf("usage: %d %+v", got, u)
	}
	for _, days := range []string{"0", "-1", "x", "100000"} {
		if got := v.call(admin, "GET", "/v1/admin/builds/usage?days="+days, nil, nil); got != 400 {
			v.t.Errorf("days=%s: %d", days, got)
		}
	}
}

// TestQueueRules: what waits while the queue is drained begins afterwards; a higher
// priority comes first; who has enough builds gets no more, and a worker that stops
// gives one back; who is banned has none left.
func TestQueueRules(t *testing.T) {
	v := newSite(t, library.Options{}, Options{})
	alice, admin := v.user("alice", false), v.user("admin", true)
	v.meet()
	next := func() string {
		t.Helper()
		task, err := v.next(t.Context(), &api.WorkerClaim{Worker: "hand", Archs: []string{"amd64"}, Slots: 1})
		if err != nil {
			t.Fatal(err)
		}
		if task == nil {
			return ""
		}
		return task.ID
	}
	// soon is for a queue that hears of a change a moment later.
	soon := func() (id string) {
		t.Helper()
		for id = next(); id == "" && t.Context().Err() == nil; id = next() {
		}
		return id
	}
	if got := v.call(alice, "PATCH", "/v1/admin/builds", map[string]bool{"draining": true}, nil); got != 403 {
		t.Errorf("alice drains the queue: %d", got)
	}
	if got := v.call(admin, "PATCH", "/v1/admin/builds", map[string]bool{"draining": true}, nil); got != 200 {
		t.Fatalf("drain: %d", got)
	}
	var ids []string
	for range 5 {
		i, got := v.submit(alice, "")
		if got != 201 {
			t.Fatalf("submit: %d", got)
		}
		ids = append(ids, i.ID)
	}
	if _, got := v.submit(alice, ""); got != 429 {
		t.Errorf("a sixth build: %d", got)
	}
	if got := next(); got != "" {
		t.Errorf("%s begins while the queue is drained", got)
	}
	for who, want := range map[string]int{alice: 403, admin: 200} {
		if got := v.call(who, "PATCH", "/v1/admin/builds/"+ids[3], map[string]string{"priority": "high"}, nil); got != want {
			t.Errorf("priority: %d, want %d", got, want)
		}
	}
	if got := v.call(admin, "PATCH", "/v1/admin/builds/"+ids[4], map[string]string{"priority": "highest"}, nil); got != 400 {
		t.Errorf("a priority that is none: %d", got)
	}
	v.call(admin, "PATCH", "/v1/admin/builds", map[string]bool{"draining": false}, nil)
	if got := soon(); got != ids[3] {
		t.Errorf("%s comes before the one with a high priority, %s", got, ids[3])
	}
	if got := soon(); got != ids[0] {
		t.Errorf("%s comes before %s", got, ids[0])
	}
	if got := next(); got != "" {
		t.Errorf("a third build of a user runs: %s", got)
	}
	// Its worker stops: it waits again, and no attempt is counted.
	j, err := v.jobs.Get(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := v.work(ids[0]+"/done", api.WorkerDone{Fence: j.Value.Fence, State: "queued"}, nil); got != 204 {
		t.Fatalf("given back: %d", got)
	}
	var i api.BuildInfo
	if v.call(alice, "GET", "/v1/build/"+ids[0], nil, &i); i.State != "queued" || i.Attempts != 0 {
		t.Errorf("given back: %+v", i)
	}
	if got := v.work(ids[0]+"/done", api.WorkerDone{Fence: j.Value.Fence, State: "failed"}, nil); got != 409 {
		t.Errorf("who gave it back ends it: %d", got)
	}
	if got := v.call(admin, "PATCH", "/v1/admin/builds", map[string]string{"ban": "alice"}, nil); got != 200 {
		t.Fatalf("ban: %d", got)
	}
	for _, id := range ids {
		if v.call(alice, "GET", "/v1/build/"+id, nil, &i); i.State != "cancelled" {
			t.Errorf("of who is banned: %+v", i)
		}
	}
	if _, got := v.submit(alice, ""); got != 403 {
		t.Errorf("who is banned submits: %d", got)
	}
	if got := next(); got != "" {
		t.Errorf("%s of who is banned begins", got)
	}
}

// TestFollow: many who watch a log each see all of it, in order, whenever they
// came; and a tail of it when it is over.
func TestFollow(t *testing.T) {
	v := newSite(t, library.Options{}, Options{})
	alice := v.user("alice", false)
	v.meet()
	i, _ := v.submit(alice, "")
	task := v.claim()
	var want strings.Builder
	const watchers = 50
	logs := make([]string, watchers)
	var watching sync.WaitGroup
	for n := range watchers {
		watching.Go(func() { v.call(alice, "GET", "/v1/build/"+i.ID+"/log?follow=true", nil, &logs[n]) })
	}
	for n := range 100 {
		line := fmt.Sprintf("line %d é\n", n)
		want.WriteString(line)
		if got := v.work(fmt.Sprintf("%s/log?fence=%d&offset=-1", task.ID, task.Fence), []byte(line), nil); got != 200 {
			t.Fatalf("log: %d", got)
		}
	}
	if got := v.work(task.ID+"/done", api.WorkerDone{Fence: task.Fence, State: "failed", Reason: "\x1b[31mno\u202e"}, nil); got != 204 {
		t.Fatalf("done: %d", got)
	}
	watching.Wait()
	for n, got := range logs {
		if !strings.Contains(got, want.String()) || !strings.HasSuffix(got, "Build failed:  [31mno \n") {
			t.Fatalf("watcher %d: %q", n, got)
		}
	}
	var tail string
	v.call(alice, "GET", "/v1/build/"+i.ID+"/log?tail=60", nil, &tail)
	if !strings.HasPrefix(tail, "line 9") || len(tail) > 60 || !strings.HasSuffix(logs[0], tail) {
		t.Errorf("the tail is %q", tail)
	}
}

// TestSeal: the service signs what it checked, and nothing else; a worker that
// announces one image and stores another gets no signature.
func TestSeal(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.DSSE(key)
	if err != nil {
		t.Fatal(err)
	}
	v := newSite(t, library.Options{}, Options{Seal: &Seal{Signer: func(time.Time) sign.Signer { return signer }, Attest: key, Name: "K"}})
	alice := v.user("alice", false)
	v.meet()
	v.submit(alice, "library://alice/tools/x:v1")
	task := v.claim()
	target, got := v.finish(task, built(t))
	if got != 204 || target.Ref != "library://alice/remote-builds/rb-"+task.ID+"-unsigned:unsigned" {
		t.Fatalf("%d %s", got, target.Ref)
	}
	if got := v.call(alice, "GET", "/v1/images/"+strings.TrimPrefix(target.Ref, "library://"), nil, nil); got != 404 {
		t.Errorf("the image that was not signed is there: %d", got)
	}
	var i api.BuildInfo
	v.call(alice, "GET", "/v1/build/"+task.ID, nil, &i)
	if i.State != "succeeded" {
		t.Fatalf("%+v", i)
	}
	b, err := v.blobs.Open(t.Context(), library.BlobName(strings.TrimPrefix(i.ImageChecksum, "sha256.")))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f, err := sif.Open(b, i.ImageSize)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.NewPublicKey(public, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Verify(t.Context(), f, sign.Options{Keys: []*sign.PublicKey{k}}); err != nil {
		t.Error(err)
	}
	o, ok := f.Named(sif.DataJSON, provenance.Envelope)
	if !ok {
		t.Fatal("no envelope")
	}
	data, err := f.ReadAll(o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := sign.OpenAttestation(data, provenance.PayloadType, []*sign.PublicKey{k})
	if err != nil || a.By == nil {
		t.Fatalf("%+v %v", a, err)
	}
	s, err := provenance.Parse(a.Payload)
	if err != nil || s.Check(f) != nil || s.Builder() != "https://images.example.org" {
		t.Errorf("%s %v", a.Payload, err)
	}
	// Without a statement about it, an image is not signed, and not published.
	v.submit(alice, "library://alice/tools/x:v2")
	task = v.claim()
	other := built(t)
	other[len(other)-200] ^= 1 // in the statement
	if _, got := v.finish(task, other); got != 204 {
		t.Fatalf("done: %d", got)
	}
	if v.call(alice, "GET", "/v1/build/"+task.ID, nil, &i); i.State != "failed" || !strings.Contains(i.Reason, "cannot be signed") {
		t.Errorf("%+v", i)
	}
	if got := v.call(alice, "GET", "/v1/images/alice/tools/x:v2", nil, nil); got != 404 {
		t.Errorf("an image that cannot be signed is published: %d", got)
	}
}

// TestSecrets: what a user stored comes to workers of their builds, and to nobody
// else; in the records it is sealed.
func TestSecrets(t *testing.T) {
	v := newSite(t, library.Options{}, Options{})
	alice, bob := v.user("alice", false), v.user("bob", false)
	v.meet()
	const password = "hunter2-canary"
	for in, want := range map[api.RegistrySecret]int{{Registry: "r.example.org:5000", Username: "alice", Password: password}: 204, {Registry: "r.example.org/x", Username: "a", Password: password}: 400,
		{Registry: "r.example.org", Username: "a:b", Password: password}: 400, {Registry: "r.example.org", Username: "a", Password: "abc"}: 400, {Registry: "../x", Username: "a", Password: password}: 400, {Registry: "r", Username: "a\nb", Password: password}: 400} {
		if got := v.call(alice, "PUT", "/v1/build-secrets", in, nil); got != want {
			t.Errorf("%+v: %d, want %d", in, got, want)
		}
	}
	var text string
	if v.call(alice, "GET", "/v1/build-secrets", nil, &text); !strings.Contains(text, `"registry":"r.example.org:5000","username":"alice"`) || strings.Contains(text, "canary") {
		t.Errorf("alice's list: %s", text)
	}
	if v.call(bob, "GET", "/v1/build-secrets", nil, &text); strings.Contains(text, "example") {
		t.Errorf("bob's list: %s", text)
	}
	if got := v.call(bob, "DELETE", "/v1/build-secrets/r.example.org:5000", nil, nil); got != 404 {
		t.Errorf("bob deletes alice's: %d", got)
	}
	for i, err := range v.secrets.All(t.Context(), store.Query{}) {
		if err != nil || bytes.Contains(i.Value.Password, []byte("canary")) {
			t.Errorf("not sealed: %+v %v", i.Value, err)
		}
	}
	v.submit(alice, "")
	if task := v.claim(); len(task.Registries) != 1 || task.Registries[0].Password != password || task.Registries[0].Registry != "r.example.org:5000" {
		t.Errorf("alice's build has %+v", task.Registries)
	}
	v.submit(bob, "")
	if task := v.claim(); len(task.Registries) != 0 {
		t.Errorf("bob's build has %+v", task.Registries)
	}
	if got := v.call(alice, "DELETE", "/v1/build-secrets/r.example.org:5000", nil, nil); got != 204 {
		t.Errorf("delete: %d", got)
	}
}

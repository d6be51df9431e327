package watch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"singularity/catalog"
	"singularity/sbom"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store/embedded"
	"singularity/sif"
	"singularity/squashfs"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == catalog.Verb {
		os.Exit(catalog.Main())
	}
	os.Exit(m.Run())
}

// watched is a library with its watch behind a listener.
type watched struct {
	t     *testing.T
	dir   string // of the advisories
	store *embedded.Store
	auth  *auth.Service
	lib   *library.Service
	watch *Service
	http  *httptest.Server
	mux   *http.ServeMux
	stop  func()

	mu   sync.Mutex
	skew time.Duration
}

func newWatched(t *testing.T, change func(*Options)) *watched {
	t.Helper()
	st, err := embedded.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	v := &watched{t: t, store: st, dir: filepath.Join(t.TempDir(), "advisories"), mux: http.NewServeMux()}
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	v.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(route.WithRequest(r.Context(), route.Request{ID: "r", Addr: netip.MustParseAddr("192.0.2.1")}))
		if strings.HasPrefix(r.URL.Path, "/data/") { // an address that carries its own right
			v.mux.ServeHTTP(w, r)
			return
		}
		v.auth.Identified(v.mux).ServeHTTP(w, r)
	}))
	t.Cleanup(v.http.Close)
	if v.auth, err = auth.Open(t.Context(), st.Records, auth.Options{URL: v.http.URL}); err != nil {
		t.Fatal(err)
	}
	if v.lib, err = library.Open(t.Context(), st.Records, st.Blobs, v.auth, library.Options{URL: v.http.URL}); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: t.TempDir(), Advisories: v.dir, Every: 20 * time.Millisecond, Read: mixed}
	if change != nil {
		change(&o)
	}
	v.open(o)
	for _, r := range append(v.lib.Routes(), v.watch.Routes()...) {
		v.mux.HandleFunc(r.Pattern, r.Handler)
	}
	return v
}

func (v *watched) open(o Options) {
	v.t.Helper()
	var err error
	if v.watch, err = Open(v.t.Context(), v.store.Records, v.store.Blobs, v.auth, v.lib, o); err != nil {
		v.t.Fatal(err)
	}
	v.watch.now = func() time.Time { v.mu.Lock(); defer v.mu.Unlock(); return time.Now().Add(v.skew) }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { v.watch.Run(ctx); close(ended) }()
	v.stop = sync.OnceFunc(func() { cancel(); <-ended })
	v.t.Cleanup(v.stop)
}

func (v *watched) later(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.skew += d
}

// mixed reads an image: a squashfs by the process that does so in production, and any
// other partition as a list of packages in JSON.
func mixed(ctx context.Context, f *os.File) (*sbom.Inventory, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	image, err := sif.Open(f, st.Size())
	if err != nil {
		return nil, err
	}
	p, err := image.Primary()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, p.Off, p.Size))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("hsqs")) {
		program, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return catalog.Read(ctx, program, f)
	}
	var inv sbom.Inventory
	if err := json.Unmarshal(bytes.TrimRight(text, "\n\x00"), &inv); err != nil {
		return nil, errors.New("this is no list of packages\x1b[31m")
	}
	return &inv, nil
}

// wait waits until ok.
func (v *watched) wait(what string, ok func() bool) {
	v.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			v.t.Fatalf("it does not come: %s", what)
		}
	}
}

// known waits until the packages of n images are known.
func (v *watched) known(n int) {
	v.t.Helper()
	v.wait(fmt.Sprint(n, " lists of packages"), func() bool { have, _ := v.watch.corpus.size(); return have == n })
}

// advise puts a file of records into the directory of advisories and waits for it.
func (v *watched) advise(name string, records ...string) {
	v.t.Helper()
	before := v.watch.state().Digest
	v.put(name, records...)
	v.wait("advisories", func() bool { s := v.watch.state(); return s.Loaded && s.Digest != before })
}

// put puts a file there as a whole.
func (v *watched) put(name string, records ...string) {
	v.t.Helper()
	p := filepath.Join(v.dir, name)
	if err := os.WriteFile(p+".part", []byte("["+strings.Join(records, ",")+"]"), 0o644); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Rename(p+".part", p); err != nil {
		v.t.Fatal(err)
	}
}

// rec is a record about one package that is corrected in a version, "" for none.
func rec(id, modified, eco, name, fixed, severity string, aliases ...string) string {
	events := `{"introduced":"0"}`
	if fixed != "" {
		events += fmt.Sprintf(`,{"fixed":%q}`, fixed)
	}
	a, _ := json.Marshal(aliases)
	return fmt.Sprintf(`{"id":%q,"modified":%q,"summary":"a fault","aliases":%s,"affected":[{"package":{"ecosystem":%q,"name":%q},"ranges":[{"type":"ECOSYSTEM","events":[%s]}],"database_specific":{"severity":%q}}]}`,
		id, modified, a, eco, name, events, severity)
}

func (v *watched) user(name string, kind auth.Kind, owner string, scopes ...auth.Scope) string {
	v.t.Helper()
	a, err := v.auth.Account(v.t.Context(), name)
	if err != nil {
		of := ""
		if owner != "" {
			o, err := v.auth.Account(v.t.Context(), owner)
			if err != nil {
				v.t.Fatal(err)
			}
			of = o.ID
		}
		if a, err = v.auth.AddAccount(v.t.Context(), auth.Account{Kind: kind, Name: name, Admin: name == "admin", BelongsTo: of}); err != nil {
			v.t.Fatal(err)
		}
	}
	if len(scopes) == 0 {
		scopes = auth.Scopes
	}
	text, _, err := v.auth.AddToken(v.t.Context(), auth.Caller{ID: a.ID, Scopes: auth.Scopes}, a.ID, auth.NewToken{Name: "test", Scopes: scopes})
	if err != nil {
		v.t.Fatal(err)
	}
	return text
}

func (v *watched) call(token, method, path string, body any) (int, string) {
	v.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			v.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	if strings.HasPrefix(path, "/") {
		path = v.http.URL + path
	}
	req, err := http.NewRequest(method, path, r)
	if err != nil {
		v.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := v.http.Client().Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// want makes a call whose status is known and reads its data into out.
func (v *watched) want(status int, token, method, path string, body, out any) string {
	v.t.Helper()
	got, text := v.call(token, method, path, body)
	if got != status {
		v.t.Fatalf("%s %s: %d %s, want %d", method, path, got, strings.TrimSpace(text), status)
	}
	if out != nil {
		e := struct{ Data any }{out}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			v.t.Fatal(err)
		}
	}
	return text
}

// push sends an image and gives it the tag latest; it returns its digest.
func (v *watched) push(token, path string, image []byte, private bool) string {
	v.t.Helper()
	parts, id := strings.Split(path, "/"), ""
	for i, kind := range []string{"entities", "collections", "containers"} {
		var o struct{ ID string }
		at := "/v1/" + kind + "/" + strings.Join(parts[:i+1], "/")
		if status, text := v.call(token, "GET", at, nil); status != 200 {
			v.want(200, token, "POST", "/v1/"+kind, map[string]any{"name": parts[i], "entity": id, "collection": id, "private": private && kind == "collections"}, &o)
		} else if err := json.Unmarshal([]byte(text), &struct{ Data any }{&o}); err != nil {
			v.t.Fatal(err)
		}
		id = o.ID
	}
	sum := sha256.Sum256(image)
	hash := hex.EncodeToString(sum[:])
	var i struct {
		ID       string
		Uploaded bool
	}
	v.want(200, token, "POST", "/v1/images", map[string]any{"hash": "sha256." + hash, "container": id}, &i)
	if !i.Uploaded {
		v.want(200, token, "POST", "/v1/imagefile/"+i.ID, image, nil)
	}
	v.want(200, token, "POST", "/v2/tags/"+id, map[string]any{"Arch": "amd64", "Tag": "latest", "ImageID": i.ID}, nil)
	return hash
}

// newImage makes a SIF around the bytes of a partition.
func newImage(t testing.TB, partition []byte) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := sif.Input{Type: sif.DataPartition, Group: 1, Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra(), Data: bytes.NewReader(partition)}
	if _, err := sif.Create(f, sif.CreateOptions{Deterministic: true}, in); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// listed is an image with a list of packages in place of a file system.
func listed(t testing.TB, distro string, packages ...sbom.Package) []byte {
	t.Helper()
	id, version, _ := strings.Cut(distro, ":")
	text, err := json.Marshal(sbom.Inventory{Distro: sbom.Distro{ID: id, Version: version}, Packages: packages})
	if err != nil {
		t.Fatal(err)
	}
	return newImage(t, text)
}

// packed is an image with a real file system.
func packed(t testing.TB, files map[string]string) []byte { return newImage(t, tree(t, files)) }

// tree makes a squashfs of files.
func tree(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	w.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := squashfs.NewWriter(f, squashfs.WriterOptions{Digest: func(b []byte) [squashfs.DigestSize]byte { return sha256.Sum256(b) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.AddTar(&archive, squashfs.TarOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func deb(name, version string) sbom.Package {
	return sbom.Package{Type: "deb", Name: name, Version: version}
}

func (v *watched) findings(token, ref string) api.ImageFindings {
	v.t.Helper()
	var f api.ImageFindings
	v.want(200, token, "GET", "/v1/findings/images/"+ref, nil, &f)
	return f
}

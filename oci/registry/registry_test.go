package registry

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	gname "github.com/google/go-containerregistry/pkg/name"

	"singularity/client/transfer"
	"singularity/conf/registries"
)

// spy is a server that notes what it is asked.
type spy struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // "METHOD PATH AUTHORIZATION"
}

func newSpy(t *testing.T, h http.HandlerFunc) *spy {
	t.Helper()
	s := &spy{}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		s.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *spy) host() string { return s.Listener.Addr().String() }

// secrets returns the requests that had credentials.
func (s *spy) secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, r := range s.seen {
		if !strings.HasSuffix(r, " ") {
			list = append(list, r)
		}
	}
	return list
}

// client returns a client with credentials that trusts the servers.
func client(t *testing.T, servers ...*spy) *Client {
	t.Helper()
	dir := t.TempDir()
	for _, s := range servers {
		d := filepath.Join(dir, s.host())
		os.Mkdir(d, 0o700)
		for _, other := range servers {
			os.WriteFile(filepath.Join(d, other.host()+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw}), 0o600)
		}
	}
	return &Client{CertDirs: []string{dir}, Config: &registries.File{}, Credentials: &Resolver{Explicit: Auth{Username: "ada", Password: "sesame"}}, Context: t.Context()}
}

func basic(w http.ResponseWriter, r *http.Request) bool {
	if _, password, _ := r.BasicAuth(); password != "sesame" {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return false
	}
	return true
}

// TestRealm: SC-131, a realm elsewhere gets no credentials; SC-129, one without
// TLS never does. One that is configured is in e2e/testdata/registry_bearer.txtar.
func TestRealm(t *testing.T) {
	tokens := newSpy(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"token":"t"}`) })
	realm := ""
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	plain := 0
	insecure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { plain++ }))
	defer insecure.Close()
	realm = strings.Replace(tokens.URL, "127.0.0.1", "localhost", 1) + "/token"
	_, err := client(t, reg, tokens).Resolve(t.Context(), reg.host()+"/a", "t")
	if _, ok := errors.AsType[*CredentialError](err); !ok || len(tokens.seen) > 0 {
		t.Errorf("got %v, the realm saw %v", err, tokens.seen)
	}
	realm = strings.Replace(insecure.URL, "127.0.0.1", "localhost", 1) + "/token"
	if _, err = client(t, reg).Resolve(t.Context(), reg.host()+"/a", "t"); err == nil || plain > 0 {
		t.Errorf("http: got %v, %d requests", err, plain)
	}
	if strings.Contains(fmt.Sprint(err), "sesame") {
		t.Errorf("the message has the password: %v", err)
	}
}

func manifest(digest string, size int, more string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"%s","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},`+
		`"layers":[{"mediaType":"%s","size":%d,"digest":"%s"%s}]}`, sifConfigType, sifLayerType, size, digest, more)
}

// TestBlobElsewhere: SC-127, a redirect of a blob to another host sees no
// credentials, and one that breaks off there is resumed.
func TestBlobElsewhere(t *testing.T) {
	data := bytes.Repeat([]byte("sif"), 10000)
	n := 0
	store := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:5000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", zeroTime, bytes.NewReader(data))
	})
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !basic(w, r):
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			io.WriteString(w, manifest(digestOf(data), len(data), ""))
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.Redirect(w, r, store.URL+"/data?sig=x", http.StatusTemporaryRedirect)
		}
	})
	i, err := client(t, reg, store).FindSIF(t.Context(), reg.host()+"/a", "t", "", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := os.Create(filepath.Join(t.TempDir(), "f"))
	defer f.Close()
	if err := i.To(t.Context(), f, nil); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(f.Name()); !bytes.Equal(got, data) || n != 2 {
		t.Errorf("%d bytes in %d requests", len(got), n)
	}
	if s := store.secrets(); len(s) > 0 {
		t.Errorf("the store saw %v", s)
	}
}

var zeroTime time.Time

// TestManifests: SC-130 and SC-077, what a manifest says about names, digests and
// addresses is checked before anything is asked; a title names no file.
func TestManifests(t *testing.T) {
	good := digestOf([]byte("x"))
	for name, text := range map[string]string{
		"digest": manifest("sha256:../../x", 1, ""), "short": manifest("sha256:12", 1, ""), "size": manifest(good, -1, ""), "none": `{"schemaVersion":2}`,
		"type": strings.Replace(manifest(good, 1, ""), sifLayerType, "text/plain", 1), "not JSON": "<html>", "null": "null",
	} {
		if i, err := sifOf([]byte(text)); err == nil {
			t.Errorf("%s: got %+v", name, i)
		}
	}
	if _, err := sifOf([]byte(manifest(good, 1, `,"annotations":{"org.opencontainers.image.title":"../../x"}`))); err != nil {
		t.Errorf("a title that is a path: got %v, want it unused", err)
	}
	evil := newSpy(t, func(w http.ResponseWriter, r *http.Request) {})
	var reg *spy
	reg = newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !basic(w, r):
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			m := manifest(good, 1, `,"urls":["`+evil.URL+`/layer"]`)
			io.WriteString(w, strings.NewReplacer(sifConfigType, "application/vnd.oci.image.config.v1+json", sifLayerType, "application/vnd.oci.image.layer.v1.tar+gzip").Replace(m))
		default:
			io.WriteString(w, "{}")
		}
	})
	_, err := client(t, reg, evil).Image(t.Context(), reg.host()+"/a", "t", "", v1.Platform{OS: "linux", Architecture: "amd64"})
	if err == nil || !strings.Contains(err.Error(), "another address") || len(evil.seen) > 0 {
		t.Errorf("a layer elsewhere: got %v, asked %v", err, evil.seen)
	}
}

// TestUploadElsewhere: SC-132, an upload is not led to another host.
func TestUploadElsewhere(t *testing.T) {
	evil := newSpy(t, func(w http.ResponseWriter, r *http.Request) {})
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !basic(w, r):
		case r.Method == http.MethodPost:
			w.Header().Set("Location", evil.URL+"/up")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	err := pushSIF(t, client(t, reg, evil), reg.host()+"/a", "t", "amd64", []byte("x"))
	if _, ok := errors.AsType[*CredentialError](err); !ok || len(evil.seen) > 0 {
		t.Errorf("got %v, the other host saw %v", err, evil.seen)
	}
}

// TestPushResume: an upload that breaks off goes on where it stopped.
func TestPushResume(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100000)
	var got, tagged []byte
	patches := 0
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if !basic(w, r) {
			return
		}
		upload := strings.Contains(r.URL.Path, "/uploads/")
		switch {
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPost:
			got = nil
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodPatch && patches < 2:
			patches++
			b := make([]byte, 300000)
			n, _ := io.ReadFull(r.Body, b)
			got = append(got, b[:n]...)
			panic(http.ErrAbortHandler)
		case r.Method == http.MethodPatch:
			patches++
			if from := r.Header.Get("Content-Range"); len(got) > 0 && from != fmt.Sprintf("%d-%d", len(got), len(data)-1) {
				t.Errorf("got range %q after %d bytes", from, len(got))
			}
			b, _ := io.ReadAll(r.Body)
			got = append(got, b...)
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodGet && upload:
			w.Header().Set("Location", "/v2/a/blobs/uploads/1")
			w.Header().Set("Range", fmt.Sprintf("0-%d", len(got)-1))
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodPut && upload:
			if d := r.URL.Query().Get("digest"); d != digestOf(got) {
				t.Errorf("digest %s, have %d bytes", d, len(got))
			}
			w.WriteHeader(http.StatusCreated)
		case r.Method == http.MethodPut:
			tagged, _ = io.ReadAll(r.Body)
			w.WriteHeader(http.StatusCreated)
		case strings.Contains(r.URL.Path, "/manifests/") && tagged == nil:
			w.WriteHeader(http.StatusNotFound)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write(tagged)
		case strings.Contains(r.URL.Path, "/blobs/"):
			w.Write(data)
		}
	})
	if err := pushSIF(t, client(t, reg), reg.host()+"/a", "t", "amd64", data); err != nil {
		t.Error(err)
	}
	if patches != 4 { // two broken ones, the rest, the configuration
		t.Errorf("%d uploads", patches)
	}
}

// TestMirror: a mirror is asked first, gets no credentials of flags, and where
// it fails the registry is asked.
func TestMirror(t *testing.T) {
	inner := registry.New(registry.Logger(nolog()))
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if basic(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	good := true
	mirror := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if good {
			r.URL.Path = strings.Replace(r.URL.Path, "/hub/", "/", 1)
			inner.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	})
	img, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	tag, _ := gname.NewTag(reg.host() + "/a:t")
	if err := remote.Write(tag, img, remote.WithTransport(&withPassword{reg.Client().Transport})); err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	for _, good = range []bool{true, false} {
		c := client(t, reg, mirror)
		c.Config, err = registries.Parse([]byte("[[registry]]\nlocation=\"" + reg.host() + "\"\n[[registry.mirror]]\nlocation=\"" + mirror.host() + "/hub\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		reg.seen, mirror.seen = nil, nil
		got, err := c.Resolve(t.Context(), reg.host()+"/a", "t")
		if err != nil || got != want.String() {
			t.Errorf("mirror good %v: got %s, %v", good, got, err)
		}
		if len(mirror.seen) == 0 || len(mirror.secrets()) > 0 || (len(reg.seen) == 0) != good {
			t.Errorf("mirror good %v: it saw %v, the registry %v", good, mirror.seen, reg.seen)
		}
	}
}

// TestPlain: SC-136, a certificate that nobody knows and plain http are refused,
// on loopback too, unless that is asked for; SC-138, offline asks nobody.
func TestPlain(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++; w.WriteHeader(http.StatusNotFound) }))
	defer s.Close()
	host := s.Listener.Addr().String()
	c := &Client{Config: &registries.File{}}
	if _, err := c.Resolve(t.Context(), host+"/a", "t"); err == nil || asked > 0 {
		t.Errorf("http: got %v, %d requests", err, asked)
	}
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {})
	if _, err := (&Client{Config: &registries.File{}}).Resolve(t.Context(), reg.host()+"/a", "t"); err == nil || len(reg.seen) > 0 {
		t.Errorf("an unknown certificate: got %v, %v", err, reg.seen)
	}
	if _, err := (&Client{Config: &registries.File{Offline: true}, Plain: true}).Resolve(t.Context(), host+"/a", "t"); !errors.Is(err, transfer.ErrOffline) || asked > 0 {
		t.Errorf("offline: got %v, %d requests", err, asked)
	}
	if _, err := (&Client{Config: &registries.File{}, Plain: true}).Resolve(t.Context(), host+"/a", "t"); err == nil || asked == 0 {
		t.Errorf("allowed http: got %v, %d requests", err, asked)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(manifest(digestOf(nil), 1, "")))
	f.Fuzz(func(t *testing.T, in []byte) {
		if i, err := sifOf(in); err == nil && (len(i.Digest) != 71 || i.Size <= 0) {
			t.Errorf("got %+v", i)
		}
	})
}

type withPassword struct{ inner http.RoundTripper }

func (w *withPassword) RoundTrip(r *http.Request) (*http.Response, error) {
	r.SetBasicAuth("ada", "sesame")
	return w.inner.RoundTrip(r)
}

func nolog() *log.Logger { return log.New(io.Discard, "", 0) }

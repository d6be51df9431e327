package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"singularity/oci/document"
	"singularity/sif"
)

// pushSIF pushes data as a SIF image for an architecture.
func pushSIF(t *testing.T, c *Client, repository, tag, arch string, data []byte) error {
	p, err := c.Push(t.Context(), repository, tag)
	if err != nil {
		return err
	}
	i := NewSIF{SIF: SIF{Digest: digestOf(data), Size: int64(len(data))}, Arch: arch, Title: "x"}
	_, _, err = p.PushSIF(t.Context(), bytes.NewReader(data), i, nil)
	return err
}

// imageFor is what of a SIF image tells its architecture.
func imageFor(code, more string) []byte {
	b := make([]byte, 128)
	copy(b[32:], "SIF_MAGIC\x00"+"01\x00"+code+"\x00")
	return append(b, more...)
}

// newRegistry is a registry that wants a log-in, and a client of it.
func newRegistry(t *testing.T) (*Client, string) {
	inner := registry.New(registry.Logger(nolog()))
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if basic(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	return client(t, reg), reg.host() + "/lab/tool"
}

// at reads the image for an architecture.
func at(t *testing.T, c *Client, repository, tag, arch string) string {
	t.Helper()
	i, err := c.FindSIF(t.Context(), repository, tag, "", arch)
	if err != nil {
		t.Fatalf("%s: %v", arch, err)
	}
	f, _ := os.CreateTemp(t.TempDir(), "")
	defer f.Close()
	if err := i.To(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(f.Name())
	return string(got[128:])
}

// TestSeveral pushes images for several architectures to one tag.
func TestSeveral(t *testing.T) {
	c, repo := newRegistry(t)
	push := func(arch, code, text string) {
		t.Helper()
		if err := pushSIF(t, c, repo, "1", arch, imageFor(code, text)); err != nil {
			t.Fatal(err)
		}
	}
	push("amd64", "02", "first")
	push("arm64", "04", "second")
	push("amd64", "02", "third")
	push("riscv64", "17", "fourth")
	for arch, want := range map[string]string{"amd64": "third", "arm64": "second", "riscv64": "fourth"} {
		if got := at(t, c, repo, "1", arch); got != want {
			t.Errorf("%s: got %q, want %q", arch, got, want)
		}
	}
	if _, err := c.FindSIF(t.Context(), repo, "1", "", "s390x"); err == nil || !strings.Contains(err.Error(), "it is for linux/amd64, linux/arm64, linux/riscv64") {
		t.Errorf("an architecture that is not there: got %v", err)
	}
	if err := pushSIF(t, c, repo, "1", sif.UnknownArch, imageFor("00", "x")); err == nil {
		t.Error("an image without architecture replaced several")
	}
	if got := at(t, c, repo, "1", "arm64"); got != "second" {
		t.Errorf("after a refusal: got %q", got)
	}
}

// TestOvertaken: another push comes between, and nobody's image is lost.
func TestOvertaken(t *testing.T) {
	inner := registry.New(registry.Logger(nolog()))
	var first []byte
	puts := 0
	reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
		if !basic(w, r) {
			return
		}
		if r.Method != http.MethodPut || !strings.HasSuffix(r.URL.Path, "/manifests/1") {
			inner.ServeHTTP(w, r)
			return
		}
		text, _ := io.ReadAll(r.Body)
		if puts++; puts == 1 {
			first = text
		}
		r.Body = io.NopCloser(bytes.NewReader(text))
		inner.ServeHTTP(w, r)
		if puts == 2 { // the first pusher, who has not seen the second one
			again := httptest.NewRequest(http.MethodPut, r.URL.Path, bytes.NewReader(first))
			again.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			inner.ServeHTTP(httptest.NewRecorder(), again)
		}
	})
	c, repo := client(t, reg), reg.host()+"/lab/tool"
	codes := map[string]string{"amd64": "02", "arm64": "04"}
	for _, arch := range []string{"amd64", "arm64"} {
		if err := pushSIF(t, c, repo, "1", arch, imageFor(codes[arch], arch)); err != nil {
			t.Fatal(err)
		}
	}
	if puts != 3 {
		t.Errorf("%d changes of the tag, want 3", puts)
	}
	for arch := range codes {
		if got := at(t, c, repo, "1", arch); got != arch {
			t.Errorf("%s: got %q", arch, got)
		}
	}
}

// TestMergeWithOthers: what is no SIF at a tag is replaced, not added to.
func TestMergeWithOthers(t *testing.T) {
	c, repo := newRegistry(t)
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	p, err := c.Push(t.Context(), repo, "1")
	if err != nil {
		t.Fatal(err)
	}
	inner, _ := img.RawManifest()
	outer, _ := index.RawManifest()
	digest, _ := img.Digest()
	layers, _ := img.Layers()
	r, _ := layers[0].Compressed()
	layer, _ := io.ReadAll(r)
	config, _ := img.RawConfigFile()
	for _, b := range [][]byte{layer, config} {
		if err := p.Blob(t.Context(), bytes.NewReader(b), digestOf(b), int64(len(b)), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range [][3]string{{digest.String(), "application/vnd.docker.distribution.manifest.v2+json", string(inner)}, {"1", "application/vnd.oci.image.index.v1+json", string(outer)}} {
		if err := p.put(t.Context(), m[0], m[1], []byte(m[2])); err != nil {
			t.Fatal(err)
		}
	}
	if err := pushSIF(t, c, repo, "1", "amd64", imageFor("02", "sif")); err != nil {
		t.Fatal(err)
	}
	if list, _, err := p.tagged(t.Context()); err != nil || !slices.Equal(archsOf(list), []string{"amd64"}) {
		t.Errorf("got %v %v", archsOf(list), err)
	}
}

// TestDocumentKinds: SC-068, a document that is a manifest and an index at once,
// or another one than its Content-Type says, is refused.
func TestDocumentKinds(t *testing.T) {
	const manifestType, indexType = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	good := manifest(digestOf([]byte("x")), 1, "")
	both := strings.Replace(good, `"layers"`, `"manifests":[],"layers"`, 1)
	for name, c := range map[string]struct {
		mediaType, text string
	}{
		"both, as manifest":    {manifestType, both},
		"both, as index":       {indexType, both},
		"manifest as index":    {indexType, good},
		"other type in it":     {"application/vnd.docker.distribution.manifest.v2+json", good},
		"schema 1":             {manifestType, strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":1,"fsLayers":[]`, 1)},
		"more than is allowed": {manifestType, good + strings.Repeat(" ", document.MaxSize)},
	} {
		reg := newSpy(t, func(w http.ResponseWriter, r *http.Request) {
			if basic(w, r) && strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", c.mediaType)
				fmt.Fprint(w, c.text)
			}
		})
		if i, err := client(t, reg).FindSIF(t.Context(), reg.host()+"/a", "t", "", "amd64"); err == nil {
			t.Errorf("%s: got %+v", name, i)
		}
		if _, err := client(t, reg).Image(t.Context(), reg.host()+"/a", "t", "", v1.Platform{OS: "linux", Architecture: "amd64"}); err == nil {
			t.Errorf("%s: got an image", name)
		}
	}
}

package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/oci/unpack"
	"singularity/squashfs"
)

// files are the members of an archive or layout.
type files map[string][]byte

func digest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func (f files) blob(b []byte) string {
	f["blobs/sha256/"+digest(b)] = b
	return "sha256:" + digest(b)
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tarOf makes an archive of one file.
func tarOf(t testing.TB, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o644})
	io.WriteString(w, text)
	w.Close()
	return b.Bytes()
}

func config(t testing.TB, arch string, layers ...[]byte) []byte {
	var ids []string
	for _, l := range layers {
		ids = append(ids, "sha256:"+digest(l))
	}
	return marshal(t, map[string]any{"architecture": arch, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		"config": map[string]any{"Cmd": []string{"sh"}}})
}

type obj = map[string]any

// addManifest adds an image for a platform and returns its descriptor.
func (f files) addManifest(t testing.TB, arch, variant, tag, text string) obj {
	layer := tarOf(t, "file", text)
	c := config(t, arch, layer)
	m := marshal(t, obj{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": obj{"mediaType": types.OCIConfigJSON, "size": len(c), "digest": f.blob(c)},
		"layers": []obj{{"mediaType": types.OCIUncompressedLayer, "size": len(layer), "digest": f.blob(layer)}}})
	d := obj{"mediaType": types.OCIManifestSchema1, "size": len(m), "digest": f.blob(m)}
	if arch != "" {
		d["platform"] = obj{"os": "linux", "architecture": arch, "variant": variant}
	}
	if tag != "" {
		d["annotations"] = obj{refAnnotation: tag}
	}
	return d
}

func (f files) index(t testing.TB, list ...obj) {
	f["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	f["index.json"] = marshal(t, obj{"schemaVersion": 2, "manifests": list})
}

func (f files) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range f {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f files) tar(t testing.TB) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range f {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644})
		w.Write(data)
	}
	w.Close()
	return b.Bytes()
}

// saved makes a "docker save" archive.
func savedFiles(t testing.TB, text string) files {
	layer := tarOf(t, "file", text)
	c := config(t, "amd64", layer)
	return files{digest(c) + ".json": c, "l/layer.tar": layer,
		"manifest.json": marshal(t, []obj{{"Config": digest(c) + ".json", "RepoTags": []string{"a/b:1"}, "Layers": []string{"l/layer.tar"}}})}
}

func write(t testing.TB, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// content opens a reference and returns the text of its one file.
func content(t testing.TB, ref string, o Options) (string, error) {
	t.Helper()
	img, err := Open(context.Background(), ref, o)
	if err != nil {
		return "", err
	}
	defer img.Close()
	s, err := img.Source()
	if err != nil {
		return "", err
	}
	tree, err := unpack.Read(context.Background(), s.Layers, unpack.DefaultLimits())
	if err != nil {
		return "", err
	}
	var sink textSink
	err = tree.Emit(context.Background(), &sink, unpack.EmitOptions{})
	return sink.text, err
}

type textSink struct{ text string }

func (s *textSink) Add(e squashfs.Entry, content io.Reader) error {
	if content == nil {
		return nil
	}
	b, err := io.ReadAll(content)
	s.text += string(b)
	return err
}

func TestOpen(t *testing.T) {
	f := files{}
	one, two := f.addManifest(t, "amd64", "", "v1", "one"), f.addManifest(t, "amd64", "", "v2", "two")
	f.index(t, one, two)
	dir, archive := f.dir(t), write(t, f.tar(t))
	saved := savedFiles(t, "saved")
	plain := saved.tar(t)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(plain)
	w.Close()
	for ref, want := range map[string]string{
		"oci:" + dir + ":v1":                             "one",
		"oci:" + dir + ":v2":                             "two",
		"oci:" + dir + ":@" + two["digest"].(string):     "two",
		"oci-archive:" + archive + ":v1":                 "one",
		"oci-archive://" + archive + ":v2":               "two",
		"docker-archive:" + write(t, plain):              "saved",
		"docker-archive:" + write(t, plain) + ":a/b:1":   "saved",
		"docker-archive:" + write(t, z.Bytes()):          "saved",
		"docker-archive:" + write(t, z.Bytes()) + ":a/b": "",
		"oci:" + dir:                           "",
		"oci:" + dir + ":v3":                   "",
		"oci:" + archive:                       "",
		"docker-archive:" + archive:            "",
		"oci-archive:" + write(t, plain):       "",
		"docker-archive:" + dir:                "",
		"docker-archive:/none":                 "",
		"docker-archive:":                      "",
		"containers-storage:x":                 "",
		"docker-archive:" + write(t, []byte{}): "",
	} {
		got, err := content(t, ref, Options{})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, error %v, want %q", ref, got, err, want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	f := files{}
	list := []obj{f.addManifest(t, "amd64", "", "", "amd64"), f.addManifest(t, "arm", "v6", "", "v6"), f.addManifest(t, "arm", "v7", "", "v7"), f.addManifest(t, "arm64", "v8", "", "arm64")}
	unknown := f.addManifest(t, "amd64", "", "", "attestation")
	unknown["platform"] = obj{"os": "unknown", "architecture": "unknown"}
	nested := marshal(t, obj{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": append(list, unknown)})
	f.index(t, obj{"mediaType": types.OCIImageIndex, "size": len(nested), "digest": f.blob(nested), "annotations": obj{refAnnotation: "all"}})
	dir := f.dir(t)
	for _, tt := range [][3]string{
		{"amd64", "", "amd64"}, {"x86_64", "", "amd64"}, {"arm", "", "v7"}, {"", "linux/arm/v6", "v6"}, {"arm64", "", "arm64"}, {"", "linux/arm64/v8", "arm64"},
		{"", "linux/arm/v5", ""}, {"s390x", "", ""}, {"", "windows/amd64", ""}, {"", "amd64", ""}, {"amd64", "linux/amd64", ""}, {"../x", "", ""},
	} {
		p, err := ParsePlatform(tt[0], tt[1])
		got := ""
		if err == nil {
			got, err = content(t, "oci:"+dir+":all", Options{Platform: &p})
		}
		if got != tt[2] || (err == nil) != (tt[2] != "") {
			t.Errorf("%q: got %q, error %v", tt, got, err)
		}
		if tt[0] == "s390x" && !strings.Contains(fmt.Sprint(err), "only for linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64") {
			t.Errorf("error %v", err)
		}
	}
	// An archive holds one image: another platform is not to be had.
	p, err := ParsePlatform("arm64", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := content(t, "docker-archive:"+write(t, savedFiles(t, "x").tar(t)), Options{Platform: &p}); err == nil || !strings.Contains(err.Error(), "linux/amd64, not for linux/arm64") {
		t.Errorf("got error %v", err)
	}
}

// TestAmbiguous is SC-068: a document that is a manifest and an index.
func TestAmbiguous(t *testing.T) {
	for name, change := range map[string]func(obj){
		"manifests too":      func(m obj) { m["manifests"] = []obj{} },
		"another type":       func(m obj) { m["mediaType"] = types.OCIImageIndex },
		"schema 1":           func(m obj) { m["schemaVersion"] = 1 },
		"layers of schema 1": func(m obj) { m["fsLayers"] = []obj{} },
		"no config":          func(m obj) { delete(m, "config") },
	} {
		f := files{}
		d := f.addManifest(t, "amd64", "", "", "x")
		hex := strings.TrimPrefix(d["digest"].(string), "sha256:")
		m := obj{}
		if err := json.Unmarshal(f["blobs/sha256/"+hex], &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b := marshal(t, m)
		d["digest"], d["size"] = f.blob(b), len(b)
		f.index(t, d)
		if _, err := content(t, "oci:"+f.dir(t), Options{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	f := files{}
	f.index(t, f.addManifest(t, "amd64", "", "", "x"))
	f["index.json"] = bytes.Replace(f["index.json"], []byte(`{"manifests"`), []byte(`{"layers":[],"manifests"`), 1)
	if _, err := content(t, "oci:"+f.dir(t), Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("an index with layers: got error %v", err)
	}
}

// TestDigestNames is SC-074 and SC-130: digests and names in documents are no
// paths, and addresses of layers are not asked.
func TestDigestNames(t *testing.T) {
	asked := false
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true })}
	go server.Serve(l)
	defer server.Close()
	outside := write(t, tarOf(t, "file", "secret"))
	for _, bad := range []string{"sha256:../../x", "sha256:" + strings.Repeat("A", 64), "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "", "sha512:" + strings.Repeat("0", 128)} {
		f := files{}
		d := f.addManifest(t, "amd64", "", "", "x")
		d["digest"] = bad
		f.index(t, d)
		if _, err := content(t, "oci:"+f.dir(t), Options{}); err == nil {
			t.Errorf("digest %q: no error", bad)
		}
	}
	f := files{}
	layer := tarOf(t, "file", "x")
	c := config(t, "amd64", layer)
	m := marshal(t, obj{"schemaVersion": 2, "config": obj{"mediaType": types.OCIConfigJSON, "size": len(c), "digest": f.blob(c)},
		"layers": []obj{{"mediaType": types.DockerForeignLayer, "size": len(layer), "digest": "sha256:" + digest(layer), "urls": []string{"http://" + l.Addr().String() + "/layer"}}}})
	f.index(t, obj{"mediaType": types.OCIManifestSchema1, "size": len(m), "digest": f.blob(m)})
	if _, err := content(t, "oci:"+f.dir(t), Options{}); err == nil || asked {
		t.Errorf("a layer elsewhere: error %v, asked %v", err, asked)
	}
	for _, name := range []string{"../" + filepath.Base(outside), outside, "/" + outside} {
		s := savedFiles(t, "x")
		s["manifest.json"] = bytes.Replace(s["manifest.json"], []byte("l/layer.tar"), []byte(name), 1)
		if text, err := content(t, "docker-archive:"+write(t, s.tar(t)), Options{}); err == nil {
			t.Errorf("layer %q: got %q", name, text)
		}
	}
}

// TestWrongBytes: what is not what its digest says is no image.
func TestWrongBytes(t *testing.T) {
	f := files{}
	f.index(t, f.addManifest(t, "amd64", "", "", "text"))
	for name := range f {
		if name == "index.json" || name == "oci-layout" {
			continue
		}
		b := bytes.Clone(f[name])
		// The last brace or padding: still a document, still an archive.
		f[name] = append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^0x20)
		if _, err := content(t, "oci:"+f.dir(t), Options{}); err == nil {
			t.Errorf("%s changed: no error", name)
		}
		f[name] = b
	}
	s := savedFiles(t, "text")
	s["l/layer.tar"] = tarOf(t, "file", "next")
	if _, err := content(t, "docker-archive:"+write(t, s.tar(t)), Options{}); !errors.Is(err, unpack.ErrDigest) {
		t.Errorf("got error %v", err)
	}
}

// TestLargeDocument is SC-071: a document that is too large is not read.
func TestLargeDocument(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Size: 10 << 30, Mode: 0o644})
	name := write(t, b.Bytes())
	if err := os.Truncate(name, 10<<30+2048); err != nil {
		t.Skip("no room for a hole: ", err)
	}
	if _, err := content(t, "docker-archive:"+name, Options{}); !errors.Is(err, unpack.ErrLimit) {
		t.Errorf("got error %v", err)
	}
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	tw := tar.NewWriter(zw)
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json", Size: 1 << 26, Mode: 0o644})
	tw.Write(make([]byte, 1<<26))
	tw.Close()
	zw.Close()
	if _, err := content(t, "docker-archive:"+write(t, z.Bytes()), Options{}); !errors.Is(err, unpack.ErrLimit) {
		t.Errorf("compressed: got error %v", err)
	}
}

func TestMemberLinks(t *testing.T) {
	s := savedFiles(t, "text")
	build := func(links ...[3]string) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, l := range links {
			h := &tar.Header{Typeflag: tar.TypeSymlink, Name: l[1], Linkname: l[2]}
			if l[0] == "hard" {
				h.Typeflag = tar.TypeLink
			}
			w.WriteHeader(h)
		}
		w.Flush()
		return write(t, append(b.Bytes(), s.tar(t)...))
	}
	layer := s["l/layer.tar"]
	delete(s, "l/layer.tar")
	s["real.tar"] = layer
	if text, err := content(t, "docker-archive:"+build([3]string{"sym", "l/layer.tar", "../real.tar"}), Options{}); text != "text" || err != nil {
		t.Errorf("got %q, error %v", text, err)
	}
	if text, err := content(t, "docker-archive:"+build([3]string{"hard", "l/layer.tar", "real.tar"}), Options{}); text != "text" || err != nil {
		t.Errorf("got %q, error %v", text, err)
	}
	if _, err := content(t, "docker-archive:"+build([3]string{"sym", "l/layer.tar", "../l2"}, [3]string{"sym", "l2", "l/layer.tar"}), Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("a circle: got error %v", err)
	}
	s["l/layer.tar"] = layer
	two := append(tarOf(t, "manifest.json", "[]")[:1024], s.tar(t)...)
	if _, err := content(t, "docker-archive:"+write(t, two), Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("two manifests: got error %v", err)
	}
}

func TestDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	body := savedFiles(t, "from the daemon").tar(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/images/a/b:latest/get":
			w.Write(body)
		case "/images/cut:1/get":
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:len(body)/2])
		case "/images/moved:1/get":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		default:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"No such image: none:1"}`)
		}
	})}
	go server.Serve(l)
	defer server.Close()
	temp := t.TempDir()
	o := Options{DockerHost: "unix://" + socket, TempDir: temp}
	if got, err := content(t, "docker-daemon:a/b", o); got != "from the daemon" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
	if got, err := content(t, "docker-daemon://a/b:latest", Options{TempDir: temp, Getenv: func(string) string { return "unix://" + socket }}); got != "from the daemon" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
	for ref, want := range map[string]string{"none:1": "No such image: none:1", "cut:1": "unexpected EOF", "moved:1": "another address", "a b": "no name", "../x": "No such image"} {
		if _, err := content(t, "docker-daemon:"+ref, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q", ref, err, want)
		}
	}
	for _, host := range []string{"unix://" + socket + ".none", "ssh://host", "nonsense", "unix://"} {
		if _, err := content(t, "docker-daemon:a/b", Options{DockerHost: host, TempDir: temp}); err == nil || !strings.Contains(err.Error(), host) {
			t.Errorf("%q: got error %v", host, err)
		}
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// remote is an image whose layers come from elsewhere, and counts how often.
type remote struct {
	v1.Image
	fetched *int
}

type remoteLayer struct {
	v1.Layer
	fetched *int
}

func (r remote) Layers() ([]v1.Layer, error) {
	list, err := r.Image.Layers()
	for i := range list {
		list[i] = remoteLayer{list[i], r.fetched}
	}
	return list, err
}

func (r remoteLayer) Compressed() (io.ReadCloser, error) {
	*r.fetched++
	rc, err := r.Layer.Compressed()
	return struct {
		io.Reader
		io.Closer
	}{rc, rc}, err
}

func TestElsewhere(t *testing.T) {
	f := files{}
	f.index(t, f.addManifest(t, "amd64", "", "", "far away"))
	dir := f.dir(t)
	for _, keep := range []bool{false, true} {
		near, err := Open(context.Background(), "oci:"+dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		fetched, temp := 0, t.TempDir()
		img := NewImage(remote{near.Image, &fetched}, near)
		want := 2
		if keep {
			img.KeepIn(temp)
			want = 1
		}
		s, err := img.Source()
		if err != nil {
			t.Fatal(err)
		}
		tree, err := unpack.Read(context.Background(), s.Layers, unpack.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		var sink textSink
		if err := tree.Emit(context.Background(), &sink, unpack.EmitOptions{}); err != nil || sink.text != "far away" || fetched != want {
			t.Errorf("keep %v: got %q, error %v, fetched %d times", keep, sink.text, err, fetched)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(savedFiles(f, "x").tar(f))
	l := files{}
	l.index(f, l.addManifest(f, "amd64", "", "", "y"))
	f.Add(l.tar(f))
	dir := f.TempDir()
	limits := func() unpack.Limits {
		return unpack.Limits{Layers: 8, Entries: 1000, Size: 1 << 22, Ratio: 50, FreeSize: 1 << 20}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"docker-archive:", "oci-archive:"} {
			img, err := Open(context.Background(), scheme+name, Options{Limits: limits})
			if err != nil {
				continue
			}
			if s, err := img.Source(); err == nil {
				if tree, err := unpack.Read(context.Background(), s.Layers, limits()); err == nil {
					_ = tree.Emit(context.Background(), &textSink{}, unpack.EmitOptions{}) // any end but a panic
				}
				_ = Runscript(&s.Config.Config) + Environment(&s.Config.Config)
			}
			if _, err := img.RawManifest(); err == nil {
				if _, err := img.Manifest(); err != nil {
					t.Fatal(err)
				}
			}
			img.Close()
		}
	})
}

package worker

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/api"
	"singularity/oci/registry"
)

func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(make([]byte, h.Size))
	}
	w.Close()
	z.Close()
	return b.Bytes()
}

func unpacked(t testing.TB, data []byte, limit int64) error {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return unpackContext(bytes.NewReader(data), root, limit)
}

func TestUnpackContext(t *testing.T) {
	good := archive(t, tar.Header{Name: "home/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "home/a", Typeflag: tar.TypeReg, Size: 100, Mode: 0o4755})
	if err := unpacked(t, good, 1<<20); err != nil {
		t.Error(err)
	}
	for name, data := range map[string][]byte{
		"absolute": archive(t, tar.Header{Name: "/etc/x", Typeflag: tar.TypeReg}), "dots": archive(t, tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}),
		"link": archive(t, tar.Header{Name: "x", Linkname: "/etc", Typeflag: tar.TypeSymlink}), "hard link": archive(t, tar.Header{Name: "x", Linkname: "y", Typeflag: tar.TypeLink}),
		"device": archive(t, tar.Header{Name: "x", Typeflag: tar.TypeChar}), "fifo": archive(t, tar.Header{Name: "x", Typeflag: tar.TypeFifo}),
		"twice": archive(t, tar.Header{Name: "x", Typeflag: tar.TypeReg}, tar.Header{Name: "x", Typeflag: tar.TypeReg}),
		"large": archive(t, tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 2 << 20}), "no archive": []byte("hello"), "cut": good[:len(good)/2],
	} {
		if unpacked(t, data, 1<<20) == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzUnpackContext(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Size: 10}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "in"), 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(filepath.Join(dir, "in"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		unpackContext(bytes.NewReader(data), root, 1<<20)
		if list, _ := os.ReadDir(dir); len(list) != 1 {
			t.Fatalf("something was written outside: %v", list)
		}
	})
}

// TestMasked: a secret does not get into the log, however it is cut.
func TestMasked(t *testing.T) {
	secret := strings.Repeat("s3cr3t", 5)
	for cut := 1; cut < len(secret); cut++ {
		o := &output{task: &api.BuildTask{Limits: api.BuildLimits{Output: 1 << 20}}, wake: make(chan struct{}, 1)}
		o.room = sync.NewCond(&o.mu)
		o.hide(secret)
		var got []byte
		for _, part := range []string{"before " + secret[:cut], secret[cut:] + " after \xc3", "\xa4\n"} {
			o.Write([]byte(part))
			chunk, _ := o.next()
			got = append(got, chunk...)
		}
		o.closed = true
		chunk, end := o.next()
		if got = append(got, chunk...); !end || string(got) != "before *** after ä\n" {
			t.Fatalf("cut at %d: got %q", cut, got)
		}
	}
}

func TestSecretsOf(t *testing.T) {
	list := secretsOf(&api.BuildTask{Token: "token", Definition: []byte("%post\n pip install -i https://me:hunter2@pypi.example.org/ x")})
	if len(list) != 2 || list[1] != "hunter2" {
		t.Errorf("got %q", list)
	}
}

// TestRegistries: passwords of registries are in the form that singularity reads,
// and are masked in the log in each form that they have there (SC-163).
func TestRegistries(t *testing.T) {
	task := &api.BuildTask{Registries: []api.RegistrySecret{{Registry: "r.example.org:5000", Username: "alice", Password: "hunter2-canary"}, {Registry: "docker.io", Username: "a", Password: "other-canary"}}}
	text, err := registries(task)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "docker-config.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"r.example.org:5000": "hunter2-canary", "docker.io": "other-canary", "example.org": ""} {
		r := registry.Resolver{Own: path}
		a, err := r.For(host+"/some/image", false)
		if err != nil || a.Password != want {
			t.Errorf("%s: %+v %v", host, a, err)
		}
	}
	if got := secretsOf(task); !slices.Contains(got, "hunter2-canary") || !slices.Contains(got, basic(task.Registries[0])) {
		t.Errorf("masked are %q", got)
	}
}

// TestHashImage: in the place of the image may lie anything, and it is read only if it
// is a file.
func TestHashImage(t *testing.T) {
	dir := t.TempDir()
	name := func(n string) string { return filepath.Join(dir, n) }
	if err := os.WriteFile(name("file"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Symlink("file", name("link")), os.Symlink("none", name("dangling")), unix.Mkfifo(name("pipe"), 0o600), os.Mkdir(name("directory"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if sum, n, err := hashImage(t.Context(), name("file")); err != nil || n != 3 || sum != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("%s %d %v", sum, n, err)
	}
	for _, n := range []string{"link", "dangling", "pipe", "directory", "none"} {
		if _, _, err := hashImage(t.Context(), name(n)); err == nil {
			t.Errorf("%s is taken for an image", n)
		}
	}
	if _, _, err := hashImage(t.Context(), "/dev/zero"); err == nil {
		t.Error("a device is taken for an image")
	}
}

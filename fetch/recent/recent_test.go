package recent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const image = "oci-tmp/" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestLookup(t *testing.T) {
	root := t.TempDir()
	os.Chmod(root, 0o700)
	const ref = "docker://h.org:5000/a_b/c:d"
	if got := Lookup(root, ref, time.Hour); got != "" {
		t.Fatalf("an empty cache has %q", got)
	}
	Store(root, ref, image, false)
	if got := Lookup(root, ref, time.Hour); got != "" {
		t.Errorf("an image that is gone: got %q", got)
	}
	os.Mkdir(filepath.Join(root, "oci-tmp"), 0o700)
	path := filepath.Join(root, image)
	os.WriteFile(path, []byte("x"), 0o700)
	if got := Lookup(root, ref, time.Hour); got != path {
		t.Errorf("got %q, want %q", got, path)
	}
	record := filepath.Join(root, "ref", name(ref))
	old := time.Now().Add(-2 * time.Hour)
	os.Chtimes(record, old, old)
	if got := Lookup(root, ref, time.Hour); got != "" {
		t.Errorf("an old record: got %q", got)
	}
	if got, _ := Last(root, ref); got != path {
		t.Errorf("last: got %q", got)
	}
	Store(root, ref, image, true)
	os.Chtimes(record, old, old)
	if got := Lookup(root, ref, 0); got != path {
		t.Errorf("a pinned record: got %q", got)
	}
	Forget(root, ref)
	if got, _ := Last(root, ref); got != "" {
		t.Errorf("forgotten: got %q", got)
	}
	// SC-079: what others can write to is not trusted.
	Store(root, ref, image, false)
	for _, p := range []string{record, path, filepath.Join(root, "oci-tmp"), root} {
		fi, _ := os.Stat(p)
		os.Chmod(p, 0o777)
		if got := Lookup(root, ref, time.Hour); got != "" {
			t.Errorf("mode 777 of %s: got %q", p, got)
		}
		os.Chmod(p, fi.Mode().Perm())
	}
	for _, text := range []string{"", "\n", image, "../x/" + strings.Repeat("a", 64) + "\n", "oci-tmp/../../x\n", "oci-tmp/" + strings.Repeat("a", 600) + "\n"} {
		os.WriteFile(record, []byte(text), 0o600)
		if got := Lookup(root, ref, time.Hour); got != "" {
			t.Errorf("record %.20q: got %q", text, got)
		}
	}
}

func TestRoot(t *testing.T) {
	env := map[string]string{}
	get := func(k string) string { return env[k] }
	home := func() string { return "/home/u/.singularity" }
	if got := Root(get, home); got != "/home/u/.singularity/cache" {
		t.Error(got)
	}
	env["SINGULARITY_CACHEDIR"] = "/scratch/"
	if got := Root(get, home); got != "/scratch/cache" {
		t.Error(got)
	}
	for in, want := range map[string]time.Duration{"": Fresh, "0": 0, "1h": time.Hour, "x": 0, "-1s": 0} {
		env["SINGULARITY_CACHE_FRESH"] = in
		if got := Window(get); got != want {
			t.Errorf("%q: got %v", in, got)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(image+"\n", "docker://a")
	f.Fuzz(func(t *testing.T, text, ref string) {
		root := t.TempDir()
		os.Chmod(root, 0o700)
		Store(root, ref, image, false)
		if n := name(ref); n != "" {
			if strings.ContainsAny(n, "/\x00") {
				t.Fatalf("name %q", n)
			}
			os.WriteFile(filepath.Join(root, "ref", n), []byte(text), 0o600)
		}
		if got := Lookup(root, ref, time.Hour); got != "" {
			t.Errorf("got %q out of an empty cache", got)
		}
	})
}

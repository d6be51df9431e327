package action

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRemote(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("oci:x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]bool{"a.sif": false, "oci:x": false, "oci:y": true, "docker://a": true, "instance://i": false, "s3://b": true} {
		if got := Remote(ref); got != want {
			t.Errorf("Remote(%q) = %v", ref, got)
		}
	}
}

// TestRecentImage: the program that starts containers finds the image of a
// reference by itself, unless the cache is not to be used.
func TestRecentImage(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SINGULARITY_CACHEDIR", dir)
	name := "net/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	os.MkdirAll(filepath.Join(dir, "cache/net"), 0o700)
	os.MkdirAll(filepath.Join(dir, "cache/ref"), 0o700)
	os.WriteFile(filepath.Join(dir, "cache", name), nil, 0o700)
	os.WriteFile(filepath.Join(dir, "cache/ref/r_docker:_2f_2fa"), []byte(name+"\n"), 0o600)
	argv := []string{"singularity", "exec", "-c", "docker://a", "cmd", "docker://a"}
	var v Invocation
	if _, err := Parse(&v, argv, NewLog()); err != nil {
		t.Fatal(err)
	}
	path := v.recentImage()
	if path != filepath.Join(dir, "cache", name) {
		t.Fatalf("got %q", path)
	}
	if got := v.WithImage(argv, path); !slices.Equal(got, []string{"singularity", "exec", "-c", path, "cmd", "docker://a"}) || v.Image != path {
		t.Errorf("got %q", got)
	}
	v.Image, v.Options.DisableCache = "docker://a", true
	if got := v.recentImage(); got != "" {
		t.Errorf("with --disable-cache: got %q", got)
	}
}

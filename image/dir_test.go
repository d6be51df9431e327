package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func sandbox(t *testing.T) (*Dir, string) {
	t.Helper()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for path, text := range map[string]string{"secret": "host", "root/etc/hosts": "image", "root/secret": "image secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(top, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"up": "../../secret", "abs": "/etc/hosts", "loop": "loop", "magic": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.Stat("/"); errors.Is(err, unix.ENOSYS) {
		t.Skip("needs openat2 (Linux 5.6)")
	}
	return d, root
}

func TestDirStaysInside(t *testing.T) {
	d, _ := sandbox(t)
	for path, want := range map[string]string{
		"/etc/hosts": "image", "etc/hosts": "image", "/abs": "image", "/up": "image secret", "/../../secret": "image secret",
	} {
		got, err := d.ReadFile(path, 100)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestDirRefuses(t *testing.T) {
	d, _ := sandbox(t)
	for path, want := range map[string]string{
		"/pipe": "not a regular file", "/etc": "not a regular file", "/loop": "symbolic links", "/secret": "larger than 3 bytes", "/etc/hosts/x": "not a directory",
	} {
		if _, err := d.ReadFile(path, 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	for _, path := range []string{"/no", "/magic"} {
		if _, err := d.ReadFile(path, 3); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := d.ReadDir("/secret"); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("list of a file: %v", err)
	}
}

func TestDirLists(t *testing.T) {
	d, root := sandbox(t)
	names, err := d.ReadDir("")
	if want := []string{"abs", "etc", "loop", "magic", "pipe", "secret", "up"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %q, %v", names, err)
	}
	if err := os.Chmod(filepath.Join(root, "secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	s, err := d.Stat("up")
	if err != nil || s.Mode != 0o640 || s.Size != int64(len("image secret")) || s.UID != uint32(os.Getuid()) {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := d.Stat("etc"); err != nil || !s.Mode.IsDir() {
		t.Errorf("got %+v, %v", s, err)
	}
}

package fsuser

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestOpen: root reads for a user what the user could, and stays root.
func TestOpen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("for root only")
	}
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Skip("others cannot reach the files of this test: ", err)
		}
	}
	put := func(name string, mode os.FileMode, uid, gid int) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(p, uid, gid), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	secret, own, shared, open := put("secret", 0o600, 0, 0), put("own", 0o600, 4711, 4711), put("shared", 0o640, 0, 4712), put("open", 0o644, 0, 0)
	for _, c := range []struct {
		path   string
		uid    int
		groups []int
		may    bool
	}{{secret, 4711, []int{4711}, false}, {own, 4711, []int{4711}, true}, {own, 4713, []int{4713}, false}, {shared, 4711, []int{4711, 4712}, true}, {shared, 4711, []int{4711}, false}, {open, 4711, []int{4711}, true}, {secret, 0, []int{0}, true}} {
		f, err := Open(c.path, c.uid, c.groups)
		if c.may != (err == nil) || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s as %d of %v: %v", c.path, c.uid, c.groups, err)
		}
		if f != nil {
			f.Close()
		}
		if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
			t.Fatalf("this process is root no more: %v", err)
		}
	}
}

package lockfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b, c := open(), open(), open()
	if err := Shared(a); err != nil {
		t.Fatal(err)
	}
	if err := Shared(b); err != nil {
		t.Fatal(err)
	}
	if err := Exclusive(c); !errors.Is(err, ErrLocked) {
		t.Errorf("exclusive lock beside shared ones: %v", err)
	}
	a.Close()
	if err := Exclusive(b); err != nil {
		t.Errorf("the only holder cannot upgrade: %v", err)
	}
	if err := Shared(c); !errors.Is(err, ErrLocked) {
		t.Errorf("shared lock beside an exclusive one: %v", err)
	}
	// Another descriptor of the file comes and goes without effect.
	open().Close()
	if err := Exclusive(c); !errors.Is(err, ErrLocked) {
		t.Errorf("second exclusive lock: %v", err)
	}
	b.Close()
	if err := Exclusive(c); err != nil {
		t.Errorf("after the holder closed: %v", err)
	}
}

package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"singularity/server/store"
	"singularity/server/store/storetest"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRecords(t *testing.T) {
	storetest.Records(t, func(t *testing.T) store.Records {
		return openStore(t, filepath.Join(t.TempDir(), "data ?#%41")).Records
	})
}

func TestBlobs(t *testing.T) {
	storetest.Blobs(t, 1<<20, func(t *testing.T) store.Blobs { return openStore(t, filepath.Join(t.TempDir(), "data")).Blobs })
}

// TestOwn: one server a directory, and nobody else's directory.
func TestOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	openStore(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("a second server: %v", err)
	}
	beside, err := Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	beside.Close()
	filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", path, st.Mode(), err)
		}
		return nil
	})
	open := filepath.Join(t.TempDir(), "open")
	os.Mkdir(open, 0o755)
	if _, err := Open(open); err == nil || !strings.Contains(err.Error(), "0755") {
		t.Errorf("a directory that others may read: %v", err)
	}
}

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

// TestPlans: no statement that changes entries reads all of a collection.
func TestPlans(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "data"))
	for _, q := range []string{
		"DELETE FROM entry INDEXED BY entry_key WHERE coll = 'a' AND key = 'b'",
		"DELETE FROM entry INDEXED BY entry_key WHERE (coll, key) IN (SELECT coll, key FROM record WHERE expires <= 5 ORDER BY expires, id LIMIT 500)",
		"UPDATE record SET rev = 1 WHERE coll = 'a' AND key = 'b'",
		"SELECT r.key, r.expires FROM entry e JOIN record r ON r.coll = e.coll AND r.key = e.key WHERE e.coll = 'a' AND e.ix = 'b' AND e.value = 'c' AND e.key != 'd'",
	} {
		rows, err := s.Records.write.Query("EXPLAIN QUERY PLAN " + q)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var plan string
			if err := rows.Scan(&id, &parent, &unused, &plan); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(plan, "SCAN") || strings.Contains(plan, "entry") && !strings.Contains(plan, "key=?") && strings.HasPrefix(q, "DELETE") {
				t.Errorf("%s: %s", q, plan)
			}
		}
		rows.Close()
	}
}

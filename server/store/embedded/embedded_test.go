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

// TestPlans: nothing that is done often looks at more of a collection than it has
// to, whatever this version of SQLite thinks of our indexes.
func TestPlans(t *testing.T) {
	r := openStore(t, filepath.Join(t.TempDir(), "data")).Records
	texts := map[string][]any{
		dropEntries:  {"c", "k"},
		sweepEntries: {1},
		sweepRecords: {1},
		"SELECT rev, expires FROM record WHERE coll = ? AND key = ?":                         {"c", "k"},
		"UPDATE record SET rev = ?, expires = ?, data = ? WHERE coll = ? AND key = ?":        {1, 2, "d", "c", "k"},
		"DELETE FROM record WHERE coll = ? AND key = ?":                                      {"c", "k"},
		"SELECT key FROM entry WHERE coll = ? AND ix = ? AND value = ? AND key != ? LIMIT 1": {"c", "i", "v", "k"},
	}
	for _, q := range []store.Query{{From: "a"}, {Index: "i", Equal: "v"}, {Index: "i", Equal: "v", Reverse: true}, {Index: "i", From: "a", To: "b"}, {Index: "i", Reverse: true}} {
		for _, count := range []bool{true, false} {
			text, args, err := r.selection("c", q, count)
			if err != nil {
				t.Fatal(err)
			}
			texts[text] = args
		}
	}
	for text, args := range texts {
		rows, err := r.read.Query("EXPLAIN QUERY PLAN "+text, args...)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for rows.Next() {
			var id, parent, unused int
			var plan string
			if err := rows.Scan(&id, &parent, &unused, &plan); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(plan, "SCAN") || strings.HasSuffix(plan, "PRIMARY KEY (coll=?)") || strings.HasSuffix(plan, "(coll=? AND ix=?)") && !strings.Contains(text, "e.value >=") {
				t.Errorf("%s\n\t%s", text, plan)
			}
		}
		rows.Close()
	}
}

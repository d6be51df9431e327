package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"singularity/server/store"
	"singularity/server/store/storetest"
)

// TestCopy copies a store while somebody writes to it: every document of the
// copy has its blob, and a second copy brings only what is new.
func TestCopy(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := openStore(t, filepath.Join(dir, "data"))
	c, err := numbers(ctx, s.Records)
	if err != nil {
		t.Fatal(err)
	}
	write := func(n int) {
		p := storetest.Bytes(n, 2*crashPart+n)
		if _, err := s.Blobs.Put(ctx, fmt.Sprint("n/", n), bytes.NewReader(p), storetest.Of(p)); err != nil {
			t.Error(err)
		}
		if _, err := c.Insert(ctx, strconv.Itoa(n), thing{n}); err != nil {
			t.Error(err)
		}
	}
	for n := range 20 {
		write(n)
	}
	started, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for n := range 30 {
			write(100 + n)
			if n == 0 {
				close(started)
			}
		}
	}()
	<-started
	beside, err := Attach(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	first, _, err := beside.Copy(ctx, filepath.Join(dir, "copy"))
	<-done
	if err != nil || first < 21 {
		t.Fatal(first, err)
	}
	checkCopy(t, filepath.Join(dir, "copy"), 21)
	if err := s.Blobs.Delete(ctx, "n/3"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, "3", 0); err != nil {
		t.Fatal(err)
	}
	second, _, err := beside.Copy(ctx, filepath.Join(dir, "copy"))
	if err != nil || first+second < 50 || second > 29 {
		t.Fatalf("%d blobs, then %d: %v", first, second, err)
	}
	copied := checkCopy(t, filepath.Join(dir, "copy"), 49)
	if _, err := copied.Blobs.Stat(ctx, "n/3"); err != store.ErrNotFound {
		t.Errorf("a blob that was deleted: %v", err)
	}
}

func checkCopy(t *testing.T, dir string, least int) *Store {
	t.Helper()
	s := openStore(t, dir)
	defer s.Close()
	c, err := numbers(t.Context(), s.Records)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, err := range c.All(t.Context(), store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blobs.Stat(t.Context(), "n/"+i.Key); err != nil {
			t.Errorf("document %s: %v", i.Key, err)
		}
		n++
	}
	if n < least {
		t.Errorf("%d documents, want %d", n, least)
	}
	checkWhole(t, s.Blobs)
	report, err := s.Check(t.Context(), true)
	if err != nil || len(report.Faults) > 0 {
		t.Errorf("%+v %v", report, err)
	}
	return s
}

// TestCheck: one bit of a blob, a document that is no JSON and an index that
// leads nowhere are each found and named.
func TestCheck(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "data")
	s := openStore(t, dir)
	p := storetest.Bytes(1, 100_000)
	sum := sha256.Sum256(p)
	name := "sha256/" + hex.EncodeToString(sum[:])
	if _, err := s.Blobs.Put(ctx, name, bytes.NewReader(p), storetest.Of(p)); err != nil {
		t.Fatal(err)
	}
	c, err := numbers(ctx, s.Records)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := c.Insert(ctx, strconv.Itoa(n), thing{n}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Check(ctx, true); err != nil || len(r.Faults) > 0 || r.Records != 3 || r.Blobs != 1 || r.Bytes != int64(len(p)) {
		t.Fatalf("%+v %v", r, err)
	}
	p[777] ^= 4
	if err := os.WriteFile(filepath.Join(dir, "blobs", name), p, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.write.Exec("UPDATE record SET data = x'7b' WHERE key = '1'; DELETE FROM record WHERE key = '2'"); err != nil {
		t.Fatal(err)
	}
	r, err := s.Check(ctx, true)
	if all := strings.Join(r.Faults, "\n"); err != nil || len(r.Faults) != 3 || !strings.Contains(all, name) || !strings.Contains(all, `"1" of numbers`) || !strings.Contains(all, "numbers n 2") {
		t.Errorf("%q %v", r.Faults, err)
	}
	if r, _ := s.Check(ctx, false); len(r.Faults) != 2 || r.Bytes != 0 {
		t.Errorf("without the bytes: %q", r.Faults)
	}
}

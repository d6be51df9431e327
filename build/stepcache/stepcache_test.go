package stepcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, limit int64) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "a/step"), limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func store(t *testing.T, c *Cache, k Key, text string) {
	t.Helper()
	_, err := c.Store(context.Background(), k, []byte("note of "+text[:min(len(text), 7)]), func(f *os.File) (int64, error) {
		n, err := f.WriteString(text + "left over from an earlier pass")
		return int64(min(n, len(text))), err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	c := open(t, 0)
	k := NewKey("a", "b")
	if e := c.Find(k); e != nil {
		t.Error("found an entry in an empty cache")
	}
	store(t, c, k, "content")
	e := c.Find(k)
	if e == nil {
		t.Fatal("found nothing")
	}
	defer e.Close()
	data, err := io.ReadAll(e.Content())
	if err != nil || string(data) != "content" || string(e.Note) != "note of content" || e.Verify(context.Background()) != nil {
		t.Errorf("got %q, %q, %v", data, e.Note, err)
	}
	c.Remove(k)
	if c.Find(k) != nil {
		t.Error("found a removed entry")
	}
	if data, _ := io.ReadAll(e.Content()); string(data) != "content" {
		t.Error("an entry that is open went away")
	}
}

func TestKeyParts(t *testing.T) {
	seen := map[Key]bool{}
	for _, parts := range [][]string{{}, {""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}, {"\x00\x00\x00\x00\x00\x00\x00\x01a", "b"}} {
		k := NewKey(parts...)
		if seen[k] {
			t.Errorf("%q has the key of others", parts)
		}
		seen[k] = true
	}
}

// TestDamage (SC-089: what a cache holds is not trusted) changes every byte of an entry: it is either not found or does not
// verify.
func TestDamage(t *testing.T) {
	c := open(t, 0)
	k := NewKey("x")
	store(t, c, k, "content")
	good, err := os.ReadFile(c.path(k))
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		if err := os.WriteFile(c.path(k), data, 0o600); err != nil {
			t.Fatal(err)
		}
		e := c.Find(k)
		if e == nil {
			if _, err := os.Stat(c.path(k)); err == nil {
				t.Errorf("%s: the bad entry stayed", what)
			}
			return
		}
		defer e.Close()
		if e.Verify(context.Background()) == nil {
			t.Errorf("%s: it was taken for good", what)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x41
		check(fmt.Sprintf("byte %d", i), bad)
		check(fmt.Sprintf("cut to %d", i), good[:i])
	}
	if err := os.WriteFile(c.path(k), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(c.path(k), 0o666); err != nil {
		t.Fatal(err)
	}
	if c.Find(k) != nil {
		t.Error("an entry that others can write to was found")
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	c := open(t, 0)
	boom := errors.New("boom")
	var names []string
	c.Temporary = func(p string) { names = append(names, p) }
	_, err := c.Store(context.Background(), NewKey(), nil, func(*os.File) (int64, error) { return 0, boom })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err2 := c.Store(ctx, NewKey(), nil, func(f *os.File) (int64, error) { n, err := f.WriteString("x"); return int64(n), err })
	if !errors.Is(err, boom) || !errors.Is(err2, context.Canceled) {
		t.Errorf("got %v, %v", err, err2)
	}
	left, _ := os.ReadDir(c.dir)
	if len(left) != 0 || len(names) != 2 || !IsTemporary(names[0]) || IsTemporary(c.path(NewKey())) {
		t.Errorf("got %v left, %q told", left, names)
	}
}

func TestEviction(t *testing.T) {
	c := open(t, 3600)
	old := time.Now().Add(-time.Hour)
	for i := range 4 {
		k := NewKey(fmt.Sprint(i))
		store(t, c, k, strings.Repeat("x", 800))
		os.Chtimes(c.path(k), old.Add(time.Duration(i)*time.Minute), time.Time{})
	}
	// The first was stored first, and is used now.
	if e := c.Find(NewKey("0")); e == nil {
		t.Fatal("the limit is not reached yet, and an entry is gone")
	} else {
		e.Close()
	}
	stale := filepath.Join(c.dir, tempPrefix+"1"+suffix)
	fresh := filepath.Join(c.dir, tempPrefix+"2"+suffix)
	foreign := filepath.Join(c.dir, "letter.txt")
	for _, p := range []string{stale, fresh, foreign} {
		if err := os.WriteFile(p, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Chtimes(stale, old, time.Now().Add(-2*staleAge))
	store(t, c, NewKey("5"), strings.Repeat("x", 800))
	var found []string
	for _, k := range []string{"0", "1", "2", "3", "5"} {
		if e := c.Find(NewKey(k)); e != nil {
			e.Close()
			found = append(found, k)
		}
	}
	if got := strings.Join(found, ""); got != "0235" {
		t.Errorf("got entries %q left, want 0235", got)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("a file that was left over is still there")
	}
	for _, p := range []string{fresh, foreign} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
}

func TestClosedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, 0); err == nil {
		t.Error("a directory that others can write to was taken")
	}
}

func TestConcurrent(t *testing.T) {
	c := open(t, 0)
	var wait sync.WaitGroup
	k := NewKey("same")
	for i := range 8 {
		wait.Go(func() {
			for range 10 {
				text := strings.Repeat(fmt.Sprint(i), 10000)
				if _, err := c.Store(context.Background(), k, nil, func(f *os.File) (int64, error) {
					n, err := f.WriteString(text)
					return int64(n), err
				}); err != nil {
					t.Error(err)
				}
				e := c.Find(k)
				if e == nil {
					t.Error("found nothing")
					return
				}
				if err := e.Verify(context.Background()); err != nil {
					t.Error(err)
				}
				e.Close()
			}
		})
	}
	wait.Wait()
}

func FuzzFind(f *testing.F) {
	f.Add([]byte(magic), uint64(0))
	f.Add([]byte("content and note"), uint64(4))
	f.Fuzz(func(t *testing.T, data []byte, n uint64) {
		c, err := Open(t.TempDir(), 0)
		if err != nil {
			t.Fatal(err)
		}
		k := NewKey()
		var tail []byte
		for i := range 8 {
			tail = append(tail, byte(n>>(56-8*i)))
		}
		tail = append(append(tail, make([]byte, 32)...), magic...)
		if err := os.WriteFile(c.path(k), append(data, tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		if e := c.Find(k); e != nil {
			if e.Size+int64(len(e.Note)) != int64(len(data)) {
				t.Errorf("got %d bytes and a note of %d in %d", e.Size, len(e.Note), len(data))
			}
			e.Close()
		}
	})
}

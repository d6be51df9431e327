package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func open(t *testing.T) *Cache {
	t.Helper()
	c, err := Open(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMake(t *testing.T) {
	c := open(t)
	name := digest("hello")
	for i := range 2 {
		path, err := c.Make(t.Context(), "net", name, nil, func(f *os.File) error {
			if i > 0 {
				t.Error("made twice")
			}
			_, err := f.WriteString("hello")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := os.ReadFile(path); string(text) != "hello" {
			t.Errorf("got %q", text)
		}
	}
	left, _ := filepath.Glob(filepath.Join(c.Root, "lease", "*"))
	if len(left) > 0 {
		t.Errorf("leases are left: %v", left)
	}
	for _, bad := range []string{"", "../x", "sha256:" + name, strings.ToUpper(name), name + "/x"} {
		if _, err := c.Make(t.Context(), "net", bad, nil, nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestMany: SC-086, of many callers at once one writes.
func TestMany(t *testing.T) {
	c := open(t)
	name := digest("many")
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			path, err := c.Make(t.Context(), "oras", name, nil, func(f *os.File) error {
				made.Add(1)
				time.Sleep(50 * time.Millisecond)
				_, err := f.WriteString("many")
				return err
			})
			if text, e := os.ReadFile(path); err != nil || e != nil || string(text) != "many" {
				t.Errorf("got %q, %v, %v", text, err, e)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

// TestLead: one asks and the others use its answer, or ask all when it has none.
func TestLead(t *testing.T) {
	for _, good := range []bool{true, false} {
		c := open(t)
		var known atomic.Bool
		var asked, together, most atomic.Int32
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				defer c.Lead(t.Context(), digest("ref"), nil, known.Load)()
				if known.Load() {
					return
				}
				asked.Add(1)
				most.Store(max(most.Load(), together.Add(1)))
				time.Sleep(50 * time.Millisecond)
				known.Store(good)
				together.Add(-1)
			})
		}
		wg.Wait()
		if good && asked.Load() != 1 {
			t.Errorf("asked %d times", asked.Load())
		}
		if !good && (asked.Load() != 64 || most.Load() < 2) {
			t.Errorf("without an answer: asked %d times, %d at once", asked.Load(), most.Load())
		}
	}
}

// TestFailure: SC-084, a writer that fails holds nobody up.
func TestFailure(t *testing.T) {
	c := open(t)
	broken := errors.New("broken")
	if _, err := c.Make(t.Context(), "net", digest("a"), nil, func(f *os.File) error {
		f.WriteString("half")
		return broken
	}); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if p := c.Find("net", digest("a")); p != "" {
		t.Errorf("a half file is in the cache")
	}
	// The next one goes on where it stopped only once the first is gone.
	if _, err := c.Make(t.Context(), "net", digest("a"), nil, func(f *os.File) error {
		fi, _ := f.Stat()
		if fi.Size() != 0 {
			t.Errorf("got a file of a living writer with %d bytes", fi.Size())
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if _, err := c.Make(t.Context(), "net", digest("full"), nil, func(f *os.File) error {
		f.WriteString("half")
		return syscall.ENOSPC
	}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Root, "net", "tmp_"+digest("full")+"*")); len(left) > 0 {
		t.Errorf("left on a full disk: %v", left)
	}
}

// TestHelperWriter is no test: it is the program that TestKill kills.
func TestHelperWriter(t *testing.T) {
	root := os.Getenv("CACHE_TEST_ROOT")
	if root == "" {
		t.Skip("only for TestKill")
	}
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	c.Make(t.Context(), "net", digest("kill"), nil, func(f *os.File) error {
		f.WriteString("the beginning")
		fmt.Println("writing")
		time.Sleep(time.Hour)
		return nil
	})
}

// TestKill: SC-086, a writer that is killed leaves no entry, others need not
// wait for it, and what it wrote serves the next one.
func TestKill(t *testing.T) {
	c := open(t)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestHelperWriter$", "-test.v")
	cmd.Env = append(os.Environ(), "CACHE_TEST_ROOT="+c.Root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for b := make([]byte, 100); !bytes.Contains(seen, []byte("writing")); {
		n, err := out.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, b[:n]...)
	}
	done := make(chan error)
	go func() {
		_, err := c.Make(t.Context(), "net", digest("kill"), nil, func(f *os.File) error {
			b := make([]byte, 100)
			n, _ := f.ReadAt(b, 0)
			if string(b[:n]) != "the beginning" {
				return fmt.Errorf("got %q", b[:n])
			}
			return nil
		})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait for the writer: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	cmd.Process.Kill()
	cmd.Wait()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waits for a dead writer")
	}
	if left, _ := filepath.Glob(filepath.Join(c.Root, "*", "*tmp*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestSilence: a writer on another host that gives no sign of life is gone, and
// one that does is waited for.
func TestSilence(t *testing.T) {
	c := open(t)
	c.Silence, c.Poll = 300*time.Millisecond, 10*time.Millisecond
	name := digest("x")
	if err := os.MkdirAll(filepath.Join(c.Root, "lease"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Root, "lease", "net."+name)
	if err := os.WriteFile(path, []byte("otherboot-1-1-00000000\nnode7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	alive := make(chan bool)
	go func() {
		for i := range 8 {
			time.Sleep(100 * time.Millisecond)
			now := time.Now().Add(time.Duration(i) * time.Hour) // another clock
			os.Chtimes(path, now, now)
		}
		close(alive)
	}()
	host := ""
	_, err := c.Make(t.Context(), "net", name, func(h string) { host = h }, func(f *os.File) error {
		select {
		case <-alive:
		default:
			t.Error("did not wait for a writer that is alive")
		}
		return nil
	})
	if err != nil || host != "node7" {
		t.Errorf("got %v, host %q", err, host)
	}
}

func TestCancel(t *testing.T) {
	c := open(t)
	name := digest("x")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Make(t.Context(), "net", name, nil, func(*os.File) error {
		_, err := c.Make(ctx, "net", name, nil, nil)
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestModes: SC-079, the cache is closed to others, whatever the umask and
// whatever was there.
func TestModes(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	root := filepath.Join(t.TempDir(), "cache")
	os.Mkdir(root, 0o777)
	os.Mkdir(filepath.Join(root, "net"), 0o777)
	c, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	path, err := c.Make(t.Context(), "net", digest("x"), nil, func(f *os.File) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{root, filepath.Dir(path), path} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", p, fi.Mode(), err)
		}
	}
	if os.Geteuid() == 0 {
		os.Chown(root, 12345, 12345)
		_, err := Open(root)
		if _, ok := errors.AsType[*OwnerError](err); !ok {
			t.Errorf("a cache of somebody else: got %v", err)
		}
	}
}

// TestForeign: SC-085, only our own files are listed and removed.
func TestForeign(t *testing.T) {
	c := open(t)
	path, err := c.Make(t.Context(), "net", digest("x"), nil, func(f *os.File) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	foreign := []string{"notes.txt", "net/thesis.tex", "net/" + strings.Repeat("g", 64), "library/backup.sif"}
	for _, f := range foreign {
		os.MkdirAll(filepath.Dir(filepath.Join(c.Root, f)), 0o700)
		os.WriteFile(filepath.Join(c.Root, f), []byte("mine"), 0o600)
	}
	os.Symlink(filepath.Join(c.Root, "notes.txt"), filepath.Join(c.Root, "net", digest("link")))
	os.Mkdir(filepath.Join(c.Root, "net", digest("dir")), 0o700)
	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Path != path {
		t.Errorf("got %+v, %v", list, err)
	}
	for _, e := range list {
		if err := c.Remove(e); err != nil {
			t.Error(err)
		}
	}
	for _, f := range foreign {
		if text, _ := os.ReadFile(filepath.Join(c.Root, f)); string(text) != "mine" {
			t.Errorf("%s is gone", f)
		}
	}
}

func TestEvict(t *testing.T) {
	c := open(t)
	c.Size = 250
	gone := 0
	c.Evicted = func(Entry) { gone++ }
	add := func(s string, age time.Duration) string {
		path, err := c.Make(t.Context(), "net", digest(s), nil, func(f *os.File) error { return f.Truncate(100) })
		if err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-age)
		os.Chtimes(path, when, when)
		return path
	}
	a, b := add("a", 72*time.Hour), add("b", 48*time.Hour)
	add("c", 0)
	if _, err := os.Stat(a); err == nil || gone != 1 {
		t.Errorf("the oldest one is still there, %d evicted", gone)
	}
	if c.Find("net", digest("b")) == "" { // a use
		t.Fatal("b is gone")
	}
	add("d", 0)
	if _, err := os.Stat(b); err != nil || gone != 1 {
		t.Errorf("an image in use was evicted: %v, %d", err, gone)
	}
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	os.WriteFile(src, []byte("new"), 0o600)
	os.WriteFile(dst, []byte("old"), 0o600)
	if err := Copy(src, dst, 0o755, false); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
	if err := Copy(src, dst, 0o755, true); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(dst); string(text) != "new" {
		t.Errorf("got %q", text)
	}
	if list, _ := os.ReadDir(dir); len(list) != 2 {
		t.Errorf("left: %v", list)
	}
}

func FuzzLease(f *testing.F) {
	f.Add("a-1-1-b\nhost\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "l")
		os.WriteFile(path, []byte(text), 0o600)
		l := &lease{path: path}
		now, _ := l.look()
		deadHere(now.nonce)
	})
}

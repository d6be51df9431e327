package lockfile

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	a, b := openFile(t, path), openFile(t, path)
	if unix.Fsetxattr(int(a.Fd()), ownerName, []byte("x"), 0) != nil {
		t.Skip("no user attributes below " + dir)
	}
	l, err := Own(a, path, "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Own(b, path, "bob")
	host, _ := os.Hostname()
	for _, want := range []string{path, "process " + strconv.Itoa(os.Getpid()), "user alice", "host " + host, "since " + strconv.Itoa(time.Now().Year())} {
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrLocked) {
			t.Errorf("a second owner: got %v, want %q in it", err, want)
		}
	}
	if err := Share(b, path); err == nil || !strings.Contains(err.Error(), "alice") {
		t.Errorf("a reader beside an owner: %v", err)
	}
	if err := l.Renew(); err != nil {
		t.Error(err)
	}
	// The owner is killed: its word stays, its lock does not.
	a.Close()
	l2, err := Own(b, path, "bob")
	if err != nil {
		t.Fatalf("after the owner is gone: %v", err)
	}
	l2.Release()
	if o := readOwner(b); o != nil {
		t.Errorf("word left: %+v", o)
	}
}

func TestOwnDirectory(t *testing.T) {
	dir := t.TempDir()
	open := func() *os.File {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b := open(), open()
	if _, err := Own(a, dir, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := Own(b, dir, "bob"); !errors.Is(err, ErrLocked) {
		t.Errorf("a second owner: %v", err)
	}
	a.Close()
	if _, err := Own(b, dir, "bob"); err != nil {
		t.Error(err)
	}
}

// TestOtherHost leaves word of owners that this kernel's locks say nothing of.
func TestOtherHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := openFile(t, path)
	word := func(seen time.Time, ino uint64) string {
		return "node7\nother-boot\n12\ncarol\n1700000000\n" + strconv.FormatInt(seen.UnixNano(), 10) + "\n" + strconv.FormatUint(ino, 10)
	}
	now := time.Now()
	for _, c := range []struct {
		name, text string
		held       bool
	}{
		{"heard of just now", word(now, inode(f)), true},
		{"silent", word(now.Add(-Silence-time.Second), inode(f)), false},
		{"of another file", word(now, inode(f)+1), false},
		{"nonsense", "nonsense", false},
	} {
		if err := unix.Fsetxattr(int(f.Fd()), ownerName, []byte(c.text), 0); err != nil {
			t.Skip("no user attributes: " + err.Error())
		}
		l, err := Own(f, path, "alice")
		if (err != nil) != c.held || c.held && !strings.Contains(err.Error(), "process 12 of user carol on host node7") {
			t.Errorf("%s: %v", c.name, err)
		}
		if l == nil {
			continue
		}
		// Another host takes the file over while this one is silent.
		unix.Fsetxattr(int(f.Fd()), ownerName, []byte(word(now, inode(f))), 0)
		if err := l.Renew(); err == nil {
			t.Errorf("%s: a lost lease is renewed", c.name)
		}
		l.Release()
		if readOwner(f) == nil {
			t.Errorf("%s: the word of the new owner is gone", c.name)
		}
	}
}

func FuzzParseOwner(f *testing.F) {
	f.Add("node7\nboot\n12\ncarol\n1700000000\n1700000000000000000\n5")
	f.Fuzz(func(t *testing.T, text string) {
		o := parseOwner(text)
		if o == nil {
			return
		}
		for _, r := range (&HeldError{Path: "p", Owner: o}).Error() {
			if r < ' ' {
				t.Errorf("control character in the message for %q", text)
			}
		}
	})
}

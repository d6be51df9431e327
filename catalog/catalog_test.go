package catalog

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Verb {
		os.Exit(Main())
	}
	os.Exit(m.Run())
}

// open makes an image of one file and opens it.
func open(t *testing.T, name, text string) *os.File {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	root := strings.TrimSuffix(p, "/"+name)
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func self(t *testing.T) string {
	t.Helper()
	p, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRead(t *testing.T) {
	f := open(t, "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n")
	inv, err := Read(context.Background(), self(t), f)
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Packages) != 1 || inv.Packages[0].Name != "a" {
		t.Errorf("got %+v", inv)
	}
}

// TestBombs: SC-162, what makes the decoders want memory or time without end
// is an error, and the process that asked goes on.
func TestBombs(t *testing.T) {
	f := open(t, "x/package-lock.json", `{"dependencies":{"a":[`+strings.Repeat("[", 9000)+strings.Repeat(`{"a":1},`, 4<<20)+`0]}}`)
	start := time.Now()
	inv, err := Read(context.Background(), self(t), f)
	if err == nil && (len(inv.Packages) != 0 || len(inv.Gaps) == 0) {
		t.Errorf("a bomb gave %+v", inv)
	}
	t.Logf("%v after %v", err, time.Since(start))
}

func TestNoImage(t *testing.T) {
	p := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(p, []byte("no image"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Read(context.Background(), self(t), f); err == nil || strings.Contains(err.Error(), "exit status") {
		t.Errorf("the error does not name the cause: %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f := open(t, "etc/x", "")
	if _, err := Read(ctx, self(t), f); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

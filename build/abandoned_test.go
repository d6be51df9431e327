package build

import (
	"os"
	"path/filepath"
	"testing"
)

// A builder's names are removed, and nothing else that a hostile script may
// have made it report.
func TestRemoveAbandoned(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	mkdir := func(name string, mode os.FileMode) {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) {
		if err := os.WriteFile(at(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("build-temp-1/rootfs/closed", 0o000)
	mkdir("build-temp-1", 0o700)
	mkdir(".build-temp-2", 0o700)
	write(".build-3.sif")
	for _, name := range []string{"build-temp-1", ".build-temp-2", ".build-3.sif"} {
		if err := RemoveAbandoned(at(name)); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(at(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	mkdir("build-temp-open", 0o755)
	mkdir("home", 0o700)
	write("image.sif")
	write("build-temp-file")
	mkdir(".build-dir.sif", 0o700)
	for _, name := range []string{"build-temp-link", ".build-link.sif"} {
		if err := os.Symlink(at("home"), at(name)); err != nil {
			t.Fatal(err)
		}
	}
	mkdir("build-temp-locked", 0o700)
	lock, err := lockDir(at("build-temp-locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for _, name := range []string{
		"build-temp-open", "home", "image.sif", "build-temp-file", ".build-dir.sif", "build-temp-link", ".build-link.sif", "build-temp-locked", "missing",
	} {
		if err := RemoveAbandoned(at(name)); err == nil {
			t.Errorf("%s was removed", name)
		}
		if _, err := os.Lstat(at(name)); err != nil && name != "missing" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

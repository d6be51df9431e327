package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenOwnedOfOthers(t *testing.T) {
	for path, want := range map[string]string{"conf": "not absolute", "/etc/../etc/passwd": "has . or .. in it", "/": "not absolute"} {
		if _, err := OpenOwned(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	if os.Getuid() == 0 {
		return
	}
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenOwned(file); err == nil || !strings.Contains(err.Error(), "it belongs to uid") {
		t.Errorf("got %v", err)
	}
}

// SC-013: a rule for everybody must be root's, wherever it lies and whoever reads it.
func TestOpenRule(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rule")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		f, err := OpenRule(path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.Chown(path, 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenRule(path); err == nil || !strings.Contains(err.Error(), "must be owned by root: it belongs to") {
		t.Errorf("got %v", err)
	}
	if _, err := OpenRule("/nowhere/rule"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// SC-013: a file that somebody else than root could change, itself or on the way
// to it.
func TestOpenOwned(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files of root")
	}
	dir := filepath.Join(t.TempDir(), "etc", "singularity")
	path := dir + "/singularity.conf"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	must(os.WriteFile(path, []byte("oci mode = yes\n"), 0o644))
	c, err := LoadOwned(path)
	must(err)
	if !c.OCIMode {
		t.Error("the file was not read")
	}
	if _, err := LoadOwned(path + ".not"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for name, row := range map[string]struct {
		do, undo func() error
		at, want string
	}{
		"group":  {func() error { return os.Chmod(path, 0o664) }, func() error { return os.Chmod(path, 0o644) }, path, "mode 0664"},
		"other":  {func() error { return os.Chmod(path, 0o646) }, func() error { return os.Chmod(path, 0o644) }, path, "mode 0646"},
		"owner":  {func() error { return os.Chown(path, 1, 0) }, func() error { return os.Chown(path, 0, 0) }, path, "belongs to uid 1"},
		"parent": {func() error { return os.Chmod(dir, 0o775) }, func() error { return os.Chmod(dir, 0o755) }, dir, "mode 0775"},
		// In a directory like /tmp others could make a hard link.
		"sticky parent": {func() error { return os.Chmod(dir, os.ModeSticky|0o777) }, func() error { return os.Chmod(dir, 0o755) }, dir, "mode 1777"},
		"grandparent": {func() error { return os.Chown(filepath.Dir(dir), 1, 0) }, func() error { return os.Chown(filepath.Dir(dir), 0, 0) },
			filepath.Dir(dir), "belongs to uid 1"},
		"link": {func() error { return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)) },
			func() error { return os.Rename(path+".real", path) }, path, "it is a link"},
		"linked parent": {func() error { return errors.Join(os.Rename(dir, dir+".real"), os.Symlink(dir+".real", dir)) },
			func() error { return errors.Join(os.Remove(dir), os.Rename(dir+".real", dir)) }, dir, "it is a link"},
		"directory": {func() error { return errors.Join(os.Rename(path, path+".real"), os.Mkdir(path, 0o755)) },
			func() error { return errors.Join(os.Remove(path), os.Rename(path+".real", path)) }, path, "not a regular file"},
	} {
		must(row.do())
		_, err := LoadOwned(path)
		oe := new(OwnerError)
		if !errors.As(err, &oe) || oe.Path != row.at || !strings.Contains(oe.Reason, row.want) {
			t.Errorf("%s: got %v, want %s: ...%s", name, err, row.at, row.want)
		}
		must(row.undo())
		if _, err := LoadOwned(path); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	must(os.Chmod(filepath.Dir(dir), os.ModeSticky|0o777))
	if _, err := LoadOwned(path); err != nil {
		t.Errorf("below a sticky directory: %v", err)
	}
}

package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// tree makes a directory with files ("path": content; a path that ends in "/" is
// a directory) and opens it.
func tree(t *testing.T, files map[string]string) Files {
	t.Helper()
	root := t.TempDir()
	for p, text := range files {
		at := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case p[len(p)-1] == '/':
			err = os.MkdirAll(at, 0o755)
		case len(text) > 1 && text[0] == '>':
			err = os.Symlink(text[1:], at)
		default:
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestUnion(t *testing.T) {
	u := Union{
		{Files: tree(t, map[string]string{"upper/etc/new": "top", "upper/etc/.wh.gone": "", "upper/opaque/.wh..wh..opq": "", "upper/opaque/own": "1", "upper/file": "now a file"}), Dir: "/upper"},
		{Files: tree(t, map[string]string{"etc/new": "middle", "etc/mid": "middle", "lnk": ">/etc/base"})},
		{Files: tree(t, map[string]string{"etc/new": "base", "etc/gone": "base", "etc/base": "base", "opaque/below": "x", "file/below": "x", ".wh.odd": "a plain name here"})},
	}
	for p, want := range map[string]string{"/etc/new": "top", "/etc/mid": "middle", "/etc/base": "base", "/lnk": "base", "/opaque/own": "1", "/etc/gone": "", "/opaque/below": "", "/file/below": "", "/none": ""} {
		got, err := u.ReadFile(p, 100)
		if string(got) != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %q, %v, want %q", p, got, err, want)
		}
		if _, err := u.Stat(p); (err == nil) != (want != "") {
			t.Errorf("%s: stat: %v", p, err)
		}
	}
	for p, want := range map[string][]string{"/etc": {"base", "mid", "new"}, "/opaque": {"own"}, "/": {"etc", "file", "lnk", "opaque"}} {
		if got, err := u.ReadDir(p); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", p, got, err, want)
		}
	}
	if _, err := u.ReadDir("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

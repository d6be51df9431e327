package image

import (
	"io/fs"
	"testing"
)

// fakeLinks is an image of links, files ("") and directories ("/").
type fakeLinks map[string]string

func (f fakeLinks) Lstat(p string) (fs.FileMode, string, error) {
	v, ok := f[p]
	switch {
	case !ok:
		return 0, "", fs.ErrNotExist
	case v == "/":
		return fs.ModeDir, "", nil
	case v == "":
		return 0, "", nil
	}
	return fs.ModeSymlink, v, nil
}

func TestResolve(t *testing.T) {
	r := NewResolver(fakeLinks{
		"/var": "/", "/var/run": "/run", "/run": "/", "/run/lock": "/", "/bin": "usr/bin", "/usr": "/", "/usr/bin": "/", "/usr/bin/sh": "",
		"/up": "../../../etc", "/etc": "/", "/etc/hosts": "", "/loop": "loop", "/a": "/b", "/b": "/a", "/var/up": "../up/hosts", "/dangling": "/none/x",
	})
	for _, c := range []struct {
		path, want string
		there      bool
	}{
		{"/", "/", true}, {"/var/run/lock", "/run/lock", true}, {"/bin/sh", "/usr/bin/sh", true}, {"/up/hosts", "/etc/hosts", true},
		{"/var/up", "/etc/hosts", true}, {"/var/run/new/dir", "/run/new/dir", false}, {"/dangling/y", "/none/x/y", false}, {"/../../etc", "/etc", true},
		{"/loop", "/loop", false}, {"/a/x", "/b/x", false}, {"/home/alice", "/home/alice", false},
	} {
		got, _, ok := r.Resolve(c.path)
		if c.path == "/a/x" {
			if ok {
				t.Errorf("%s: resolved a loop to %q", c.path, got)
			}
			continue
		}
		if got != c.want || ok != c.there {
			t.Errorf("%s: got %q, %v, want %q, %v", c.path, got, ok, c.want, c.there)
		}
	}
}

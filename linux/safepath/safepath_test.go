package safepath

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a root with links that try to leave it, beside a secret.
func tree(t *testing.T) *os.File {
	t.Helper()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	for _, d := range []string{"a/b", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(p, text string) {
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(base, "secret"), "outside")
	write(filepath.Join(root, "secret"), "inside")
	write(filepath.Join(root, "a/b/file"), "file")
	for name, target := range map[string]string{
		"up": "../../../../secret", "abs": "/secret", "dir": "/a", "a/back": "../a/b", "loop": "loop",
		"magic": "/proc/self/root/etc", "dangling": "/nowhere/x", "a/out": filepath.Join(base, "secret"),
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOpen(t *testing.T) {
	root := tree(t)
	ways := map[string]func(int, string, int, uint32) (int, error){"openat2": openat2, "walk": walk}
	for way, open := range ways {
		for _, c := range []struct {
			name, want string
			err        error
		}{
			{"secret", "inside", nil},
			{"/../../secret", "inside", nil},
			{"up", "inside", nil},
			{"abs", "inside", nil},
			{"dir/b/file", "file", nil},
			{"dir/back/file", "file", nil},
			{"a/b/../../secret", "inside", nil},
			{"loop", "", unix.ELOOP},
			{"magic/passwd", "", unix.ENOENT},
			{"a/out", "", unix.ENOENT},
			{"dangling", "", unix.ENOENT},
			{"secret/x", "", unix.ENOTDIR},
			{"none", "", unix.ENOENT},
		} {
			fd, err := open(int(root.Fd()), clean(c.name), unix.O_RDONLY, 0)
			if way == "openat2" && errors.Is(err, unix.ENOSYS) {
				t.Skip("needs openat2")
			}
			if c.err != nil {
				if !errors.Is(err, c.err) {
					t.Errorf("%s %q: got error %v, want %v", way, c.name, err, c.err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s %q: %v", way, c.name, err)
				continue
			}
			f := os.NewFile(uintptr(fd), c.name)
			got, _ := io.ReadAll(f)
			f.Close()
			if string(got) != c.want {
				t.Errorf("%s %q: got %q, want %q", way, c.name, got, c.want)
			}
		}
		fd, err := open(int(root.Fd()), "dir/"+way, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		if err != nil {
			t.Errorf("%s: create: %v", way, err)
		}
		unix.Close(fd)
		if _, err := os.Lstat(filepath.Join(root.Name(), "a", way)); err != nil {
			t.Error(err)
		}
		if _, err := open(int(root.Fd()), "abs", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: exclusive create at a link: got %v, want EEXIST", way, err)
		}
		fd, err = open(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Errorf("%s: open the root: %v", way, err)
		}
		unix.Close(fd)
	}
}

func TestMkdir(t *testing.T) {
	root := tree(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d, err := Mkdir(root, "/dir/x/../y/z/", 0o751)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	info, err := os.Lstat(filepath.Join(root.Name(), "a/y/z"))
	if err != nil || info.Mode() != fs.ModeDir|0o751 {
		t.Errorf("got %v, %v", info, err)
	}
	if _, err := Mkdir(root, "dangling", 0o755); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v for a dangling link, want it to exist", err)
	}
	if _, err := Mkdir(root, "secret/x", 0o755); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("got %v for a file as parent", err)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(root.Name()), "x")); err == nil {
		t.Error("a directory was made outside the root")
	}
}

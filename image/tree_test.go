package image

import (
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestTreesAgree reads one tree in each kind of image.
func TestTreesAgree(t *testing.T) {
	_, root := sandbox(t)
	top := t.TempDir()
	for _, k := range []struct {
		name string
		tool []string
	}{
		{"sandbox", nil},
		{"squashfs", []string{"mksquashfs", root, filepath.Join(top, "squashfs"), "-quiet", "-no-progress"}},
		{"ext3", []string{"mkfs.ext3", "-q", "-d", root, filepath.Join(top, "ext3"), "2M"}},
	} {
		t.Run(k.name, func(t *testing.T) {
			path := root
			if k.tool != nil {
				path = filepath.Join(top, k.name)
				if _, err := exec.LookPath(k.tool[0]); err != nil {
					t.Skip("needs " + k.tool[0])
				}
				if out, err := exec.Command(k.tool[0], k.tool[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", k.tool[0], err, out)
				}
			}
			im, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer im.Close()
			tree, _, err := im.Files()
			if err != nil {
				t.Fatal(err)
			}
			checkTree(t, tree)
		})
	}
}

func checkTree(t *testing.T, tree Tree) {
	t.Helper()
	for path, want := range map[string]string{"/abs": "image", "up": "image secret", "/etc/../../secret": "image secret"} {
		if got, err := tree.ReadFile(path, 100); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"/pipe", "/etc", "/loop", "/none"} {
		if _, err := tree.ReadFile(path, 100); err == nil || (path == "/none") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := tree.ReadFile("/secret", 3); err == nil {
		t.Error("a file over the limit is read")
	}
	if _, err := tree.ReadDir("/secret"); err == nil {
		t.Error("a file is listed")
	}
	names, err := tree.ReadDir("/")
	names = slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" })
	if want := []string{"abs", "etc", "loop", "magic", "pipe", "secret", "up"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %q, %v", names, err)
	}
	if s, err := tree.Stat("/abs"); err != nil || s.Mode != 0o644 || s.Size != 5 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err := tree.Stat("/pipe"); err != nil || s.Mode.Type() != fs.ModeNamedPipe {
		t.Errorf("got %+v, %v", s, err)
	}
}

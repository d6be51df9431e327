package image

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"singularity/squashfs"
)

// layer makes a squashfs of files ("path": content). A path that ends in "/" is a
// directory, "whiteout" as content makes the device by which overlayfs removes a file, and
// an attribute behind "dir/" is that of an opaque directory.
func layer(t *testing.T, files map[string]string) Files {
	t.Helper()
	var paths []string
	for p := range files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	b := pack(t, func(w *squashfs.Writer) {
		for _, p := range paths {
			text := files[p]
			e := squashfs.Entry{Path: strings.TrimSuffix(p, "/"), Mode: squashfs.ModeRegular | 0o644, Size: int64(len(text))}
			var content io.Reader = strings.NewReader(text)
			switch {
			case strings.HasSuffix(p, "/"):
				e.Mode, e.Size, content = squashfs.ModeDir|0o755, 0, nil
				if text != "" {
					e.Xattrs = []squashfs.Xattr{{Name: text, Value: []byte("y")}}
				}
			case text == "whiteout":
				e.Mode, e.Size, content = squashfs.ModeChar, 0, nil
			case strings.HasPrefix(text, ">"):
				e.Mode, e.Size, e.Target, content = squashfs.ModeSymlink|0o777, 0, text[1:], nil
			}
			if err := w.Add(e, content); err != nil {
				t.Fatal(err)
			}
		}
	})
	tree, _, err := OpenFiles(FormatSquashfs, io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// walk lists regular files with their contents, and checks that a lookup by path finds the
// same.
func walk(t *testing.T, f Files) []string {
	t.Helper()
	var list []string
	err := Each(f, 1000, func(e Entry) error {
		if !e.Mode.IsRegular() {
			return nil
		}
		c, err := e.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		b, err := io.ReadAll(io.NewSectionReader(c, 0, e.Size))
		if err != nil {
			return err
		}
		list = append(list, e.Path+"="+string(b))
		if same, err := f.ReadFile("/"+e.Path, 100); err != nil || string(same) != string(b) {
			t.Errorf("%s: %q by a walk, %q by its path, %v", e.Path, b, same, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// TestLayers: what a walk shows of layers is what a container sees: upper files hide lower
// ones, and what an upper layer removes is gone, in each of the ways to say so.
func TestLayers(t *testing.T) {
	l := NewLayers(
		layer(t, map[string]string{"etc/a": "top", "etc/gone": "whiteout", "etc/.wh.old": "", "opaque/": "trusted.overlay.opaque", "opaque/own": "1", "file": "now a file", "link": ">etc", "dirgone": "whiteout"}),
		layer(t, map[string]string{"etc/a": "middle", "etc/b": "middle", "etc/old": "x", "etc/gone": "x", "user/": "user.overlay.opaque", "user/own": "2", "aufs/.wh..wh..opq": "", "aufs/own": "3"}),
		tree(t, map[string]string{"etc/a": "base", "etc/c": "base", "etc/old": "x", "opaque/below": "x", "opaque/deep/below": "x", "user/below": "x", "aufs/below": "x", "file/below": "x", "link/below": "x", "dirgone/deep/below": "x", "plain": "base"}),
	)
	want := []string{"aufs/own=3", "etc/a=top", "etc/b=middle", "etc/c=base", "file=now a file", "opaque/own=1", "plain=base", "user/own=2"}
	if got := walk(t, l); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for _, p := range []string{"/etc/gone", "/etc/old", "/opaque/below", "/opaque/deep/below", "/user/below", "/aufs/below", "/file/below", "/dirgone/deep/below"} {
		if b, err := l.ReadFile(p, 100); err == nil {
			t.Errorf("%s is read: %q", p, b)
		}
	}
	// All that is below an opaque root is hidden; a writable overlay has its files in upper.
	root := NewLayers(tree(t, map[string]string{"upper/own": "1", "upper/.wh..wh..opq": "", "work/": "", "other": "x"}), layer(t, map[string]string{"below": "x"}))
	if got := walk(t, root); !slices.Equal(got, []string{"own=1"}) {
		t.Errorf("below an opaque root: %q", got)
	}
	if _, err := root.ReadFile("/below", 100); err == nil {
		t.Error("a file below an opaque root is read")
	}
	n := 0
	if err := Each(l, 3, func(Entry) error { n++; return nil }); err == nil || n != 3 {
		t.Errorf("no bound of entries: %v, %d", err, n)
	}
}

// TestManyLayers: the work grows with the number of files, not with that of pairs of layers.
func TestManyLayers(t *testing.T) {
	var list []Files
	for n := range 60 {
		files := map[string]string{"same": fmt.Sprint(n)}
		for m := range 20 {
			files[fmt.Sprintf("d/e/f/%d-%d", n, m)] = "x"
		}
		list = append(list, layer(t, files))
	}
	n := 0
	err := Each(NewLayers(list...), 1<<20, func(e Entry) error { n++; return nil })
	if want := 60*20 + 4; err != nil || n != want {
		t.Errorf("%d entries, want %d, %v", n, want, err)
	}
}

package squashfs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// randomTree makes entries from any bytes, valid ones for the most part.
func randomTree(b []byte) []writeItem {
	next := func() int {
		if len(b) == 0 {
			return 0
		}
		c := b[0]
		b = b[1:]
		return int(c)
	}
	var items []writeItem
	for n := 0; len(b) > 0 && n < 40; n++ {
		kinds := []uint32{ModeRegular, ModeRegular, ModeRegular, ModeDir, ModeSymlink, ModeChar, ModeFIFO}
		e := Entry{Path: fmt.Sprint(next() % 6), Mode: kinds[next()%len(kinds)] | uint32(next())<<1, UID: uint32(next()) << 16, ModTime: int64(next()) << 20}
		for range next() % 3 {
			e.Path += fmt.Sprint("/", next()%4)
		}
		var data []byte
		switch e.Mode & ModeType {
		case ModeRegular:
			data = bytes.Repeat([]byte{byte(next() % 3)}, next()*next())
			for range next() % 5 {
				n := next()
				data = append(data, b[:min(len(b), n)]...)
			}
		case ModeSymlink:
			e.Target = fmt.Sprint("to", next())
		case ModeChar:
			e.Rdev = uint32(next())
		}
		if next()%4 == 0 {
			e.Xattrs = []Xattr{{Name: fmt.Sprint("user.", next()%3), Value: bytes.Repeat([]byte("v"), next()%4*3000)}}
		}
		if next()%6 == 0 && len(items) > 0 {
			e.Hardlink, data = items[next()%len(items)].Path, nil
		}
		items = append(items, writeItem{e, data})
	}
	return items
}

// FuzzRoundTrip reads back what was written, by a model of what replaces what.
func FuzzRoundTrip(f *testing.F) {
	for i := range 8 {
		seed := make([]byte, 300)
		for j := range seed {
			seed[j] = byte(j*j*7 + i*j*31 + i)
		}
		f.Add(seed, uint8(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		if len(b) > 2000 {
			return
		}
		o := WriterOptions{BlockSize: MinBlockSize << (mode % 3), Workers: 1 + int(mode)%2, Level: 1}
		if mode%4 == 3 {
			o.Compression = Zstd
		}
		var m memFile
		w, err := NewWriter(&m, o)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		last := map[string]writeItem{} // what was added under each path; the tree decides which are still there
		for _, it := range randomTree(b) {
			it.Size = int64(len(it.data))
			if err := w.Add(it.Entry, bytes.NewReader(it.data)); err != nil {
				continue // a file as parent, a link to nothing
			}
			if first := it.Hardlink; first != "" {
				path := it.Path
				it = last[first]
				it.Path = path
			}
			for path := range last {
				if it.Mode&ModeType != ModeDir && strings.HasPrefix(path, it.Path+"/") {
					delete(last, path)
				}
			}
			last[it.Path] = it
		}
		size, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		compareImage(t, m.b[:size], last, w.nodes)
	})
}

// compareImage reads an image and compares it with the entries it was made of.
func compareImage(t *testing.T, image []byte, last map[string]writeItem, nodes int) {
	t.Helper()
	r, err := Open(bytes.NewReader(image), int64(len(image)), ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n := int(r.Superblock().Inodes); n != nodes {
		t.Errorf("%d inodes, want %d", n, nodes)
	}
	seen := map[uint32]bool{}
	err = r.Each(func(path string, in *Inode) error {
		seen[in.Number] = true
		want, ok := last[path]
		if !ok {
			if !in.IsDir() {
				t.Errorf("%q was never added", path)
			}
			return nil
		}
		if in.Mode != want.Mode&(ModeType|0o7777) || in.UID != want.UID || in.ModTime != want.ModTime || in.Rdev != want.Rdev {
			t.Errorf("%q: %+v, want %+v", path, in, want.Entry)
		}
		if in.IsRegular() {
			got := make([]byte, in.Size)
			if n, err := r.ReadAt(in, got, 0); n != len(got) || err != nil && err != io.EOF || !bytes.Equal(got, want.data) {
				t.Errorf("%q: %v, contents differ (%d bytes, want %d)", path, err, n, len(want.data))
			}
		}
		if in.IsSymlink() {
			if got, err := r.Readlink(in); got != want.Target {
				t.Errorf("%q: %v, target %q, want %q", path, err, got, want.Target)
			}
		}
		x, err := r.Xattrs(in)
		if err != nil || len(x) != len(want.Xattrs) || len(x) == 1 && (x[0].Name != want.Xattrs[0].Name || !bytes.Equal(x[0].Value, want.Xattrs[0].Value)) {
			t.Errorf("%q: %v, %d attributes, want %d", path, err, len(x), len(want.Xattrs))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != nodes {
		t.Errorf("%d inodes are reached, want %d", len(seen), nodes)
	}
}

package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"singularity/squashfs"
)

// archive makes a layer of lines "kind name [argument]".
func archive(t testing.TB, lines ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		name, arg, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, Uid: 7, Gid: 8}
		switch kind {
		case "file":
			h.Typeflag, h.Size = tar.TypeReg, int64(len(arg))
		case "dir":
			h.Typeflag, h.Mode = tar.TypeDir, 0o750
		case "link":
			h.Typeflag, h.Linkname = tar.TypeSymlink, arg
		case "hard":
			h.Typeflag, h.Linkname = tar.TypeLink, arg
		case "fifo":
			h.Typeflag = tar.TypeFifo
		case "char":
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3
		default:
			t.Fatalf("unknown kind %q", kind)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if kind == "file" {
			io.WriteString(w, arg)
		}
	}
	w.Close()
	return b.Bytes()
}

// seekable is a layer that can be read at any place.
type seekable struct{ *bytes.Reader }

func (seekable) Close() error { return nil }

func layerOf(stored, plain []byte) Layer {
	return Layer{DiffID: fmt.Sprintf("sha256:%x", sha256.Sum256(plain)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(stored)), Size: int64(len(stored)),
		Open: func() (io.ReadCloser, error) { return seekable{bytes.NewReader(stored)}, nil }}
}

// memory is a Sink that keeps what it gets, as text.
type memory struct {
	entries map[string]string
	kinds   map[string]uint32
	raw     []squashfs.Entry
}

func newMemory() *memory { return &memory{entries: map[string]string{}, kinds: map[string]uint32{}} }

func (m *memory) Add(e squashfs.Entry, content io.Reader) error {
	m.raw = append(m.raw, e)
	if _, ok := m.entries[e.Path]; ok {
		return fmt.Errorf("%q is added twice", e.Path)
	}
	for at := e.Path; at != ""; {
		if path.Base(at) == ".." || path.Base(at) == "." || path.Base(at) == "" || strings.HasPrefix(at, "/") || strings.HasPrefix(path.Base(at), whiteout) {
			return fmt.Errorf("%q has the part %q", e.Path, at)
		}
		if at, _ = path.Split(at); at != "" {
			at = at[:len(at)-1]
			if m.kinds[at] != squashfs.ModeDir {
				return fmt.Errorf("%q is added before the directory %q", e.Path, at)
			}
		}
	}
	text := ""
	switch kind := e.Mode & squashfs.ModeType; {
	case e.Hardlink != "":
		text = "= " + e.Hardlink
		if _, ok := m.entries[e.Hardlink]; !ok {
			return fmt.Errorf("%q is linked to %q, which is not there", e.Path, e.Hardlink)
		}
	case kind == squashfs.ModeDir:
		text = "/"
	case kind == squashfs.ModeSymlink:
		text = "-> " + e.Target
	case kind == squashfs.ModeRegular:
		var b []byte
		if content != nil {
			var err error
			if b, err = io.ReadAll(content); err != nil {
				return err
			}
		}
		if int64(len(b)) != e.Size {
			return fmt.Errorf("%q has %d bytes, not %d", e.Path, len(b), e.Size)
		}
		text = string(b)
	default:
		text = fmt.Sprintf("node %o", kind)
	}
	m.entries[e.Path], m.kinds[e.Path] = text, e.Mode&squashfs.ModeType
	return nil
}

func (m *memory) list() []string {
	var list []string
	for p, text := range m.entries {
		if p != "" {
			list = append(list, p+" "+text)
		}
	}
	slices.Sort(list)
	return list
}

func merge(layers []Layer, l Limits) (*memory, error) {
	t, err := Read(context.Background(), layers, l)
	if err != nil {
		return nil, err
	}
	m := newMemory()
	return m, t.Emit(context.Background(), m, EmitOptions{})
}

func TestMerge(t *testing.T) {
	lower := []string{"dir d", "file d/a 1", "dir d/s", "file d/s/b 2", "file f 3", "link l d", "dir usr/lib", "link lib usr/lib"}
	base := func(change ...string) []string { // the listing of lower, changed
		list := []string{"d /", "d/a 1", "d/s /", "d/s/b 2", "f 3", "l -> d", "usr /", "usr/lib /", "lib -> usr/lib"}
		for _, c := range change {
			if gone, ok := strings.CutPrefix(c, "!"); ok {
				list = slices.DeleteFunc(list, func(s string) bool {
					return s == gone || strings.HasPrefix(s, gone+" ") || strings.HasPrefix(s, gone+"/")
				})
				continue
			}
			name, _, _ := strings.Cut(c, " ")
			list = slices.DeleteFunc(list, func(s string) bool { return strings.HasPrefix(s, name+" ") })
			list = append(list, c)
		}
		slices.Sort(list)
		return list
	}
	for _, tt := range []struct {
		name  string
		upper []string
		want  []string
	}{
		{"a file replaces a file", []string{"file f x"}, base("f x")},
		{"whiteout of a file", []string{"file d/.wh.a "}, base("!d/a")},
		{"whiteout of a directory", []string{"file .wh.d "}, base("!d")},
		{"whiteout of a link", []string{"file .wh.l "}, base("!l")},
		{"whiteout through a link", []string{"file l/.wh.a "}, base("!d/a")},
		{"whiteout of nothing", []string{"file none/.wh.a ", "file .wh.none "}, base()},
		{"whiteout before the new file", []string{"file .wh.f ", "file f x"}, base("f x")},
		{"whiteout behind the new file", []string{"file f x", "file .wh.f "}, base("f x")},
		{"whiteout before the new directory", []string{"file .wh.d ", "dir d", "file d/n x"}, base("!d/a", "!d/s", "d/n x")},
		{"whiteout behind the new directory", []string{"dir d", "file d/n x", "file .wh.d "}, base("!d/a", "!d/s", "d/n x")},
		{"opaque first", []string{"dir d", "file d/.wh..wh..opq ", "file d/n x"}, base("!d/a", "!d/s", "d/n x")},
		{"opaque last", []string{"dir d", "file d/n x", "dir d/s", "file d/.wh..wh..opq "}, base("!d/a", "!d/s/b", "d/n x")},
		{"notes of a driver", []string{"file .wh..wh.plnk ", "file .wh..wh.aufs "}, base()},
		{"a file replaces a directory", []string{"file d x"}, base("!d", "d x")},
		{"a directory replaces a link", []string{"dir l", "file l/x y"}, base("l /", "l/x y")},
		{"a directory again", []string{"dir d"}, base()},
		{"a file below a link", []string{"file lib/x y"}, base("usr/lib/x y")},
		{"a link out of the root", []string{"link o ../../..", "file o/x y"}, base("o -> ../../..", "x y")},
		{"an absolute link", []string{"link o /d/s", "file o/x y"}, base("o -> /d/s", "d/s/x y")},
		{"a link that leads nowhere", []string{"link o new/dir", "file o/x y"}, base("o -> new/dir", "new /", "new/dir /", "new/dir/x y")},
		{"an absolute name", []string{"file /d/x y", "file ./d/z w"}, base("d/x y", "d/z w")},
		{"a hard link to a lower layer", []string{"hard h f"}, base("h = f")},
		{"whose first name goes", []string{"hard h f", "file .wh.f "}, base("!f", "h 3")},
		{"whose first name changes", []string{"hard h f", "file f x"}, base("h 3", "f x")},
		{"a hard link through a link", []string{"hard h l/a"}, base("h = d/a")},
		{"a hard link to itself", []string{"hard f f"}, base()},
		{"a hard link to a link", []string{"hard h l"}, base("h -> d", "l = h")},
		{"a name twice", []string{"file f x", "file f y"}, base("f y")},
		{"a directory in a new place", []string{"file n/m/o x"}, base("n /", "n/m /", "n/m/o x")},
		{"nodes", []string{"fifo p", "char c"}, base("p node 10000", "c node 20000")},
	} {
		for _, packed := range []string{"", "gzip", "zstd"} {
			a, b := archive(t, lower...), archive(t, tt.upper...)
			m, err := merge([]Layer{layerOf(compressed(t, packed, a), a), layerOf(compressed(t, packed, b), b)}, DefaultLimits())
			if err != nil {
				t.Errorf("%s, %s: %v", tt.name, packed, err)
				continue
			}
			if got := m.list(); !slices.Equal(got, tt.want) {
				t.Errorf("%s, %s:\ngot  %q\nwant %q", tt.name, packed, got, tt.want)
			}
		}
	}
}

func compressed(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch kind {
	case "":
		return b
	case "gzip":
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
	case "zstd":
		w, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
	}
	return out.Bytes()
}

func TestAttributes(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, Uid: 1, Gid: 2})
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o4755, Uid: 70000, Gid: 5, PAXRecords: map[string]string{
		"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "cap", "SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.system.posix_acl_access": "acl"}})
	w.Close()
	m, err := merge([]Layer{layerOf(b.Bytes(), b.Bytes())}, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	root, f := m.raw[0], m.raw[1]
	if root.Path != "" || root.Mode != squashfs.ModeDir|0o711 || root.UID != 1 || root.GID != 2 {
		t.Errorf("the root is %+v", root)
	}
	slices.SortFunc(f.Xattrs, func(a, b squashfs.Xattr) int { return strings.Compare(a.Name, b.Name) })
	if f.Mode != squashfs.ModeRegular|0o4755 || f.UID != 70000 || f.GID != 5 || fmt.Sprintf("%s", f.Xattrs) != "[{security.capability cap} {user.a 1}]" {
		t.Errorf("the file is %+v", f)
	}
}

// TestHostile is SC-073, SC-074, SC-077 and SC-078: names and links that would
// lead out of the tree.
func TestHostile(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1)
	for _, tt := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"dots", []string{"file ../x y"}, `".."`},
		{"dots inside", []string{"file a/../../x y"}, `".."`},
		{"dots absolute", []string{"file /../x y"}, `".."`},
		{"dots in a hard link", []string{"hard x ../../etc/passwd"}, `".."`},
		{"a hard link to the root", []string{"hard x /"}, "root"},
		{"a hard link to nothing", []string{"hard x /etc/passwd"}, "no such file"},
		{"a hard link to a directory", []string{"dir d", "hard x d"}, "no such file"},
		{"a link as the root", []string{"link . /etc", "file passwd x"}, "root"},
		{"a link named /", []string{"link / /etc", "file passwd x"}, "root"},
		{"links in a circle", []string{"link a b", "link b a", "file a/x y"}, "symbolic links"},
		{"a link to itself", []string{"link a a", "file a/x y"}, "symbolic links"},
		{"a file as a directory", []string{"file a x", "file a/b y"}, "no directory"},
		{"a whiteout of nothing", []string{"file .wh. "}, "names no file"},
		{"a whiteout of dots", []string{"file d/.wh... "}, "names no file"},
		{"a whiteout as a directory", []string{"file .wh.d/x y"}, "whiteout"},
		{"depth", []string{"file " + deep + "x y"}, "limit exceeded"},
		{"depth by links", []string{"dir " + deep[:600], "link l " + deep[:600], "file l/" + deep[:600] + "x y"}, "limit exceeded"},
		{"a long name", []string{"file " + strings.Repeat("n", 256) + " y"}, "limit exceeded"},
		{"a long name on the way", []string{"file " + strings.Repeat("n", 256) + "/x y"}, "limit exceeded"},
		{"a long target", []string{"link l " + strings.Repeat("n", 5000)}, "limit exceeded"},
	} {
		b := archive(t, tt.lines...)
		_, err := merge([]Layer{layerOf(b, b)}, DefaultLimits())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q in it", tt.name, err, tt.want)
		}
	}
}

// TestLimits is SC-072: what costs more than it is worth ends in time.
func TestLimits(t *testing.T) {
	small := Limits{Layers: 2, Entries: 100, Size: 1 << 20, Ratio: 10, FreeSize: 64 << 10}
	zeros := archive(t, "file z "+strings.Repeat("0", 512<<10))
	var many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("file f%d ", i))
	}
	entries := archive(t, many...)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "huge", Size: 1 << 50})
	huge := b.Bytes()
	empty := archive(t)
	for _, tt := range []struct {
		name   string
		layers []Layer
	}{
		{"gzip bomb", []Layer{layerOf(compressed(t, "gzip", zeros), zeros)}},
		{"zstd bomb", []Layer{layerOf(compressed(t, "zstd", zeros), zeros)}},
		{"entries", []Layer{layerOf(entries, entries)}},
		{"size", []Layer{layerOf(huge, huge)}},
		{"layers", []Layer{layerOf(empty, empty), layerOf(empty, empty), layerOf(empty, empty)}},
	} {
		if _, err := merge(tt.layers, small); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: got error %v", tt.name, err)
		}
	}
	if _, err := merge([]Layer{layerOf(zeros, zeros)}, small); err != nil {
		t.Errorf("the same bytes without compression: %v", err)
	}
}

// TestDigests: nothing that is not what the image names comes through.
func TestDigests(t *testing.T) {
	plain := archive(t, "dir d", "file d/a hello")
	other := archive(t, "dir d", "file d/a jello")
	packed := compressed(t, "gzip", plain)
	good := layerOf(packed, plain)
	bad := map[string]Layer{"diffID": good, "digest": good, "size": good, "content": good}
	l := bad["diffID"]
	l.DiffID = layerOf(other, other).DiffID
	bad["diffID"] = l
	l = bad["digest"]
	l.Digest = layerOf(plain, plain).Digest
	bad["digest"] = l
	l = bad["size"]
	l.Size++
	bad["size"] = l
	l = layerOf(plain, plain)
	l.Open = layerOf(other, other).Open
	bad["content"] = l
	// The second reading is of something else with the same digest said.
	l = layerOf(plain, plain)
	first := true
	l.DiffID, l.Digest = layerOf(other, other).DiffID, layerOf(other, other).Digest
	moved := archive(t, "dir d", "file d/b hello")
	l.Open = func() (io.ReadCloser, error) {
		if first {
			first = false
			return seekable{bytes.NewReader(moved)}, nil
		}
		return seekable{bytes.NewReader(other)}, nil
	}
	bad["changed"] = l
	for name, l := range bad {
		if _, err := merge([]Layer{l}, DefaultLimits()); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	if _, err := merge([]Layer{good}, DefaultLimits()); err != nil {
		t.Error(err)
	}
}

// TestCutOff: a layer that breaks off is no image (SC-084).
func TestCutOff(t *testing.T) {
	plain := archive(t, "dir d", "file d/a "+strings.Repeat("hello", 10000))
	for _, kind := range []string{"", "gzip", "zstd"} {
		whole := compressed(t, kind, plain)
		for n := 0; n < len(whole); n += max(1, len(whole)/50) {
			l := layerOf(whole, plain)
			l.Size = int64(n)
			l.Open = func() (io.ReadCloser, error) { return seekable{bytes.NewReader(whole[:n])}, nil }
			if _, err := merge([]Layer{l}, DefaultLimits()); err == nil {
				t.Errorf("%q cut to %d of %d bytes: no error", kind, n, len(whole))
			}
		}
	}
}

func TestCancel(t *testing.T) {
	plain := archive(t, "file a "+strings.Repeat("hello", 1<<20))
	tree, err := Read(context.Background(), []Layer{layerOf(plain, plain)}, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tree.Emit(ctx, newMemory(), EmitOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if _, err := Read(ctx, []Layer{layerOf(plain, plain)}, DefaultLimits()); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
}

// TestManyWhiteouts: whiteouts of the same names cost what they remove, not what
// there is.
func TestManyWhiteouts(t *testing.T) {
	var lower, upper []string
	for i := range 20000 {
		lower = append(lower, fmt.Sprintf("file f%d ", i))
		upper = append(upper, fmt.Sprintf("file n%d ", i), "file .wh..wh..opq ")
	}
	a, b := archive(t, lower...), archive(t, upper...)
	m, err := merge([]Layer{layerOf(a, a), layerOf(b, b)}, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.entries) != 20001 {
		t.Errorf("%d entries", len(m.entries))
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(archive(f, "dir d", "file d/a x", "link l d", "hard h d/a"), archive(f, "file l/b y", "file d/.wh.a ", "file .wh..wh..opq "), false)
	f.Add(archive(f, "link a ../b", "file a/c d"), archive(f, "hard x a/c", "char z"), true)
	f.Fuzz(func(t *testing.T, a, b []byte, packed bool) {
		limits := Limits{Layers: 4, Entries: 1000, Size: 1 << 20, Ratio: 20, FreeSize: 1 << 16}
		layers := []Layer{layerOf(a, a), layerOf(b, b)}
		if packed {
			layers = []Layer{layerOf(compressed(t, "gzip", a), a), layerOf(compressed(t, "zstd", b), b)}
		}
		tree, err := Read(context.Background(), layers, limits)
		if err != nil {
			return
		}
		// What the archives are was read once without fault: the sink refuses
		// impossible names, doubled names and links to nothing.
		if err := tree.Emit(context.Background(), newMemory(), EmitOptions{}); err != nil && !errors.Is(err, ErrDigest) {
			if !strings.Contains(err.Error(), "archive") && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
		}
	})
}

package squashfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func addTar(b []byte, o WriterOptions, limits TarOptions) ([]byte, error) {
	var m memFile
	w, err := NewWriter(&m, o)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if err := w.AddTar(bytes.NewReader(b), limits); err != nil {
		return nil, err
	}
	size, err := w.Close()
	if err != nil {
		return nil, err
	}
	return m.b[:size], nil
}

func tarBytes(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestAddTarLikeTar2sqfs makes images of one archive with both programs and
// compares them as the kernel shows them.
func TestAddTarLikeTar2sqfs(t *testing.T) {
	for _, tool := range []string{"tar", "tar2sqfs", "setfattr", "getfattr", "mount"} {
		needTool(t, tool)
	}
	needRoot(t)
	dir := t.TempDir()
	command(t, "sh", "-euc", `cd "$1"; mkdir -p tree/sub/deep; cd tree
head -c 300000 /dev/urandom >sub/random; seq 50000 >sub/text; : >empty; ln sub/text hard; ln -s sub/text soft
mknod null c 1 3; mknod disk b 259 70000; mkfifo fifo; chown 70000:4000000000 empty; chmod 6755 sub/text
truncate -s 3M sparse; echo end >>sparse; printf 'in the middle' | dd of=sparse bs=1 seek=1500000 conv=notrunc 2>/dev/null
long=sub/deep/$(printf 'n%.0s' $(seq 200)); mkdir $long; echo x >$long/$(printf 'm%.0s' $(seq 250))
setfattr -n user.comment -v hello sub/text; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 hard`, "sh", dir)
	tree := filepath.Join(dir, "tree")
	for _, format := range [][]string{{"--format=pax", "--xattrs", "--xattrs-include=*"}, {"--format=pax", "--sparse"}, {"--format=gnu"}, {"--format=gnu", "--sparse"}} {
		t.Run(strings.Join(format, ""), func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), "tar")
			command(t, "tar", append([]string{"-C", tree, "--sort=name", "--numeric-owner", "-cf", archive, "."}, format...)...)
			b, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			image, err := addTar(b, WriterOptions{Compression: Zstd}, TarOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ours := describeTree(t, mountImage(t, image))
			peer := filepath.Join(t.TempDir(), "peer")
			cmd := exec.Command("tar2sqfs", "-q", "-c", "zstd", peer)
			cmd.Stdin = bytes.NewReader(b)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("tar2sqfs cannot read this archive: %v %s", err, out)
			}
			p, err := os.ReadFile(peer)
			if err != nil {
				t.Fatal(err)
			}
			if theirs := describeTree(t, mountImage(t, p)); ours != theirs {
				t.Errorf("ours:\n%s\n---- tar2sqfs:\n%s", ours, theirs)
			}
		})
	}
}

func TestAddTarRefuses(t *testing.T) {
	reg := func(name string, size int64) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}
	}
	good := tarBytes(t, reg("a", 600))
	for _, tc := range []struct {
		name string
		tar  []byte
		want string
	}{
		{"climbing name", tarBytes(t, reg("a/../../b", 1)), `the name contains ".."`},
		{"climbing link", tarBytes(t, &tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "../x"}), `the name contains ".."`},
		{"dangling hard link", tarBytes(t, &tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "y"}), "no such file was added"},
		{"hard link to the root", tarBytes(t, &tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "./"}), "to the root"},
		{"huge owner", tarBytes(t, &tar.Header{Typeflag: tar.TypeReg, Name: "x", Uid: 1 << 33}), "not within 32 bits"},
		{"huge device", tarBytes(t, &tar.Header{Typeflag: tar.TypeChar, Name: "x", Devmajor: 5000}), "device 5000:0"},
		{"long name", tarBytes(t, reg(strings.Repeat("n", 257), 1)), "is not a name"},
		{"cut in contents", good[:700], `the contents of "a"`},
		{"cut in header", good[:300], "cannot read the tar archive"},
		{"no tar", bytes.Repeat([]byte("no tar "), 200), "cannot read the tar archive"},
		{"too much", tarBytes(t, reg("a", 600), reg("b", 600)), `more than 1000 bytes of contents from a tar archive: "b"`},
		{"too many", tarBytes(t, reg("a", 1), reg("b", 1), reg("c", 1), reg("d", 1)), "more than 3 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := addTar(tc.tar, WriterOptions{}, TarOptions{MaxSize: 1000, MaxEntries: 3})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAddTarNames(t *testing.T) {
	for name, want := range map[string]string{"a/b": "a/b", "./a/b/": "a/b", "/a//b": "a/b", "./": "", "a/./b": "a/b", "a.b/c..d": "a.b/c..d", "...": "..."} {
		if got, err := tarPath(name); got != want || err != nil {
			t.Errorf("tarPath(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

// FuzzAddTar feeds damaged archives, within limits on what they may claim, and
// checks that an image that is reported whole can be opened.
func FuzzAddTar(f *testing.F) {
	f.Add(tarBytes(f, &tar.Header{Typeflag: tar.TypeReg, Name: "a/b", Mode: 0o644, Size: 5000},
		&tar.Header{Typeflag: tar.TypeLink, Name: "c", Linkname: "a/b"}, &tar.Header{Typeflag: tar.TypeDir, Name: "./d/"},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "e", Linkname: "/x"}, &tar.Header{Typeflag: tar.TypeFifo, Name: "a"}))
	f.Add(tarBytes(f, &tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}}))
	f.Add(tarBytes(f, &tar.Header{Typeflag: tar.TypeChar, Name: strings.Repeat("d/", 80) + "x", Devmajor: 1, Devminor: 3}))
	f.Fuzz(func(t *testing.T, b []byte) {
		image, err := addTar(b, WriterOptions{BlockSize: MinBlockSize, Level: 1, Workers: 1}, TarOptions{MaxSize: 1 << 20, MaxEntries: 100})
		if err != nil {
			return
		}
		if _, err := ParseSuperblock(image, int64(len(image))); err != nil {
			t.Fatal(err)
		}
	})
}

func ExampleWriter() {
	image, err := os.CreateTemp("", "image")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(image.Name())
	w, err := NewWriter(image, WriterOptions{Compression: Zstd})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Abort() // does nothing after Close
	if err := w.Add(Entry{Path: "etc/motd", Mode: 0o100644, Size: 6}, strings.NewReader("hello\n")); err != nil {
		fmt.Println(err)
		return
	}
	size, err := w.Close()
	if err == nil {
		err = image.Truncate(size)
	}
	fmt.Println(size, err)
	// Output: 4096 <nil>
}

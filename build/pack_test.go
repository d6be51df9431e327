package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/squashfs"
)

// packTree packs dir into a new file and returns its path.
func packTree(t *testing.T, ctx context.Context, dir string, o PackOptions) (string, PackTotals, error) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	image, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	w, err := squashfs.NewWriter(image, squashfs.WriterOptions{Level: 1, Digest: sha256.Sum256})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	totals, err := PackTree(ctx, root, w, o)
	if err != nil {
		return "", totals, err
	}
	size, err := w.Close()
	if err == nil {
		err = image.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return image.Name(), totals, nil
}

// run runs a shell script in dir.
func runShell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// list is how unsquashfs lists an image: "mode owner size ... path".
func list(t *testing.T, image string) string {
	t.Helper()
	if _, err := exec.LookPath("unsquashfs"); err != nil {
		t.Skip("needs unsquashfs")
	}
	out, err := exec.Command("unsquashfs", "-llnumeric", "-d", ".", image).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	return string(out)
}

const describe = `find . -mindepth 1 ! -type s -printf '%P %y %m %U %G %Ts %l %n\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum; getfattr -R -h -d -m '^(user|security[.]capability)' . | cat`

func TestPackTreeRoundTrip(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range []string{"unsquashfs", "setfattr", "getfattr"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	tree := t.TempDir()
	runShell(t, tree, `mkdir -p a/b z; head -c 700000 /dev/urandom >a/large; seq 3000 >a/b/text; : >empty; ln a/large z/large; ln -s ../nowhere z/link
mknod z/null c 1 3; mkfifo z/pipe; chown -h 70000:12 z/link; chmod 4711 a/b/text; truncate -s 20M hole; echo end >>hole
echo x >a/-; touch "a/new
line" a/ä; setfattr -n user.x -v 1 a a/large; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 a/b/text
printf '%d' 0 >exact; truncate -s 131072 block; head -c 131072 /dev/zero | tr '\0' x >full; ln z/pipe z/pipe2
find . -depth -exec touch -h -d @1000000000 {} +`)
	image, totals, err := packTree(t, context.Background(), tree, PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	runShell(t, "/", "unsquashfs -q -n -d "+out+" "+image)
	want, got := runShell(t, tree, describe), runShell(t, out, describe)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var s unix.Stat_t
	if err := unix.Stat(image, &s); err != nil || s.Size > 2<<20 {
		t.Errorf("image has %d bytes, %v", s.Size, err)
	}
	if totals.Files != 19 || totals.Bytes < 20<<20+700000 {
		t.Errorf("totals %+v", totals)
	}
}

func TestPackTreeSameBits(t *testing.T) {
	tree := t.TempDir()
	runShell(t, tree, `for d in c b a; do mkdir $d; for i in $(seq 60); do seq $i 2000 >$d/$i; done; done`)
	var want []byte
	for range 3 {
		image, _, err := packTree(t, context.Background(), tree, PackOptions{AllRoot: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Error("two images of one tree differ")
		}
	}
}

func TestPackTreeOptions(t *testing.T) {
	tree := t.TempDir()
	runShell(t, tree, `mkdir keep drop; echo 1 >keep/a; echo 2 >keep/secret; echo 3 >drop/b`)
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: tree + "/socket"}); err != nil {
		t.Fatal(err)
	}
	var files int
	var bytes int64
	o := PackOptions{
		Exclude:  func(path string, dir bool) bool { return path == "drop" && dir || path == "keep/secret" && !dir },
		Owner:    func(uid, gid uint32) (uint32, uint32, error) { return uid + 5, gid + 6, nil },
		Progress: func(f int, b int64) { files, bytes = f, b },
	}
	image, totals, err := packTree(t, context.Background(), tree, o)
	if err != nil {
		t.Fatal(err)
	}
	if totals != (PackTotals{Files: 3, Bytes: 2, Sockets: 1}) || files != 3 || bytes != 2 {
		t.Errorf("totals %+v, progress %d, %d", totals, files, bytes)
	}
	got := list(t, image)
	if owner := fmt.Sprintf("%d/%d", os.Getuid()+5, os.Getgid()+6); !strings.Contains(got, owner) || strings.Contains(got, "drop") || strings.Contains(got, "secret") || !strings.Contains(got, "keep/a") {
		t.Errorf("image holds\n%s", got)
	}
	o = PackOptions{AllRoot: true}
	if image, _, err = packTree(t, context.Background(), tree, o); err != nil {
		t.Fatal(err)
	}
	if got := list(t, image); strings.Count(got, "0/0") != 6 {
		t.Errorf("image of root holds\n%s", got)
	}
	refuse := errors.New("owner is not mapped")
	o = PackOptions{Owner: func(uid, gid uint32) (uint32, uint32, error) { return 0, 0, refuse }}
	if _, _, err = packTree(t, context.Background(), tree, o); !errors.Is(err, refuse) {
		t.Errorf("refused owner: %v", err)
	}
}

// SC-038: what is packed stays in the tree.
func TestPackTreeStaysInTheTree(t *testing.T) {
	base := t.TempDir()
	runShell(t, base, `mkdir outside tree; echo secret >outside/file; ln -s ../outside tree/link; ln -s /etc tree/etc`)
	image, totals, err := packTree(t, context.Background(), base+"/tree", PackOptions{})
	if err != nil || totals.Files != 3 || strings.Contains(list(t, image), "link/file") {
		t.Errorf("%v, totals %+v", err, totals)
	}
}

func TestPackTreeMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	tree := t.TempDir()
	if err := os.Mkdir(tree+"/mnt", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", tree+"/mnt", "tmpfs", 0, ""); err != nil {
		t.Skipf("needs to mount: %v", err)
	}
	defer unix.Unmount(tree+"/mnt", unix.MNT_DETACH)
	if err := os.WriteFile(tree+"/mnt/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cross := range []bool{false, true} {
		image, _, err := packTree(t, context.Background(), tree, PackOptions{CrossMounts: cross})
		if err != nil {
			t.Fatal(err)
		}
		if got := list(t, image); strings.Contains(got, "mnt/file") != cross || !strings.Contains(got, "mnt") {
			t.Errorf("CrossMounts %v: image holds\n%s", cross, got)
		}
	}
}

// TestPackTreeEnds cancels, and lets the output fail, in the middle, and looks for
// descriptors left open.
func TestPackTreeEnds(t *testing.T) {
	tree := t.TempDir()
	runShell(t, tree, `for d in a b c d; do mkdir $d; for i in $(seq 50); do head -c 200000 /dev/zero | tr '\0' $i >$d/$i; done; done`)
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		return len(fds)
	}
	before := open()
	for after := 1; after < 200; after += 40 {
		ctx, cancel := context.WithCancel(context.Background())
		_, _, err := packTree(t, ctx, tree, PackOptions{Progress: func(files int, _ int64) {
			if files >= after {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d: %v", after, err)
		}
		cancel()
	}
	if n := open(); n > before {
		t.Errorf("%d descriptors are open, %d before", n, before)
	}
}

func TestPackCapability(t *testing.T) {
	v3 := []byte{1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x86, 1, 0}
	v2 := packCapability(v3)
	if len(v2) != 20 || v2[0] != 1 || v2[3] != 2 || v2[5] != 4 || v3[3] != 3 {
		t.Errorf("got %x", v2)
	}
	if got := packCapability(v2); !slices.Equal(got, v2) {
		t.Errorf("the second revision became %x", got)
	}
}

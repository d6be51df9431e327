package fusefs

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/extfs"
	"singularity/squashfs"
)

// serveEnv holds the JSON of a servePlan when the test binary is to be a
// server: fuse mounts must never be walked by the process that serves them.
const serveEnv = "FUSEFS_TEST_SERVE"

type servePlan struct {
	Image, Mountpoint string
	UID, GID          int
	Extras            []Extra
	AllowOther        bool
}

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		if err := serveMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// openImage opens an image of either kind.
func openImage(name string) (FS, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := squashfs.Open(f, st.Size(), squashfs.ReaderOptions{})
	if err == nil {
		return Squashfs(r), nil
	}
	if e, extErr := extfs.Open(f, st.Size()); extErr == nil {
		return Ext(e), nil
	}
	return nil, err
}

// serveMain mounts as the plan says, prints a line and serves.
func serveMain() error {
	debug.SetGCPercent(50)
	var p servePlan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		return err
	}
	fs, err := openImage(p.Image)
	if err != nil {
		return err
	}
	s, err := New(Config{FS: fs, Extras: p.Extras, UID: p.UID, GID: p.GID, OnError: func(err error) {
		fmt.Fprintln(os.Stderr, "fault:", err)
	}})
	if err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	options := []string{fmt.Sprintf("fd=%d", fd)}
	for _, o := range MountOptions(os.Getuid(), os.Getgid(), p.AllowOther) {
		options = append(options, strings.TrimSuffix(o.Key+"="+o.Value, "="))
	}
	err = unix.Mount("image", p.Mountpoint, "fuse", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, strings.Join(options, ","))
	if err != nil {
		return fmt.Errorf("cannot mount: %w", err)
	}
	fmt.Println("mounted")
	return s.Serve(fd)
}

// mount is a running server in a mount namespace of its own.
type mount struct {
	tb     testing.TB
	cmd    *exec.Cmd
	dir    string
	stderr *output
}

// output collects what a server prints while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// serve starts a server for the plan. Commands are run in its namespaces.
func serve(tb testing.TB, p servePlan, attr *syscall.SysProcAttr) *mount {
	tb.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		tb.Skip("needs /dev/fuse")
	}
	m := &mount{tb: tb, stderr: new(output)}
	if p.Mountpoint == "" {
		p.Mountpoint = tb.TempDir()
	}
	m.dir = p.Mountpoint
	plan, _ := json.Marshal(p)
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	m.cmd = exec.Command(public(tb, exe))
	m.cmd.Stdin = bytes.NewReader(plan)
	m.cmd.Env = append(os.Environ(), serveEnv+"=1")
	m.cmd.SysProcAttr = attr
	m.cmd.Stderr = m.stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		tb.Skipf("needs the right to make namespaces: %v", err)
	}
	line := make([]byte, 8)
	if _, err := io.ReadFull(out, line); err != nil {
		m.cmd.Wait()
		tb.Fatalf("server did not mount: %s", m.stderr)
	}
	tb.Cleanup(m.close)
	return m
}

// rootNamespace is for a server that runs as root.
func rootNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// run runs a shell command in the server's namespaces. $M is the mount.
func (m *mount) run(script string) string {
	m.tb.Helper()
	args := []string{"-t", fmt.Sprint(m.cmd.Process.Pid), "-m", "--", "sh", "-c", script}
	if m.cmd.SysProcAttr.Cloneflags&syscall.CLONE_NEWUSER != 0 {
		args = append([]string{"-U"}, args...)
	}
	cmd := exec.Command("nsenter", args...)
	cmd.Env = append(os.Environ(), "M="+m.dir, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.tb.Errorf("%s: %v\n%s%s", script, err, out, m.stderr)
	}
	return string(out)
}

// close takes the mount away and checks that the server ends by itself.
func (m *mount) close() {
	m.run(`umount -l "$M"`)
	if err := m.cmd.Wait(); err != nil {
		m.tb.Errorf("server did not end well: %v\n%s", err, m.stderr)
	}
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("needs root")
	}
}

// pack makes an image of dir.
func pack(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		tb.Skip("needs mksquashfs")
	}
	img := filepath.Join(tb.TempDir(), "img")
	args = append([]string{dir, img, "-noappend", "-no-progress", "-quiet"}, args...)
	if out, err := exec.Command("mksquashfs", args...).CombinedOutput(); err != nil {
		tb.Fatalf("mksquashfs: %v\n%s", err, out)
	}
	return img
}

// makeTree makes a tree of many kinds of files with a shell script.
func makeTree(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	script := `set -e; cd "$1"; umask 022
mkdir -p etc var usr/bin usr/lib empty many run
ln -s usr/bin bin; ln -s ../run var/run; ln -s /etc/real etc/link; ln -s nowhere etc/dangling; ln -s self self
echo root:x:0:0 > etc/passwd; : > etc/empty; echo real > etc/real
seq 1 200000 > usr/lib/big; head -c 400000 /dev/urandom > usr/lib/noise; truncate -s 3M usr/lib/hole; echo end >> usr/lib/hole
ln usr/lib/big usr/lib/hard; mkfifo run/fifo; chmod 4755 etc/real; chmod 700 empty
ln -s "$(head -c 3000 /dev/zero | tr '\0' x)" longlink
i=0; while [ $i -lt 2000 ]; do echo $i > many/a-rather-long-file-name-$i; i=$((i+1)); done
if [ "$(id -u)" = 0 ]; then mknod run/null c 1 3; mknod run/disk b 259 70000; chown 12:34 etc/empty; fi
find . -exec touch -h -d @1234567890 {} +`
	if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		tb.Fatalf("cannot make a tree: %v\n%s", err, out)
	}
	return dir
}

// listing prints what find and sha256sum see below $D.
const listing = `cd "$D" && find . -mindepth 1 ! -type d -printf '%P %y %m %U %G %n %s %T@ %l\n' -o -type d -printf '%P %y %m %U %G %T@\n' | sed 's/\.[0-9]* / /' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum`

func TestServeWholeTree(t *testing.T) {
	needRoot(t)
	dir := makeTree(t)
	want, err := exec.Command("sh", "-c", strings.ReplaceAll(listing, "$D", dir)).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"-comp gzip", "-comp zstd -b 4K", "-comp lz4 -b 1M", "-comp xz", "-comp lzo -no-fragments", "-noD -noF"} {
		t.Run(args, func(t *testing.T) {
			m := serve(t, servePlan{Image: pack(t, dir, strings.Fields(args)...), UID: -1, GID: -1, AllowOther: true}, rootNamespace())
			for range 2 { // cold, and from the kernel's caches
				if got := m.run(strings.ReplaceAll(listing, "$D", m.dir)); got != string(want) {
					diff(t, got, string(want))
				}
			}
			m.run(`test ! -e "$M/none" && test ! -e "$M/none" && ! touch "$M/new" 2>/dev/null && stat -f "$M" >/dev/null`)
			if m.stderr.String() != "" {
				t.Errorf("server says: %s", m.stderr)
			}
		})
	}
}

func diff(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Errorf("line %d:\n got %.200s\nwant %.200s", i, a, b)
			return
		}
	}
}

// userNamespace is for a server that runs as an ordinary user who is root in a
// namespace with that single id.
func userNamespace(uid, gid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	}
}

// public lets everyone into the temporary directory of a file.
func public(tb testing.TB, name string) string {
	tb.Helper()
	for d := filepath.Dir(name); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	return name
}

func TestServeInUserNamespace(t *testing.T) {
	needRoot(t)
	alice, err := user.Lookup("singularity-test")
	if err != nil {
		t.Skip("needs the user singularity-test")
	}
	uid, _ := strconv.Atoi(alice.Uid)
	gid, _ := strconv.Atoi(alice.Gid)
	dir := makeTree(t)
	want, err := exec.Command("sh", "-c", strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(listing, "$D", dir), "%U", "0"), "%G", "0")).Output()
	if err != nil {
		t.Fatal(err)
	}
	img := public(t, pack(t, dir))
	m := serve(t, servePlan{Image: img, Mountpoint: public(t, filepath.Join(t.TempDir(), ".")), UID: 0, GID: 0}, userNamespace(uid, gid))
	got := m.run(strings.ReplaceAll(listing, "$D", m.dir))
	if got != string(want) {
		diff(t, got, string(want))
	}
	if out := m.run(`id -u; cat /proc/self/uid_map; stat -c %u "$M/etc/empty"`); !strings.Contains(out, alice.Uid) {
		t.Errorf("not in a user namespace of alice: %s", out)
	}
}

func TestExtras(t *testing.T) {
	needRoot(t)
	img := pack(t, makeTree(t), "-all-root")
	file, bind, dir := uint32(modeRegular|0o644), []byte(nil), uint32(modeDir|0o755)
	m := serve(t, servePlan{Image: img, UID: -1, GID: -1, AllowOther: true, Extras: []Extra{
		{Path: "/etc/passwd", Mode: file, Content: []byte("alice:x:1001:1001\n")},
		{Path: "/etc/link", Mode: file, Content: []byte("through the link\n")},
		{Path: "etc/hosts", Mode: file, Content: bind},
		{Path: "/etc/real2/deep/er/x", Mode: file, Content: []byte("x")},
		{Path: "/var/run/user/5", Mode: dir},
		{Path: "/var/run/user/5/bus", Mode: file, Content: []byte{}},
		{Path: "/../../usr/../proc", Mode: dir},
		{Path: "/etc", Mode: dir},
		{Path: "/usr/lib/big", Mode: file, Content: bind},
		{Path: "/bin/new", Mode: modeSymlink | 0o777, Target: "../lib/big"},
		{Path: "/etc/dangling", Mode: file, Content: []byte("made\n")},
		{Path: "/many/0", Mode: file | 0o111, UID: 7, GID: 8, Content: bytes.Repeat([]byte("0123456789"), 100_000)},
	}}, rootNamespace())
	for script, want := range map[string]string{
		`cat "$M/etc/passwd"`:                             "alice:x:1001:1001\n",
		`cat "$M/etc/real"; readlink "$M/etc/link"`:       "through the link\n/etc/real\n",
		`stat -c '%s %F' "$M/etc/hosts"`:                  "0 regular empty file\n",
		`cat "$M/etc/real2/deep/er/x"; ls "$M/etc/real2"`: "xdeep\n",
		`cd "$M/run" && find user | sort`:                 "user\nuser/5\nuser/5/bus\n",
		`stat -c %F "$M/proc"; ls -d "$M/etc/empty" >&2`:  "directory\n" + m.dir + "/etc/empty\n",
		`head -n 1 "$M/usr/lib/big"`:                      "1\n",
		`head -n 1 "$M/bin/new"; readlink "$M/bin/new"`:   "1\n../lib/big\n",
		`cat "$M/etc/nowhere"`:                            "made\n",
		`stat -c '%a %u %g %s' "$M/many/0"; md5sum < "$M/many/0"`: "755 7 8 1000000\n" +
			fmt.Sprintf("%x  -\n", md5.Sum(bytes.Repeat([]byte("0123456789"), 100_000))),
		`ls "$M/etc" | tr '\n' ' '`:              "dangling empty hosts link nowhere passwd real real2 ",
		`ls "$M/many" | wc -l; ls -f "$M/bin"`:   "2001\n.\n..\nnew\n",
		`cd "$M" && find . -name nothing; ls -f`: ".\n..\nbin\nempty\netc\nlonglink\nmany\nrun\nself\nusr\nvar\nproc\n",
	} {
		if got := m.run(script); got != want {
			t.Errorf("%s\n got %q\nwant %q", script, got, want)
		}
	}
}

func TestExtrasThatCannotBe(t *testing.T) {
	fs, err := openImage(pack(t, makeTree(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []Extra{
		{Path: "/etc/passwd", Mode: modeDir | 0o755},
		{Path: "/etc", Mode: modeRegular | 0o644},
		{Path: "/etc/passwd/x", Mode: modeRegular | 0o644},
		{Path: "/self", Mode: modeRegular | 0o644},
		{Path: "/self/x", Mode: modeDir | 0o755},
		{Path: "/etc/x\x00y", Mode: modeRegular | 0o644},
		{Path: "/etc/" + strings.Repeat("n", 256), Mode: modeRegular | 0o644},
		{Path: "/etc/l", Mode: modeSymlink | 0o777},
		{Path: "/etc/fifo", Mode: 0o010644},
		{Path: "", Mode: modeRegular},
	} {
		if _, err := New(Config{FS: fs, Extras: []Extra{x}}); err == nil {
			t.Errorf("%.20q with mode %o was added", x.Path, x.Mode)
		}
	}
}

// A damaged block gives EIO for its file, the rest is served.
func TestDamagedBlock(t *testing.T) {
	needRoot(t)
	img := pack(t, makeTree(t), "-no-fragments", "-no-duplicates", "-processors", "1")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	// The first compressed blocks of the image: those of etc and many are
	// tiny, so some way in is usr/lib/big.
	z := bytes.Index(b[20000:], []byte{0x78, 0xda})
	if z < 0 {
		t.Fatal("no compressed block found")
	}
	for i := range 3000 {
		b[20000+z+i] ^= 0x55
	}
	if err := os.WriteFile(img, b, 0o644); err != nil {
		t.Fatal(err)
	}
	m := serve(t, servePlan{Image: img, UID: -1, GID: -1, AllowOther: true}, rootNamespace())
	out := m.run(`cd "$M"; find . -type f -exec cat {} + 2>&1 >/dev/null; true`)
	if !strings.Contains(out, "Input/output error") {
		t.Errorf("no file was damaged: %s", out)
	}
	if got := m.run(`cat "$M/many/a-rather-long-file-name-7" "$M/etc/passwd" 2>/dev/null | wc -l`); got == "0\n" {
		t.Errorf("nothing is served any more")
	}
	if n := strings.Count(m.stderr.String(), "fault:"); n == 0 || n > 20 {
		t.Errorf("%d faults told:\n%s", n, m.stderr)
	}
}

func TestServeExt(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("needs mkfs.ext4")
	}
	dir := makeTree(t)
	want, err := exec.Command("sh", "-c", strings.ReplaceAll(listing, "$D", dir)).Output()
	if err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(t.TempDir(), "img")
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-d", dir, img, "64M").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	m := serve(t, servePlan{Image: img, UID: -1, GID: -1, AllowOther: true}, rootNamespace())
	got := m.run(`rmdir "$M/lost+found" 2>/dev/null; ` + strings.ReplaceAll(strings.ReplaceAll(listing, "$D", m.dir), "find .", "find . -name lost+found -prune -o"))
	w := string(want)
	if got != w {
		diff(t, got, w)
	}
}

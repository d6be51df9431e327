package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run interprets the few instructions that a filter is made of, as the kernel
// would, so that the other ABIs can be checked on any machine.
func run(t *testing.T, p []unix.SockFilter, data []byte) uint32 {
	t.Helper()
	var acc uint32
	for pc := 0; pc < len(p); pc++ {
		switch f := p[pc]; f.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[f.K:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= f.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if acc == f.K {
				pc += int(f.Jt)
			} else {
				pc += int(f.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return f.K
		default:
			t.Fatalf("instruction %d has unknown code %#x", pc, f.Code)
		}
	}
	t.Fatal("filter ends without an answer")
	return 0
}

func data(arch, number uint32, args ...uint64) []byte {
	b := make([]byte, 64)
	binary.LittleEndian.PutUint32(b[0:], number)
	binary.LittleEndian.PutUint32(b[4:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(b[16+8*i:], a)
	}
	return b
}

// SC-045: the filter decides alike for every ABI of the processor.
func TestEveryABI(t *testing.T) {
	const (
		chr = unix.S_IFCHR | 0o600
		blk = unix.S_IFBLK | 0o600
		reg = unix.S_IFREG | 0o600
	)
	all, err := Fakeroot()
	if err != nil {
		t.Fatal(err)
	}
	devices, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	x64, i386 := uint32(unix.AUDIT_ARCH_X86_64), uint32(unix.AUDIT_ARCH_I386)
	arm64, arm := uint32(unix.AUDIT_ARCH_AARCH64), uint32(unix.AUDIT_ARCH_ARM)
	for _, c := range []struct {
		name        string
		data        []byte
		zero, zeroD bool // Fakeroot and Devices answer 0
	}{
		{"amd64 chown", data(x64, 92), true, false},
		{"amd64 fchownat", data(x64, 260), true, false},
		{"amd64 capset", data(x64, 126), true, false},
		{"amd64 read", data(x64, 0), false, false},
		{"amd64 setns", data(x64, 308), false, false},
		{"amd64 getuid", data(x64, 102), false, false},
		{"amd64 mknod char", data(x64, 133, 1, chr), true, true},
		{"amd64 mknod file", data(x64, 133, 1, reg), false, false},
		{"amd64 mknodat block", data(x64, 259, 1, 1, blk), true, true},
		{"amd64 mknodat block, high half", data(x64, 259, 1, 1, 1<<40|blk), true, true},
		{"amd64 mknodat fifo", data(x64, 259, 1, 1, unix.S_IFIFO), false, false},
		{"amd64 mknodat socket", data(x64, 259, 1, 1, unix.S_IFSOCK), false, false},
		{"amd64 mknodat no type", data(x64, 259, 1, 1, 0o600), false, false},
		{"x32 setgroups", data(x64, 116|x32Bit), true, false},
		{"x32 mknod char", data(x64, 133|x32Bit, 1, chr), true, true},
		{"x32 read", data(x64, x32Bit), false, false},
		{"386 chown32", data(i386, 212), true, false},
		{"386 lchown16", data(i386, 16), true, false},
		{"386 setresuid32", data(i386, 208), true, false},
		{"386 mknod char", data(i386, 14, 1, chr), true, true},
		{"386 number 92 is truncate", data(i386, 92), false, false},
		{"arm64 fchownat", data(arm64, 54), true, false},
		{"arm64 mknodat char", data(arm64, 33, 1, 1, chr), true, true},
		{"arm64 io_setup", data(arm64, 0, 1, chr), false, false},
		{"arm64 setgroups", data(arm64, 159), true, false},
		{"arm fchownat", data(arm, 325), true, false},
		{"arm mknodat char", data(arm, 324, 1, 1, chr), true, true},
		{"unknown architecture", data(0x1234, 92), false, false},
	} {
		for i, f := range [][]unix.SockFilter{all, devices} {
			want := uint32(retAllow)
			if (i == 0 && c.zero) || (i == 1 && c.zeroD) {
				want = retZero
			}
			if got := run(t, f, c.data); got != want {
				t.Errorf("%s, filter %d: got %#x, want %#x", c.name, i, got, want)
			}
		}
	}
}

// SC-044: keystrokes for a terminal are refused in every ABI, and SC-045: by the
// half of the argument that the kernel looks at.
func TestTerminal(t *testing.T) {
	f, err := Terminal()
	if err != nil {
		t.Fatal(err)
	}
	const sti, linux = 0x5412, 0x541c
	x64, i386, arm64 := uint32(unix.AUDIT_ARCH_X86_64), uint32(unix.AUDIT_ARCH_I386), uint32(unix.AUDIT_ARCH_AARCH64)
	for _, c := range []struct {
		name    string
		data    []byte
		refused bool
	}{
		{"amd64 TIOCSTI", data(x64, 16, 0, sti), true},
		{"amd64 TIOCSTI, high half", data(x64, 16, 0, 7<<32|sti), true},
		{"amd64 TIOCLINUX", data(x64, 16, 0, linux), true},
		{"amd64 TCGETS", data(x64, 16, 0, 0x5401), false},
		{"amd64 write", data(x64, 1, 0, sti), false},
		{"x32 TIOCSTI", data(x64, 514|x32Bit, 0, sti), true},
		{"386 TIOCLINUX", data(i386, 54, 0, linux), true},
		{"arm64 TIOCSTI", data(arm64, 29, 0, sti), true},
		{"arm64 number 16", data(arm64, 16, 0, sti), false},
	} {
		want := uint32(retAllow)
		if c.refused {
			want = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		}
		if got := run(t, f, c.data); got != want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	f, _ := Fakeroot()
	if got := len(Bytes(f)); got != 8*len(f) || len(f) > 4096 {
		t.Errorf("got %d bytes for %d instructions", got, len(f))
	}
}

// TestInKernel runs itself again in a user namespace with one id, installs the
// filter and makes the calls.
func TestInKernel(t *testing.T) {
	if os.Getenv("SECCOMP_TEST_DIR") != "" {
		inside(t)
		return
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", os.Args[0], "-test.run=^TestInKernel$", "-test.v")
	cmd.Env = append(os.Environ(), "SECCOMP_TEST_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "unshare failed") {
		t.Skip("needs user namespaces")
	}
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs unshare")
	}
	if err != nil || !strings.Contains(string(out), "all calls made") {
		t.Errorf("%v\n%s", err, out)
	}
}

func install(f []unix.SockFilter) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return errno
	}
	return nil
}

func inside(t *testing.T) {
	dir := os.Getenv("SECCOMP_TEST_DIR")
	f, err := Fakeroot()
	if err != nil {
		t.Fatal(err)
	}
	if err := install(f); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	for name, err := range map[string]error{
		"chown":     unix.Chown(file, 42, 42),
		"lchown":    unix.Lchown(file, 42, 42),
		"fchown":    unix.Fchown(int(fd.Fd()), 42, 42),
		"fchownat":  unix.Fchownat(unix.AT_FDCWD, file, 42, 42, unix.AT_SYMLINK_NOFOLLOW),
		"setgroups": unix.Setgroups([]int{42}),
		"setresuid": unix.Setresuid(42, 42, 42),
		"setresgid": unix.Setresgid(42, 42, 42),
		"setreuid":  unix.Setreuid(42, 42),
		"setfsuid":  unix.Setfsuid(42),
		"mknod":     unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		"mknod f":   unix.Mknod(filepath.Join(dir, "file"), unix.S_IFREG|0o666, 0),
		"mkfifo":    unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := exec.Command("chown", "42:42", file).CombinedOutput(); err != nil {
		t.Errorf("chown of a child: %v %s", err, out)
	}
	if os.Getuid() != 0 {
		t.Errorf("got uid %d, want 0: the call must do nothing", os.Getuid())
	}
	for name, want := range map[string]bool{"null": false, "file": true, "fifo": true} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s exists: %v, want %v", name, err == nil, want)
		}
	}
	fmt.Println("all calls made")
}

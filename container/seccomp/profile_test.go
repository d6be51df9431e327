package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func target(arch string, caps ...string) *Target {
	return &Target{Arch: arch, Kernel: "6.1.0", HasCap: func(c string) bool { return slices.Contains(caps, c) }}
}

func compile(t *testing.T, text string, to *Target) []unix.SockFilter {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	code, _, err := p.Compile(to)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func number(t *testing.T, table, name string) uint32 {
	t.Helper()
	for n, i := range entries(table) {
		if n == name {
			return i
		}
	}
	t.Fatalf("no system call %q", name)
	return 0
}

func TestRefusedProfiles(t *testing.T) {
	const head = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[`
	for _, c := range []struct{ text, want string }{
		{`{"syscalls":[]}`, "no defaultAction"},
		{``, "expected an object"},
		{`{"defaultAction":"SCMP_ACT_MAYBE"}`, `unknown action "SCMP_ACT_MAYBE"`},
		{`{"defaultAction":"SCMP_ACT_NOTIFY"}`, "not supported"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`, "larger than 4095"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, "both architectures and archMap"},
		{`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`, "listenerPath"},
		{head + `{"names":[],"action":"SCMP_ACT_KILL"}]}`, "names no system call"},
		{head + `{"names":["read"]}]}`, `unknown action ""`},
		{head + `{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}`, "larger than 5"},
		{head + `{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"op":"SCMP_CMP_BIT"}]}]}`, `unknown comparison "BIT"`},
		{head + `{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"users":["me"]}}]}`, `unknown kind of condition "users"`},
		{head + `{"names":["read"],"action":"SCMP_ACT_KILL","includes":{"minKernel":"new"}}]}`, "no kernel version"},
		{head + strings.Repeat(`{"names":["read"],"action":"SCMP_ACT_KILL"},`, maxRules) + `{"names":["read"],"action":"SCMP_ACT_KILL"}]}`, "more than 4096 elements"},
		{`{"defaultAction":"SCMP_ACT_ALLOW"}` + strings.Repeat(" ", MaxProfile), "larger than"},
	} {
		if _, err := Parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: got %v, want %q", c.text, err, c.want)
		}
	}
}

func TestTooManyInstructions(t *testing.T) {
	var args []string
	for i := range 15 {
		args = append(args, fmt.Sprintf(`{"index":%d,"value":%d,"op":"SCMP_CMP_NE"}`, i%6, i))
	}
	rule := `{"names":["read"],"action":"SCMP_ACT_KILL","args":[` + strings.Join(args, ",") + `]},`
	p, err := Parse(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + strings.TrimSuffix(strings.Repeat(rule, 80), ",") + `]}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Compile(target("amd64")); err == nil || !strings.Contains(err.Error(), "the kernel takes 4096 at most") {
		t.Errorf("got %v", err)
	}
}

func TestCompile(t *testing.T) {
	const errno = uint32(unix.SECCOMP_RET_ERRNO)
	text := `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
	"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64"}],
	"syscalls":[
	 {"names":["read","chown","no_such_call"],"action":"SCMP_ACT_ALLOW"},
	 {"names":["write"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"op":"SCMP_CMP_LE"}]},
	 {"names":["write"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":4294967296,"op":"SCMP_CMP_GE"}]},
	 {"names":["chown"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":0,"op":"SCMP_CMP_NE"}]},
	 {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
	 {"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
	 {"names":["open"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}},
	 {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
	 {"names":["getpid"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.2"}},
	 {"names":["getuid"],"action":"SCMP_ACT_TRACE","errnoRet":7},
	 {"names":["no_call_either"],"action":"SCMP_ACT_KILL"}]}`
	plain := compile(t, text, target("amd64"))
	admin := compile(t, text, target("amd64", "CAP_SYS_ADMIN"))
	nr := func(n string) uint32 { return number(t, tableAMD64, n) }
	x64, i386 := uint32(unix.AUDIT_ARCH_X86_64), uint32(unix.AUDIT_ARCH_I386)
	for _, c := range []struct {
		name        string
		code        []unix.SockFilter
		audit, call uint32
		args        []uint64
		want        uint32
	}{
		{"read", plain, x64, nr("read"), nil, retAllow},
		{"write to 2", plain, x64, nr("write"), []uint64{2}, retAllow},
		{"write to 3", plain, x64, nr("write"), []uint64{3}, errno | 38},
		{"write to 2 and a high half", plain, x64, nr("write"), []uint64{1<<32 | 2}, errno | 38},
		{"large write to 1: the strictest rule wins", plain, x64, nr("write"), []uint64{1, 0, 1 << 32}, badArch},
		{"large write to 2", plain, x64, nr("write"), []uint64{2, 0, 1 << 32}, retAllow},
		{"chown to root", plain, x64, nr("chown"), []uint64{0, 0}, retAllow},
		{"chown to another", plain, x64, nr("chown"), []uint64{0, 5}, errno | 1},
		{"mount", plain, x64, nr("mount"), nil, errno | 1},
		{"mount with the capability", admin, x64, nr("mount"), nil, retAllow},
		{"a rule for another machine", plain, x64, nr("open"), nil, errno | 38},
		{"a kernel new enough", plain, x64, nr("ptrace"), nil, retAllow},
		{"a kernel too old", plain, x64, nr("getpid"), nil, errno | 38},
		{"trace", plain, x64, nr("getuid"), nil, unix.SECCOMP_RET_TRACE | 7},
		{"a call that nobody knows", plain, x64, 5000, nil, errno | 38},
		{"386 read", plain, i386, number(t, table386, "read"), nil, retAllow},
		{"386 call with the number of read on amd64", plain, i386, 0, nil, errno | 38},
		{"x32, which is not named", plain, x64, x32Bit, nil, badArch},
		{"-1", plain, x64, 1<<32 - 1, nil, errno | 38},
		{"another architecture", plain, unix.AUDIT_ARCH_ARM, 3, nil, badArch},
		{"arm64 read", compile(t, text, target("arm64")), unix.AUDIT_ARCH_AARCH64, number(t, tableARM64, "read"), nil, retAllow},
	} {
		if got := eval(c.code, c.audit, c.call, c.args...); got != c.want {
			t.Errorf("%s: got %#x, want %#x", c.name, got, c.want)
		}
	}
	p, _ := Parse(text)
	if _, unknown, _ := p.Compile(target("amd64")); !slices.Equal(unknown, []string{"no_call_either"}) {
		t.Errorf("got unknown names %q", unknown)
	}
	if _, _, err := p.Compile(target("riscv64")); err == nil {
		t.Error("a machine without a table is taken")
	}
	p, _ = Parse(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_S390X"]}`)
	if _, _, err := p.Compile(target("amd64")); err == nil || !strings.Contains(err.Error(), "does not name SCMP_ARCH_X86_64") {
		t.Errorf("a profile for another machine: got %v", err)
	}
}

// wanted decides a call from the rules themselves.
func wanted(p *Profile, t *Target, table string, call uint32, args [6]uint64) uint32 {
	best, found := p.fallback, false
	for name, n := range entries(table) {
		if n != call {
			continue
		}
		for i := range p.rules {
			r := &p.rules[i]
			if !r.applies(t) || !slices.Contains(r.names, name) || !slices.ContainsFunc([]bool{true}, func(bool) bool { return holds(r, args) }) {
				continue
			}
			if !found || r.action.strictness() < best.strictness() {
				best, found = r.action, true
			}
		}
	}
	return uint32(best)
}

func holds(r *rule, args [6]uint64) bool {
	for _, c := range r.args {
		a := args[c.index]
		if ok := map[string]bool{"EQ": a == c.value, "NE": a != c.value, "LT": a < c.value, "LE": a <= c.value, "GT": a > c.value, "GE": a >= c.value,
			"MASKED_EQ": a&c.value == c.second}[c.op]; !ok {
			return false
		}
	}
	return true
}

// check compares a filter with the rules it is made of, for every known call.
func check(t *testing.T, p *Profile, to *Target) {
	t.Helper()
	code, _, err := p.Compile(to)
	if err != nil {
		return
	}
	var edges []uint64
	for _, r := range p.rules {
		for _, a := range r.args {
			edges = append(edges, a.value-1, a.value, a.value+1, a.second, a.value|1<<40, a.second|1)
		}
	}
	edges = append(edges, 0, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	named := p.named(conventions(to.Arch)[0].name)
	for _, c := range conventions(to.Arch) {
		if !contains(named, c.name) {
			continue
		}
		for call := range uint32(560) {
			for range 2 {
				var args [6]uint64
				for i := range args {
					args[i] = edges[rng.IntN(len(edges))]
				}
				got, want := eval(code, c.audit, call|c.bit, args[:]...), wanted(p, to, c.table, call, args)
				if action(got).strictness() != action(want).strictness() {
					t.Fatalf("%s call %d %#x: got %#x, want %#x", c.name, call, args, got, want)
				}
			}
		}
	}
}

func FuzzProfile(f *testing.F) {
	text, err := os.ReadFile("default.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X32","SCMP_ARCH_X86"],"syscalls":[
	 {"names":["read","write"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":4294967297,"op":"SCMP_CMP_LT"},{"index":1,"value":7,"op":"SCMP_CMP_GT"}]},
	 {"name":"open","action":"SCMP_ACT_TRAP","args":[{"index":5,"value":255,"valueTwo":9,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_KILL"],"arches":["arm64"]}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil || len(p.rules) > 64 {
			return
		}
		check(t, p, target("amd64"))
	})
}

// defaultProfile is the profile that is installed.
func defaultProfile(t *testing.T) *Profile {
	t.Helper()
	text, err := os.ReadFile("default.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultProfile(t *testing.T) {
	p := defaultProfile(t)
	for _, arch := range []string{"amd64", "arm64"} {
		for _, to := range []*Target{target(arch), target(arch, "CAP_SYS_ADMIN", "CAP_SYSLOG")} {
			check(t, p, to)
			code, unknown, err := p.Compile(to)
			if err != nil || len(unknown) > 0 && arch == "amd64" {
				t.Fatalf("%s: %v, unknown names %q", arch, err, unknown)
			}
			allowed, refused := map[string]bool{}, map[string]bool{}
			for _, c := range conventions(arch) {
				for name, n := range entries(c.table) {
					switch eval(code, c.audit, n|c.bit) {
					case retAllow:
						allowed[name] = true
					case unix.SECCOMP_RET_ERRNO | 1:
						refused[name] = true
					}
				}
			}
			t.Logf("%s: %d instructions, %d names allowed, %d refused", arch, len(code), len(allowed), len(refused))
			for _, n := range []string{"read", "execve", "futex", "ptrace", "process_vm_readv", "mbind", "prctl", "exit_group", "clone"} {
				if !allowed[n] {
					t.Errorf("%s is not allowed", n)
				}
			}
			for _, n := range []string{"mount", "setns", "umount2", "unshare"} {
				if refused[n] == to.HasCap("CAP_SYS_ADMIN") {
					t.Errorf("%s refused: %v", n, refused[n])
				}
			}
			for _, n := range []string{"init_module", "reboot", "clock_settime"} {
				if !refused[n] {
					t.Errorf("%s is not refused", n)
				}
			}
			for _, n := range []string{"keyctl", "userfaultfd", "io_uring_setup"} {
				if allowed[n] || refused[n] {
					t.Errorf("%s is known", n)
				}
			}
		}
	}
}

// TestTables compares the tables with the headers of this machine, which know
// an older kernel.
func TestTables(t *testing.T) {
	for _, table := range []string{table386, tableAMD64, tableARM64, tableX32} {
		for name, n := range entries(table) {
			if n >= maxNumber {
				t.Errorf("%s has the number %d", name, n)
			}
		}
	}
	for file, table := range map[string]string{"unistd_32.h": table386, "unistd_64.h": tableAMD64} {
		text, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/" + file)
		if err != nil {
			t.Skip("needs the kernel's headers: ", err)
		}
		seen := 0
		for line := range strings.Lines(string(text)) {
			var name string
			var n uint32
			if k, _ := fmt.Sscanf(line, "#define __NR_%s %d", &name, &n); k == 2 {
				seen++
				if got := number(t, table, name); got != n {
					t.Errorf("%s: %s is %d, want %d", file, name, got, n)
				}
			}
		}
		if seen < 300 {
			t.Errorf("%s has only %d names", file, seen)
		}
	}
}

// TestProfileInKernel runs itself again under the installed profile.
func TestProfileInKernel(t *testing.T) {
	if os.Getenv("SECCOMP_TEST_PROFILE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProfileInKernel$", "-test.v")
		cmd.Env = append(os.Environ(), "SECCOMP_TEST_PROFILE=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all calls made") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	code, _, err := defaultProfile(t).Compile(target("amd64"))
	if err != nil {
		t.Fatal(err)
	}
	if err := install(code); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER); err != unix.EPERM {
		t.Errorf("unshare: got %v", err)
	}
	if _, _, err := unix.Syscall(unix.SYS_KEYCTL, 0, 0, 0); err != unix.ENOSYS {
		t.Errorf("keyctl: got %v", err)
	}
	if _, err := unix.Socket(40, unix.SOCK_STREAM, 0); err != unix.ENOSYS {
		t.Errorf("socket of the hypervisor: got %v", err)
	}
	if out, err := exec.Command("sh", "-c", "echo $(ls /bin | head -n 1)").CombinedOutput(); err != nil {
		t.Errorf("a shell: %v %s", err, out)
	}
	fmt.Println("all calls made")
}

func BenchmarkCompile(b *testing.B) {
	text, err := os.ReadFile("default.json")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := Parse(string(text))
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := p.Compile(target("amd64")); err != nil {
			b.Fatal(err)
		}
	}
}

// program386 is a static 32-bit program that makes one system call with zeros
// as arguments and exits with the error number.
func program386(call byte) []byte {
	le := binary.LittleEndian
	code := []byte{
		0xb8, call, 0, 0, 0, // mov eax, call
		0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, 0x31, 0xff, // xor ebx, ecx, edx, esi, edi
		0xcd, 0x80, // int 0x80
		0x89, 0xc3, 0xf7, 0xdb, // mov ebx, eax; neg ebx
		0xb8, 1, 0, 0, 0, 0xcd, 0x80, // exit
	}
	const base, headers = 0x08048000, 52 + 32
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	for _, v := range []uint16{2, 3} { // executable, 386
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, base + headers, 52, 0, 0} { // version, entry, program headers, section headers, flags
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(headers + len(code))
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} { // one segment, read and execute
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

// TestProfile386InKernel runs 32-bit programs under the installed profile.
func TestProfile386InKernel(t *testing.T) {
	dir := os.Getenv("SECCOMP_TEST_386")
	if dir != "" {
		code, _, err := defaultProfile(t).Compile(target("amd64"))
		if err != nil {
			t.Fatal(err)
		}
		if err := install(code); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{"getppid": -1, "mount": int(unix.EPERM), "ustat": int(unix.ENOSYS)} {
			err := exec.Command(filepath.Join(dir, name)).Run()
			e, _ := errors.AsType[*exec.ExitError](err)
			if e == nil || !e.Exited() || want >= 0 && e.ExitCode() != want {
				t.Errorf("%s: got %v, want exit status %d", name, err, want)
			}
		}
		fmt.Println("all programs run")
		return
	}
	dir = t.TempDir()
	for name, n := range entries(table386) {
		if name == "getppid" || name == "mount" || name == "ustat" {
			if err := os.WriteFile(filepath.Join(dir, name), program386(byte(n)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := exec.Command(filepath.Join(dir, "mount")).Run(); errors.Is(err, unix.ENOEXEC) {
		t.Skip("this kernel runs no 32-bit programs")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProfile386InKernel$", "-test.v")
	cmd.Env = append(os.Environ(), "SECCOMP_TEST_386="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "all programs run") {
		t.Errorf("%v\n%s", err, out)
	}
}

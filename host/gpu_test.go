package host

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"singularity/host/elf"
)

// makeELF makes a tiny shared library: headers, a dynamic section and strings,
// and the need of one version of the C library.
func makeELF(t elf.Target, soname, glibc string) []byte {
	order := binary.ByteOrder(binary.LittleEndian)
	if t.Big {
		order = binary.BigEndian
	}
	word := 4
	if t.Wide {
		word = 8
	}
	strs := "\x00" + soname + "\x00libc.so.6\x00GLIBC_" + glibc + "\x00"
	file, version := len(soname)+2, len(soname)+12
	head, entry := 52, 32
	if t.Wide {
		head, entry = 64, 56
	}
	dynAt := head + 2*entry
	verAt := dynAt + 7*2*word
	strAt := verAt + 32
	size := strAt + len(strs)
	b := new(bytes.Buffer)
	half := func(v ...int) {
		for _, n := range v {
			binary.Write(b, order, uint16(n))
		}
	}
	long := func(v ...int) {
		for _, n := range v {
			binary.Write(b, order, uint32(n))
		}
	}
	words := func(v ...int) {
		for _, n := range v {
			if t.Wide {
				binary.Write(b, order, uint64(n))
			} else {
				long(n)
			}
		}
	}
	ident := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if t.Wide {
		ident[4] = 2
	}
	if t.Big {
		ident[5] = 2
	}
	b.Write(ident)
	half(3, int(t.Machine))
	long(1)
	words(0, head, 0)
	long(0)
	half(head, entry, 2, 0, 0, 0)
	for _, p := range [][3]int{{1, 0, size}, {2, dynAt, verAt - dynAt}} {
		if t.Wide {
			long(p[0], 4)
			words(p[1], p[1], p[1], p[2], p[2], 8)
		} else {
			long(p[0], p[1], p[1], p[1], p[2], p[2], 4, 4)
		}
	}
	words(14, 1, 5, strAt, 10, len(strs), 6, strAt, 0x6ffffffe, verAt, 0x6fffffff, 1, 0, 0)
	half(1, 1)
	long(file, 16, 0)
	long(0)
	half(0, 2)
	long(version, 0)
	b.WriteString(strs)
	return b.Bytes()
}

// The machines of the tests.
var (
	amd64   = elf.Target{Wide: true, Machine: 62}
	i386    = elf.Target{Machine: 3}
	arm64   = elf.Target{Wide: true, Machine: 183}
	s390x   = elf.Target{Wide: true, Big: true, Machine: 22}
	ppc64   = elf.Target{Wide: true, Big: true, Machine: 21}
	arm     = elf.Target{Machine: 40}
	targets = []elf.Target{amd64, i386, arm64, s390x, ppc64, arm}
)

func TestMakeELF(t *testing.T) {
	for _, target := range targets {
		got, err := elf.Read(bytes.NewReader(makeELF(target, "libx.so.1", "2.34")))
		want := &elf.File{Target: target, SOName: "libx.so.1", Needs: []string{"GLIBC_2.34"}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %+v, %v", target, got, err)
		}
	}
}

// fakeRoot makes a tree of libraries: path → content; a path with " -> " is a
// link.
func fakeRoot(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	for p, b := range files {
		p, to, link := strings.Cut(p, " -> ")
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(p)), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if link {
			err = os.Symlink(to, filepath.Join(root, p))
		} else {
			err = os.WriteFile(filepath.Join(root, p), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// driverTree is a host with the drivers of two vendors and variants for other
// machines that come first.
func driverTree(t *testing.T) string {
	return fakeRoot(t, map[string][]byte{
		"/etc/ld.so.conf":                                            []byte("/usr/lib/i386-linux-gnu\n/usr/lib/x86_64-linux-gnu\n/opt/rocm/lib\n"),
		"/usr/lib/i386-linux-gnu/libcuda.so.550.1":                   makeELF(i386, "libcuda.so.1", "2.1"),
		"/usr/lib/i386-linux-gnu/libcuda.so.1 -> libcuda.so.550.1":   nil,
		"/usr/lib/x86_64-linux-gnu/libcuda.so.550.1":                 makeELF(amd64, "libcuda.so.1", "2.17"),
		"/usr/lib/x86_64-linux-gnu/libcuda.so.1 -> libcuda.so.550.1": nil,
		"/usr/lib/x86_64-linux-gnu/libcuda.so -> libcuda.so.1":       nil,
		"/usr/lib/x86_64-linux-gnu/libcudart.so.12":                  makeELF(amd64, "libcudart.so.12", "2.17"),
		"/usr/lib/x86_64-linux-gnu/libGL.so.1":                       makeELF(amd64, "libGL.so.1", "2.38"),
		"/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.0":               makeELF(arm64, "libGLX_nvidia.so.0", "2.17"),
		"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1":                []byte("no library"),
		"/opt/rocm/lib/libhsa-runtime64.so.1":                        makeELF(amd64, "libhsa-runtime64.so.1", "2.17"),
		"/opt/extra/libsite.so.2.1":                                  makeELF(amd64, "libsite.so.2", "2.17"),
		"/opt/extra/libsite.so.2 -> libsite.so.2.1":                  nil,
		"/usr/bin/nvidia-smi":                                        []byte("#!/bin/sh\n"),
		"/usr/bin/rocminfo/dir":                                      nil,
		"/dev/nvidia-caps/nvidia-cap1":                               nil,
		"/dev/nvidia-file":                                           nil,
		"/dev/dri/card0":                                             nil,
	})
}

func names(list []Library) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.Name+"="+l.Path)
	}
	slices.Sort(out)
	return out
}

func testFinder(root string) *finder {
	return &finder{root: root, path: []string{"relative", "/usr/local/bin", "/usr/bin"}, native: amd64}
}

// TestFindDrivers reads a cache that the real ldconfig wrote for the tree.
func TestFindDrivers(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("ldconfig lists libraries of its own machine only: needs amd64")
	}
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		if ldconfig = "/sbin/ldconfig"; exec.Command(ldconfig, "--version").Run() != nil {
			t.Skip("needs ldconfig")
		}
	}
	root := driverTree(t)
	for _, format := range []string{"new", "compat"} {
		if out, err := exec.Command(ldconfig, "-X", "-c", format, "-r", root).CombinedOutput(); err != nil {
			t.Skipf("ldconfig -r (needs root): %v: %s", err, out)
		}
		f := testFinder(root)
		compareWithLdconfig(t, ldconfig, root, f)
		list, err := f.find("nv", root+"/nowhere")
		if err != nil {
			t.Fatal(err)
		}
		const dir = "/usr/lib/x86_64-linux-gnu/"
		want := []string{"libGL.so.1=" + dir + "libGL.so.1", "libcuda.so.1=" + dir + "libcuda.so.1", "libcuda.so=" + dir + "libcuda.so"}
		if got := names(list.Libraries); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: libraries %q, want %q", format, got, want)
		}
		for _, l := range list.Libraries {
			if gl := strings.HasPrefix(l.Name, "libGL"); l.IfMissing != gl || l.Glibc != map[bool]string{true: "2.38", false: "2.17"}[gl] {
				t.Errorf("%s: %+v", format, l)
			}
		}
		if want := []Program{{"nvidia-smi", "/usr/bin/nvidia-smi"}}; !reflect.DeepEqual(list.Programs, want) {
			t.Errorf("programs %v, want %v", list.Programs, want)
		}
		if want := []string{"/dev/nvidia-caps"}; !reflect.DeepEqual(list.Devices, want) {
			t.Errorf("devices %v, want %v", list.Devices, want)
		}
		rocm, err := f.find("rocm", root+"/nowhere")
		if got := names(rocm.Libraries); err != nil || !reflect.DeepEqual(got, []string{"libhsa-runtime64.so.1=/opt/rocm/lib/libhsa-runtime64.so.1"}) || !reflect.DeepEqual(rocm.Devices, []string{"/dev/dri"}) || rocm.Programs != nil {
			t.Errorf("%s: rocm %+v, %v", format, rocm, err)
		}
	}
}

// compareWithLdconfig compares our reading of the cache with what ldconfig
// itself prints of it.
func compareWithLdconfig(t *testing.T, ldconfig, root string, f *finder) {
	t.Helper()
	out, err := exec.Command(ldconfig, "-p", "-C", root+"/etc/ld.so.cache").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(root + "/etc/ld.so.cache")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseLDCache(b)
	want := parseLdconfig(out)
	if err != nil || len(want) == 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("cache: %v, %v; ldconfig -p: %v", got, err, want)
	}
}

// TestThisCache compares on the cache of this machine, if it has one.
func TestThisCache(t *testing.T) {
	b, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skip("no ld.so.cache on this machine")
	}
	out, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		t.Skip("needs ldconfig")
	}
	got, err := parseLDCache(b)
	if want := parseLdconfig(out); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("cache: %d entries, %v; ldconfig -p: %d", len(got), err, len(want))
	}
}

func TestListsAndPaths(t *testing.T) {
	root := driverTree(t)
	conf := t.TempDir()
	text := "# site\n/opt/extra/libsite.so.2 # with its links\n/nowhere/libx.so\n../bin/x\nlibcuda.so.1 if-missing\nrocminfo\nnvidia-smi extra\n"
	if err := os.WriteFile(filepath.Join(conf, "nvliblist.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Without a cache the plain directories count, and those of an outer
	// container before all.
	for _, dir := range []string{"/usr/lib64", "/.singularity.d/libs"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir, target := range map[string]elf.Target{"/.singularity.d/libs": s390x, "/usr/lib64": amd64} {
		if err := os.WriteFile(root+dir+"/libcuda.so.1", makeELF(target, "libcuda.so.1", "2.17"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	socket := root + "/var/run/nvidia-persistenced"
	if err := os.MkdirAll(socket, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := testFinder(root).find("nv", conf)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"libcuda.so.1=/usr/lib64/libcuda.so.1", "libsite.so.2.1=/opt/extra/libsite.so.2.1", "libsite.so.2=/opt/extra/libsite.so.2"}
	if got := names(d.Libraries); !reflect.DeepEqual(got, want) {
		t.Errorf("libraries %q, want %q", got, want)
	}
	if len(d.Programs) != 1 || len(d.Sockets) != 0 {
		t.Errorf("programs %v, sockets %v", d.Programs, d.Sockets)
	}
	t.Chdir(socket) // the name of a socket must be short
	l, err := net.Listen("unix", "socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(root+"/.singularity.d/libs/libcuda.so.1", makeELF(amd64, "libcuda.so.1", "2.17"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err = testFinder(root).find("nv", conf)
	if err != nil || !slices.Contains(names(d.Libraries), "libcuda.so.1=/.singularity.d/libs/libcuda.so.1") || len(d.Sockets) != 1 {
		t.Errorf("nested: %+v, %v", d, err)
	}
}

func TestNvidiaCLI(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]elf.Target{"libcuda.so.1": nativeTarget(t), "libcuda32.so.1": i386} {
		if err := os.WriteFile(filepath.Join(dir, name), makeELF(target, name, "2.17"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tool := filepath.Join(dir, "tool")
	script := "#!/bin/sh\necho \"$@\" > " + dir + "/args\necho /dev/nvidia0\necho " + dir + "/libcuda.so.1\necho " + dir + "/libcuda32.so.1\necho " + tool + "\necho relative\necho /../x\n"
	if err := os.WriteFile(tool, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := NvidiaCLI(tool, []string{"NVIDIA_VISIBLE_DEVICES=0,2"}, "all")
	want := Drivers{Vendor: "nv", Devices: []string{"/dev/nvidia0"}, Programs: []Program{{"tool", tool}},
		Libraries: []Library{{Name: "libcuda.so.1", Path: dir + "/libcuda.so.1", Glibc: "2.17"}}}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("%+v, %v; want %+v", d, err, want)
	}
	for env, want := range map[string]string{"NVIDIA_VISIBLE_DEVICES=0,2": " --device=0,2", "NVIDIA_VISIBLE_DEVICES=void": "", "X=1": " --device=all"} {
		if _, err := NvidiaCLI(tool, []string{env}, "all"); err != nil {
			t.Fatal(err)
		}
		args, _ := os.ReadFile(dir + "/args")
		if got := strings.TrimSpace(string(args)); got != "--user list --libraries --binaries --ipcs"+want {
			t.Errorf("%s: called with %q", env, got)
		}
	}
	if _, err := NvidiaCLI("/bin/false", nil, ""); err == nil {
		t.Error("a program that fails makes no error")
	}
}

func nativeTarget(t *testing.T) elf.Target {
	native, ok := elf.Native()
	if !ok {
		t.Skip("this processor is not known")
	}
	return native
}

func FuzzParseLDCache(f *testing.F) {
	b := append([]byte(newMagic), make([]byte, newHeaderSize-len(newMagic)+newEntrySize)...)
	binary.NativeEndian.PutUint32(b[20:], 1)
	binary.NativeEndian.PutUint32(b[newHeaderSize+4:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[newHeaderSize+8:], uint32(len(b)+5))
	b = append(b, "libx\x00/lib/libx\x00"...)
	if list, err := parseLDCache(b); err != nil || len(list) != 1 || list[0] != (cached{"libx", "/lib/libx"}) {
		f.Fatalf("seed: %v, %v", list, err)
	}
	f.Add(b)
	f.Add(append(append([]byte(oldMagic), make([]byte, 5)...), b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _ := parseLDCache(b)
		for _, c := range list {
			if c.name == "" || strings.Contains(c.name, "/") || c.path[0] != '/' {
				t.Errorf("entry %q", c)
			}
		}
	})
}

func FuzzParseLibList(f *testing.F) {
	f.Add(nvList)
	f.Add("/a/b.so if-missing # x\n\x00 .so\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := parseLibList(text)
		for _, p := range l.programs {
			if p == "" || strings.ContainsAny(p, "/ \t") {
				t.Errorf("program %q", p)
			}
		}
	})
}

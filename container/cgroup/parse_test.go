package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"singularity/plan"
)

// The flags convert from those of package plan, field by field.
var _ = Flags(plan.Limits{})

func ptr[T any](v T) *T { return &v }

func TestFromFlags(t *testing.T) {
	cpus := strconv.Itoa(runtime.NumCPU())
	got, err := FromFlags(Flags{BlkioWeight: "500", CPUShares: "512", CPUs: cpus, CPUSetCPUs: "0", CPUSetMems: "0-1", Memory: "10m",
		MemoryReservation: "64K", MemorySwap: "2g", OOMKillDisable: true, PIDs: "-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := &Limits{
		Memory:  Memory{Limit: ptr[int64](10 << 20), Reservation: ptr[int64](64 << 10), Swap: ptr[int64](2 << 30), DisableOOMKiller: true},
		CPU:     CPU{Shares: ptr[uint64](512), Quota: ptr(int64(runtime.NumCPU()) * 100000), Period: ptr[uint64](100000), Cpus: "0", Mems: "0-1"},
		PIDs:    PIDs{Limit: ptr[int64](-1)},
		BlockIO: BlockIO{Weight: ptr[uint16](500)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// The defaults of the flags, typed, limit nothing.
	got, err = FromFlags(Flags{BlkioWeight: "0", CPUShares: "-1", PIDs: "0"})
	if err != nil || !reflect.DeepEqual(got, &Limits{}) {
		t.Errorf("defaults: %+v, %v", got, err)
	}
	got, err = FromFlags(Flags{CPUs: "0.01", Memory: "4096", MemorySwap: "-1"})
	if err != nil || *got.CPU.Quota != 1000 || *got.Memory.Limit != 4096 || *got.Memory.Swap != -1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFromFlagsErrors(t *testing.T) {
	for _, c := range []struct {
		f    Flags
		want string
	}{
		{Flags{BlkioWeight: "9"}, `--blkio-weight "9"`},
		{Flags{BlkioWeight: "1001"}, `--blkio-weight "1001"`},
		{Flags{CPUShares: "0"}, `--cpu-shares "0"`},
		{Flags{CPUs: "0"}, `--cpus "0"`},
		{Flags{CPUs: "NaN"}, `--cpus "NaN"`},
		{Flags{CPUs: strconv.Itoa(runtime.NumCPU() + 1)}, "--cpus"},
		{Flags{CPUSetCPUs: "0-"}, `--cpuset-cpus "0-"`},
		{Flags{CPUSetCPUs: "3-1"}, `--cpuset-cpus "3-1"`},
		{Flags{CPUSetMems: "0\n1"}, "--cpuset-mems"},
		{Flags{Memory: "10x"}, `--memory "10x"`},
		{Flags{Memory: "-1"}, `--memory "-1"`},
		{Flags{Memory: "0"}, `--memory "0"`},
		{Flags{Memory: "9223372036854775807g"}, "--memory"},
		{Flags{Memory: "m"}, `--memory "m"`},
		{Flags{MemorySwap: "1g"}, "needs one of memory"},
		{Flags{Memory: "2g", MemorySwap: "1g"}, "is below that of memory"},
		{Flags{Memory: "1g", MemoryReservation: "2g"}, "is above the limit"},
		{Flags{PIDs: "-2"}, `--pids-limit "-2"`},
		{Flags{PIDs: "1.5"}, `--pids-limit "1.5"`},
		{Flags{BlkioWeightDevice: []string{"/dev/null"}}, `--blkio-weight-device "/dev/null"`},
		{Flags{BlkioWeightDevice: []string{"/dev/null:200"}}, "not a block device"},
		{Flags{BlkioWeightDevice: []string{"/nonexistent:200"}}, "no such file"},
		{Flags{BlkioWeightDevice: []string{"/dev/null:5"}}, "from 10 to 1000"},
	} {
		if _, err := FromFlags(c.f); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.f, err, c.want)
		}
	}
}

const sample = `
[[devices]]
access = "rwm"
allow = false
[[devices]]
access = "rw"
allow = true
type = "c"
major = 1
minor = 3
[memory]
limit = 1073741824
swap = 2147483648
quotas = 7
[cpu]
shares = 1024
quota = 50000
period = 100000
cpus = "0-1"
[pids]
limit = 100
[blockIO]
weight = 1000
[[blockIO.throttleReadBpsDevice]]
major = 8
minor = 0
rate = 1048576
[[hugepageLimits]]
pageSize = "2MB"
limit = 4194304
[network]
classID = 1048577
[[network.priorities]]
name = "eth0"
priority = 5
[rdma.mlx5_0]
hcaHandles = 2
[unified]
"memory.high" = "max"
[unit]
ExecStartPost = "/bin/sh"
`

func TestReadTOML(t *testing.T) {
	l, notes, err := ReadTOML(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if *l.Memory.Limit != 1<<30 || *l.CPU.Shares != 1024 || l.RDMA["mlx5_0"].Handles == nil || l.Unified["memory.high"] != "max" || len(l.Devices) != 2 {
		t.Errorf("%+v", l)
	}
	if len(notes) != 2 || !strings.Contains(notes[0], `"memory.quotas"`) || !strings.Contains(notes[1], `"unit`) {
		t.Errorf("notes %q", notes)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "limits.toml")
	os.WriteFile(file, []byte("[memory]\nlimit = \"many\"\n"), 0o644)
	for _, path := range []string{file, dir, "/dev/null", "/nonexistent/x.toml"} {
		if _, _, err := OpenTOML(path); err == nil || !strings.Contains(err.Error(), strconv.Quote(path)) {
			t.Errorf("OpenTOML(%q): %v", path, err)
		}
	}
}

// TestInjection holds for SC-047: no value becomes another line, another file or
// a property of a unit.
func TestInjection(t *testing.T) {
	for _, text := range []string{
		"[unified]\n\"cgroup.procs\" = \"1\"",
		"[unified]\n\"cgroup.subtree_control\" = \"-memory\"",
		"[unified]\n\"../memory.max\" = \"1\"",
		"[unified]\n\"memory./../../x\" = \"1\"",
		"[unified]\n\"memory.max\" = \"1\\n2\"",
		"[unified]\n\"memory.\" = \"1\"",
		"[unified]\nMemoryMax = \"1\"",
		"[[network.priorities]]\nname = \"eth0 5\\nlo\"\npriority = 1",
		"[rdma.\"a b\"]\nhcaHandles = 1",
		"[[hugepageLimits]]\npageSize = \"2MB/../../x\"\nlimit = 1",
		"[cpu]\ncpus = \"0\\n1\"",
		"[[devices]]\ntype = \"c 1:3 rwm\\na\"\nallow = true",
		"[[devices]]\naccess = \"rwm\\n\"\nallow = true",
		"[blockIO]\nweight = 5",
		"[memory]\nlimit = -5",
	} {
		if l, _, err := ReadTOML(strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken: %+v", text, l)
		}
	}
	var names []string
	for _, p := range properties(false) {
		names = append(names, p.Name)
	}
	if want := []string{"Description", "Slice", "PIDs", "Delegate", "CollectMode"}; !slices.Equal(names, want) {
		t.Errorf("systemd is told %q, want %q", names, want)
	}
}

// TestUnitProperties holds for SC-047: whatever the limits, the environment and the
// name of the program are, systemd is told the same, and nothing of theirs.
func TestUnitProperties(t *testing.T) {
	evil := "x\nMemoryMax=1\n[Service]\nExecStart=/bin/evil"
	for _, name := range []string{"INVOCATION_ID", "SYSTEMD_UNIT_PATH", "SINGULARITY_NAME"} {
		t.Setenv(name, "x MemoryMax=1 ExecStart=/bin/evil")
	}
	args := os.Args
	os.Args = []string{evil}
	defer func() { os.Args = args }()
	for _, system := range []bool{false, true} {
		for _, p := range properties(system) {
			text := p.Value.String()
			if strings.Contains(text, "evil") || strings.Contains(text, "\\n") || strings.Contains(text, "MemoryMax") {
				t.Errorf("%s is %s", p.Name, text)
			}
			if p.Name == "Description" && !regexp.MustCompile(`^"Singularity container of process [0-9]+"$`).MatchString(text) {
				t.Errorf("the description is %s", text)
			}
			if p.Name == "Slice" && text != map[bool]string{false: `"user.slice"`, true: `"system.slice"`}[system] {
				t.Errorf("the slice is %s", text)
			}
		}
	}
}

// show writes settings as lines.
func show(s settings) string {
	var b strings.Builder
	for _, st := range s.list {
		f := st.files[len(st.files)-1]
		b.WriteString(st.controller + " " + f.name + " = " + f.value + "\n")
	}
	return b.String()
}

func TestSettings(t *testing.T) {
	l, _, err := ReadTOML(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	v2 := `memory memory.max = 1073741824
memory memory.swap.max = 1073741824
cpu cpu.weight = 39
cpu cpu.max = 50000 100000
cpuset cpuset.cpus = 0-1
pids pids.max = 100
io io.weight = 10000
io io.max = 8:0 rbps=1048576
hugetlb hugetlb.2MB.max = 4194304
rdma rdma.max = mlx5_0 hca_handle=2
memory memory.high = max
`
	if got := show(l.v2()); got != v2 {
		t.Errorf("v2:\n%swant:\n%s", got, v2)
	}
	if notes := l.v2().notes; len(notes) != 1 || !strings.Contains(notes[0], "network") {
		t.Errorf("notes %q", notes)
	}
	v1 := `memory memory.limit_in_bytes = 1073741824
memory memory.memsw.limit_in_bytes = 2147483648
cpu cpu.shares = 1024
cpu cpu.cfs_period_us = 100000
cpu cpu.cfs_quota_us = 50000
cpuset cpuset.cpus = 0-1
pids pids.max = 100
blkio blkio.bfq.weight = 1000
blkio blkio.throttle.read_bps_device = 8:0 1048576
hugetlb hugetlb.2MB.limit_in_bytes = 4194304
net_cls net_cls.classid = 1048577
net_prio net_prio.ifpriomap = eth0 5
rdma rdma.max = mlx5_0 hca_handle=2
devices devices.deny = a *:* rwm
devices devices.allow = c 1:3 rw
`
	if got := show(l.v1()); got != v1 {
		t.Errorf("v1:\n%swant:\n%s", got, v1)
	}
	s2 := l.v2()
	if got := s2.controllers(); !slices.Equal(got, []string{"cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"}) {
		t.Errorf("controllers %q", got)
	}
}

func TestReadBack(t *testing.T) {
	for _, c := range []struct {
		f    file
		got  string
		want bool
	}{
		{exact("f", "5"), "5", true},
		{exact("f", "5"), "6", false},
		{size("f", 10000, "max"), "8192", true},
		{size("f", 10000, "max"), "12288", false},
		{size("f", 1<<20, "max"), "max", false},
		{size("f", -1, "max"), "max", true},
		{size("f", -1, "-1"), "9223372036854771712", true},
		{size("f", -1, "-1"), "4096", false},
		{list("f", "0,1,2"), "0-2", true},
		{list("f", "0"), "0-1", false},
		{line("f", "8:0", "rbps=1"), "8:0 rbps=1 wbps=max riops=max wiops=max", true},
		{line("f", "8:0", "rbps=1"), "8:16 rbps=1", false},
		{weight("f", 100), "default 100\n8:0 7", true},
		{weight("f", 100), "default 10", false},
		{atMost("f", 5<<20), "4194304", true},
		{atMost("f", 5<<20), "9223372036854771712", false},
	} {
		if got := c.f.check(c.got); got != c.want {
			t.Errorf("wrote %q, read %q: %v, want %v", c.f.value, c.got, got, c.want)
		}
	}
	if !sameText("50000 100000", "50000") || sameText("50000 100000", "40000") || !sameText("8:0 rbps=5 wbps=max", "8:0 rbps=5") || sameText("max", "4096") {
		t.Error("raw values are compared wrongly")
	}
}

func TestWeights(t *testing.T) {
	for in, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := sharesToWeight(in); got != want {
			t.Errorf("shares %d: weight %d, want %d", in, got, want)
		}
	}
	for in, want := range map[uint16]int{10: 1, 1000: 10000} {
		if got := ioWeight(in); got != want {
			t.Errorf("blkio weight %d: %d, want %d", in, got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	if lack := missing("cpu io memory", []string{"memory", "pids"}); !slices.Equal(lack, []string{"pids"}) {
		t.Errorf("missing %q", lack)
	}
}

func TestFormat(t *testing.T) {
	s := &Stats{IO: parseIO("8:0 rbytes=1536 wbytes=3 rios=1 wios=2 dbytes=0 dios=0\n254:0 rbytes=512\nbad\n"), PIDs: PIDStats{Current: 3}}
	s.CPU.Usage.Total = 1_500_000_000
	s.Memory.Usage = MemoryUsage{Usage: 1 << 20, Limit: 4 << 20}
	before := &Stats{}
	before.CPU.Usage.Total = 1_000_000_000
	want := []string{"web", "50.00%", "1.0MiB / 4.0MiB", "25.00%", "2.0KiB / 3B", "3"}
	if got := s.Row("web", before, time.Second); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := s.Row("web", nil, 0); got[1] != "0.00%" || len(got) != len(Columns) {
		t.Errorf("first sample: %q", got)
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 1<<20 - 1: "1.0MiB", 1 << 30: "1.0GiB", 1<<64 - 1: "16.0EiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	j, err := s.JSON()
	if err != nil || !strings.Contains(string(j), "\t\t\"cpu_usage\": {") {
		t.Errorf("%s %v", j, err)
	}
	if got := parseBlkio("8:0 Read 5\n8:0 Total 5\nTotal 5\n"); !slices.Equal(got, []IOEntry{{8, 0, "Read", 5}}) {
		t.Errorf("%+v", got)
	}
}

func TestBothSources(t *testing.T) {
	if ErrBoth.Error() != "cannot apply a cgroups TOML file while using limit flags" {
		t.Error(ErrBoth)
	}
	if e := error(&MissingError{Missing: []string{"a", "b"}}); e.Error() != "a; b" || errors.Is(e, ErrBoth) {
		t.Error(e)
	}
}

func FuzzReadTOML(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("[unified]\n\"memory.max\" = \"1\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, _, err := ReadTOML(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		for _, s := range []settings{l.v1(), l.v2()} {
			for _, st := range s.list {
				for _, f := range st.files {
					if strings.ContainsAny(f.name, "/\n\x00") || strings.ContainsAny(f.value, "\n\x00") || strings.HasPrefix(f.name, "cgroup.") {
						t.Errorf("file %q, value %q", f.name, f.value)
					}
				}
			}
		}
		deviceProgram(l.Devices)
	})
}

func FuzzKernelText(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n0::/a\n8:0 rbytes=1\n8:0 Read 5\nusage_usec 5\n0-3,7")
	f.Fuzz(func(t *testing.T, text string) {
		parseIO(text)
		parseBlkio(text)
		parseTable(text)
		parseList(text)
	})
}

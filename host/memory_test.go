package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"singularity/linux/secret"
)

func TestMemoryLeft(t *testing.T) {
	host := map[string]string{
		"proc/meminfo":     "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB\n",
		"proc/self/status": "Name:\tx\nVmSize:\t  1048576 kB\nVmData:\t 102400 kB\n",
	}
	with := func(more ...string) map[string]string {
		m := map[string]string{}
		for k, v := range host {
			m[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	for name, row := range map[string]struct {
		files  map[string]string
		limits map[int]uint64
		want   uint64
		rule   string
	}{
		"host":     {files: host, want: 2 << 30, rule: "half of the host's"},
		"as":       {files: host, limits: map[int]uint64{unix.RLIMIT_AS: 2 << 30}, want: 1<<30 - slack, rule: "RLIMIT_AS"},
		"as, full": {files: host, limits: map[int]uint64{unix.RLIMIT_AS: 1 << 30}, want: 0, rule: "RLIMIT_AS"},
		"data":     {files: host, limits: map[int]uint64{unix.RLIMIT_DATA: 500 << 20}, want: 400<<20 - slack, rule: "RLIMIT_DATA"},
		"v2": {files: with("proc/self/cgroup", "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "1073741824\n", "sys/fs/cgroup/a/memory.current", "536870912\n",
			"sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 268435456\nactive_file 0\n", "sys/fs/cgroup/a/b/memory.max", "max\n"),
			want: 384 << 20, rule: "control group"},
		"v1": {files: with("proc/self/cgroup", "5:cpu:/x\n3:memory:/job\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824\n",
			"sys/fs/cgroup/memory/job/memory.usage_in_bytes", "0\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
			want: 512 << 20, rule: "control group"},
		"no limit": {files: with("proc/self/cgroup", "0::/\n"), want: 2 << 30, rule: "host"},
		"nothing":  {want: 1<<64 - 1, rule: "host"},
	} {
		root := t.TempDir()
		for path, text := range row.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if m := memoryLeft(root, row.limits); m.Size != row.want || !strings.Contains(m.Rule, row.rule) {
			t.Errorf("%s: %+v, want %d by %s", name, m, row.want, row.rule)
		}
	}
	if m := MemoryLeft(); m.Size == 0 || m.Rule == "" {
		t.Errorf("here: %+v", m)
	}
}

func TestKeyRow(t *testing.T) {
	for name, swaps := range map[string]string{"off": "Filename\tType\n", "on": "Filename\tType\n/dev/sda2\tpartition\n"} {
		k := &kernel{read: func(string) ([]byte, error) { return []byte(swaps), nil }}
		try, err := secret.Alloc(4096)
		if err != nil {
			t.Skip(err)
		}
		if r := k.keyRow(try, nil); r.Status != OK || strings.Contains(r.Found, "swap") != (name == "on") {
			t.Errorf("swap %s: %+v", name, r)
		}
	}
	if r := new(kernel).keyRow(nil, unix.EPERM); r.Status != Limited || !strings.Contains(r.Cure, "ulimit -l") {
		t.Errorf("%+v", r)
	}
}

package host

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestReportRows(t *testing.T) {
	for _, c := range []struct {
		name   string
		row    Row
		status Status
		found  string // in it
	}{
		{"new kernel", machine(nil).release("6.1.0-13-amd64"), OK, "6.1.0"},
		{"oldest kernel", machine(nil).release("5.12.0"), OK, ""},
		{"old kernel", machine(nil).release("5.11.22-7-pve"), Fatal, ""},
		{"ancient kernel", machine(nil).release("4.18.0-513.el8.x86_64"), Fatal, ""},
		{"odd kernel", machine(nil).release("5.15+"), OK, ""},
		{"namespaces", machine(nil).namespaceRows()[0], OK, ""},
		{"no namespaces", machine(map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"}).namespaceRows()[0], Fatal, "max_user_namespaces is 0"},
		{"limit", machine(nil).namespaceRows()[1], OK, "1000"},
		{"no switch", machine(nil).namespaceRows()[2], OK, "no such switch"},
		{"lsm", machine(map[string]string{"/sys/kernel/security/lsm": "capability,landlock\n"}).securityRow(), OK, "landlock"},
		{"filter", machine(map[string]string{"/proc/self/status": "Seccomp:\t2\n"}).securityRow(), OK, "seccomp filter"},
		{"cgroup 1", machine(map[string]string{"/proc/self/cgroup": "3:memory:/x\n0::/\n"}).cgroupRows()[0], Limited, "version 1"},
		{"cgroup 2", machine(map[string]string{"/proc/self/cgroup": "0::/nowhere\n", "/sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}).cgroupRows()[0], Limited, "version 2, in /nowhere, not delegated"},
		{"no directory", storageRow("temporary files", "/nonexistent"), Limited, "no such file"},
	} {
		if c.row.Status != c.status || !strings.Contains(c.row.Found, c.found) || c.status != OK && c.row.Cure == "" {
			t.Errorf("%s: %+v, want %s with %q", c.name, c.row, c.status, c.found)
		}
	}
	root := machine(map[string]string{"/proc/sys/user/max_user_namespaces": "0\n"})
	root.uid = 0
	if r := root.namespaceRows()[0]; r.Status != Missing {
		t.Errorf("root without namespaces: %+v", r)
	}
}

func TestSubIDRows(t *testing.T) {
	u := User{Name: "alice", UID: 1001, GID: 1001}
	d := fake(t, map[string]string{"subuid": "alice:100000:65536\n", "subgid": "bob:1:2\n"}, map[string]string{"getsubids -g alice": "0: alice 200000 10\n"})
	rows := d.subIDRows(u, 1001)
	if rows[0].Status != OK || !strings.HasPrefix(rows[0].Found, "100000+65536 from ") || strings.Contains(rows[0].Found, "name service") {
		t.Errorf("%+v", rows[0])
	}
	if rows[1].Status != Limited || rows[1].Found != "200000+10 from name service" || rows[1].Cure == "" {
		t.Errorf("%+v", rows[1])
	}
	d = fake(t, map[string]string{"subuid": "!alice:1:5\n", "subgid": ""}, nil)
	rows = d.subIDRows(u, 1001)
	if rows[0].Status != Missing || !strings.Contains(rows[0].Cure, "--enable alice") || rows[1].Status != Missing || !strings.Contains(rows[1].Cure, "--add alice") {
		t.Errorf("%+v", rows)
	}
}

// TestStorageKind compares with what stat says of the same directories.
func TestStorageKind(t *testing.T) {
	for _, dir := range []string{"/tmp", "/dev/shm", "/"} {
		out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
		if err != nil {
			t.Skip("needs stat")
		}
		kind := strings.TrimSpace(string(out))
		if kind == "ext2/ext3" {
			kind = "ext4"
		}
		if kind == "overlayfs" {
			kind = "overlay"
		}
		if row := storageRow("temporary files", dir); !strings.Contains(row.Found, ": "+kind+",") {
			t.Errorf("%+v, stat says %s", row, kind)
		}
	}
	if r := storageRow("temporary files", "/dev/shm"); r.Status != Limited && strings.Contains(r.Found, "tmpfs") {
		t.Errorf("%+v", r)
	}
}

// TestReport looks at this machine: every row is whole.
func TestReport(t *testing.T) {
	rows := Report()
	seen := map[string]bool{}
	for _, r := range rows {
		if r.Name == "" || r.Found == "" || seen[r.Name] || (r.Status == Missing || r.Status == Fatal || r.Status == Limited) && r.Cure == "" {
			t.Errorf("row %+v", r)
		}
		seen[r.Name] = true
	}
	for _, n := range []string{"kernel", "user namespaces", "user.max_user_namespaces", "security modules", "subordinate uids", "newuidmap", "FUSE", "cgroups", "temporary files"} {
		if !seen[n] {
			t.Errorf("no row %s", n)
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil && rows[0].Found != strings.TrimSpace(string(b)) {
		t.Errorf("kernel %q", rows[0].Found)
	}
}

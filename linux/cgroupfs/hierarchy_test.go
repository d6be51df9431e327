package cgroupfs

import (
	"os"
	"strings"
	"testing"
)

func TestHierarchy(t *testing.T) {
	m := parseMounts(`31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/x /sys/fs/cgroup/cpu,cpu\040acct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 / /other rw - cgroup2 cgroup2 rw
43
`)
	if m["cpu"] != (mount{"/sys/fs/cgroup/cpu,cpu acct", "/docker/x"}) || m["cpuacct"] != m["cpu"] || m[Unified].point != "/sys/fs/cgroup/unified" {
		t.Errorf("%+v", m)
	}
	g := parseGroups("4:cpu,cpuacct:/docker/x/y\n1:name=systemd:/\n0::/user.slice/a:b\nbroken\n")
	if g["cpu"] != "/docker/x/y" || g[Unified] != "/user.slice/a:b" {
		t.Errorf("%+v", g)
	}
	h := &Host{mounts: m}
	for _, c := range []struct{ controller, in, want string }{
		{"cpu", "/docker/x", "/"}, {"cpu", "/docker/x/y", "/y"}, {"cpu", "/docker/xy", ""}, {"cpu", "/", ""}, {"cpu", "/../..", ""}, {Unified, "/a", "/a"},
	} {
		got, err := h.place(c.controller, c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q of %q: %q, %v", c.in, c.controller, got, err)
		}
	}
}

// A process moves within what belongs to the caller, and knows why it may not go
// elsewhere.
func TestEnter(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"/", "/a", "/"}, {"/a/b", "/a/c", "/a"}, {"/a/b", "/ab", "/"}, {"/a", "/a/b", "/a"}, {"/a/b", "/a", "/a"},
	} {
		if got := common(c.a, c.b); got != c.want {
			t.Errorf("around %s and %s: %s", c.a, c.b, got)
		}
	}
	h, err := FindHost()
	if err != nil {
		t.Skip("no control groups here: ", err)
	}
	files, err := h.Enter(os.Getpid())
	if err != nil || len(files) != 0 {
		t.Errorf("a process is where it is: %v, %v", files, err)
	}
}

func FuzzHierarchy(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n0::/a\n4:cpu,cpuacct:/docker/x/y\n")
	f.Fuzz(func(t *testing.T, text string) {
		h := &Host{mounts: parseMounts(text)}
		for c, at := range parseGroups(text) {
			if p, err := h.place(c, at); err == nil && (!strings.HasPrefix(p, "/") || strings.Contains(p+"/", "/../")) {
				t.Errorf("place %q", p)
			}
		}
	})
}

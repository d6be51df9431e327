package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fake returns a database of files with the given content; what it asks for is
// answered from replies by "program arg arg".
func fake(t testing.TB, files, replies map[string]string) *database {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	return &database{passwd: p("passwd"), group: p("group"), subuid: p("subuid"), subgid: p("subgid"),
		ask: func(program string, args ...string) ([]byte, error) {
			text, ok := replies[strings.Join(append([]string{program}, args...), " ")]
			if !ok {
				return nil, exec.Command("/bin/sh", "-c", "exit 2").Run()
			}
			return []byte(text), nil
		}}
}

func TestUser(t *testing.T) {
	d := fake(t, map[string]string{"passwd": "root:x:0:0:root:/root:/bin/sh\n+::::::\nbroken:x:1001\n:x:1001:1:::\nfoo:x:100:1001::/:/\n" +
		"alice:x:1001:1001:Alice A:/home/alice:/bin/bash\nlater:x:1001:5::/:/\nlast:x:7:7:::"},
		map[string]string{"getent passwd 2000": "ldap:*:2000:3000:L:/net/ldap:/bin/zsh\n", "getent passwd 2001": "other:x:5:5:::\n"})
	for _, c := range []struct {
		uid  int
		want User
	}{
		{1001, User{Name: "alice", UID: 1001, GID: 42, Gecos: "Alice A", Home: "/home/alice", Shell: "/bin/bash"}},
		{0, User{Name: "root", UID: 0, GID: 42, Gecos: "root", Home: "/root", Shell: "/bin/sh"}},
		{7, User{Name: "last", UID: 7, GID: 42}},
		{2000, User{Name: "ldap", UID: 2000, GID: 42, Gecos: "L", Home: "/net/ldap", Shell: "/bin/zsh"}},
	} {
		if got, err := d.user(c.uid, 42); got != c.want || err != nil {
			t.Errorf("user %d: %+v, %v, want %+v", c.uid, got, err, c.want)
		}
	}
	for _, uid := range []int{1, 100000, 2001} {
		got, err := d.user(uid, 42)
		e, ok := errors.AsType[*UnknownUserError](err)
		if !ok || e.UID != uid || e.Cause != nil || got != (User{UID: uid, GID: 42}) {
			t.Errorf("user %d: %+v, %v, want an UnknownUserError without cause", uid, got, err)
		}
	}
	d.ask = func(string, ...string) ([]byte, error) { return nil, &MissingToolError{"getent"} }
	if _, err := d.user(3, 3); !strings.Contains(err.Error(), "getent") {
		t.Errorf("%v does not name the cause", err)
	}
}

func TestGroups(t *testing.T) {
	d := fake(t, map[string]string{"group": "root:x:0:\n+:::\nusers:x:100:alice,bob\nbad:x:y:\ntwice:x:100:\nlast:x:5:"},
		map[string]string{"getent group 2000 3000": "ldapgroup:*:2000:\n"})
	got := d.groups([]int{100, 3000, 0, 5, 2000, 100, overflowID})
	want := []Group{{"root", 0}, {"last", 5}, {"users", 100}, {"ldapgroup", 2000}, {"", 3000}, {"", overflowID}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestLookupGroup(t *testing.T) {
	d := fake(t, map[string]string{"group": "root:x:0:\nstaff:x:50:ada\nbad:x:y:\n"}, map[string]string{"getent group ldap": "ldap:*:7000:\n"})
	for name, want := range map[string]int{"root": 0, "staff": 50, "ldap": 7000, "bad": -1, "none": -1, "": -1, "-n": -1, "a:b": -1} {
		gid, ok := d.groupNamed(name)
		if !ok {
			gid = -1
		}
		if gid != want {
			t.Errorf("%q: got %d, want %d", name, gid, want)
		}
	}
}

func TestSubIDs(t *testing.T) {
	alice := User{Name: "alice", UID: 1001, GID: 1001}
	for _, c := range []struct {
		name, subuid string
		replies      map[string]string
		want         []Range
		disabled     bool
	}{
		{"name", "bob:1:2\nalice:100000:65536\n", nil, []Range{{100000, 65536}}, false},
		{"uid", "1001:100000:65536", nil, []Range{{100000, 65536}}, false},
		{"small", "alice:5000:1\n", nil, []Range{{5000, 1}}, false},
		{"preferred first", "alice:5000:10\nalice:1000000:100000\nalice:200000:65536\n", nil, []Range{{200000, 65536}, {1000000, 100000}, {5000, 10}}, false},
		{"overlap", "alice:100000:65536\n1001:100000:65536\nalice:165535:2\n", nil, []Range{{100000, 65536}}, false},
		{"own id", "alice:1000:10\nalice:5000:5\n", nil, []Range{{5000, 5}}, false},
		{"disabled", "!alice:100000:65536\n", map[string]string{"getsubids alice": "0: alice 1 2\n"}, nil, true},
		{"disabled and enabled", "!alice:100000:65536\n1001:7000:7\n", nil, []Range{{7000, 7}}, false},
		{"name service", "", map[string]string{"getsubids alice": "0: alice 300000 65536\n1: alice 900000 9\n"}, []Range{{300000, 65536}, {900000, 9}}, false},
		{"bad numbers", "alice:x:1\nalice:1:0\nalice:4294967295:1\nalice:4294967290:6\nalice:-1:5\nalice:1:4294967295\nalice:1\n", nil, nil, false},
		{"none", "", nil, nil, false},
		{"reply of noise", "", map[string]string{"getsubids alice": "Error fetching ranges\n0: a b\n"}, nil, false},
	} {
		d := fake(t, map[string]string{"subuid": c.subuid, "subgid": "alice:200000:65536\n"}, c.replies)
		uids, gids, err := d.subIDs(alice)
		if !reflect.DeepEqual(uids, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, uids, err, c.want)
		}
		if c.want != nil {
			if err != nil || len(gids) != 1 {
				t.Errorf("%s: groups %v, %v", c.name, gids, err)
			}
			continue
		}
		e, ok := errors.AsType[*NoRangeError](err)
		if !ok || !errors.Is(err, ErrNoRange) || e.User != "alice" || e.Disabled != c.disabled || e.File != d.subuid {
			t.Errorf("%s: %v, want a NoRangeError", c.name, err)
		}
	}
	d := fake(t, map[string]string{"subuid": "alice:1:5\n"}, map[string]string{"getsubids -g alice": "0: alice 7000 9\n"})
	if _, gids, err := d.subIDs(alice); err != nil || !reflect.DeepEqual(gids, []Range{{7000, 9}}) {
		t.Errorf("groups of the name service: %v, %v", gids, err)
	}
	d = fake(t, nil, nil)
	if _, _, err := d.subIDs(User{UID: 5, Name: "--help"}); !errors.Is(err, ErrNoRange) {
		t.Errorf("no files: %v, want ErrNoRange", err)
	}
}

func TestReadFileLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 2<<30); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(path); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
	if _, err := readFile("/dev/zero"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file without a size: %v, want ErrTooLarge", err)
	}
}

// TestAsk runs real programs: the environment is ours, silence and floods end.
func TestAsk(t *testing.T) {
	t.Setenv("SECRET", "x")
	b, err := askPath("/bin/sh", time.Minute, "-c", "env; pwd")
	if err != nil || strings.Contains(string(b), "SECRET") || !strings.Contains(string(b), "LC_ALL=C") {
		t.Errorf("environment %q, %v", b, err)
	}
	start := time.Now()
	if _, err := askPath("/bin/sh", 200*time.Millisecond, "-c", "sleep 60"); err == nil || !strings.Contains(err.Error(), "did not answer") {
		t.Errorf("%v, want no answer", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("a silent program held us for %v", d)
	}
	if b, err := askPath("/bin/sh", time.Minute, "-c", "yes"); err == nil || len(b) > maxReplySize {
		t.Errorf("%d bytes, %v, want an error", len(b), err)
	}
	if _, err := ask("no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("%v, want MissingToolError", err)
	}
}

// TestSystem compares with the programs of this machine.
func TestSystem(t *testing.T) {
	if _, err := findTool("getent"); err != nil {
		t.Skip("needs getent")
	}
	u, err := CurrentUser()
	b, err2 := ask("getent", "passwd", "0")
	root, _ := findUser(b, 0)
	if u.UID == 0 && (err != nil || err2 != nil || u.Name != root.Name || u.Home != root.Home || u.Shell != root.Shell) {
		t.Errorf("%+v, %v, want %+v, %v", u, err, root, err2)
	}
	if _, err := LookupUser(3999999999, 1); err == nil {
		t.Error("uid 3999999999 was found")
	}
	for _, g := range Groups([]int{0}) {
		if g.GID == 0 && g.Name != "root" {
			t.Errorf("group 0 is %q, want root", g.Name)
		}
	}
}

func TestIDMapTools(t *testing.T) {
	path := filepath.Join(t.TempDir(), "newuidmap")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tool, err := inspectTool(path)
	if err != nil || tool.SetUID || tool.FileCaps || tool.Works() {
		t.Errorf("%+v, %v, want a program without privilege", tool, err)
	}
	uid, gid, err := IDMapTools()
	if err != nil {
		t.Skip("needs newuidmap and newgidmap")
	}
	if filepath.Base(uid.Path) != "newuidmap" || filepath.Base(gid.Path) != "newgidmap" || !uid.RootOwned {
		t.Errorf("%+v, %+v", uid, gid)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), 0)
	f.Add([]byte("alice:100000:65536\n!1001:1:5\n"), 1001)
	f.Add([]byte("0: alice 100000 65536\n"), -1)
	f.Fuzz(func(t *testing.T, b []byte, id int) {
		if u, ok := findUser(b, id); ok && (u.Name == "" || strings.Contains(u.Home+u.Shell+u.Gecos, ":")) {
			t.Errorf("%+v", u)
		}
		nameGroups([]Group{{GID: id}}, b)
		a, _ := parseSubIDs(b, "alice", "1001")
		var total uint64
		for _, r := range chooseRanges(append(a, parseReply(b)...), id) {
			if r.Count == 0 || uint64(r.Start)+uint64(r.Count) >= 1<<32 {
				t.Errorf("range %v", r)
			}
			total += uint64(r.Count)
		}
		if total >= 1<<32 {
			t.Errorf("%d ids", total)
		}
	})
}

func BenchmarkLookupUser(b *testing.B) {
	for b.Loop() {
		LookupUser(1001, 1001)
	}
}

func BenchmarkGroups(b *testing.B) {
	for b.Loop() {
		Groups([]int{0})
	}
}

func BenchmarkSubIDs(b *testing.B) {
	u := User{Name: "alice", UID: 1001, GID: 1001}
	for b.Loop() {
		SubIDs(u)
	}
}

func BenchmarkGetent(b *testing.B) {
	for b.Loop() {
		ask("getent", "passwd", "0")
	}
}

package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var alice = User{Name: "alice", UID: 1001, GID: 1001}

// accounts makes a directory with the two files.
func accounts(t *testing.T, subuid, subgid string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"subuid": subuid, "subgid": subgid} {
		if text != "-" {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func content(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestChangeSubIDs(t *testing.T) {
	const bob = "# kept\nbob:100000:65536\n"
	for _, c := range []struct {
		name           string
		change         SubIDChange
		subuid, subgid string
		uids, gids     string // "" for unchanged
		err            string
	}{
		{"first", AddSubIDs, "-", "-", "1001:4294836224:65536\n", "1001:4294836224:65536\n", ""},
		{"beside another", AddSubIDs, bob, bob, bob + "1001:4294836224:65536\n", bob + "1001:4294836224:65536\n", ""},
		{"next block", AddSubIDs, "5:4294836224:65536\n!6:4294770688:65536\n", "7:4294705152:65536", "5:4294836224:65536\n!6:4294770688:65536\n1001:4294639616:65536\n", "7:4294705152:65536\n1001:4294639616:65536\n", ""},
		{"odd neighbour", AddSubIDs, "5:4294836223:2\n", "", "5:4294836223:2\n1001:4294705152:65536\n", "1001:4294705152:65536\n", ""},
		{"there already", AddSubIDs, "alice:1:5\n", "1001:1:5\n", "", "", "nothing to change"},
		{"only one file", AddSubIDs, "alice:1:5\n", "", "alice:1:5\n", "1001:4294836224:65536\n", ""},
		{"disabled", AddSubIDs, "!alice:1:5\n", "", "", "", "is disabled"},
		{"remove", RemoveSubIDs, bob + "alice:1:5\n1001:9:1\n!alice:20:1\n", "alice:1:5\n", bob, "", ""},
		{"remove none", RemoveSubIDs, bob, bob, "", "", "no mapping entry found in"},
		{"remove from one", RemoveSubIDs, "alice:1:5\n", bob, "", "", "no mapping entry found in"},
		{"disable", DisableSubIDs, bob + "alice:1:5\n", "1001:1:5\n", bob + "!alice:1:5\n", "!1001:1:5\n", ""},
		{"disable again", DisableSubIDs, "!alice:1:5\n", "!1001:1:5\n", "", "", "nothing to change"},
		{"enable", EnableSubIDs, "!alice:1:5\n!bob:7:7\n", "!1001:1:5\n", "alice:1:5\n!bob:7:7\n", "1001:1:5\n", ""},
		{"enable none", EnableSubIDs, "alicex:1:5\n", "", "", "", "no mapping entry found"},
	} {
		dir := accounts(t, c.subuid, c.subgid)
		err := changeSubIDs(dir, c.change, alice, time.Second)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			c.uids, c.gids = c.subuid, c.subgid
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if u, g := content(t, dir, "subuid"), content(t, dir, "subgid"); u != c.uids || g != c.gids {
			t.Errorf("%s: %q and %q, want %q and %q", c.name, u, g, c.uids, c.gids)
		}
		names, _ := os.ReadDir(dir)
		for _, n := range names {
			if n.Name() != "subuid" && n.Name() != "subgid" && n.Name() != ".pwd.lock" {
				t.Errorf("%s: left %s", c.name, n.Name())
			}
		}
	}
}

func TestChangeKeepsMode(t *testing.T) {
	dir := accounts(t, "", "")
	if err := os.Chmod(dir+"/subuid", 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(dir+"/subuid", 3, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(dir+"/subgid", dir+"/elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", dir+"/subgid"); err != nil {
		t.Fatal(err)
	}
	var before, after syscall.Stat_t
	syscall.Stat(dir+"/subuid", &before)
	if err := changeSubIDs(dir, AddSubIDs, alice, time.Second); err != nil {
		t.Fatal(err)
	}
	syscall.Stat(dir+"/subuid", &after)
	if before.Mode != after.Mode || before.Uid != after.Uid || before.Gid != after.Gid || before.Ino == after.Ino {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if to, err := os.Readlink(dir + "/subgid"); err != nil || to != "elsewhere" || content(t, dir, "elsewhere") == "" {
		t.Errorf("the link became %q, %v", to, err)
	}
}

func TestChangeLocks(t *testing.T) {
	dir := accounts(t, "", "")
	held := filepath.Join(dir, "subgid.lock")
	if err := os.WriteFile(held, []byte(strconv.Itoa(os.Getppid())), 0o600); err != nil {
		t.Fatal(err)
	}
	err := changeSubIDs(dir, AddSubIDs, alice, 100*time.Millisecond)
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), strconv.Itoa(os.Getppid())) || content(t, dir, "subuid") != "" {
		t.Errorf("%v, want the holder", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "subuid.lock")); err == nil {
		t.Error("the other lock was left")
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(held, []byte(strconv.Itoa(dead.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := changeSubIDs(dir, AddSubIDs, alice, time.Second); err != nil {
		t.Errorf("lock of a dead process: %v", err)
	}
}

// TestWithUsermod lets the shadow tools and us change the same files, and hold
// the lock against each other.
func TestWithUsermod(t *testing.T) {
	t.Parallel() // usermod waits long for a lock
	if _, err := exec.LookPath("usermod"); err != nil || os.Getuid() != 0 {
		t.Skip("needs usermod and root")
	}
	prefix := t.TempDir()
	etc := filepath.Join(prefix, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": "alice:x:1001:1001::/:/bin/sh\n", "group": "alice:x:1001:\n", "shadow": "alice:*:::::::\n", "gshadow": "alice:*::\n", "subuid": "", "subgid": "", "login.defs": ""} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	usermod := func() ([]byte, error) {
		return exec.Command("usermod", "--prefix", prefix, "--add-subuids", "4294836224-4294901759", "--add-subgids", "7-8", "alice").CombinedOutput()
	}
	if err := os.WriteFile(filepath.Join(etc, "subuid.lock"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := usermod(); err == nil {
		t.Errorf("usermod ignores the lock: %s", out)
	}
	os.Remove(filepath.Join(etc, "subuid.lock"))
	if out, err := usermod(); err != nil {
		t.Fatalf("usermod: %v: %s", err, out)
	}
	if err := changeSubIDs(etc, AddSubIDs, User{Name: "bob", UID: 1002}, time.Second); err != nil {
		t.Fatal(err)
	}
	if got, want := content(t, etc, "subuid"), "alice:4294836224:65536\n1002:4294770688:65536\n"; got != want {
		t.Errorf("subuid %q, want %q", got, want)
	}
	if err := changeSubIDs(etc, DisableSubIDs, alice, time.Second); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("usermod", "--prefix", prefix, "--del-subuids", "4294770688-4294836223", "--add-subuids", "1-2", "alice").CombinedOutput()
	if got, want := content(t, etc, "subuid"), "!alice:4294836224:65536\n1002:4294770688:65536\nalice:1:2\n"; err != nil || got != want {
		t.Errorf("subuid %q, want %q (%v: %s)", got, want, err, out)
	}
}

func TestNamed(t *testing.T) {
	d := fake(t, map[string]string{"passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1001:7::/h:/bin/sh\nbad:x:y:7::/h:/bin/sh\n"},
		map[string]string{"getent passwd ldap": "ldap:*:2000:3000:L:/net/ldap:/bin/zsh\n"})
	for name, uid := range map[string]int{"alice": 1001, "1001": 1001, "ldap": 2000, "0": 0, "bad": -1, "no": -1, "": -1, "-x": -1, "a:b": -1} {
		u, err := d.named(name)
		if uid < 0 && err == nil || uid >= 0 && (err != nil || u.UID != uid || u.Name == "") {
			t.Errorf("%q: %+v, %v", name, u, err)
		}
	}
}

// TestGetsubids reads for each user of /etc/subuid what the real getsubids
// prints, and compares with our reading of the file.
func TestGetsubids(t *testing.T) {
	b, err := os.ReadFile("/etc/subuid")
	if _, e := findTool("getsubids"); err != nil || e != nil {
		t.Skip("needs getsubids and /etc/subuid")
	}
	compared := 0
	for _, line := range strings.Split(string(b), "\n") {
		name, _ := subIDOwner(line)
		if name == "" || strings.HasPrefix(line, "!") {
			continue
		}
		out, err := ask("getsubids", name)
		if err != nil {
			continue
		}
		want, _ := parseSubIDs(b, name, "")
		if got := parseReply(out); len(got) == 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
		compared++
	}
	if compared == 0 {
		t.Skip("no user in /etc/subuid")
	}
}

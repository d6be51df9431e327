package secret

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAlloc(t *testing.T) {
	for name, alloc := range map[string]func(int) ([]byte, error){"alloc": Alloc, "hidden": hidden, "locked": locked} {
		b, err := alloc(8192)
		if err != nil {
			if name == "hidden" {
				t.Logf("no memfd_secret on this host: %v", err)
				continue
			}
			t.Fatal(err)
		}
		if len(b) != 8192 || len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s: %d bytes, or not zero", name, len(b))
		}
		copy(b, "a key that nobody finds")
		got := flags(t)
		for _, want := range map[string][]string{"hidden": {"dc", "lo"}, "locked": {"dc", "dd", "lo"}}[name] {
			if !strings.Contains(got, want) {
				t.Errorf("%s: flags %q of the mapping lack %q", name, got, want)
			}
		}
		if err := Free(b); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []int{0, -1, maxSize + 1} {
		if _, err := Alloc(n); err == nil {
			t.Errorf("%d bytes", n)
		}
	}
	b, err := Alloc(10)
	if err != nil || len(b) != 10 {
		t.Fatal(len(b), err)
	}
	if err := Free(b); err != nil {
		t.Error(err)
	}
}

// flags returns those of the mappings that a fork does not copy: of the runtime's
// own there are none.
func flags(t *testing.T) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, m := range strings.Split(string(smaps), "VmFlags:")[1:] {
		line, _, _ := strings.Cut(m, "\n")
		if strings.Contains(line, " dc ") {
			all += line
		}
	}
	return all
}

// TestSC125HideAndLimits (SC-125) runs in a process of its own, since both are
// for good.
func TestSC125HideAndLimits(t *testing.T) {
	if os.Getenv("SECRET_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "TestSC125HideAndLimits", "-test.v")
		cmd.Env = append(os.Environ(), "SECRET_CHILD=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := Hide(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/environ", &st); err != nil || st.Uid != 0 {
		t.Errorf("/proc/self/environ belongs to %d, %v; want root", st.Uid, err)
	}
	if os.Getuid() == 0 {
		t.Log("root may lock whatever it likes")
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		t.Fatal(err)
	}
	if _, err := locked(4096); err == nil || !strings.Contains(err.Error(), "RLIMIT_MEMLOCK") {
		t.Errorf("locked without a limit that allows it: %v", err)
	}
}

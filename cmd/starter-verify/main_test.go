package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimit: no limit is higher afterwards than it was, or than the list says.
func TestLimit(t *testing.T) {
	if os.Getenv("TEST_LIMIT") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "TestLimit")
		cmd.Env = append(os.Environ(), "TEST_LIMIT=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: 50, Max: 60}); err != nil {
		t.Fatal(err)
	}
	if err := limit(); err != nil {
		t.Fatal(err)
	}
	for _, l := range limits {
		var got unix.Rlimit
		want := l.most
		if l.which == unix.RLIMIT_CPU {
			want = 60
		}
		if err := unix.Getrlimit(l.which, &got); err != nil || got.Max > want || got.Cur != got.Max {
			t.Errorf("limit %d is %+v, want %d: %v", l.which, got, want, err)
		}
	}
}

package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unsafe"

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

// What a cipher of the standard library has expanded stays where it is, in pages
// that are locked and in no core file, and is gone when it is wiped.
func TestKeepAndWipe(t *testing.T) {
	key := []byte("a key of two and thirty letters!")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []any{block, a} {
		if err := Keep(p); err != nil {
			t.Fatal(err)
		}
		v := reflect.ValueOf(p)
		object := unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size())
		if runtime.GOARCH == "amd64" && !bytes.Contains(object, key[:16]) {
			t.Errorf("%T: the key is not in what is kept", p)
		}
		if got := flagsAt(t, v.Pointer()); !strings.Contains(got, " dd") || !strings.Contains(got, " lo") {
			t.Errorf("%T: flags %q lack dd or lo", p, got)
		}
		Wipe(p)
		if len(bytes.Trim(object, "\x00")) > 0 {
			t.Errorf("%T: something is left", p)
		}
	}
	var none *int
	for _, p := range []any{nil, 1, none, []byte("x")} {
		if Keep(p) == nil {
			t.Errorf("%T is kept", p)
		}
		Wipe(p)
	}
}

// flagsAt returns the flags of the mapping at an address.
func flagsAt(t *testing.T, at uintptr) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(smaps)) {
		var begin, end uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &begin, &end); n == 2 {
			inside = begin <= at && at < end
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			return flags
		}
	}
	return ""
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

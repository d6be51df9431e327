package instance

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecord(t *testing.T) {
	r := &Record{PID: 12, PPID: 11, Name: "web", User: "u", Image: "/a \"b\"\\\n\u00e9", UserNS: true, LogErrPath: "/l.err", LogOutPath: "/l.out",
		Config: Config{Start: 99, Home: "/home/u", Fakeroot: true, Ranges: true, Init: true, Landlock: true, Write: []string{"/tmp", "/a\nb=\"c"}}}
	b := encode(r)
	var generic map[string]any
	if err := json.Unmarshal(b, &generic); err != nil || generic["image"] != r.Image || generic["pid"] != 12.0 || generic["userns"] != true {
		t.Errorf("the standard reader sees %v, %v", generic, err)
	}
	got, err := decode(b)
	if d := cmp.Diff(r, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	compact, _ := json.Marshal(generic)
	if got, err = decode(compact); err != nil || cmp.Diff(r, got) != "" {
		t.Errorf("compact: %v", err)
	}
	for _, bad := range []string{"", "{", "[]", `{"pid":"x"}`, `{"pid":1,}`, `{"pid":1} x`, `{"name":"\q"}`, `{"name":nil}`, `{"pid":{}}`, `{"config":"@"}`} {
		if _, err := decode([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(&Record{Name: "a", Image: "\x01\u20ac"}))
	f.Add([]byte(`{"pid":1,"name":"\u00"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err != nil {
			return
		}
		if again, err := decode(encode(r)); err != nil || len(again.Name) < len(r.Name) {
			t.Errorf("not readable again: %v", err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "a.b-c_9": true, "": false, "..": false, "a/b": false, "a b": false, "a\x00": false, "\u00e9": false} {
		if ValidName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}

// A record may name any process; none but that of an instance of the user is
// taken.
func TestSC005ForgedRecords(t *testing.T) {
	s, err := Open(t.TempDir(), os.Getuid(), "u")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	// A process of the user that is no instance.
	if err := s.Add(&Record{PID: cmd.Process.Pid, PPID: os.Getpid(), Name: "forged", Config: Config{Start: start}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("forged"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("an ordinary process: %v", err)
	}
	// A number that belongs to another process by now.
	if err := s.Add(&Record{PID: cmd.Process.Pid, Name: "old", Config: Config{Start: start - 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("old"); !errors.Is(err, ErrNone) {
		t.Errorf("a stale record: %v", err)
	}
	if _, err := os.Stat(s.path("old")); err == nil {
		t.Error("the stale record is still there")
	}
	// A link to somewhere else.
	dir := filepath.Join(s.dir, "link")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.path("forged"), s.path("link")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("link"); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link: %v", err)
	}
	if _, err := s.Get("../x"); !errors.Is(err, ErrNone) {
		t.Errorf("a path: %v", err)
	}
}

// The instance is a real process 1 of a PID namespace.
func TestLife(t *testing.T) {
	s, err := Open(t.TempDir(), os.Getuid(), "u")
	if err != nil {
		t.Fatal(err)
	}
	flags := uintptr(syscall.CLONE_NEWPID)
	if os.Getuid() != 0 {
		flags |= syscall.CLONE_NEWUSER
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Skip("no PID namespace here: ", err)
	}
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := &Record{PID: cmd.Process.Pid, PPID: os.Getpid(), Name: "web", Config: Config{Start: start}}
	if err := s.Add(r); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(r); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of that name: %v", err)
	}
	list, err := s.List("w*")
	if err != nil || len(list) != 1 || list[0].PID != r.PID {
		t.Fatalf("%v, %v", list, err)
	}
	if err := list[0].Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if !list[0].Wait(10000) {
		t.Error("it does not end")
	}
	cmd.Wait()
	if list, err := s.List(""); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if names, _ := os.ReadDir(s.dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

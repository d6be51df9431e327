package container

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"singularity/fusefs"
	"singularity/plan"
)

func TestMessages(t *testing.T) {
	load := func([]byte) ([]byte, error) { return nil, nil }
	files := []plan.File{{Path: "/a", Dir: true}, {Path: "/b"}, {Path: "/etc/passwd", Load: load, Key: "k"}, {Path: "/c", Load: load}}
	got, err := decodeWants(encodeWants(files))
	want := map[string]string{"/a": "dir", "/b": "file", "/etc/passwd": "=k", "/c": "?"}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	extras := []fusefs.Extra{{Path: "/a", Mode: 0o40755}, {Path: "/b", Mode: 0o100644, Content: []byte{}}, {Path: "/c", Content: []byte("text\x00")}}
	back, err := decodeExtras(encodeExtras(extras))
	if d := cmp.Diff(extras, back); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}

// A message from another process never panics and takes no more memory than it
// has itself.
func FuzzMessages(f *testing.F) {
	f.Add(encodeWants([]plan.File{{Path: "/a"}}))
	f.Add(encodeExtras([]fusefs.Extra{{Path: "/a", Content: []byte("x")}}))
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeWants(b)
		if list, err := decodeExtras(b); err == nil && !bytes.Equal(encodeExtras(list), b) {
			t.Error("not the same again")
		}
	})
}

func TestJobGroup(t *testing.T) {
	for _, c := range [][2]string{
		{"0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_3", "0::/system.slice/slurmstepd.scope/job_12/step_0/user"},
		{"4:memory:/slurm/uid_5/job_1/step_2/task_0", "4:memory:/slurm/uid_5/job_1/step_2"},
		{"0::/user.slice/session-1.scope", "0::/user.slice/session-1.scope"},
		{"0::/task_1/inner", "0::/task_1/inner"},
	} {
		if got := jobGroup(c[0]); got != c[1] {
			t.Errorf("%s: got %s", c[0], got)
		}
	}
}

const strangerVariable = "SINGULARITY_TEST_STRANGER"

// stranger plays a holder in a container: it hands its own namespaces over.
func stranger(name string) {
	fd, err := socket()
	if err != nil {
		os.Exit(1)
	}
	if unix.Bind(fd, &unix.SockaddrUnix{Name: name}) != nil || unix.Listen(fd, 1) != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString("ready\n")
	c, _, err := unix.Accept(fd)
	if err != nil {
		os.Exit(1)
	}
	unix.Read(c, make([]byte, 1<<16))
	ns, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0)
	if err != nil || unix.Sendmsg(c, []byte{replyReady}, unix.UnixRights(ns), nil, 0) != nil {
		os.Exit(1)
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A program in a container of the same user takes the address of a holder: what
// it hands over is not taken.
func TestSC050Stranger(t *testing.T) {
	if name := os.Getenv(strangerVariable); name != "" {
		stranger("\x00" + name)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	img := &Served{File: f}
	name, err := holdName(img, false, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		where string
		argv  []string
		want  error
	}{
		{"in a container", []string{"unshare", "-U", "-r", "-m"}, errStranger},
		{"in another mount namespace", []string{"unshare", "-U", "-r", "-m", "--propagation", "unchanged"}, errStranger},
		{"outside", nil, nil},
	} {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestSC050Stranger$")
		if c.argv != nil {
			cmd = exec.Command(c.argv[0], append(c.argv[1:], os.Args[0], "-test.run", "^TestSC050Stranger$")...)
		}
		cmd.Env = append(os.Environ(), strangerVariable+"="+name[1:])
		out, _ := cmd.StdoutPipe()
		in, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, _ := out.Read(make([]byte, 16)); n == 0 {
			cmd.Wait()
			if c.argv != nil && os.Getuid() != 0 {
				t.Log("no namespaces here")
				continue
			}
			t.Fatal("the other side did not start")
		}
		h, err := Share(img, false, true, nil)
		if err == nil {
			err = h.request(img, &plan.Plan{}, Hooks{})
			h.Close()
		}
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: got %v, want %v", c.where, err, c.want)
		}
		in.Close()
		cmd.Wait()
	}
}

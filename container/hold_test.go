package container

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

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

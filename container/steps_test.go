package container

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"singularity/linux/script"
	"singularity/plan"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// plans are small plans of every kind.
func plans() map[string]*plan.Plan {
	process := plan.Process{Paths: []string{"/bin/sh"}, Args: []string{"sh"}, Dirs: []string{"/work", "/"}, Umask: -1}
	mounts := []plan.Mount{
		{Source: "/dev", Destination: "/dev", Devices: true, Optional: true, Tag: "kernel"},
		{Source: "/data", Destination: "/mnt/data", ReadOnly: true, Tag: "user"},
	}
	files := []plan.File{
		{Path: "/mnt/data", Dir: true, Perm: 0o755},
		{Path: "/etc/passwd", Perm: 0o644, Load: func([]byte) ([]byte, error) { return []byte("root:x:0:0::/:/bin/sh\n"), nil }},
	}
	one := plan.IDs{Mode: plan.SingleID, UID: 1001, GID: 1001, InsideUID: 1001, InsideGID: 1001}
	ranges := plan.IDs{Mode: plan.Ranges, UID: 1001, GID: 1001, UIDMap: []plan.Map{{Inside: 1, Outside: 100000, Count: 65536}}, GIDMap: []plan.Map{{Inside: 1, Outside: 100000, Count: 65536}}}
	fake := one
	fake.InsideUID, fake.InsideGID, fake.FakeOwners = 0, 0, true
	none := &plan.Rights{Drop: 1 | 1<<21, NoNewPrivs: true}
	pid := process
	pid.Umask = 0o22
	dir := plan.Root{Kind: plan.DirRoot, Path: "/images/box", Dev: 1, Ino: 2}
	writable := dir
	writable.Writable = true
	return map[string]*plan.Plan{
		"directory": {IDs: one, Root: dir, Files: files, Mounts: mounts, Process: process},
		"writable":  {IDs: fake, Root: writable, Files: files, Mounts: mounts, Process: process},
		"image":     {IDs: one, Root: plan.Root{Kind: plan.ServedRoot}, Files: files, Mounts: mounts, Process: process},
		"ranges":    {IDs: ranges, Root: plan.Root{Kind: plan.ServedRoot}, Files: files, Mounts: mounts, Process: process},
		"root":      {IDs: plan.IDs{Mode: plan.HostIDs}, Root: plan.Root{Kind: plan.ServedRoot}, Mounts: mounts, Process: process, Rights: none},
		"build":     {IDs: ranges, Namespaces: plan.Namespaces{PID: true}, Root: plan.Root{Kind: plan.HostRoot}, Process: pid},
	}
}

// steps makes the script of p as start does.
func steps(t *testing.T, p *plan.Plan, overlay bool) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	b := newBuilder(p, Hooks{}, int(w.Fd()))
	b.maps()
	var devs []*device
	if p.Root.Kind == plan.ServedRoot {
		if devs, err = b.openDevices([]*Served{{}}, int(r.Fd())); err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(devs[0].fd)
	}
	if err := b.rest(overlay, devs, wires{ready: int(r.Fd())}); err != nil {
		t.Fatal(err)
	}
	return b.s.String()
}

// getppid is compared with this process, whose number changes.
var parentPID = regexp.MustCompile(`see the parent alive; must give [1-9][0-9]*`)

// fold writes equal lines in a row once, since their number depends on the
// kernel's list of capabilities and on the descriptors of this process.
func fold(text string) string {
	text = parentPID.ReplaceAllString(text, "see the parent alive; must give its number")
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if len(out) == 0 || out[len(out)-1] != line {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestSteps holds the order of the system calls: a change of it is to be seen.
func TestSteps(t *testing.T) {
	for name, p := range plans() {
		got := fold(steps(t, p, true))
		file := filepath.Join("testdata", "steps_"+name+".txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the steps are\n%s\nwant\n%s", name, got, want)
		}
	}
}

// TestStepOrder holds what no golden file may give up.
func TestStepOrder(t *testing.T) {
	for name, p := range plans() {
		for _, overlay := range []bool{true, false} {
			lines := strings.Split(strings.TrimSpace(steps(t, p, overlay)), "\n")
			first := func(prefix string) int {
				for i, l := range lines {
					if strings.HasPrefix(l, prefix) {
						return i
					}
				}
				return -1
			}
			order := []string{"close descriptors", "enter \"/work\"", "set no_new_privs", "read back no_new_privs", "set the parent-death signal", "execute"}
			if p.Root.Kind != plan.HostRoot {
				// A bind source is opened before anything can lie over it.
				order = append([]string{"open bind source", "attach", "mount \"/data\"", "pivot to", "drop the old root"}, order...)
			}
			last := -1
			for _, step := range order {
				at := first(step)
				if step == "attach" { // the root, not a layer that is below it
					at = max(first("attach the root"), first("attach the image"))
				}
				if at <= last {
					t.Errorf("%s: %q is step %d, want it behind step %d in\n%s", name, step, at, last, strings.Join(lines, "\n"))
				}
				last = at
			}
			if last != len(lines)-1 {
				t.Errorf("%s: something follows the program", name)
			}
			for _, l := range lines {
				for _, must := range []string{"no_new_privs", "pivot to", "drop the old root", "close descriptors", "restrict", "drop the capabilities", "same sandbox"} {
					if strings.Contains(l, must) && strings.HasSuffix(l, "may fail") {
						t.Errorf("%s: the step %q", name, l)
					}
				}
			}
		}
	}
}

// SC-062: the FUSE mount gets a fixed list of options, and where a namespace
// has a single user none that lets other users in.
func TestSC062_MountOptions(t *testing.T) {
	for name, p := range plans() {
		if p.Root.Kind != plan.ServedRoot {
			continue
		}
		for _, line := range strings.Split(steps(t, p, true), "\n") {
			option, ok := strings.CutPrefix(line, "set the mount option ")
			if !ok {
				continue
			}
			switch option {
			case "fd", "rootmode", "user_id", "group_id", "default_permissions":
			case "allow_other":
				if p.IDs.Mode == plan.SingleID {
					t.Errorf("%s: other users are let in", name)
				}
			default:
				t.Errorf("%s: the option %q", name, option)
			}
		}
	}
}

func TestExecError(t *testing.T) {
	for _, c := range []struct {
		err  ExecError
		want string
	}{
		{ExecError{"prog", syscall.ENOENT}, `"prog": executable file not found in $PATH`},
		{ExecError{"/bin/prog", syscall.ENOENT}, `"/bin/prog": no such file or directory`},
		{ExecError{"/bin/prog", syscall.ELIBACC}, "exec /bin/prog failed: a shared library is likely missing in the image"},
		{ExecError{"./prog", syscall.EACCES}, `"./prog": permission denied`},
		{ExecError{"./prog", syscall.ENOEXEC}, "exec ./prog failed: exec format error"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
		if !errors.Is(&c.err, c.err.Errno) {
			t.Errorf("%v does not wrap its number", &c.err)
		}
	}
}

func TestExplain(t *testing.T) {
	b := newBuilder(&plan.Plan{Process: plan.Process{Args: []string{"prog"}}}, Hooks{}, 99)
	if err := b.explain(&script.Error{Label: "execute", Exec: true, Errno: syscall.EACCES}); err.Error() != `"prog": permission denied` {
		t.Errorf("got %v", err)
	}
	plain := fmt.Errorf("x: %w", &script.Error{Label: "mount it", Errno: syscall.EPERM})
	if err := b.explain(plain); err != plain {
		t.Errorf("got %v, want it unchanged", err)
	}
	if !NoProc(&script.Error{Label: procLabel, Errno: syscall.EPERM}) || NoProc(plain) || NoProc(nil) {
		t.Error("NoProc does not tell the step")
	}
	if !b.overlayFailed(&script.Error{Label: overlayLabel}) || b.overlayFailed(plain) {
		t.Error("overlayFailed does not tell the step")
	}
}

package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plainUser is nobody's uid: the helper needs no user of a name.
const plainUser = 4321

// userEnv is the user's environment, who has no home directory.
var userEnv = []string{"PATH=/usr/bin:/bin", "HOME=/", "SINGULARITY_CONFIGDIR=/nonexistent"}

func asUser(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.Env = userEnv
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestHelperWithoutUserNamespaces: where the kernel lets nobody make a user
// namespace, the setuid helper makes the containers of an ordinary user: of a
// directory, of an image that our server shows, and of one that the kernel mounts.
// Nothing of them is left.
func TestHelperWithoutUserNamespaces(t *testing.T) {
	box := image(t)
	if os.Getenv("VM_KIND") != "helper" {
		t.Skip("needs the setuid helper: run e2e/vm/run helper")
	}
	for _, m := range []string{"loop", "squashfs", "fuse", "overlay"} {
		exec.Command("/sbin/modprobe", m).Run()
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("10000"), 0o644)
	if out, err := asUser("/usr/bin/unshare", "-U", "true"); err == nil {
		t.Fatalf("user namespaces are not off: %s", out)
	}
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "helper")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	theirs := filepath.Join(dir, "theirs.sif")
	for _, args := range [][]string{{"chmod", "755", filepath.Dir(box), filepath.Dir(filepath.Dir(box)), dir, filepath.Dir(dir)}, {"cp", "-r", box, filepath.Join(dir, "box")},
		{os.Getenv("SINGULARITY_E2E_PREFIX") + "/bin/singularity", "-q", "build", filepath.Join(dir, "root.sif"), box},
		{"cp", filepath.Join(dir, "root.sif"), theirs}, {"chown", "4321", theirs}} {
		tool(t, args[0], args[1:]...)
	}
	before, _ := os.ReadFile("/proc/self/mountinfo")
	for name, fs := range map[string]string{"box": " - overlay ", "theirs.sif": " - fuse ", "root.sif": " - overlay "} {
		path := filepath.Join(dir, name)
		out, err := asUser(os.Getenv("SINGULARITY_E2E_PREFIX")+"/bin/singularity", "exec", path, "sh", "-c", "cat /proc/self/uid_map /proc/self/status /proc/self/mountinfo; ls -d /sys/block/loop*/loop/backing_file; true")
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
			continue
		}
		for _, want := range []string{"4294967295\n", "\nUid:\t4321\t4321\t4321\t4321\n", "\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", " / / ro,nosuid,nodev,", fs} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in %s", name, want, out)
			}
		}
		if kernel := strings.Contains(out, "\n/sys/block/loop"); kernel != (name == "root.sif") {
			t.Errorf("%s: mounted by the kernel: %v", name, kernel)
		}
	}
	// Killed, with everything that it would have to clean up.
	cmd := exec.Command("/bin/sh", "-c", "exec "+os.Getenv("SINGULARITY_E2E_PREFIX")+"/bin/singularity exec "+filepath.Join(dir, "root.sif")+" sh -c 'echo up; exec sleep 1000'")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}}
	cmd.Dir = "/"
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left, _ := filepath.Glob("/sys/block/loop*/loop/backing_file; true")
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("loop devices are left: %q", left)
		}
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if string(before) != string(after) {
		t.Errorf("mounts are left:\n%s", after)
	}
}

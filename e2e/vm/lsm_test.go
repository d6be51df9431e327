package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// runAs runs singularity as root, or as the user nobody.
func runAs(t *testing.T, user string, args ...string) (string, int) {
	t.Helper()
	if user == "root" {
		return run(t, args...)
	}
	cmd := exec.Command("/usr/bin/setpriv", append([]string{"--reuid", "65534", "--regid", "65534", "--clear-groups", "--",
		"/usr/bin/env", "SINGULARITY_CONFIGDIR=/vm/tmp/nobody", command().Path}, args...)...)
	out, _ := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// images makes a directory image and an image file that everybody may read.
func images(t *testing.T) []string {
	box := image(t)
	// The test profile denies reading this one.
	if err := os.WriteFile(filepath.Join(box, "etc/group"), []byte("root:x:0:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(box), box, filepath.Dir(dir), dir} {
		os.Chmod(d, 0o755)
	}
	file := filepath.Join(dir, "image.sif")
	if out, code := run(t, "-q", "build", file, box); code != 0 {
		t.Fatalf("status %d: %s", code, out)
	}
	os.Chmod("/dev/fuse", 0o666)
	os.Mkdir("/vm/tmp/nobody", 0o700)
	os.Chown("/vm/tmp/nobody", 65534, 65534)
	return []string{box, file}
}

// lastLine is what the program wrote, without warnings of the start before it.
func lastLine(out string) string {
	out = strings.TrimRight(out, "\x00\n")
	return out[strings.LastIndexByte(out, '\n')+1:]
}

const currentLabel = "/proc/self/attr/current"

// appArmor skips a test where root cannot load a profile.
func appArmor(t *testing.T) {
	t.Helper()
	if os.Getenv("RUN_IN_VM") == "" {
		t.Skip("needs a virtual machine: run e2e/vm/run v2-root")
	}
	if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") || os.Getuid() != 0 {
		t.Skip("needs AppArmor and root, who loads a profile: run e2e/vm/run v2-root")
	}
	exec.Command("/sbin/modprobe", "fuse").Run()
	exec.Command("/sbin/modprobe", "overlay").Run()
	// A systemd of few units leaves it to who needs it.
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
		if err := syscall.Mount("securityfs", "/sys/kernel/security", "securityfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAppArmor holds for SC-040: the program has the profile that was asked for,
// it is in force, and one that is not loaded ends the start.
func TestAppArmor(t *testing.T) {
	appArmor(t)
	tool(t, "apparmor_parser", "-r", os.Getenv("SINGULARITY_E2E_PREFIX")+"/apparmor.profile")
	for _, image := range images(t) {
		for _, user := range []string{"root", "nobody"} {
			if out, code := runAs(t, user, "exec", "--security", "apparmor:singularity-e2e", image, "cat", currentLabel); code != 0 || lastLine(out) != "singularity-e2e (enforce)" {
				t.Errorf("%s as %s: status %d, label %q", image, user, code, out)
			}
			if out, code := runAs(t, user, "exec", "--security", "apparmor:singularity-e2e", image, "cat", "/etc/group"); code == 0 || !strings.Contains(out, "ermission denied") {
				t.Errorf("%s as %s: what the profile denies: status %d, %q", image, user, code, out)
			}
			if out, code := runAs(t, user, "exec", "--security", "apparmor:nosuch", image, "echo", "started"); code != 255 || !strings.Contains(out, `apparmor profile "nosuch" is not loaded`) {
				t.Errorf("%s as %s: a profile that is not loaded: status %d, %q", image, user, code, out)
			}
			if out, code := runAs(t, user, "exec", "--security", "selinux:system_u:system_r:init_t:s0", image, "echo", "started"); code != 255 || !strings.Contains(out, "selinux requested, but is not enabled") {
				t.Errorf("%s as %s: SELinux without it: status %d, %q", image, user, code, out)
			}
		}
	}
}

// TestSELinux holds for SC-040 as TestAppArmor does.
func TestSELinux(t *testing.T) {
	if os.Getenv("VM_KIND") != "selinux" {
		t.Skip("needs a virtual machine with SELinux: run e2e/vm/run selinux")
	}
	exec.Command("/sbin/modprobe", "fuse").Run()
	exec.Command("/sbin/modprobe", "overlay").Run()
	for _, image := range images(t) {
		for _, user := range []string{"root", "nobody"} {
			for _, label := range []string{"system_u:system_r:init_t:s0", "system_u:system_r:init_t:s0:c1,c2"} {
				if out, code := runAs(t, user, "exec", "--security", "selinux:"+label, image, "cat", currentLabel); code != 0 || lastLine(out) != label {
					t.Errorf("%s as %s: status %d, label %q", image, user, code, out)
				}
			}
			if out, code := runAs(t, user, "exec", "--security", "selinux:system_u:system_r:nosuch_t:s0", image, "echo", "started"); code != 255 || !strings.Contains(out, "cannot apply the selinux label") {
				t.Errorf("%s as %s: a type that does not exist: status %d, %q", image, user, code, out)
			}
			if out, code := runAs(t, user, "exec", "--security", "apparmor:x", image, "echo", "started"); code != 255 || !strings.Contains(out, "apparmor requested, but is not enabled") {
				t.Errorf("%s as %s: AppArmor without it: status %d, %q", image, user, code, out)
			}
		}
	}
}

// TestNoUserNamespaces: root needs none, and a user is told what is closed.
func TestNoUserNamespaces(t *testing.T) {
	if os.Getenv("VM_KIND") != "no-userns" {
		t.Skip("needs a virtual machine without user namespaces: run e2e/vm/run no-userns")
	}
	exec.Command("/sbin/modprobe", "fuse").Run()
	exec.Command("/sbin/modprobe", "overlay").Run()
	helper := false
	if fi, err := os.Stat(os.Getenv("SINGULARITY_E2E_PREFIX") + "/libexec/singularity/bin/starter-suid"); err == nil {
		helper = fi.Mode()&os.ModeSetuid != 0
	}
	list := images(t)
	for _, image := range list {
		if out, code := run(t, "exec", image, "echo", "started"); code != 0 || out != "started" {
			t.Errorf("%s as root: status %d, %q", image, code, out)
		}
		if helper {
			continue
		}
		if out, code := runAs(t, "nobody", "exec", image, "echo", "started"); code != 255 || !strings.Contains(out, "max_user_namespaces") {
			t.Errorf("%s as nobody: status %d, %q", image, code, out)
		}
	}
	if out, code := runAs(t, "nobody", "exec", "--userns", list[0], "echo", "started"); code != 255 || !strings.Contains(out, "max_user_namespaces") {
		t.Errorf("--userns as nobody: status %d, %q", code, out)
	}
}

// TestHelperAppArmor holds for SC-025 and SC-030: through the setuid helper the
// label is the one that was asked for, also where the image has files of its own in
// the places that labels are written to.
func TestHelperAppArmor(t *testing.T) {
	if os.Getenv("VM_KIND") != "helper" {
		t.Skip("needs a virtual machine with the setuid helper: run e2e/vm/run helper")
	}
	exec.Command("/sbin/modprobe", "fuse").Run()
	exec.Command("/sbin/modprobe", "overlay").Run()
	tool(t, "apparmor_parser", "-r", os.Getenv("SINGULARITY_E2E_PREFIX")+"/apparmor.profile")
	list := images(t)
	for _, dir := range []string{"thread-self/attr/apparmor", "thread-self/attr", "self/attr"} {
		dir = filepath.Join(list[0], "proc", dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "exec"), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, image := range list {
		if out, code := runAs(t, "nobody", "exec", image, "cat", "/proc/self/uid_map"); code != 0 || !strings.Contains(out, "4294967295") {
			t.Errorf("%s: not through the helper: status %d, %q", image, code, out)
		}
		if out, code := runAs(t, "nobody", "exec", "--security", "apparmor:singularity-e2e", image, "cat", currentLabel); code != 0 || lastLine(out) != "singularity-e2e (enforce)" {
			t.Errorf("%s: status %d, label %q", image, code, out)
		}
		if out, code := runAs(t, "nobody", "exec", "--no-mount", "proc", "--security", "apparmor:singularity-e2e", image, "cat", "/etc/group"); code == 0 || !strings.Contains(out, "ermission denied") {
			t.Errorf("%s without /proc: what the profile denies: status %d, %q", image, code, out)
		}
		if out, code := runAs(t, "nobody", "exec", "--security", "apparmor:nosuch", image, "echo", "started"); code != 255 || !strings.Contains(out, `apparmor profile "nosuch" is not loaded`) {
			t.Errorf("%s: a profile that is not loaded: status %d, %q", image, code, out)
		}
	}
}

// TestAppArmorShipped: the profile for user namespaces can be loaded and holds for
// the program. A parser before 4.0 does not know the rule that it is about.
func TestAppArmorShipped(t *testing.T) {
	appArmor(t)
	b, err := os.ReadFile(os.Getenv("SINGULARITY_E2E_PREFIX") + "/share/singularity/apparmor")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{"bin/singularity,", "/singularity-cli", "/singularity-unlock", "\n  userns,\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the profile lacks %q", want)
		}
	}
	if version, err := exec.Command("/usr/sbin/apparmor_parser", "--version").Output(); err != nil || strings.Contains(string(version), "version 3.") {
		t.Logf("apparmor_parser before 4.0: loaded without the rule userns: %.40s %v", version, err)
		text = strings.NewReplacer("abi <abi/4.0>,\n", "", "  userns,\n", "").Replace(text)
	}
	file := filepath.Join(t.TempDir(), "singularity")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "apparmor_parser", "-r", file)
	defer tool(t, "apparmor_parser", "-R", file)
	for _, image := range images(t) {
		if out, code := runAs(t, "nobody", "exec", image, "cat", currentLabel); code != 0 || lastLine(out) != "singularity (unconfined)" {
			t.Errorf("%s: status %d, label %q", image, code, out)
		}
	}
}

package vm

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"singularity/sif"
)

// userCommand is singularity as an ordinary user starts it.
func userCommand(args ...string) *exec.Cmd {
	cmd := command(args...)
	cmd.Dir, cmd.Env = "/", userEnv
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: plainUser, Gid: plainUser}, Setpgid: true}
	return cmd
}

// nothingMapped waits until no device of the device mapper and no loop device is
// in use.
func nothingMapped(t *testing.T, after string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		dm, loops := tool(t, "dmsetup", "ls"), tool(t, "losetup", "-a")
		if dm == "No devices found" && loops == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: left are %s; %s", after, dm, loops)
		}
	}
}

// siteFile writes a file of the administrator's, and puts the old one back at the
// end of the test.
func siteFile(t *testing.T, name, text string) {
	t.Helper()
	path := os.Getenv("SINGULARITY_E2E_PREFIX") + "/etc/singularity/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		t.Cleanup(func() { os.Remove(path) })
	} else {
		t.Cleanup(func() { os.WriteFile(path, old, 0o644) })
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// signed are images of plainUser's with the file /noise, which e2e/vm/signed made
// outside: signed with the key of the site's ring, with another one, and not at
// all; and one of root's.
type signed struct {
	dir, ours, foreign, none, roots string
	noise                           []byte
	list                            string // an execution control list that wants the site's key
}

func signedImages(t *testing.T) *signed {
	needVerity(t)
	exec.Command("/sbin/modprobe", "fuse").Run()
	exec.Command("/sbin/modprobe", "overlay").Run()
	from := os.Getenv("SINGULARITY_E2E_PREFIX") + "/signed/"
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "signed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &signed{dir: dir, ours: dir + "/ours.sif", foreign: dir + "/foreign.sif", none: dir + "/none.sif", roots: dir + "/roots.sif"}
	tool(t, "chmod", "755", filepath.Dir(dir), dir)
	for to, name := range map[string]string{s.ours: "ours.sif", s.foreign: "foreign.sif", s.none: "none.sif", s.roots: "ours.sif"} {
		tool(t, "cp", from+name, to)
		if to != s.roots {
			tool(t, "chown", "4321", to)
		}
	}
	text := map[string][]byte{}
	for _, name := range []string{"box/noise", "ecl.toml", "global-pgp-public"} {
		if text[name], err = os.ReadFile(from + name); err != nil {
			t.Fatal(err)
		}
	}
	s.noise, s.list = text["box/noise"], string(text["ecl.toml"])
	siteFile(t, "global-pgp-public", string(text["global-pgp-public"]))
	return s
}

// TestDMVerityHelper (SC-060, SC-059): the helper has the kernel mount an image of
// the user's over dm-verity if a key of the site's signed its tree; others are
// shown by our own server. Nothing is left of it.
func TestDMVerityHelper(t *testing.T) {
	s := signedImages(t)
	for path, kernel := range map[string]bool{s.ours: true, s.roots: true, s.foreign: false, s.none: false} {
		out, err := asUser(command().Path, "-s", "exec", path, "sh", "-c", "grep -E ' / / ' /proc/self/mountinfo; cat /sys/block/dm-*/dm/name; cat /noise")
		out, found := strings.CutSuffix(out, string(s.noise))
		if err != nil || !found {
			t.Errorf("%s shows other data: %v, %.2000q", path, err, out)
			continue
		}
		if got := strings.Contains(out, "\nsingularity-") && strings.Contains(out, " - overlay "); got != kernel || got == strings.Contains(out, " - fuse ") {
			t.Errorf("%s: mounted by the kernel: %v: %s", path, got, out)
		}
		nothingMapped(t, path)
	}
}

// TestDMVerityHelperFlip (SC-060): an image that its owner changes while it is
// mounted gives an error where it was changed, and never wrong data.
func TestDMVerityHelperFlip(t *testing.T) {
	s := signedImages(t)
	cmd := userCommand("exec", s.ours, "sh", "-c", "echo up; read x; cat /noise; echo status $?; cat /noise >/dev/null; ls /bin/busybox")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err, said.String())
	}
	flip(t, s.ours, 0)
	in.Write([]byte("\n"))
	in.Close()
	text, _ := io.ReadAll(out)
	err = cmd.Wait()
	data, status, ok := bytes.Cut(text, []byte("status "))
	if !ok || err != nil || !strings.HasPrefix(string(status), "1\n/bin/busybox") || !strings.Contains(said.String(), "Input/output error") {
		t.Errorf("after %d bytes: %v %q: %s", len(data), err, status, said.String())
	}
	if !bytes.HasPrefix(s.noise, data) || len(data) == len(s.noise) {
		t.Errorf("%d bytes of data, wrong or all", len(data))
	}
	nothingMapped(t, "a changed image")
	// Changed before the start: found by the first read, and only there.
	if out, err := asUser(command().Path, "-s", "exec", s.ours, "cat", "/noise"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("a changed image: %d bytes, %v", len(out), err)
	}
	nothingMapped(t, "a changed image")
}

// flip changes a bit in the middle of the root partition behind its head, which is
// noise.
func flip(t *testing.T, path string, head int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, _ := f.Stat()
	im, err := sif.Open(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	root, err := im.Primary()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	at := root.Off + (head+root.Size)/2
	f.ReadAt(b, at)
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestDMVerityHelperKilled (R11): whatever the caller kills at whatever moment, no
// device, loop device or mount is left.
func TestDMVerityHelperKilled(t *testing.T) { killed(t, signedImages(t).ours) }

// killed starts the image, with flags before it, and kills it at all moments.
func killed(t *testing.T, image ...string) {
	t.Helper()
	exec := func(program ...string) []string { return slices.Concat([]string{"exec"}, image, program) }
	before, _ := os.ReadFile("/proc/self/mountinfo")
	cmd := userCommand(exec("sh", "-c", "echo up; exec sleep 1000")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if dm := tool(t, "dmsetup", "ls"); !strings.HasPrefix(dm, "singularity-") {
		t.Errorf("mapped is %q", dm)
	}
	cmd.Process.Kill()
	cmd.Wait()
	nothingMapped(t, "kill -9")
	begun := time.Now()
	if out, err := asUser(command().Path, exec("true")...); err != nil {
		t.Fatal(err, out)
	}
	whole := time.Since(begun)
	const tries = 8
	for i := range tries {
		cmd := userCommand(append([]string{"-s"}, exec("true")...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i) / tries)
		// As the user, whom the kernel lets end what is the user's.
		asUser("/bin/sh", "-c", fmt.Sprintf("kill -KILL -%d", cmd.Process.Pid))
		cmd.Wait()
	}
	nothingMapped(t, "kills at all moments")
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if string(before) != string(after) {
		t.Errorf("mounts are left:\n%s", after)
	}
}

// TestDMVerityHelperRules: where nobody may make a user namespace, what the site
// demands of signatures is a boundary: nothing else starts.
func TestDMVerityHelperRules(t *testing.T) {
	s := signedImages(t)
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("10000"), 0o644)
	conf, err := os.ReadFile(os.Getenv("SINGULARITY_E2E_PREFIX") + "/etc/singularity/singularity.conf")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(rule string, want map[string]bool, flags ...string) {
		for path, may := range want {
			out, err := asUser(command().Path, append(append([]string{"exec"}, flags...), path, "echo", "started")...)
			if got := err == nil && strings.Contains(out, "started"); got != may {
				t.Errorf("%s: %s %q started: %v: %s", rule, filepath.Base(path), flags, got, out)
			}
		}
		nothingMapped(t, rule)
	}
	box := os.Getenv("SINGULARITY_E2E_PREFIX") + "/signed/box"
	siteFile(t, "singularity.conf", strings.Replace(string(conf), "\nrequire integrity = no", "\nrequire integrity = yes", 1))
	expect("require integrity", map[string]bool{s.ours: true, s.foreign: false, box: false})
	expect("require integrity", map[string]bool{s.ours: false}, "--integrity=off")
	siteFile(t, "singularity.conf", string(conf))
	siteFile(t, "ecl.toml", s.list)
	expect("whitelist", map[string]bool{s.ours: true, s.foreign: false, s.none: false, box: true})
	expect("whitelist", map[string]bool{s.roots: true}, "--integrity=off")
	siteFile(t, "ecl.toml", strings.Replace(s.list, "whitelist", "blacklist", 1))
	expect("blacklist", map[string]bool{s.ours: false})
}

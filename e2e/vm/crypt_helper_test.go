package vm

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

// locked are encrypted images with the file /noise: one of root's, one of
// plainUser's that the site's key signed, and one of that user's that nobody did.
type locked struct {
	*signed
	roots, ours, none string
	pem               string
}

func lockedImages(t *testing.T) *locked {
	needDMCrypt(t)
	s := signedImages(t)
	from := os.Getenv("SINGULARITY_E2E_PREFIX") + "/signed/"
	l := &locked{signed: s, roots: s.dir + "/locked-roots.sif", ours: s.dir + "/locked-ours.sif", none: s.dir + "/locked-none.sif", pem: from + "key.pem"}
	tool(t, "cp", from+"locked.sif", l.roots)
	tool(t, "cp", from+"locked.sif", l.none)
	tool(t, "cp", from+"locked-ours.sif", l.ours)
	tool(t, "chown", "4321", l.ours, l.none)
	return l
}

// ask has the user ask the helper itself, with the key that how says.
func (l *locked) ask(how ...string) string {
	args := append([]string{"SINGULARITY_ENCRYPTION_PEM_PATH=" + l.pem, os.Getenv("SINGULARITY_E2E_PREFIX") + "/bin/suid", "kernel"}, how...)
	out, _ := asUser("/usr/bin/env", args...)
	return out
}

// TestDMCryptHelper (SC-059, SC-060): the kernel decrypts and mounts an encrypted
// image right from the SIF if it is root's, or over dm-verity if the site's key signed it;
// ours shows the rest. The key is in no table and no keyring, and nothing is left.
func TestDMCryptHelper(t *testing.T) {
	l := lockedImages(t)
	for path, devices := range map[string]int{l.roots: 1, l.ours: 2, l.none: 0} {
		out, err := asUser(command().Path, "-s", "exec", "--pem-path", l.pem, path, "sh", "-c", "grep -E ' / / ' /proc/self/mountinfo; cat /sys/block/dm-*/dm/name; cat /noise")
		out, found := strings.CutSuffix(out, string(l.noise))
		if err != nil || !found {
			t.Errorf("%s shows other data: %v, %.2000q", path, err, out)
			continue
		}
		if strings.Count(out, "\nsingularity-") != devices || strings.Contains(out, " - overlay ") != (devices > 0) || strings.Contains(out, " - fuse ") != (devices == 0) {
			t.Errorf("%s: not mounted by the kernel over %d devices: %s", path, devices, out)
		}
		if devices > 0 && !strings.Contains(out, " ro,nosuid,nodev,") {
			t.Errorf("%s: %s", path, out)
		}
		nothingMapped(t, path)
	}
	cmd := userCommand("exec", "--pem-path", l.pem, l.ours, "sh", "-c", "echo up; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
	if table := tool(t, "dmsetup", "table", "--showkeys", "--target", "crypt"); !strings.Contains(table, " crypt aes-xts-plain64 :64:logon:singularity:volume 0 ") {
		t.Errorf("the table is %q", table)
	}
	if keys, err := os.ReadFile("/proc/keys"); err != nil || bytes.Contains(keys, []byte("singularity:")) {
		t.Errorf("%v: %s", err, keys)
	}
	in.Close()
	cmd.Wait()
	nothingMapped(t, "a container")
}

// TestDMCryptHelperKey (SC-059): the key is the caller's word. One that the header does
// not prove reaches no parser of the kernel's, whoever vouches for the image.
func TestDMCryptHelperKey(t *testing.T) {
	l := lockedImages(t)
	if out := l.ask(l.roots, l.ours); strings.Count(out, " status 0\n") != 2 {
		t.Errorf("with the key: %s", out)
	}
	for how, why := range map[string]string{
		"-bit": "the key is not the one of the image's header", "-random": "the key is not the one of the image's header",
		"-short": "the request is not well formed", "-file": "the request is not well formed", "-nokey": "the request is not well formed",
	} {
		if out := l.ask(how, l.roots, l.ours); strings.Count(out, why) != 2 || strings.Contains(out, "status") {
			t.Errorf("%s: %s", how, out)
		}
	}
	for how, why := range map[string]string{"-shift": "it is not the root partition", "-as-squashfs": "not well formed", "-as-ext3": "not well formed"} {
		if out := l.ask(how, l.roots); !strings.Contains(out, why) {
			t.Errorf("%s: %s", how, out)
		}
	}
	if out := l.ask(l.none); !strings.Contains(out, "refused: the kernel does not mount the image: ") || !strings.Contains(out, "must be owned by root") {
		t.Errorf("an image of the user's: %s", out)
	}
	nothingMapped(t, "requests with wrong keys")
}

// TestDMCryptHelperFlip (SC-060): cipher text that its owner changes gives an error,
// and a header that its owner changes proves no key.
func TestDMCryptHelperFlip(t *testing.T) {
	l := lockedImages(t)
	flip(t, l.ours, 16<<20)
	out, err := asUser(command().Path, "-s", "exec", "--pem-path", l.pem, l.ours, "cat", "/noise")
	if err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("changed cipher text: %d bytes, %v", len(out), err)
	}
	nothingMapped(t, "changed cipher text")
	tool(t, "cp", os.Getenv("SINGULARITY_E2E_PREFIX")+"/signed/locked-ours.sif", l.ours)
	data, err := os.ReadFile(l.ours)
	if err != nil {
		t.Fatal(err)
	}
	// The text of both copies: what the signature covers by the tree alone.
	damaged := bytes.ReplaceAll(data, []byte(`"iterations":1000`), []byte(`"iterations":1001`))
	if bytes.Equal(damaged, data) {
		t.Fatal("the header has no digest of 1000 rounds")
	}
	path := strings.Replace(l.ours, "ours", "damaged", 1)
	if err := os.WriteFile(path, damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "chown", "4321", path)
	if out := l.ask("-of", l.ours, path); !strings.Contains(out, "is not the one that was hashed") || strings.Contains(out, "status") {
		t.Errorf("a changed header: %s", out)
	}
	nothingMapped(t, "a changed header")
}

// TestDMCryptHelperKilled (R11): whatever the caller kills at whatever moment, no
// device, loop device, mount or key is left.
func TestDMCryptHelperKilled(t *testing.T) {
	l := lockedImages(t)
	killed(t, "--pem-path", l.pem, l.ours)
	if keys, err := os.ReadFile("/proc/keys"); err != nil || bytes.Contains(keys, []byte("singularity:")) {
		t.Errorf("%v: %s", err, keys)
	}
}

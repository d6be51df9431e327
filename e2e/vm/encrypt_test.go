package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/luks"
)

const containerKey = "a passphrase"

// tool runs a program of the system that must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// mapped opens the container at path with the kernel and returns the device.
func mapped(t *testing.T, path, name string, more ...string) string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(containerKey), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "cryptsetup", append([]string{"open", "--batch-mode", "--key-file", key, path, name}, more...)...)
	return "/dev/mapper/" + name
}

// needDMCrypt skips where the kernel or a program is missing.
func needDMCrypt(t *testing.T) {
	t.Helper()
	if os.Getenv("RUN_IN_VM") == "" {
		t.Skip("needs a virtual machine: run e2e/vm/run dm-crypt")
	}
	if kind := os.Getenv("VM_KIND"); kind != "" && kind != "dm-crypt" {
		t.Skip("one kernel with dm-crypt is enough: run e2e/vm/run dm-crypt")
	}
	for _, m := range []string{"loop", "dm-mod", "dm-crypt", "xts", "squashfs"} {
		exec.Command("/sbin/modprobe", m).Run()
	}
	for _, need := range []string{"/dev/mapper/control", "/usr/sbin/cryptsetup", "/usr/bin/mksquashfs"} {
		if _, err := os.Stat(need); err != nil {
			t.Skipf("the referee is dm-crypt, set up by cryptsetup: %v", err)
		}
	}
}

// TestDMCryptReadsOurs: the kernel decrypts what the luks package wrote to the
// same bytes, and mounts them.
func TestDMCryptReadsOurs(t *testing.T) {
	needDMCrypt(t)
	box := image(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain.sqfs")
	tool(t, "mksquashfs", box, plain, "-quiet", "-no-progress")
	payload, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	for name, sector := range map[string]int{"small": 512, "large": 4096} {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		w, err := luks.Create(context.Background(), f, []byte(containerKey), luks.Options{SectorSize: sector, KDF: luks.KDF{Type: "argon2id", Time: 1, Memory: 64, CPUs: 1}})
		if err == nil {
			_, err = w.Write(payload)
		}
		if err == nil {
			_, err = w.Close()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		device := mapped(t, path, name, "--readonly")
		got, err := os.ReadFile(device)
		if err != nil || !bytes.Equal(got[:min(len(got), len(payload))], payload) {
			t.Errorf("sectors of %d: dm-crypt shows other bytes: %d, %v", sector, len(got), err)
		}
		at := filepath.Join(dir, "mnt")
		os.Mkdir(at, 0o755)
		tool(t, "mount", "-t", "squashfs", "-o", "ro", device, at)
		if _, err := os.Stat(at + "/bin/busybox"); err != nil {
			t.Error(err)
		}
		tool(t, "umount", at)
		tool(t, "cryptsetup", "close", name)
	}
}

// TestReadsDMCrypt: what was written through the kernel reads back in user
// space. Cryptsetup picks the sector size of a loop device, as it does for the
// images of others.
func TestReadsDMCrypt(t *testing.T) {
	needDMCrypt(t)
	dir := t.TempDir()
	path, key := filepath.Join(dir, "container"), filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(key, []byte(containerKey), 0o600), os.WriteFile(path, make([]byte, 24<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	loop := tool(t, "losetup", "--find", "--show", path)
	tool(t, "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--key-file", key, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", loop)
	device := mapped(t, loop, "theirs")
	payload := make([]byte, 8<<20)
	for i := range payload {
		payload[i] = byte(i>>12 ^ i*7)
	}
	if err := os.WriteFile(device, payload, 0); err != nil {
		t.Fatal(err)
	}
	tool(t, "cryptsetup", "close", "theirs")
	tool(t, "losetup", "--detach", loop)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := luks.Open(f, 24<<20)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Unlock(t.Context(), []byte(containerKey), luks.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(v, 0, v.Size())); err != nil || [32]byte(h.Sum(nil)) != sha256.Sum256(payload) {
		t.Errorf("sectors of %d: %v, or other bytes than those written", c.SectorSize, err)
	}
}

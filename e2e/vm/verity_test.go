package vm

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"singularity/sif"
	"singularity/sign"
)

// needVerity skips where the kernel or a program is missing.
func needVerity(t *testing.T) {
	t.Helper()
	if kind := os.Getenv("VM_KIND"); os.Getenv("RUN_IN_VM") == "" || kind != "dm-verity" && kind != "dm-crypt" {
		t.Skip("needs a virtual machine: run e2e/vm/run dm-verity")
	}
	for _, m := range []string{"loop", "dm-mod", "dm-verity", "squashfs"} {
		exec.Command("/sbin/modprobe", m).Run()
	}
	for _, need := range []string{"/dev/mapper/control", "/usr/sbin/veritysetup"} {
		if _, err := os.Stat(need); err != nil {
			t.Skipf("the referee is dm-verity, set up by veritysetup: %v", err)
		}
	}
}

// noise are three megabytes that do not compress.
func noise() []byte {
	b := make([]byte, 3<<20)
	for i, x := 0, uint32(1); i < len(b); i++ {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// TestDMVerityTakesOurTree: the kernel reads the partition of a signed image by
// the tree that sign put into it, and finds a bit that was flipped.
func TestDMVerityTakesOurTree(t *testing.T) {
	needVerity(t)
	box := image(t)
	dir := t.TempDir()
	os.Setenv("SINGULARITY_CONFIGDIR", filepath.Join(dir, "conf"))
	if err := os.WriteFile(filepath.Join(box, "noise"), noise(), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "image.sif")
	for _, args := range [][]string{{"-q", "build", path, box}, {"key", "newpair", "-N", "T", "-E", "t@example.org", "-C", "none", "-P", "", "-b", "2048"}, {"sign", path}} {
		if out, code := run(t, args...); code != 0 {
			t.Fatalf("%q: status %d: %s", args, code, out)
		}
	}
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
	trees, warnings := sign.Trees(im)
	if len(trees) != 1 {
		t.Fatalf("%d trees, %q", len(trees), warnings)
	}
	tree := trees[0]
	loop := func(o sif.Object) string {
		return tool(t, "losetup", "--find", "--show", "--read-only", "--offset", strconv.FormatInt(o.Off, 10), "--sizelimit", strconv.FormatInt(o.Size, 10), path)
	}
	data, hash := loop(tree.Partition), loop(tree.Object)
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func() string {
		tool(t, "veritysetup", "open", data, "ours", hash, hex.EncodeToString(tree.Root[:]))
		return "/dev/mapper/ours"
	}
	tool(t, "mount", "-t", "squashfs", "-o", "ro", open(), at)
	tool(t, "cmp", filepath.Join(box, "noise"), filepath.Join(at, "noise"))
	tool(t, "umount", at)
	tool(t, "veritysetup", "close", "ours")
	// The middle of the partition is noise, stored as it is.
	b := make([]byte, 1)
	mid := tree.Partition.Off + tree.Partition.Size/2
	f.ReadAt(b, mid)
	b[0] ^= 1
	if _, err := f.WriteAt(b, mid); err != nil {
		t.Fatal(err)
	}
	f.Sync()
	tool(t, "losetup", "--detach", data)
	data = loop(tree.Partition)
	tool(t, "mount", "-t", "squashfs", "-o", "ro", open(), at)
	if out, err := exec.Command("/usr/bin/cmp", filepath.Join(box, "noise"), filepath.Join(at, "noise")).CombinedOutput(); err == nil {
		t.Error("dm-verity does not find the flipped bit")
	} else {
		t.Logf("with a flipped bit: %s", out)
	}
	if _, err := os.Stat(at + "/bin/busybox"); err != nil {
		t.Errorf("the rest is not served: %v", err)
	}
	tool(t, "umount", at)
	tool(t, "veritysetup", "close", "ours")
	tool(t, "losetup", "--detach", data)
	tool(t, "losetup", "--detach", hash)
}

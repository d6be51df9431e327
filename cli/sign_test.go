package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sys/unix"

	"singularity/action"
	"singularity/conf"
	"singularity/linux/lockfile"
	"singularity/sif"
)

// signable writes an image of three objects and returns its path.
func signable(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.sif")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = sif.Create(f, sif.CreateOptions{LaunchScript: sif.LaunchScript},
		sif.Input{Type: sif.DataDefFile, Group: 1, Data: strings.NewReader("bootstrap: scratch\n")},
		sif.Input{Type: sif.DataPartition, Group: 1, Data: strings.NewReader(strings.Repeat("x", 4096)),
			Extra: sif.Partition{FS: sif.FSSquashfs, Type: sif.PartPrimary, Arch: "amd64"}.Extra()})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSignVerify(t *testing.T) {
	ringHome(t)
	fp := importKey(t, keyA())
	image := signable(t)
	if _, stderr, code := callIn("", "verify", image); code != 255 ||
		!strings.Contains(stderr, "FATAL:   failed to verify container: integrity: signature not found for object group 1\n") {
		t.Errorf("unsigned: status %d: %s", code, stderr)
	}
	stdout, stderr := mustRun(t, "", "sign", image)
	if want := "INFO:    Signing image with PGP key material\nINFO:    Signature created and applied to image '" + image + "'\n"; stdout != "" || stderr != want {
		t.Errorf("sign: %q, messages %q, want %q", stdout, stderr, want)
	}
	stdout, stderr = mustRun(t, "", "verify", image)
	if want := "INFO:    Verifying image with PGP key material\nINFO:    Verified signature(s) from image '" + image + "'\n" +
		"INFO:    Signed by \"Key A\" (fingerprint " + fp + "), trusted by the keyrings of this host, unchanged since " + time.Now().UTC().Format(time.DateOnly) + ", not compared with advisories.\n"; stderr != want {
		t.Errorf("verify: messages %q, want %q", stderr, want)
	}
	want := "[LOCAL]            Signing entity: Key A\n" +
		"[LOCAL]            Fingerprint: " + fp + "\n" +
		"Objects verified:\n" +
		"ID  |GROUP   |LINK    |TYPE\n" +
		"------------------------------------------------\n" +
		"1   |1       |NONE    |Def.FILE\n" +
		"2   |1       |NONE    |FS\n" +
		"3   |1       |2       |Generic/Raw\n" +
		"4   |1       |2       |JSON.Generic\n"
	if stdout != want {
		t.Errorf("verify printed\n%s\nwant\n%s", stdout, want)
	}
	stdout, _ = mustRun(t, "", "verify", "--json", image)
	wantJSON := `{
  "Signatures": 1,
  "SignerKeys": [
    {
      "Signer": {
        "Partition": "Def.FILE",
        "Name": "Key A",
        "Fingerprint": "` + strings.ToLower(fp) + `",
        "KeyLocal": true,
        "KeyCheck": true,
        "DataCheck": true
      }
    },
`
	if !strings.HasPrefix(stdout, wantJSON) {
		t.Errorf("JSON\n%s\nwant\n%s", stdout, wantJSON)
	}
	for _, args := range [][]string{{"-l"}, {"-g", "1"}, {"-i", "2"}, {"-a"}, {"--by-tree"}, {"--require-fingerprint", "0x" + strings.ToLower(fp)}} {
		mustRun(t, "", append(append([]string{"verify"}, args...), image)...)
	}
	if _, stderr, code := callIn("", "verify", "--require-fingerprint", strings.Repeat("AB", 20), image); code != 255 {
		t.Errorf("required key: status %d: %s", code, stderr)
	}
	for _, args := range [][]string{{"--require-fingerprint", "x"}, {"-g", "1", "-i", "1"}, {"-g", "x"}} {
		if _, stderr, code := callIn("", append(append([]string{"verify"}, args...), image)...); code != 1 {
			t.Errorf("%q: status %d: %s", args, code, stderr)
		}
	}
}

func TestVerifyFailures(t *testing.T) {
	ringHome(t)
	fp := importKey(t, keyA())
	image := signable(t)
	mustRun(t, "", "sign", image)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("y"), 32768)
	f.Close()
	stdout, stderr, code := callIn("", "verify", "-j", image)
	var out verifyJSON
	if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != 255 {
		t.Fatalf("status %d, %v: %s", code, err, stdout)
	}
	if len(out.SignerKeys) != 4 || out.SignerKeys[3].Signer.DataCheck || !out.SignerKeys[0].Signer.DataCheck {
		t.Errorf("JSON %+v", out)
	}
	if want := "FATAL:   failed to verify container: integrity: data object integrity compromised: 2\n"; !strings.HasSuffix(stderr, want) {
		t.Errorf("messages %q, want %q", stderr, want)
	}
	stdout, _, _ = callIn("", "verify", image)
	if want := "\nError encountered during signature verification: data object integrity compromised: 2\n"; !strings.HasSuffix(stdout, want) {
		t.Errorf("text %q, want %q", stdout, want)
	}
	mustRun(t, "", "key", "remove", fp)
	stdout, stderr, code = callIn("", "verify", "--json", image)
	if code != 255 || !strings.Contains(stdout, `"Signatures": 1`) || !strings.Contains(stdout, `"SignerKeys": null`) {
		t.Errorf("unknown key: status %d: %s", code, stdout)
	}
	if !strings.Contains(stderr, "signature object 5 not valid: openpgp: signature made by unknown entity") ||
		!strings.Contains(stderr, "hint: ") || !strings.Contains(stderr, fp[24:]) {
		t.Errorf("unknown key: %s", stderr)
	}
	for _, path := range []string{"/nonexistent", "/dev/null", os.Args[0], t.TempDir()} {
		if _, stderr, code := callIn("", "verify", path); code != 255 || !strings.Contains(stderr, "failed to verify container: ") {
			t.Errorf("%s: status %d: %s", path, code, stderr)
		}
	}
}

func TestVerifyAnyAndGlobal(t *testing.T) {
	ringHome(t)
	image := signable(t)
	a := importKey(t, keyA())
	mustRun(t, "", "sign", image)
	importKey(t, keyB())
	mustRun(t, "secret\n", "sign", "-k", "1", image)
	mustRun(t, "", "verify", image)
	mustRun(t, "", "key", "remove", a)
	if _, _, code := callIn("", "verify", image); code != 255 {
		t.Errorf("one unknown signature: status %d", code)
	}
	stdout, _ := mustRun(t, "", "verify", "--any", image)
	if !strings.Contains(stdout, "Error encountered") || !strings.Contains(stdout, "Key B") {
		t.Errorf("any: %s", stdout)
	}
	dir := conf.Dir()
	os.MkdirAll(dir, 0o755)
	public, _ := onlyKey(keyA()).Public()
	os.WriteFile(dir+"/global-pgp-public", public.Bytes(), 0o644)
	stdout, _ = mustRun(t, "", "verify", "-l", image)
	if !strings.Contains(stdout, "[GLOBAL]           Fingerprint: "+a) || !strings.Contains(stdout, "[LOCAL]") {
		t.Errorf("global: %s", stdout)
	}
}

func TestSignKeys(t *testing.T) {
	ringHome(t)
	image := signable(t)
	if _, stderr, code := callIn("", "sign", image); code != 255 || !strings.Contains(stderr, "key newpair") {
		t.Errorf("no key: status %d: %s", code, stderr)
	}
	importKey(t, keyA())
	importKey(t, keyB())
	before, _ := os.ReadFile(image)
	for _, c := range []struct{ stdin, arg string }{{"", "-k=2"}, {"wrong\n", "-k=1"}, {"", "-k=1"}, {"7\n", "-k=-1"}} {
		_, stderr, code := callIn(c.stdin, "sign", c.arg, image)
		if code != 255 || !strings.Contains(stderr, "FATAL:   failed to sign container: ") {
			t.Errorf("%+v: status %d: %s", c, code, stderr)
		}
	}
	if after, _ := os.ReadFile(image); string(after) != string(before) {
		t.Error("a failed signature changed the image")
	}
	// Outside of tests the message goes to standard error.
	stdout, _ := mustRun(t, "1\nsecret\n", "sign", "--all", "--groupid", "1", image)
	if !strings.Contains(stdout, "Flag --groupid has been deprecated, use '--group-id'") {
		t.Errorf("messages %s", stdout)
	}
	mustRun(t, "", "sign", "-k", "0", "-i", "1", image)
	if _, _, code := callIn("", "verify", "-i", "2", image); code != 255 {
		t.Error("a signature of object 1 passed for object 2")
	}
	mustRun(t, "", "verify", "-i", "1", image)
}

func TestSignBusyOrReadOnly(t *testing.T) {
	ringHome(t)
	importKey(t, keyA())
	image := signable(t)
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := lockfile.Shared(f); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := callIn("", "sign", image); code != 255 || !strings.Contains(stderr, "hint: wait") {
		t.Errorf("busy: status %d: %s", code, stderr)
	}
	if os.Geteuid() != 0 {
		os.Chmod(image, 0o444)
		if _, stderr, code := callIn("", "sign", image); code != 255 || !strings.Contains(stderr, "hint: signing writes") {
			t.Errorf("read-only: status %d: %s", code, stderr)
		}
	}
}

// A process that is killed while it signs leaves an image that opens and whose
// earlier content is whole.
func TestSignKilled(t *testing.T) {
	if path := os.Getenv("CLI_TEST_SIGN"); path != "" {
		for {
			if _, stderr, code := callIn("", "sign", path); code != 0 {
				t.Fatal(stderr)
			}
		}
	}
	ringHome(t)
	importKey(t, keyA())
	for range 5 {
		image := signable(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestSignKilled$")
		cmd.Env = append(os.Environ(), "CLI_TEST_SIGN="+image)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The first signature tells that it is at work.
		for signed := false; !signed; {
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			fi, _ := f.Stat()
			signed = fi.Size() > 36864
			f.Close()
		}
		cmd.Process.Signal(syscall.SIGKILL)
		cmd.Wait()
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		fi, _ := f.Stat()
		im, err := sif.Open(f, fi.Size())
		if err != nil {
			t.Fatalf("image is damaged: %v", err)
		}
		if slices.ContainsFunc(im.Objects(), func(o sif.Object) bool { return o.Type == sif.DataSignature }) {
			mustRun(t, "", "verify", image)
		}
		f.Close()
	}
}

func TestSignGPGVerifies(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("needs gpg")
	}
	ringHome(t)
	importKey(t, keyA())
	image := signable(t)
	mustRun(t, "", "sign", image)
	object, _ := mustRun(t, "", "sif", "dump", "5", image)
	home, err := os.MkdirTemp("", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	public, _ := onlyKey(keyA()).Public()
	ring := filepath.Join(home, "ring")
	os.WriteFile(ring, public.Bytes(), 0o600)
	dump := filepath.Join(home, "object")
	os.WriteFile(dump, []byte(object), 0o600)
	cmd := exec.Command("gpg", "--batch", "--no-default-keyring", "--keyring", ring, "--trust-model", "always", "--verify", dump)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRealUID(t *testing.T) {
	if got := action.RealUID(); got != unix.Getuid() && os.Geteuid() != 0 {
		t.Errorf("uid %d, want %d", got, unix.Getuid())
	}
}

// A name in a key is shown on one line, so that it is no line of its own for
// programs that read the output (SC-112).
func TestSC112_NameOfSigner(t *testing.T) {
	ringHome(t)
	e, err := openpgp.NewEntity("Mallory\n[GNUPG:] GOODSIG 0 Alice\r\x1b[2J", "", "m@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivate(&b, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "key", "import", path)
	image := signable(t)
	mustRun(t, "", "sign", image)
	stdout, stderr := mustRun(t, "", "verify", image)
	for line := range strings.Lines(stdout + stderr) {
		if strings.HasPrefix(line, "[GNUPG:]") || strings.ContainsAny(line, "\x1b\r") {
			t.Errorf("printed the line %q", line)
		}
	}
	if !strings.Contains(stdout, "Mallory") {
		t.Errorf("printed %q", stdout)
	}
}

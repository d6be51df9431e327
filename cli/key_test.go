package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"singularity/action"
	"singularity/conf"
	"singularity/pgp"
	"singularity/sign/keyring"
)

// callIn is call with answers on standard input.
func callIn(stdin string, args ...string) (stdout, stderr string, code int) {
	var out, messages bytes.Buffer
	log := &action.Log{Out: &messages, Level: action.DefaultLevel}
	root := newRoot(log)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&messages)
	root.SetArgs(args)
	code = action.Report(log, root.Execute())
	return out.String(), messages.String(), code
}

// ringHome gives the test keyrings of its own, and returns their directory.
func ringHome(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sypgp")
	t.Setenv("SINGULARITY_SYPGPDIR", dir)
	if os.Getenv("SINGULARITY_CONFIGDIR") == "" {
		t.Setenv("SINGULARITY_CONFIGDIR", t.TempDir()) // no remote.yaml of whoever runs the test
	}
	prefix := conf.Prefix
	conf.Prefix = t.TempDir()
	t.Cleanup(func() { conf.Prefix = prefix })
	return dir
}

// mustRun runs a command that must succeed and returns its output.
func mustRun(t *testing.T, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, code := callIn(stdin, args...)
	if code != 0 {
		t.Fatalf("%q: status %d: %s", args, code, stderr)
	}
	return stdout, stderr
}

// keyA is an unprotected secret key and keyB one with the passphrase "secret",
// both armored.
var (
	keyA = sync.OnceValue(func() []byte { return armoredKey("Key A", nil) })
	keyB = sync.OnceValue(func() []byte { return armoredKey("Key B", []byte("secret")) })
)

func armoredKey(name string, passphrase []byte) []byte {
	e, err := openpgp.NewEntity(name, "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		panic(err)
	}
	k := onlyKey(b.Bytes())
	if passphrase != nil {
		if k, err = k.Protect(nil, passphrase); err != nil {
			panic(err)
		}
	}
	text, err := k.Armor()
	if err != nil {
		panic(err)
	}
	return text
}

func onlyKey(data []byte) *pgp.Key {
	r, err := pgp.ParseRing(data)
	if err != nil || len(r.Keys()) != 1 {
		panic("not one key")
	}
	return r.Keys()[0]
}

// importKey puts an armored key into the keyrings and returns its fingerprint.
func importKey(t *testing.T, armored []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(path, armored, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "", "key", "import", path)
	return onlyKey(armored).Fingerprint().String()
}

func TestKeyNewpair(t *testing.T) {
	dir := ringHome(t)
	stdout, stderr := mustRun(t, "A. User\nuser@example.org\nwork\nsecret\nsecret\n", "key", "newpair", "-b", "2048")
	if stdout != "" || !strings.Contains(stderr, "Generating Entity and OpenPGP Key Pair... done\n") {
		t.Errorf("output %q, messages %q", stdout, stderr)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, dir + "/pgp-public": 0o600, dir + "/pgp-secret": 0o600} {
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, fi.Mode().Perm(), err, want)
		}
	}
	data, err := os.ReadFile(dir + "/pgp-secret")
	if err != nil {
		t.Fatal(err)
	}
	k := onlyKey(data)
	if k.UserID() != "A. User (work) <user@example.org>" || !k.Protected() || k.Unlock([]byte("secret")) != nil {
		t.Errorf("key %q, protected %v", k.UserID(), k.Protected())
	}
	list, _ := mustRun(t, "", "keys", "list")
	want := regexp.MustCompile(`^Public key listing \(` + regexp.QuoteMeta(dir) + `/pgp-public\):

0\)  User:              A\. User \(work\) <user@example\.org>
    Creation time:     \S+ \S+ \S+ \S+
    Fingerprint:       [0-9A-F]{40}
    Length \(in bits\):  2048

$`)
	if !want.MatchString(list) {
		t.Errorf("listing\n%s", list)
	}
	if list, _ := mustRun(t, "", "key", "list", "--private"); !strings.HasPrefix(list, "Private key listing ("+dir+"/pgp-secret):\n") {
		t.Errorf("listing\n%s", list)
	}
	var keys []keyJSON
	asJSON, _ := mustRun(t, "", "key", "list", "-s", "-j")
	if err := json.Unmarshal([]byte(asJSON), &keys); err != nil || len(keys) != 1 || !keys[0].Secret || !*keys[0].Protected {
		t.Errorf("%v: %s", err, asJSON)
	}
}

func TestKeyNewpairRefusals(t *testing.T) {
	dir := ringHome(t)
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"-N", "x"}},
		{"secret\nother\n", []string{"-N", "x", "-E", "", "-C", ""}},
		{"", []string{"-N", "a<b", "-E", "", "-C", "", "-P", ""}},
		{"", []string{"-N", "x", "-E", "", "-C", "", "-P", "", "-b", "1024"}},
		{"", []string{"-N", "x", "-E", "", "-C", "", "-P", "", "-U"}},
	} {
		if _, stderr, code := callIn(c.stdin, append([]string{"key", "newpair"}, c.args...)...); code != 2 {
			t.Errorf("%q: status %d: %s", c.args, code, stderr)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("a keyring was made")
	}
}

// Removing one secret key must leave the others, with their secret parts.
func TestKeyRemoveKeepsOtherSecrets(t *testing.T) {
	dir := ringHome(t)
	a, b := importKey(t, keyA()), importKey(t, keyB())
	mustRun(t, "", "key", "remove", "--secret", "0x"+a)
	data, err := os.ReadFile(dir + "/pgp-secret")
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(data); k.Fingerprint().String() != b || k.Unlock([]byte("secret")) != nil {
		t.Error("the other secret key is damaged")
	}
	if list, _ := mustRun(t, "", "key", "list"); !strings.Contains(list, a) || !strings.Contains(list, b) {
		t.Errorf("public keys\n%s", list)
	}
	for _, args := range [][]string{{"key", "remove", "-s", a}, {"key", "remove", "xyz"}} {
		if _, _, code := callIn("", args...); code != 255 {
			t.Errorf("%q: status %d", args, code)
		}
	}
}

func TestKeyImport(t *testing.T) {
	ringHome(t)
	fp := importKey(t, keyA())
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, keyA(), 0o600)
	_, stderr, code := callIn("", "key", "import", path)
	if want := "the key with fingerprint " + fp + " already belongs to the keyring"; code != 2 || !strings.Contains(stderr, want) {
		t.Errorf("again: status %d, %s", code, stderr)
	}
	// A file of two keys: the new one gets in, the other is reported.
	both := append(onlyKey(keyA()).Bytes(), onlyKey(keyB()).Bytes()...)
	os.WriteFile(path, both, 0o600)
	if _, _, code := callIn("", "key", "import", path); code != 2 {
		t.Errorf("both: status %d", code)
	}
	if list, _ := mustRun(t, "", "key", "list"); !strings.Contains(list, "Key B") {
		t.Errorf("second key is not there\n%s", list)
	}
	for _, data := range []string{"", "hello", "\x99\x00\x00"} {
		os.WriteFile(path, []byte(data), 0o600)
		if _, stderr, code := callIn("", "key", "import", path); code != 2 {
			t.Errorf("%q: status %d: %s", data, code, stderr)
		}
	}
	if _, _, code := callIn("", "key", "import", "/nonexistent"); code != 2 {
		t.Errorf("missing file: status %d", code)
	}
}

func TestKeyImportNewPassword(t *testing.T) {
	dir := ringHome(t)
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, keyB(), 0o600)
	if _, _, code := callIn("wrong\nnew\nnew\n", "key", "import", "--new-password", path); code != 2 {
		t.Errorf("wrong passphrase: status %d", code)
	}
	mustRun(t, "secret\nnew\nnew\n", "key", "import", "--new-password", path)
	data, _ := os.ReadFile(dir + "/pgp-secret")
	if k := onlyKey(data); k.Unlock([]byte("new")) != nil {
		t.Error("the new passphrase is not in force")
	}
}

func TestKeyExport(t *testing.T) {
	ringHome(t)
	if _, _, code := callIn("", "key", "export", filepath.Join(t.TempDir(), "x")); code != 10 {
		t.Errorf("empty keyring: status %d", code)
	}
	importKey(t, keyA())
	b := importKey(t, keyB())
	path := filepath.Join(t.TempDir(), "out")
	mustRun(t, "1\n", "key", "export", "-s", "-a", path)
	data, _ := os.ReadFile(path)
	if !bytes.Contains(data, []byte("PGP PRIVATE KEY")) || !bytes.Equal(data, keyB()) {
		t.Errorf("secret key changed by export:\n%s", data)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	mustRun(t, "1\n", "key", "export", path)
	data, _ = os.ReadFile(path)
	if k := onlyKey(data); k.Secret() || k.Fingerprint().String() != b {
		t.Error("not the public key")
	}
	for _, answer := range []string{"", "2\n", "x\n", "-1\n"} {
		if _, _, code := callIn(answer, "key", "export", path); code != 10 {
			t.Errorf("answer %q: status %d", answer, code)
		}
	}
	if _, _, code := callIn("0\n", "key", "export", "/nonexistent/x"); code != 10 {
		t.Errorf("bad path: status %d", code)
	}
}

func TestGlobalKeyring(t *testing.T) {
	ringHome(t)
	dir := conf.Dir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, keyA(), 0o600)
	if _, _, code := callIn("", "key", "import", "-g", path); code != 2 {
		t.Errorf("secret key in the global ring: status %d", code)
	}
	public, _ := onlyKey(keyA()).Public()
	os.WriteFile(path, public.Bytes(), 0o600)
	mustRun(t, "", "key", "import", "-g", path)
	fi, err := os.Stat(dir + "/global-pgp-public")
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
	if list, _ := mustRun(t, "", "key", "list", "-g"); !strings.Contains(list, "Key A") {
		t.Errorf("listing\n%s", list)
	}
	mustRun(t, "", "key", "remove", "-g", public.Fingerprint().String())
	os.Chmod(dir+"/global-pgp-public", 0o666)
	if _, stderr, code := callIn("", "key", "list", "-g"); code != 255 {
		t.Errorf("ring that all may write: status %d: %s", code, stderr)
	}
}

// Nothing is written through links that lead elsewhere.
func TestSC016_DanglingLinks(t *testing.T) {
	dir := ringHome(t)
	elsewhere := filepath.Join(t.TempDir(), "victim")
	if err := os.Symlink(elsewhere, dir); err != nil {
		t.Fatal(err)
	}
	newpair := []string{"key", "import", filepath.Join(t.TempDir(), "key")}
	os.WriteFile(newpair[2], keyA(), 0o600)
	if _, stderr, code := callIn("", newpair...); code != 2 {
		t.Errorf("directory: status %d: %s", code, stderr)
	}
	os.Remove(dir)
	os.Mkdir(dir, 0o700)
	for _, name := range []string{"pgp-public", "pgp-secret", ".pgp-secret.lock"} {
		os.Symlink(elsewhere, filepath.Join(dir, name))
		if _, stderr, code := callIn("", newpair...); code != 2 || !strings.Contains(stderr, "symbolic link") {
			t.Errorf("%s: status %d: %s", name, code, stderr)
		}
		os.Remove(filepath.Join(dir, name))
	}
	// A leftover temporary name is replaced, not followed.
	os.Symlink(elsewhere, filepath.Join(dir, ".pgp-secret.new"))
	os.RemoveAll(filepath.Join(dir, "pgp-public"))
	os.RemoveAll(filepath.Join(dir, "pgp-secret"))
	mustRun(t, "", newpair...)
	if _, err := os.Lstat(elsewhere); err == nil {
		t.Error("something was created behind a link")
	}
}

func TestSC079_Modes(t *testing.T) {
	dir := ringHome(t)
	importKey(t, keyA())
	os.Chmod(dir, 0o755)
	os.Chmod(dir+"/pgp-secret", 0o644)
	_, stderr := mustRun(t, "", "key", "list", "-s")
	if strings.Count(stderr, "WARNING") != 2 {
		t.Errorf("messages %s", stderr)
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v", fi.Mode())
	}
	if fi, _ := os.Stat(dir + "/pgp-secret"); fi.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v", fi.Mode())
	}
	if os.Geteuid() == 0 {
		os.Chown(dir, 12345, 12345)
		if _, _, code := callIn("", "key", "list"); code != 255 {
			t.Errorf("directory of somebody else: status %d", code)
		}
	}
}

func TestSC118_DamagedRing(t *testing.T) {
	dir := ringHome(t)
	importKey(t, keyA())
	path := dir + "/pgp-public"
	good, _ := os.ReadFile(path)
	os.WriteFile(path, append([]byte("\xc6\xff\x00\x00\x00\xf0garbage"), good...), 0o600)
	list, stderr := mustRun(t, "", "key", "list")
	if !strings.Contains(list, "Key A") || !strings.Contains(stderr, "entry 0") {
		t.Errorf("listing %s, messages %s", list, stderr)
	}
	importKey(t, keyB())
	if data, _ := os.ReadFile(path); !bytes.Contains(data, []byte("garbage")) {
		t.Error("the damaged entry was lost by a change")
	}
}

// TestSC118_TruncatedMiddle: a key that was cut short between two others stops
// neither verify nor sign, and the warning names it.
func TestSC118_TruncatedMiddle(t *testing.T) {
	dir := ringHome(t)
	image := signable(t)
	importKey(t, keyA())
	importKey(t, keyB())
	mustRun(t, "", "sign", "-k", "0", image)
	mustRun(t, "secret\n", "sign", "-k", "1", image)
	cut := onlyKey(armoredKey("Cut", nil))
	for _, c := range []struct {
		name string
		ring func(*pgp.Key) []byte
	}{
		{"pgp-public", func(k *pgp.Key) []byte { p, _ := k.Public(); return p.Bytes() }},
		{"pgp-secret", (*pgp.Key).Bytes},
	} {
		middle := c.ring(cut)
		data := slices.Concat(c.ring(onlyKey(keyA())), middle[:len(middle)/2], c.ring(onlyKey(keyB())))
		if err := os.WriteFile(filepath.Join(dir, c.name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr := mustRun(t, "", "verify", image)
	if !strings.Contains(stdout, "Key A") || !strings.Contains(stdout, "Key B") || !strings.Contains(stderr, "pgp-public: entry 1 (") {
		t.Errorf("verify: %s, messages %s", stdout, stderr)
	}
	if _, stderr = mustRun(t, "secret\n", "sign", "-k", "1", image); !strings.Contains(stderr, "pgp-secret: entry 1 (") {
		t.Errorf("sign: messages %s", stderr)
	}
	mustRun(t, "", "verify", image)
}

func TestSC164_UserIDWithControls(t *testing.T) {
	ringHome(t)
	e, err := openpgp.NewEntity("x\x1b]52;c;eA==\x07\nGood signature\u202e", "", "", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e.Serialize(&b)
	path := filepath.Join(t.TempDir(), "key")
	os.WriteFile(path, b.Bytes(), 0o600)
	mustRun(t, "", "key", "import", path)
	list, _ := mustRun(t, "", "key", "list")
	if strings.ContainsAny(list, "\x1b\x07\u202e") || strings.Contains(list, "\nGood") {
		t.Errorf("listing %q", list)
	}
	var keys []keyJSON
	asJSON, _ := mustRun(t, "", "key", "list", "--json")
	if err := json.Unmarshal([]byte(asJSON), &keys); err != nil || keys[0].UserIDs[0] != onlyKey(b.Bytes()).UserID() {
		t.Errorf("%v: %q", err, asJSON)
	}
}

// Many imports at a time lose no key.
func TestKeyringLock(t *testing.T) {
	dir := ringHome(t)
	k := keyring.Public(dir, nil)
	var wg sync.WaitGroup
	const n = 8
	for range n {
		key := onlyKey(armoredKey("N", nil))
		wg.Go(func() {
			if err := changeRing(k, func(r *pgp.Ring) error { r.Add(key); return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if r, err := k.Read(); err != nil || len(r.Keys()) != n {
		t.Errorf("%d keys, want %d (%v)", len(r.Keys()), n, err)
	}
}

func TestKeyringDir(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(key string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == key {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for want, getenv := range map[string]func(string) string{
		"/a":       env("SINGULARITY_SYPGPDIR", "/a", "SINGULARITY_CONFIGDIR", "/b"),
		"/b/sypgp": env("SINGULARITY_CONFIGDIR", "/b"),
	} {
		if got, err := action.KeyringDir(getenv); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if got, err := action.KeyringDir(env("HOME", "/elsewhere")); err != nil || strings.HasPrefix(got, "/elsewhere") || !strings.HasSuffix(got, "/.singularity/sypgp") {
		t.Errorf("%q, %v", got, err)
	}
}

// Keys go both ways between us and gpg.
func TestKeysAndGPG(t *testing.T) {
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("needs gpg")
	}
	ringHome(t)
	home, err := os.MkdirTemp("", "gpg") // the agent's socket path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		exec.Command("gpgconf", "--kill", "all").Run()
		os.RemoveAll(home)
	})
	gpg := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("gpg", append([]string{"--batch", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "secret"}, args...)...).Output()
		if err != nil {
			t.Fatalf("gpg %q: %v", args, err)
		}
		return string(out)
	}
	b := importKey(t, keyB())
	path := filepath.Join(t.TempDir(), "key")
	mustRun(t, "", "key", "export", "--secret", "--armor", path)
	gpg("--import", path)
	if list := gpg("--list-secret-keys", "--with-colons"); !strings.Contains(list, b) {
		t.Errorf("gpg has not got our key:\n%s", list)
	}
	gpg("--quick-gen-key", "Gnu <gnu@example.org>", "ed25519", "default", "1y")
	gpg("--output", path+".pub", "--export", "gnu@example.org")
	mustRun(t, "", "key", "import", path+".pub")
	if list, _ := mustRun(t, "", "key", "list"); !strings.Contains(list, "Gnu <gnu@example.org>") {
		t.Errorf("we have not got gpg's key:\n%s", list)
	}
}

package luks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"singularity/luks/xts"
)

// cryptsetup is the referee: it reads and writes the same containers. Encrypting
// and decrypting data needs no device-mapper when it re-encrypts a plain file.
type cryptsetup struct {
	t   *testing.T
	dir string
}

func newCryptsetup(t *testing.T) cryptsetup {
	t.Helper()
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := exec.Command("cryptsetup", "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "cryptsetup 2.") {
		t.Skipf("the referee is cryptsetup 2: %v %s", err, out)
	}
	return cryptsetup{t, t.TempDir()}
}

func (c cryptsetup) file(name string, b []byte) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c cryptsetup) try(args ...string) (string, error) {
	out, err := exec.Command("cryptsetup", append([]string{"--batch-mode"}, args...)...).CombinedOutput()
	return string(out), err
}

func (c cryptsetup) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("cryptsetup %q: %v: %s", args, err, out)
	}
	return out
}

// encrypt makes a container of payload with cryptsetup, at path.
func (c cryptsetup) encrypt(path, key string, payload []byte, args ...string) {
	c.t.Helper()
	c.file(filepath.Base(path), append(bytes.Clone(payload), make([]byte, 32<<20)...))
	c.run(append([]string{"reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "--key-file", key, path}, args...)...)
}

func (c cryptsetup) open(path, key string) (*Volume, error) {
	f, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { f.Close() })
	s, err := f.Stat()
	if err != nil {
		c.t.Fatal(err)
	}
	container, err := Open(f, s.Size())
	if err != nil {
		return nil, err
	}
	return container.Unlock(c.t.Context(), []byte(key), Limits{})
}

var fastKDF = map[string][]string{
	"argon2id": {"--pbkdf", "argon2id", "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "2"},
	"argon2i":  {"--pbkdf", "argon2i", "--pbkdf-memory", "64", "--pbkdf-force-iterations", "5", "--pbkdf-parallel", "1"},
	"pbkdf2":   {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
}

// TestReadsWhatCryptsetupEncrypts: data, of all sector and key sizes and key
// derivations.
func TestReadsWhatCryptsetupEncrypts(t *testing.T) {
	c := newCryptsetup(t)
	key := c.file("key", []byte("a pass phrase"))
	payload := pattern(3 << 20)
	kdfs := []string{"argon2id", "argon2i", "pbkdf2"}
	for i, sector := range []int{512, 1024, 2048, 4096} {
		for _, bits := range []int{256, 512} {
			kdf := kdfs[(i+bits/512)%3]
			t.Run(fmt.Sprintf("%d/%d/%s", sector, bits, kdf), func(t *testing.T) {
				path := filepath.Join(c.dir, "container")
				hash := map[bool]string{true: "sha256", false: "sha512"}[i%2 == 0]
				c.encrypt(path, key, payload, append(fastKDF[kdf], "--sector-size", fmt.Sprint(sector), "--cipher", "aes-xts-plain64",
					"--key-size", fmt.Sprint(bits), "--hash", hash)...)
				v, err := c.open(path, "a pass phrase")
				if err != nil {
					t.Fatal(err)
				}
				if v.sectorSize != sector {
					t.Errorf("sectors of %d bytes, want %d", v.sectorSize, sector)
				}
				got := make([]byte, len(payload))
				if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, payload) {
					t.Errorf("%v, or another payload", err)
				}
				if _, err := c.open(path, "a pass phrase\n"); !errors.Is(err, ErrKey) {
					t.Errorf("wrong key: %v", err)
				}
			})
		}
	}
}

// TestSlotsOfCryptsetup: several slots, a killed one, one to ignore, tokens,
// labels, other ciphers, and a damaged first header.
func TestSlotsOfCryptsetup(t *testing.T) {
	c := newCryptsetup(t)
	keys := map[string]string{}
	for _, k := range []string{"zero", "one", "two"} {
		keys[k] = c.file(k, []byte(k))
	}
	path := c.file("container", make([]byte, 20<<20))
	c.run(append([]string{"luksFormat", "--type", "luks2", "--key-file", keys["zero"], "--label", "an image", path}, fastKDF["argon2id"]...)...)
	c.run(append([]string{"luksAddKey", "--key-file", keys["zero"], path, keys["one"]}, fastKDF["argon2i"]...)...)
	c.run(append([]string{"luksAddKey", "--key-file", keys["zero"], path, keys["two"], "--key-slot", "7"}, fastKDF["pbkdf2"]...)...)
	if out, err := c.try("token", "add", "--key-description", "x", "--key-slot", "1", path); err != nil {
		t.Logf("no token: %v: %s", err, out)
	}
	c.run("config", "--priority", "prefer", "--key-slot", "7", path)
	want := volumeKey(t, c.run("luksDump", "--dump-volume-key", "--key-file", keys["one"], path))
	all := func(works ...string) {
		t.Helper()
		for k := range keys {
			v, err := c.open(path, k)
			if ok := err == nil; ok != strings.Contains(strings.Join(works, " "), k) {
				t.Errorf("key %s: %v", k, err)
			}
			if v == nil {
				continue
			}
			cipher, err := xts.New(make([]byte, xts.ScheduleSize), want)
			if err != nil {
				t.Fatal(err)
			}
			got, ref := make([]byte, 4096), make([]byte, 4096)
			v.decrypt(got, got, 0)
			cipher.Decrypt(ref, ref, v.sectorSize, 0, 1)
			if !bytes.Equal(got, ref) {
				t.Errorf("key %s: another volume key than cryptsetup's", k)
			}
		}
	}
	all("zero", "one", "two")
	c.run("luksKillSlot", "--key-file", keys["two"], path, "0")
	all("one", "two")
	c.run("config", "--priority", "ignore", "--key-slot", "1", path)
	all("two")
	c.run("config", "--priority", "normal", "--key-slot", "1", path)
	damage(t, path, 4096+100)
	all("one", "two")
	c.run("repair", path) // as cryptsetup sees the same copy as the sound one
	all("one", "two")
	damage(t, path, 4096+100)
	damage(t, path, 16384+4096+100)
	if _, err := c.open(path, "one"); !errors.Is(err, ErrHeader) {
		t.Errorf("both headers are damaged: %v", err)
	}
}

// volumeKey reads the key in hexadecimal from what luksDump prints.
func volumeKey(t *testing.T, dump string) []byte {
	t.Helper()
	_, s, _ := strings.Cut(dump, "MK dump:")
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil || len(b) != 64 {
		t.Fatalf("no volume key: %v: %s", err, dump)
	}
	return b
}

func damage(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// TestRefusesOtherContainers: what cryptsetup makes and no image is.
func TestRefusesOtherContainers(t *testing.T) {
	c := newCryptsetup(t)
	key := c.file("key", []byte("k"))
	for name, args := range map[string][]string{
		"LUKS1":       {"--type", "luks1", "--pbkdf-force-iterations", "1000"},
		"serpent":     append([]string{"--type", "luks2", "--cipher", "serpent-xts-plain64"}, fastKDF["pbkdf2"]...),
		"aes-cbc":     append([]string{"--type", "luks2", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"}, fastKDF["pbkdf2"]...),
		"null cipher": append([]string{"--type", "luks2", "--cipher", "null", "--key-size", "256"}, fastKDF["pbkdf2"]...),
	} {
		path := c.file("container", make([]byte, 20<<20))
		if out, err := c.try(append([]string{"luksFormat", "--key-file", key, path}, args...)...); err != nil {
			t.Logf("%s: cryptsetup does not make it here: %s", name, out)
			continue
		}
		if _, err := c.open(path, "k"); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An interrupted re-encryption.
	path := c.file("container", make([]byte, 40<<20))
	if out, err := c.try(append([]string{"reencrypt", "--encrypt", "--init-only", "--type", "luks2", "--reduce-device-size", "32M", "--key-file", key, path}, fastKDF["pbkdf2"]...)...); err != nil {
		t.Logf("cryptsetup does not begin to re-encrypt: %s", out)
	} else if _, err := c.open(path, "k"); !errors.Is(err, ErrHeader) {
		t.Errorf("SC-123, a re-encryption under way: %v", err)
	}
}

// TestCryptsetupReadsOurs: it shows the header, takes the key and no other,
// finds nothing to repair, and decrypts the payload.
func TestCryptsetupReadsOurs(t *testing.T) {
	c := newCryptsetup(t)
	const pass = "correct horse\x00 battery\n staple"
	key, wrong := c.file("key", []byte(pass)), c.file("wrong", []byte("wrong"))
	payload := pattern(2<<20 + 4096)
	for i, k := range []KDF{argon, argoni, cheap, {Type: "pbkdf2", Hash: "sha512", Iterations: 2000}} {
		for _, sector := range [][]int{{512, 4096}, {4096}, {512}, {2048}}[i] {
			t.Run(fmt.Sprintf("%s-%d/%d", k.Type, i, sector), func(t *testing.T) {
				path := filepath.Join(c.dir, "ours")
				f, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				w, err := Create(t.Context(), f, []byte(pass), Options{KDF: k, SectorSize: sector})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(w, bytes.NewReader(payload)); err != nil {
					t.Fatal(err)
				}
				if _, err := w.Close(); err != nil {
					t.Fatal(err)
				}
				dump := c.run("luksDump", path)
				for _, part := range []string{"aes-xts-plain64", k.Type, fmt.Sprintf("sector: %d [bytes]", sector), "offset: 16777216 [bytes]"} {
					if !strings.Contains(dump, part) {
						t.Errorf("luksDump does not show %q: %s", part, dump)
					}
				}
				c.run("open", "--test-passphrase", "--key-file", key, path)
				var exit *exec.ExitError
				if out, err := c.try("open", "--test-passphrase", "--key-file", wrong, path); !errors.As(err, &exit) || exit.ExitCode() != 2 {
					t.Errorf("a wrong key: %v: %s", err, out)
				}
				before, _ := os.ReadFile(path)
				c.run("repair", path)
				if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
					t.Error("cryptsetup repaired something")
				}
				header := filepath.Join(c.dir, "header")
				os.Remove(header)
				c.run("reencrypt", "--decrypt", "--header", header, "--force-offline-reencrypt", "--key-file", key, path)
				plain, err := os.ReadFile(path)
				if err != nil || len(plain) < len(payload) || !bytes.Equal(plain[:len(payload)], payload) {
					t.Errorf("cryptsetup decrypts another payload: %d bytes, %v", len(plain), err)
				}
			})
		}
	}
}

package gocryptfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// peer makes an encrypted directory with the program gocryptfs, filled by fill
// through a mount. It skips the test where that cannot be.
func peer(t *testing.T, fill func(plain string), flags ...string) (dir string, k *Keys) {
	t.Helper()
	program, err := exec.LookPath("gocryptfs")
	if err != nil {
		t.Skip("needs the program gocryptfs, to make what is read here")
	}
	unmount, err := exec.LookPath("fusermount3")
	if err != nil {
		unmount, err = exec.LookPath("fusermount")
	}
	if f, fuseErr := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || fuseErr != nil {
		t.Skipf("needs FUSE, to make what is read here: %v, %v", err, fuseErr)
	} else {
		f.Close()
	}
	root := t.TempDir()
	dir, plain, pass := filepath.Join(root, "cipher"), filepath.Join(root, "plain"), filepath.Join(root, "pass")
	for _, d := range []string{dir, plain} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, pass, []byte("sesame"))
	run := func(name string, args ...string) {
		t.Helper()
		// A file, since the server stays and would keep a pipe open.
		log, err := os.OpenFile(filepath.Join(root, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd := exec.Command(name, args...)
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, read(t, log.Name()))
		}
	}
	run(program, append(append([]string{"-init", "-q", "-passfile", pass, "-scryptn", "10"}, flags...), dir)...)
	run(program, "-q", "-nosyslog", "-passfile", pass, dir, plain)
	func() {
		defer run(unmount, "-u", plain)
		fill(plain)
	}()
	text := read(t, filepath.Join(dir, ConfigName))
	c, err := ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unlock(context.Background(), []byte("Sesame"), Limits{}); !errors.Is(err, ErrKey) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if k, err = c.Unlock(context.Background(), []byte("sesame"), Limits{}); err != nil {
		t.Fatal(err)
	}
	return dir, k
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(b)
	return b
}

// TestPeerContent reads what gocryptfs wrote, of every size near an edge.
func TestPeerContent(t *testing.T) {
	want := map[string][]byte{}
	for name, n := range map[string]int{"empty": 0, "one": 1, "less": 4095, "block": 4096, "more": 4097, "chunk": 33 * 4096, "big": 1<<20 + 77} {
		want[name] = random(n)
	}
	dir, k := peer(t, func(plain string) {
		for name, data := range want {
			write(t, filepath.Join(plain, name), data)
		}
	}, "-plaintextnames", "-deterministic-names")
	exported := make([]byte, KeySize)
	k.Export(exported)
	k, err := NewKeys(exported, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range want {
		f, err := k.File(bytes.NewReader(read(t, filepath.Join(dir, name))), int64(len(read(t, filepath.Join(dir, name)))))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(data))
		}
		for range 200 {
			off := rand.Int64N(int64(len(data)) + 1)
			p := make([]byte, rand.IntN(3*4096*chunkBlocks/2))
			n, err := f.ReadAt(p, off)
			if part := data[off:]; !bytes.Equal(p[:n], part[:n]) || n < min(len(p), len(part)) || (n < len(p)) != (err == io.EOF) {
				t.Fatalf("%s: %d bytes at %d: %d, %v", name, len(p), off, n, err)
			}
		}
	}
}

// TestPeerNames decrypts names and links, with IVs of directories and without.
func TestPeerNames(t *testing.T) {
	long := strings.Repeat("long", 60)
	for what, flags := range map[string][]string{"diriv": nil, "deterministic": {"-deterministic-names"}, "padded": {"-raw64=false"}, "short": {"-longnamemax", "80"}} {
		t.Run(what, func(t *testing.T) {
			want := map[string]string{"a": "target", "fifteen-letters": "/", "sixteen-letters-": strings.Repeat("x/", 300), "naïve": "..", long: "a"}
			dir, k := peer(t, func(plain string) {
				for name, target := range want {
					if err := os.Symlink(target, filepath.Join(plain, name)); err != nil {
						t.Fatal(err)
					}
				}
			}, flags...)
			var iv [IVSize]byte
			if b, err := os.ReadFile(filepath.Join(dir, IVName)); err == nil {
				copy(iv[:], b)
			} else if what != "deterministic" {
				t.Fatal(err)
			}
			got := map[string]string{}
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				if Own(e.Name()) {
					continue
				}
				enc := e.Name()
				if other := LongName(enc); other != "" {
					enc = string(read(t, filepath.Join(dir, other)))
				}
				name, err := k.Name(enc, iv)
				if err != nil {
					t.Fatal(err)
				}
				link, err := os.Readlink(filepath.Join(dir, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				if got[name], err = k.Target(link); err != nil {
					t.Fatal(err)
				}
				// Any other letter of a name changes all of it.
				for i := range len(enc) {
					bad := []byte(enc)
					bad[i] ^= 1
					if other, err := k.Name(string(bad), iv); err == nil && other == name {
						t.Errorf("%q is %q too", bad, name)
					}
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// sample makes an encrypted file without the peer.
func sample(t testing.TB, k *Keys, plain []byte) []byte {
	t.Helper()
	id := bytes.Repeat([]byte{7}, idSize)
	out := append([]byte{0, fileVersion}, id...)
	for n := 0; len(plain) > 0; n++ {
		iv := bytes.Repeat([]byte{byte(n)}, ivSize)
		part := plain[:min(len(plain), plainBlock)]
		plain = plain[len(part):]
		out = append(out, iv...)
		out = k.content.Seal(out, iv, part, blockData(uint64(n), id))
	}
	return out
}

func sampleKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := NewKeys(bytes.Repeat([]byte{9}, KeySize), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestDamage flips each bit of a file in turn, and moves its blocks: all of it is
// noticed, holes too.
func TestDamage(t *testing.T) {
	k := sampleKeys(t)
	plain := random(2*plainBlock + 100)
	good := sample(t, k, plain)
	open := func(b []byte) ([]byte, error) {
		f, err := k.File(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	}
	if got, err := open(good); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for i := 0; i < len(good)*8; i += 13 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := open(bad); !errors.Is(err, ErrContent) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
	swapped := bytes.Clone(good)
	copy(swapped[headerSize:], good[headerSize+cipherBlock:][:cipherBlock])
	copy(swapped[headerSize+cipherBlock:], good[headerSize:][:cipherBlock])
	hole := bytes.Clone(good)
	clear(hole[headerSize:][:cipherBlock])
	for name, bad := range map[string][]byte{"swapped": swapped, "hole": hole, "short": good[:len(good)-1], "header": good[:headerSize], "tag": good[:headerSize+overhead]} {
		if _, err := open(bad); !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := k.File(bytes.NewReader(good[:len(good)-500]), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 2*plainBlock); err != io.ErrUnexpectedEOF {
		t.Errorf("a file that became shorter: %v", err)
	}
}

const goodConfig = `{"Creator":"x","EncryptedKey":"2jUU16VJrdUR4vetn1pSZv3kYokpQMqzpLStzbM4SpkuLHD/QMW9rtGZO5Irp8RflJMvyGPH07uTJrgrTxPDKA==",
"ScryptObject":{"Salt":"ssfq4BcwYfuFt/ksQzKTn0qw20yHe/PTMge+oMn+ORo=","N":1024,"R":8,"P":1,"KeyLen":32},"Version":2,
"FeatureFlags":["HKDF","GCMIV128","DirIV","EMENames","LongNames","Raw64"]}`

// TestHostileConfig says what is refused, before anything is derived.
func TestHostileConfig(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unlock(context.Background(), []byte("pw"), Limits{}); err != nil {
		t.Error(err)
	}
	for _, change := range [][2]string{
		{`"Version":2`, `"Version":1`}, {`"N":1024`, `"N":1000`}, {`"N":1024`, `"N":512`}, {`"N":1024`, `"N":536870912`}, {`"N":1024`, `"N":67108864`},
		{`"N":1024`, `"N":-1024`}, {`"N":1024`, `"N":99999999999999999999`}, {`"R":8`, `"R":0`}, {`"R":8`, `"R":33`}, {`"P":1`, `"P":5`}, {`"KeyLen":32`, `"KeyLen":64`},
		{`"HKDF",`, ``}, {`"GCMIV128",`, ``}, {`"EMENames",`, ``}, {`"EMENames"`, `"EMENames","PlaintextNames"`}, {`"HKDF"`, `"HKDF","AESSIV"`},
		{`"HKDF"`, `"HKDF","XChaCha20Poly1305"`}, {`"HKDF"`, `"HKDF","FIDO2"`}, {`ssfq4B`, ``}, {`ssfq4BcwYfuFt/ksQzKTn0qw20yHe/PTMge+oMn+ORo=`, ``},
		{`2jUU16VJ`, `2jUU`}, {`{"Creator"`, `["Creator"`}, {goodConfig, ``}, {goodConfig, strings.Repeat(" ", MaxConfigSize) + goodConfig},
	} {
		if !strings.Contains(goodConfig, change[0]) {
			t.Fatalf("nothing to change: %q", change[0])
		}
		if _, err := ParseConfig([]byte(strings.Replace(goodConfig, change[0], change[1], 1))); !errors.Is(err, ErrConfig) {
			t.Errorf("%.60q: %v", change, err)
		}
	}
	var limit *LimitError
	if _, err := c.Unlock(context.Background(), nil, Limits{Memory: 1 << 20, Rule: "the test"}); !errors.As(err, &limit) || !strings.Contains(err.Error(), "needs 1 MiB of memory to derive its key, and the test leaves 1 MiB") {
		t.Errorf("a limit: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	big, err := ParseConfig([]byte(strings.Replace(goodConfig, "1024", "65536", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := big.Unlock(ctx, []byte("pw"), Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// watched tells what becomes of keys.
type watched struct {
	allocated [][]byte
	kept      map[any]bool
	wiped     map[any]bool
	fail      bool
}

func (w *watched) Alloc(size int) ([]byte, error) {
	b := make([]byte, size)
	w.allocated = append(w.allocated, b)
	return b, nil
}

func (w *watched) Keep(p any) error {
	if w.fail {
		return errors.New("no locked memory")
	}
	w.kept[p] = true
	return nil
}

func (w *watched) Wipe(p any) { w.wiped[p] = true }

// Whatever a cipher has expanded is kept where it lies, and wiped: at once if it
// was needed on the way only, else by Close. Without such memory there are no keys.
func TestKeyMemory(t *testing.T) {
	c, err := ParseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{kept: map[any]bool{}, wiped: map[any]bool{}}
	k, err := c.Unlock(t.Context(), []byte("pw"), Limits{Keys: w})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for p := range w.kept {
		if !w.wiped[p] {
			left++
		}
	}
	if len(w.kept) != 5 || left != 2 || !w.kept[k.content] || !w.kept[k.names] || len(w.allocated) != 1 {
		t.Errorf("%d kept, %d of them not wiped, %d allocated", len(w.kept), left, len(w.allocated))
	}
	k.Close()
	if !w.wiped[k.content] || !w.wiped[k.names] || len(bytes.Trim(w.allocated[0], "\x00")) > 0 {
		t.Error("a key is left")
	}
	if _, err := c.Unlock(t.Context(), []byte("pw"), Limits{Keys: &watched{fail: true}}); err == nil || !strings.Contains(err.Error(), "no locked memory") {
		t.Errorf("%v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(strings.Replace(goodConfig, "EMENames", "PlaintextNames", 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		if c.Cost() > maxMemory || len(c.encryptedKey) != 64 {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzFile(f *testing.F) {
	k := sampleKeys(f)
	f.Add(sample(f, k, random(5000)), int64(4090), 100)
	f.Add(sample(f, k, random(10)), int64(0), 10)
	f.Fuzz(func(t *testing.T, b []byte, off int64, n int) {
		r, err := k.File(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if r.Size() > int64(len(b)) {
			t.Fatalf("%d plain bytes in %d", r.Size(), len(b))
		}
		r.ReadAt(make([]byte, max(0, min(n, 1<<20))), off)
	})
}

func FuzzName(f *testing.F) {
	k := sampleKeys(f)
	f.Add("Zm9vYmFyYmF6cXV1eGZvbw", []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, name string, iv []byte) {
		var v [IVSize]byte
		copy(v[:], iv)
		if plain, err := k.Name(name, v); err == nil && (plain == "" || strings.ContainsAny(plain, "/\x00") || plain == "..") {
			t.Fatalf("%q", plain)
		}
		k.Target(name)
	})
}

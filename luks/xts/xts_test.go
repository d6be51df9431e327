package xts

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	referee "golang.org/x/crypto/xts"
)

// paths are the ways that this machine has.
func paths() (p []path) {
	for i := range fastest() + 1 {
		p = append(p, i)
	}
	return p
}

func (p path) String() string { return [...]string{"portable", "AES", "VAES"}[p] }

func newCipher(t testing.TB, p path, key []byte) *Cipher {
	t.Helper()
	c, err := newPath(p, make([]byte, ScheduleSize), key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pattern is data that repeats nowhere near a sector.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorsOfIEEE1619(t *testing.T) {
	text, err := os.ReadFile("testdata/ieee1619.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" {
			continue
		}
		rows++
		key, plain, cipher := unhex(t, f[0]), unhex(t, f[2]), unhex(t, f[3])
		sector, err := strconv.ParseUint(f[1], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths() {
			c := newCipher(t, p, key)
			got := make([]byte, len(plain))
			c.Encrypt(got, plain, len(plain), sector, 1)
			if !bytes.Equal(got, cipher) {
				t.Errorf("vector %d, %v: encrypted to %x, want %x", rows, p, got, cipher)
			}
			c.Decrypt(got, got, len(got), sector, 1)
			if !bytes.Equal(got, plain) {
				t.Errorf("vector %d, %v: decrypted to %x, want %x", rows, p, got, plain)
			}
		}
	}
	if rows < 6 {
		t.Errorf("%d vectors, want 6", rows)
	}
}

// check compares all paths with x/crypto.
func check(t *testing.T, key, data []byte, size int, first, step uint64) {
	t.Helper()
	ref, err := referee.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, len(data))
	for i := 0; i < len(data); i += size {
		ref.Encrypt(want[i:i+size], data[i:i+size], first+uint64(i/size)*step)
	}
	for _, p := range paths() {
		c := newCipher(t, p, key)
		got := make([]byte, len(data)+1)
		got[len(data)] = 0xa5
		c.Encrypt(got, data, size, first, step)
		if !bytes.Equal(got[:len(data)], want) {
			t.Fatalf("%v, %d bytes in sectors of %d from %d by %d: not what x/crypto makes", p, len(data), size, first, step)
		}
		c.Decrypt(got, got[:len(data)], size, first, step)
		if !bytes.Equal(got[:len(data)], data) {
			t.Fatalf("%v, %d bytes in sectors of %d: not decrypted in place", p, len(data), size)
		}
		clear(got[:len(data)])
		c.Decrypt(got, want, size, first, step)
		if !bytes.Equal(got[:len(data)], data) {
			t.Fatalf("%v, %d bytes in sectors of %d: not decrypted to other memory", p, len(data), size)
		}
		if got[len(data)] != 0xa5 {
			t.Fatalf("%v wrote past the end", p)
		}
	}
}

func TestPathsAgree(t *testing.T) {
	for _, p := range paths() {
		t.Logf("path %v", p)
	}
	for _, keySize := range []int{32, 64} {
		key := pattern(keySize, byte(keySize))
		for _, size := range []int{16, 32, 112, 128, 144, 240, 256, 272, 512, 1024, 1040, 2048, 4096} {
			for _, n := range []int{1, 2, 7, 8, 9, 31, 32, 33, 65} {
				check(t, key, pattern(n*size, byte(n)), size, 1<<40+uint64(n), uint64(max(1, size/512)))
			}
		}
		check(t, key, pattern(4*512, 1), 512, 1<<64-2, 1) // the number wraps
		check(t, key, nil, 512, 0, 1)
	}
}

func FuzzAgainstReferee(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), uint64(0), uint64(1), uint16(512), uint16(3), byte(0))
	f.Add([]byte(strings.Repeat("0123456789abcdef", 4)), uint64(1<<63), uint64(8), uint16(4096), uint16(2), byte(7))
	f.Fuzz(func(t *testing.T, key []byte, first, step uint64, size, n uint16, seed byte) {
		if len(key) != 32 && len(key) != 64 {
			if _, err := New(make([]byte, ScheduleSize), key); err == nil {
				t.Fatalf("a key of %d bytes is taken", len(key))
			}
			return
		}
		sector := max(16, int(size)/16*16)
		check(t, key, pattern(int(n%70)*sector, seed), sector, first, step)
	})
}

// openssl encrypts one sector with libcrypto, by way of Python's ctypes: the
// openssl program refuses XTS in "enc".
const openssl = `
import ctypes, sys
crypto = ctypes.CDLL("libcrypto.so.3")
for f in ("EVP_CIPHER_CTX_new", "EVP_aes_128_xts", "EVP_aes_256_xts"):
    getattr(crypto, f).restype = ctypes.c_void_p
key, tweak, data = (bytes.fromhex(a) for a in sys.argv[1:4])
ctx = ctypes.c_void_p(crypto.EVP_CIPHER_CTX_new())
kind = ctypes.c_void_p(crypto.EVP_aes_256_xts() if len(key) == 64 else crypto.EVP_aes_128_xts())
if crypto.EVP_EncryptInit_ex(ctx, kind, None, key, tweak) != 1: sys.exit("EVP_EncryptInit_ex")
out, n = ctypes.create_string_buffer(len(data)), ctypes.c_int(0)
if crypto.EVP_EncryptUpdate(ctx, out, ctypes.byref(n), data, len(data)) != 1: sys.exit("EVP_EncryptUpdate")
print(out.raw[:n.value].hex())
`

func TestOpenSSLAgrees(t *testing.T) {
	if out, err := exec.Command("python3", "-c", `import ctypes; ctypes.CDLL("libcrypto.so.3")`).CombinedOutput(); err != nil {
		t.Skipf("the referee is OpenSSL 3 called from python3: %v: %s", err, out)
	}
	for _, keySize := range []int{32, 64} {
		for _, size := range []int{512, 4096} {
			key, data := pattern(keySize, 9), pattern(size, byte(size>>9))
			tweak := "efcdab89674523010000000000000000"
			out, err := exec.Command("python3", "-c", openssl, hex.EncodeToString(key), tweak, hex.EncodeToString(data)).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := unhex(t, strings.TrimSpace(string(out)))
			for _, p := range paths() {
				got := make([]byte, size)
				newCipher(t, p, key).Encrypt(got, data, size, 0x0123456789abcdef, 1)
				if !bytes.Equal(got, want) {
					t.Errorf("%v, key of %d bytes, sector of %d: not what OpenSSL makes", p, keySize, size)
				}
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	buf := make([]byte, 1<<16)
	for _, p := range paths() {
		c := newCipher(t, p, pattern(64, 1))
		c.Encrypt(buf, buf, 512, 0, 1)
		if n := testing.AllocsPerRun(20, func() { c.Decrypt(buf, buf, 4096, 0, 8) }); n > 0 {
			t.Errorf("%v: %v allocations a call", p, n)
		}
	}
}

func TestWipe(t *testing.T) {
	schedule := make([]byte, ScheduleSize)
	c, err := New(schedule, pattern(64, 1))
	if err != nil {
		t.Fatal(err)
	}
	c.Wipe()
	if !bytes.Equal(schedule, make([]byte, ScheduleSize)) {
		t.Error("the expanded keys are still there")
	}
	defer func() {
		if recover() == nil {
			t.Error("a wiped cipher encrypts")
		}
	}()
	c.Encrypt(make([]byte, 16), make([]byte, 16), 16, 0, 1)
}

func TestWrongCalls(t *testing.T) {
	if _, err := New(make([]byte, ScheduleSize-1), make([]byte, 64)); err == nil {
		t.Error("a short schedule is taken")
	}
	c := newCipher(t, fastest(), pattern(64, 1))
	for name, call := range map[string]func(){
		"part of a sector":  func() { c.Encrypt(make([]byte, 100), make([]byte, 100), 512, 0, 1) },
		"part of a block":   func() { c.Encrypt(make([]byte, 100), make([]byte, 100), 100, 0, 1) },
		"no sector":         func() { c.Encrypt(make([]byte, 16), make([]byte, 16), 0, 0, 1) },
		"short destination": func() { c.Encrypt(make([]byte, 511), make([]byte, 512), 512, 0, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

func BenchmarkDecrypt(b *testing.B) {
	buf := make([]byte, 256<<10)
	for _, keySize := range []int{32, 64} {
		for _, p := range paths() {
			for _, size := range []int{512, 4096} {
				b.Run(fmt.Sprintf("%d/%v/%d", keySize*4, p, size), func(b *testing.B) {
					c := newCipher(b, p, pattern(keySize, 1))
					b.SetBytes(int64(len(buf)))
					for b.Loop() {
						c.Decrypt(buf, buf, size, 0, uint64(size/512))
					}
				})
			}
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	buf := make([]byte, 256<<10)
	c := newCipher(b, fastest(), pattern(64, 1))
	for _, size := range []int{512, 4096} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				c.Encrypt(buf, buf, size, 0, uint64(size/512))
			}
		})
	}
}

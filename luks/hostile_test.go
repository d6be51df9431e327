package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
)

// forge returns a container whose header has the JSON text that edit makes of
// the usual one, in both copies, with the right checksums.
func forge(t testing.TB, edit func(text string) string) memFile {
	t.Helper()
	m := seal(t, pattern(8192), "k", Options{})
	old := text(m, binarySize, newHeaderSize-binarySize)
	put(m, edit(old))
	return m
}

func put(m memFile, text string) {
	for _, off := range []int64{0, newHeaderSize} {
		copy(m[off:], encodeHeader(off, newHeaderSize, []byte(text), "x", make([]byte, saltSize)))
	}
}

// member replaces the member at path of the usual header; nil removes it.
func member(t testing.TB, text string, v any, path ...string) string {
	t.Helper()
	var top map[string]any
	if err := json.Unmarshal([]byte(text), &top); err != nil {
		t.Fatal(err)
	}
	o := top
	for _, name := range path[:len(path)-1] {
		next, ok := o[name].(map[string]any)
		if !ok {
			t.Fatalf("no %q in %q", name, path)
		}
		o = next
	}
	if o[path[len(path)-1]] = v; v == nil {
		delete(o, path[len(path)-1])
	}
	b, err := json.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type row struct {
	path  string
	value any
}

// hostile are members that no image has.
var hostile = map[string][]row{
	"SC-121 cipher": {
		{"segments 0 encryption", "cipher_null-ecb"}, {"segments 0 encryption", "cipher_null-xts-plain64"}, {"segments 0 encryption", "null"},
		{"segments 0 encryption", "aes-xts-plain"}, {"segments 0 encryption", "aes-cbc-essiv:sha256"}, {"segments 0 encryption", "AES-XTS-PLAIN64"},
		{"segments 0 encryption", nil}, {"segments 0 encryption", ""}, {"segments 0 type", "linear"}, {"segments 0 type", "hw-opal"},
		{"segments 0 integrity", map[string]any{"type": "hmac(sha256)"}}, {"segments 0 flags", []string{"backup-final"}}, {"segments 0 iv_tweak", "8"},
		{"segments 0 sector_size", 256}, {"segments 0 sector_size", 8192}, {"segments 0 sector_size", 1536}, {"segments 0 sector_size", "512"},
		{"keyslots 0 area encryption", "cipher_null-ecb"}, {"keyslots 0 area key_size", 0}, {"keyslots 0 key_size", 0}, {"keyslots 0 key_size", 16},
		{"keyslots 0 key_size", 48}, {"keyslots 0 key_size", 65}, {"keyslots 0 type", "reencrypt"}, {"keyslots 0 area type", "checksum"},
	},
	"SC-121 places": {
		{"segments 0 offset", "0"}, {"segments 0 offset", "32768"}, {"segments 0 offset", "16777215"}, {"segments 0 offset", "16777217"},
		{"segments 0 offset", "-4096"}, {"segments 0 offset", "9223372036854771712"}, {"segments 0 offset", "18446744073709547520"},
		{"segments 0 offset", "016777216"}, {"segments 0 offset", 16777216}, {"segments 0 size", "1099511627776"}, {"segments 0 size", "9223372036854775807"},
		{"segments 0 size", "100"}, {"keyslots 0 area offset", "0"}, {"keyslots 0 area offset", "16384"}, {"keyslots 0 area offset", "16777216"},
		{"keyslots 0 area offset", "9223372036854775807"}, {"keyslots 0 area offset", "32769"}, {"keyslots 0 area size", "253952"},
		{"keyslots 0 area size", "9223372036854775807"}, {"config json_size", "16384"}, {"config keyslots_size", "16748544"}, {"config keyslots_size", "1"},
		{"config keyslots_size", "9223372036854771712"}, {"config json_size", nil},
	},
	"SC-123 requirements": {
		{"config requirements", map[string]any{"mandatory": []string{"online-reencrypt"}}}, {"config requirements", map[string]any{"mandatory": []string{"online-reencrypt-v2"}}},
		{"config requirements", map[string]any{"mandatory": []string{"unheard-of"}}}, {"config requirements", []string{"offline-reencrypt"}},
		{"config requirements", map[string]any{"optional": []string{}}}, {"config requirements", map[string]any{"mandatory": "none"}},
	},
	"SC-124 costs": {
		{"keyslots 0 kdf", argonWith(1, 4<<20+1, 1)}, {"keyslots 0 kdf", argonWith(65, 1024, 1)}, {"keyslots 0 kdf", argonWith(0, 1024, 1)},
		{"keyslots 0 kdf", argonWith(1, 31, 1)}, {"keyslots 0 kdf", argonWith(1, 1024, 0)}, {"keyslots 0 kdf", argonWith(1, 1024, 5)},
		{"keyslots 0 kdf", argonWith(1, math.MaxUint32, 4)}, {"keyslots 0 kdf", argonWith(1, math.MinInt64, 4)},
		{"keyslots 0 kdf iterations", 999}, {"keyslots 0 kdf iterations", 1<<27 + 1}, {"keyslots 0 kdf iterations", uint64(math.MaxUint32 - 5)},
		{"keyslots 0 kdf iterations", uint64(math.MaxUint64)}, {"keyslots 0 kdf iterations", 1000.5}, {"keyslots 0 kdf hash", "sha1"},
		{"keyslots 0 kdf salt", "AAAA"}, {"keyslots 0 kdf salt", "?"}, {"keyslots 0 kdf salt", strings.Repeat("AAAA", 30)}, {"keyslots 0 kdf type", "scrypt"},
		{"keyslots 0 kdf", nil}, {"keyslots 0 af stripes", 1}, {"keyslots 0 af stripes", 3999}, {"keyslots 0 af stripes", 1 << 40},
		{"keyslots 0 af hash", "crc32"}, {"keyslots 0 af type", "none"}, {"keyslots 0 priority", 3}, {"keyslots 0 priority", -1},
	},
	"digests": {
		{"digests 0 iterations", 1}, {"digests 0 iterations", 1<<27 + 1}, {"digests 0 digest", "AAAA"}, {"digests 0 digest", strings.Repeat("AAAA", 20)},
		{"digests 0 hash", "sha512"}, {"digests 0 type", "none"}, {"digests 0 keyslots", []string{}}, {"digests 0 keyslots", []string{"1"}},
		{"digests 0 keyslots", []string{"0", "0"}}, {"digests 0 keyslots", []int{0}}, {"digests 0 segments", []string{}}, {"digests 0 segments", []string{"1"}},
		{"digests 0 salt", "AAAA"}, {"digests 0", nil}, {"digests x", map[string]any{}}, {"digests 1", map[string]any{}},
	},
	"shape": {
		{"keyslots", nil}, {"keyslots", []string{}}, {"keyslots", map[string]any{}}, {"keyslots 32", map[string]any{}}, {"keyslots 00", map[string]any{}},
		{"keyslots 1", map[string]any{}}, {"segments", map[string]any{}}, {"segments 1", map[string]any{}}, {"tokens", "none"}, {"config", nil}, {"more", 1},
		{"config flags", []int{1}}, {"keyslots 0 Area", map[string]any{}}, {"segments 0 Encryption", "aes-xts-plain64"}, {"keyslots 0 area", nil},
	},
}

func argonWith(time, memory, cpus int) map[string]any {
	return map[string]any{"type": "argon2id", "time": time, "memory": memory, "cpus": cpus, "salt": "AAAAAAAAAAAAAAAAAAAAAA=="}
}

// TestSC121SC123SC124HostileHeaders (SC-121, SC-123, SC-124): Open refuses, so that nobody is asked for a passphrase,
// at once and with little memory. The file is not written to: it cannot be, an
// io.ReaderAt is all that Open has.
func TestSC121SC123SC124HostileHeaders(t *testing.T) {
	for name, rows := range hostile {
		for _, r := range rows {
			m := forge(t, func(text string) string { return member(t, text, r.value, strings.Fields(r.path)...) })
			refused(t, name+": "+r.path, m)
		}
	}
}

// refused opens m and measures.
func refused(t *testing.T, name string, m []byte) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	if c != nil || !errors.Is(err, ErrHeader) && !errors.Is(err, ErrNotLUKS) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s: accepted, or another error: %v", name, err)
	}
	if took > 2*time.Second {
		t.Errorf("%s: refused after %v", name, took)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
		t.Errorf("%s: refused after allocating %d MiB", name, n>>20)
	}
}

func TestHostileText(t *testing.T) {
	long := strings.Repeat
	for name, edit := range map[string]func(string) string{
		"empty":       func(string) string { return "" },
		"no object":   func(string) string { return "[]" },
		"two objects": func(s string) string { return s + s },
		"twice": func(s string) string {
			return strings.Replace(s, `"type":"crypt"`, `"type":"linear","type":"crypt"`, 1)
		},
		"twice by escape": func(s string) string {
			return strings.Replace(s, `"type":"crypt"`, `"type":"crypt","t\u0079pe":"crypt"`, 1)
		},
		"after the text": func(s string) string { return s + "\x00{}" },
		"deep": func(s string) string {
			return strings.Replace(s, `"tokens":{}`, `"tokens":{"0":`+long("[", 9)+long("]", 9)+"}", 1)
		},
		"very deep":        func(string) string { return long("[", 12287) },
		"not ended":        func(s string) string { return s + long(" ", 12288-len(s)) },
		"cut":              func(s string) string { return s[:len(s)-1] },
		"comment":          func(s string) string { return s + "/* */" },
		"comma":            func(s string) string { return strings.Replace(s, `"tokens":{}`, `"tokens":{},`, 1) + "," },
		"single quotes":    func(s string) string { return strings.ReplaceAll(s, `"`, "'") },
		"number as a name": func(s string) string { return strings.Replace(s, `"tokens":{}`, `"tokens":{0:1}`, 1) },
		"slots that overlap": func(s string) string {
			var top map[string]any
			json.Unmarshal([]byte(s), &top)
			slots := top["keyslots"].(map[string]any)
			slots["1"] = slots["0"]
			b, _ := json.Marshal(top)
			return string(b)
		},
	} {
		refused(t, name, forge(t, edit))
	}
}

// TestManyValues fills the largest JSON area with the smallest values.
func TestManyValues(t *testing.T) {
	m := seal(t, pattern(4096), "k", Options{})
	m = append(m, make([]byte, 8<<20)...)
	for _, fill := range []string{"[],", "1,", `"",`, `{"a":{}},`, `"\u0041",`} {
		text := `{"tokens":[` + strings.Repeat(fill, (maxHeaderSize-binarySize-100)/len(fill)) + `1]}`
		for _, off := range []int64{0, maxHeaderSize} {
			copy(m[off:], encodeHeader(off, maxHeaderSize, []byte(text), "x", nil))
		}
		refused(t, "many of "+fill, m)
	}
}

// TestHostileFields: the binary part of the header, both copies.
func TestHostileFields(t *testing.T) {
	for name, edit := range map[string]func(b []byte){
		"LUKS1":             func(b []byte) { be.PutUint16(b[offVersion:], 1) },
		"version 3":         func(b []byte) { be.PutUint16(b[offVersion:], 3) },
		"magic":             func(b []byte) { copy(b, "LUKS\xba\xbf") },
		"size 0":            func(b []byte) { be.PutUint64(b[offSize:], 0) },
		"size 8192":         func(b []byte) { be.PutUint64(b[offSize:], 8192) },
		"size 24 KiB":       func(b []byte) { be.PutUint64(b[offSize:], 24<<10) },
		"size 8 MiB":        func(b []byte) { be.PutUint64(b[offSize:], 8<<20) },
		"size 2^63":         func(b []byte) { be.PutUint64(b[offSize:], 1<<63) },
		"place":             func(b []byte) { be.PutUint64(b[offOwnOff:], 4096) },
		"no algorithm":      func(b []byte) { clear(b[offAlgorithm : offAlgorithm+algorithmSize]) },
		"another algorithm": func(b []byte) { copy(b[offAlgorithm:], "crc32c") },
		"checksum":          func(b []byte) { b[offChecksum] ^= 1 },
		"reserved byte":     func(b []byte) { b[4000] = 1 },
	} {
		m := seal(t, pattern(4096), "k", Options{})
		edit(m[:newHeaderSize])
		edit(m[newHeaderSize : 2*newHeaderSize])
		refused(t, name, m)
	}
	whole := seal(t, pattern(4096), "k", Options{})
	for _, n := range []int{0, 1, 511, 4095, 4096, 16384, 20480, 32767, 32768, 300_000, newDataOff - 4096, newDataOff + 1} {
		refused(t, "cut", whole[:n])
	}
}

// TestSecondCopy: one damaged copy does no harm, and of two sound ones the
// newer counts.
func TestSecondCopy(t *testing.T) {
	payload := pattern(4096)
	whole := seal(t, payload, "k", Options{})
	for name, edit := range map[string]func(m memFile){
		"first wiped":     func(m memFile) { clear(m[:newHeaderSize]) },
		"first, one bit":  func(m memFile) { m[binarySize+20] ^= 4 },
		"first, its size": func(m memFile) { be.PutUint64(m[offSize:], 1<<20) },
		"second wiped":    func(m memFile) { clear(m[newHeaderSize : 2*newHeaderSize]) },
		"second, one bit": func(m memFile) { m[newHeaderSize+offSequence] ^= 4 },
		"first out of date": func(m memFile) {
			b := m[:newHeaderSize]
			copy(b, encodeHeader(0, newHeaderSize, []byte("{}"), "x", nil))
			resequence(m[newHeaderSize:2*newHeaderSize], 7)
		},
	} {
		m := bytes.Clone(whole)
		edit(m)
		before := bytes.Clone(m)
		got := make([]byte, len(payload))
		if _, err := unseal(t, m, "k").ReadAt(got, 0); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%s: %v, or another payload", name, err)
		}
		if !bytes.Equal(before, m) {
			t.Errorf("%s: the container was written to", name)
		}
	}
	m := bytes.Clone(whole)
	m[binarySize] ^= 1
	m[newHeaderSize+binarySize] ^= 1
	refused(t, "both damaged", m)
}

func resequence(b []byte, n uint64) {
	be.PutUint64(b[offSequence:], n)
	clear(b[offChecksum : offChecksum+checksumSize])
	sum := sha256.Sum256(b)
	copy(b[offChecksum:], sum[:])
}

// TestSC122HeaderChangesAfterOpen (SC-122): what was checked is what is used.
func TestSC122HeaderChangesAfterOpen(t *testing.T) {
	payload := pattern(8192)
	m := seal(t, payload, "k", Options{})
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	old := text(m, binarySize, newHeaderSize-binarySize)
	put(m, member(t, old, "cipher_null-ecb", "segments", "0", "encryption"))
	v, err := c.Unlock(t.Context(), []byte("k"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(payload))
	if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%v, or another payload than the one encrypted", err)
	}
	refused(t, "opened again", m)
}

// TestSC124MemoryOfSlots (SC-124): 4 GiB are legal and refused here, with the
// number that it needs, before any of it is allocated.
func TestSC124MemoryOfSlots(t *testing.T) {
	m := forge(t, func(text string) string { return member(t, text, argonWith(4, 4<<20, 4), "keyslots", "0", "kdf") })
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = c.Unlock(t.Context(), []byte("k"), Limits{Memory: 1 << 30, Rule: "the control group"})
	runtime.ReadMemStats(&after)
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Need != 4<<30 || limit.Have != 1<<30 {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{"key slot 0", "4096 MiB", "1024 MiB", "the control group"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

func FuzzOpen(f *testing.F) {
	m := seal(f, pattern(4096), "k", Options{})
	f.Add([]byte(m[:2*newHeaderSize]))
	f.Add([]byte(m[:newHeaderSize]))
	damaged := bytes.Clone(m[:2*newHeaderSize])
	damaged[binarySize] ^= 1
	f.Add([]byte(damaged))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Open(bytes.NewReader(b), int64(len(b)))
		check(t, c, err, int64(len(b)))
	})
}

// FuzzMetadata fuzzes the text behind a right checksum.
func FuzzMetadata(f *testing.F) {
	m := seal(f, pattern(4096), "k", Options{})
	old := text(m, binarySize, newHeaderSize-binarySize)
	f.Add(old)
	for _, rows := range hostile {
		for _, r := range rows {
			f.Add(member(f, old, r.value, strings.Fields(r.path)...))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > newHeaderSize-binarySize {
			return
		}
		put(m, text)
		c, err := Open(bytes.NewReader(m), int64(len(m)))
		check(t, c, err, int64(len(m)))
	})
}

// check holds for whatever was opened.
func check(t *testing.T, c *Container, err error, size int64) {
	t.Helper()
	if err != nil {
		if c != nil {
			t.Error("a container and an error")
		}
		return
	}
	if c.DataOff < 2*minHeaderSize || c.DataSize < 0 || c.DataOff+c.DataSize > size || c.DataSize%int64(c.SectorSize) != 0 {
		t.Errorf("segment of %d at %d in %d bytes", c.DataSize, c.DataOff, size)
	}
	if len(c.Slots) == 0 || len(c.Slots) > maxSlots || c.keySize != 32 && c.keySize != 64 {
		t.Errorf("%d key slots, key of %d bytes", len(c.Slots), c.keySize)
	}
	for _, s := range c.Slots {
		if s.KDF.check() != nil || s.areaOff+s.areaSize > c.DataOff || s.areaSize < int64(s.keySize)*stripes {
			t.Errorf("slot %+v", s)
		}
	}
}

func FuzzUnwrapKey(f *testing.F) {
	k := newRSA(f, 2048)
	message, err := WrapKey(&k.PublicKey, pattern(64))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add(block("MESSAGE", []byte{4, 0}))
	f.Add(block("PUBLIC KEY", []byte{0x30, 0}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := UnwrapKey(k, text); err != nil && err != ErrMessage || err == nil && len(s) == 0 {
			t.Errorf("%x, %v", s, err)
		}
		ParsePublicKey(text)
		ParsePrivateKey(text)
	})
}

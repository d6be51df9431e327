package luks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"singularity/luks/xts"
)

// memFile is a file in memory. What nobody wrote is zero.
type memFile []byte

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(*m) {
		*m = append(*m, make([]byte, n-len(*m))...)
	}
	return copy((*m)[off:], p), nil
}

var (
	cheap  = RandomKDF()
	argon  = KDF{Type: "argon2id", Time: 1, Memory: 64, CPUs: 2}
	argoni = KDF{Type: "argon2i", Time: 2, Memory: 32, CPUs: 4}
)

func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// seal returns a container with payload.
func seal(t testing.TB, payload []byte, key string, o Options) memFile {
	t.Helper()
	if o.KDF.Type == "" {
		o.KDF = cheap
	}
	var m memFile
	w, err := Create(t.Context(), &m, []byte(key), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(payload); err != nil {
		t.Fatal(err)
	}
	size, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if want := Size(int64(len(payload)), o.SectorSize); size != want || int64(len(m)) != want {
		t.Fatalf("a container of %d bytes in a file of %d, want %d", size, len(m), want)
	}
	return m
}

func unseal(t testing.TB, m []byte, key string) *Volume {
	t.Helper()
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Unlock(t.Context(), []byte(key), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestKnownAnswers: values that cryptsetup's format fixes.
func TestKnownAnswers(t *testing.T) {
	split := make([]byte, 64*stripes)
	for i := range split {
		split[i] = byte(7*i + 3)
	}
	key := make([]byte, 64)
	merge(key, split, sha256.New())
	const want = "c5768dea55cc0cada0adaa193329476a886eeebc1911528eae334a6aed3bc8b2a315b8cd6e4c15b5922af4848fd79844ff3f12b44383e2ee377f8779b7c306ca"
	if got := hex.EncodeToString(key); got != want {
		t.Errorf("merged to %s, want %s", got, want)
	}
	for i := range key {
		key[i] = byte(i)
	}
	for sector, want := range map[int]string{
		512:  "d4afc59b8d5c6daf2e8f1cbdeea64f3b97199ece43d599648c619bda63bd02e4",
		4096: "eb682120f78cbd01aaf1c50d30ccc945697d9c3e97063ed4f068948590fd9922",
	} {
		cipher, err := xts.New(make([]byte, xts.ScheduleSize), key)
		if err != nil {
			t.Fatal(err)
		}
		var m memFile
		w := &Writer{w: &m, cipher: cipher, sectorSize: sector}
		w.write(make([]byte, 8192), 4096)
		sum := sha256.Sum256(m[newDataOff+4096:])
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("sectors of %d: %s, want %s", sector, got, want)
		}
	}
}

func TestSplitMerge(t *testing.T) {
	for _, h := range []string{"sha256", "sha512"} {
		for _, n := range []int{32, 64} {
			key := pattern(n)
			split, err := splitKey(key, hashNamed(h)())
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			merge(got, split, hashNamed(h)())
			if !bytes.Equal(got, key) {
				t.Errorf("%s, %d bytes: merged to another key", h, n)
			}
			split[n*17]++
			merge(got, split, hashNamed(h)())
			if bytes.Equal(got, key) {
				t.Errorf("%s, %d bytes: a stripe is not needed", h, n)
			}
		}
	}
}

func TestSealUnseal(t *testing.T) {
	payload := pattern(3*writeSize + 12345)
	for _, sector := range []int{0, 512, 1024, 2048, 4096} {
		for _, k := range []KDF{cheap, argon, argoni, {Type: "pbkdf2", Hash: "sha512", Iterations: 1001}} {
			m := seal(t, payload, "a passphrase", Options{SectorSize: sector, KDF: k})
			if bytes.Contains(m, payload[:64]) || bytes.Contains(m, payload[len(payload)-64:]) {
				t.Fatal("the payload is there in clear")
			}
			v := unseal(t, m, "a passphrase")
			got := make([]byte, v.Size())
			if _, err := v.ReadAt(got, 0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if !bytes.Equal(got[:len(payload)], payload) {
				t.Errorf("sectors of %d, %+v: another payload", sector, k)
			}
			if len(bytes.Trim(got[len(payload):], "\x00")) > 0 {
				t.Error("the last sector is not filled with zeros")
			}
		}
	}
}

func TestWrongKey(t *testing.T) {
	m := seal(t, pattern(5000), "right", Options{})
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "wrong", "right\n", "righ", strings.Repeat("x", 1<<20)} {
		if v, err := c.Unlock(t.Context(), []byte(key), Limits{}); !errors.Is(err, ErrKey) || v != nil {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
	}
}

// TestReadAt compares reads of all kinds with the payload, many at a time.
func TestReadAt(t *testing.T) {
	payload := pattern(700_000)
	for _, sector := range []int{512, 4096} {
		m := seal(t, payload, "k", Options{SectorSize: sector})
		plain := append(bytes.Clone(payload), make([]byte, int(Size(700_000, sector))-newDataOff-len(payload))...)
		v := unseal(t, m, "k")
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 300 {
					seed := pattern(1000*g + i + 1)
					x := int(uint32(seed[0])<<16 | uint32(g*7+i)<<8)
					off, n := x*31%len(plain), []int{0, 1, 15, 511, 512, 513, 4095, 4096, 4097, 70_001, 300_000}[i%11]
					if i%3 == 0 {
						off = off / 4096 * 4096
					}
					p := make([]byte, n)
					got, err := v.ReadAt(p, int64(off))
					want := plain[off:min(off+n, len(plain))]
					if got != len(want) || !bytes.Equal(p[:got], want) || (err == io.EOF) != (len(want) < n) {
						t.Errorf("%d bytes at %d: %d bytes, %v", n, off, got, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if _, err := v.ReadAt(make([]byte, 1), v.Size()); err != io.EOF {
			t.Errorf("reading at the end: %v", err)
		}
		if _, err := v.ReadAt(make([]byte, 1), -1); err == nil {
			t.Error("reading before the beginning")
		}
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	m := seal(t, pattern(1<<20), "k", Options{SectorSize: 512})
	v := unseal(t, m, "k")
	p := make([]byte, 100_000)
	read := func() {
		if _, err := v.ReadAt(p, 12345); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if n := testing.AllocsPerRun(100, read); n >= 1 {
		t.Errorf("%v allocations for a read", n)
	}
}

// failing reads until it shall not.
type failing struct {
	io.ReaderAt
	fail bool
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.fail {
		return 0, errors.New("input/output error")
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReadError(t *testing.T) {
	m := seal(t, pattern(10_000), "k", Options{})
	f := &failing{ReaderAt: bytes.NewReader(m)}
	c, err := Open(f, int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Unlock(t.Context(), []byte("k"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	f.fail = true
	for _, off := range []int64{0, 100} {
		if n, err := v.ReadAt(make([]byte, 5000), off); err == nil || n > 0 {
			t.Errorf("at %d: %d bytes, %v", off, n, err)
		}
	}
	if _, err := c.Unlock(t.Context(), []byte("k"), Limits{}); err == nil || errors.Is(err, ErrKey) {
		t.Errorf("a key slot that cannot be read: %v", err)
	}
}

// TestFirstSectorLast writes as the squashfs writer does: its superblock last.
func TestFirstSectorLast(t *testing.T) {
	for _, size := range []int{200, 5000, 3 * writeSize} {
		payload := pattern(size)
		var m memFile
		w, err := Create(t.Context(), &m, []byte("k"), Options{KDF: cheap})
		if err != nil {
			t.Fatal(err)
		}
		for off := 96; off < size; off += 1000 {
			if _, err := w.WriteAt(payload[off:min(off+1000, size)], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(bytes.NewReader(m), int64(len(m))); err == nil {
			t.Error("a container that is not finished opens")
		}
		if _, err := w.WriteAt(payload[:96], 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(payload[size-1:], int64(size)-1); size > 5000 && err == nil {
			t.Error("what is written already can be written again")
		}
		if _, err := w.WriteAt(payload[:1], int64(size)+4096); err == nil {
			t.Error("a hole of a sector")
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if _, err := unseal(t, m, "k").ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, payload) {
			t.Errorf("a payload of %d bytes comes back as another", size)
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("a closed writer writes")
		}
	}
}

// TestRewind writes as the squashfs writer does when a file turns out
// to be a duplicate: what was written of it is written over.
func TestRewind(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, mark := range []int{1, 96, 300, 512, 4096, 5000, writeSize - 1, writeSize, writeSize + 5000, 2*writeSize + 7} {
			for _, given := range []int{1, 200, 4096, 10000, writeSize, 3*writeSize + 11} {
				payload := pattern(mark + given/2 + 100)
				var m memFile
				w, err := Create(t.Context(), &m, []byte("k"), Options{KDF: cheap, SectorSize: sector})
				if err != nil {
					t.Fatal(err)
				}
				write := func(p []byte, off int) {
					t.Helper()
					if _, err := w.WriteAt(p, int64(off)); err != nil {
						t.Fatalf("mark %d, %d bytes given up: %v", mark, given, err)
					}
				}
				write(payload[:mark], 0)
				w.Mark()
				for range 2 { // a second duplicate
					write(make([]byte, given), mark)
					w.Rewind()
				}
				write(payload[mark:], mark)
				size, err := w.Close()
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(payload))
				if _, err := unseal(t, m[:size], "k").ReadAt(got, 0); err != nil || !bytes.Equal(got, payload) {
					t.Errorf("sectors of %d, mark %d, %d bytes given up: comes back as another, %v", sector, mark, given, err)
				}
			}
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"odd sector":    {SectorSize: 1000},
		"large sector":  {SectorSize: 8192},
		"no time":       {KDF: KDF{Type: "argon2id", Memory: 64, CPUs: 1}},
		"many lanes":    {KDF: KDF{Type: "argon2id", Time: 1, Memory: 64, CPUs: 5}},
		"few rounds":    {KDF: KDF{Type: "pbkdf2", Hash: "sha256", Iterations: 999}},
		"other hash":    {KDF: KDF{Type: "pbkdf2", Hash: "md5", Iterations: 1000}},
		"other kind":    {KDF: KDF{Type: "scrypt"}},
		"long UUID":     {UUID: strings.Repeat("0", 40), KDF: cheap},
		"too much":      {KDF: argon, Limits: Limits{Memory: 1 << 15}},
		"little memory": {Limits: Limits{Memory: 1 << 20, Rule: "the control group"}},
	} {
		if _, err := Create(t.Context(), &memFile{}, []byte("k"), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Create(t.Context(), &memFile{}, nil, Options{KDF: cheap}); err == nil {
		t.Error("an empty passphrase is accepted")
	}
}

func TestDefaultKDFFits(t *testing.T) {
	for _, row := range []struct {
		memory       uint64
		want, passes int // MiB; 0 for a refusal
	}{{0, 256, 4}, {4 << 30, 256, 4}, {512 << 20, 256, 4}, {511 << 20, 128, 8}, {200 << 20, 64, 16}, {64 << 20, 32, 32}, {63 << 20, 0, 0}} {
		k, err := DefaultKDF(Limits{Memory: row.memory, Rule: "RLIMIT_AS"})
		if row.want == 0 {
			var limit *LimitError
			if !errors.As(err, &limit) || !strings.Contains(err.Error(), "RLIMIT_AS") {
				t.Errorf("%d: %v", row.memory, err)
			}
			continue
		}
		if err != nil || k.Memory != row.want<<10 || k.Time != row.passes || k.check() != nil {
			t.Errorf("%d bytes: %+v, %v", row.memory, k, err)
		}
	}
}

// TestKeysAreWiped: the memory for keys holds the volume key, as it is and
// expanded, while a volume is open, and nothing after Close.
func TestKeysAreWiped(t *testing.T) {
	m := seal(t, pattern(5000), "k", Options{KDF: argon})
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	var memory []byte
	l := Limits{Keys: func(n int) ([]byte, error) { memory = make([]byte, n); return memory, nil }}
	if _, err := c.Unlock(t.Context(), []byte("wrong"), l); !errors.Is(err, ErrKey) || !zero(memory) {
		t.Errorf("after a wrong key: %v, memory wiped: %v", err, zero(memory))
	}
	v, err := c.Unlock(t.Context(), []byte("k"), l)
	if err != nil {
		t.Fatal(err)
	}
	if !zero(memory[xts.ScheduleSize:2*xts.ScheduleSize]) || !zero(memory[2*xts.ScheduleSize+maxKeySize:]) {
		t.Error("the key of the slot is still there")
	}
	if zero(memory[:xts.ScheduleSize]) || zero(memory[2*xts.ScheduleSize:]) {
		t.Error("the keys are elsewhere")
	}
	v.Close()
	if !zero(memory) {
		t.Error("the keys are still there")
	}
	l.Keys = func(int) ([]byte, error) { return nil, errors.New("cannot lock memory") }
	if _, err := c.Unlock(t.Context(), []byte("k"), l); err == nil {
		t.Error("unlocked without memory for keys")
	}
	l.Keys = func(int) ([]byte, error) { return make([]byte, 1), nil }
	if _, err := c.Unlock(t.Context(), []byte("k"), l); err == nil {
		t.Error("unlocked with too little memory for keys")
	}
}

func TestExportImport(t *testing.T) {
	payload := pattern(50_000)
	m := seal(t, payload, "k", Options{SectorSize: 512})
	b := make([]byte, ExportSize)
	v := unseal(t, m, "k")
	v.Export(b)
	v.Close()
	v, err := Import(bytes.NewReader(m), b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(payload))
	if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%v, or another payload", err)
	}
	if _, err := Import(bytes.NewReader(m), b[1:], Limits{}); err == nil {
		t.Error("a short one is imported")
	}
	for i := range 32 {
		c := bytes.Clone(b)
		c[i] ^= 0x80
		if v, err := Import(bytes.NewReader(m), c, Limits{}); err == nil {
			v.ReadAt(got, 0) // as harmless as reading any file
		}
	}
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func TestCancel(t *testing.T) {
	m := seal(t, pattern(1), "k", Options{KDF: KDF{Type: "pbkdf2", Hash: "sha512", Iterations: 1000}})
	c, err := Open(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	c.Slots[0].KDF.Iterations = 50_000_000 // minutes
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := c.Unlock(ctx, []byte("k"), Limits{}); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

func ExampleOpen() {
	var file memFile
	w, err := Create(context.Background(), &file, []byte("secret"), Options{KDF: RandomKDF()})
	if err != nil {
		fmt.Println(err)
		return
	}
	io.WriteString(w, "plain text")
	size, _ := w.Close()

	c, err := Open(bytes.NewReader(file), size)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Unlock(context.Background(), []byte("guess"), Limits{})
	fmt.Println(err)
	v, err := c.Unlock(context.Background(), []byte("secret"), Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	p := make([]byte, 10)
	v.ReadAt(p, 0)
	fmt.Printf("%s\n", p)
	// Output:
	// no key slot opens with this key
	// plain text
}

func BenchmarkReadAt(b *testing.B) {
	for _, sector := range []int{512, 4096} {
		m := seal(b, pattern(8<<20), "k", Options{SectorSize: sector})
		v := unseal(b, m, "k")
		for _, off := range []int64{0, 1000} {
			b.Run(fmt.Sprintf("%d/at-%d", sector, off), func(b *testing.B) {
				p := make([]byte, 60_000)
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				for i := int64(0); b.Loop(); i++ {
					v.ReadAt(p, off+i%100*65536)
				}
			})
		}
	}
}

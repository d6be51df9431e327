package zstd

import (
	"bytes"
	"errors"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// corpus returns buffers of many shapes, each at most 128 KiB.
func corpus(tb testing.TB) [][]byte {
	r := rand.New(rand.NewSource(1))
	noise := make([]byte, 100_000)
	r.Read(noise)
	few := make([]byte, 128<<10)
	for i := range few {
		few[i] = "aab\nc"[r.Intn(5)]
	}
	skew := make([]byte, 128<<10)
	for i := range skew {
		skew[i] = byte(r.ExpFloat64() * 12)
	}
	far := append(append([]byte{}, noise[:60_000]...), noise[:60_000]...)
	c := [][]byte{nil, {1}, []byte("hello hello hello"), make([]byte, 128<<10), noise, few, skew, far}
	for period := 1; period < 40; period++ { // overlapping matches
		c = append(c, bytes.Repeat(noise[:period], 100+r.Intn(50)))
	}
	for size := 2; size < 300; size += 7 {
		c = append(c, few[:size], skew[:size])
	}
	if exe, err := os.Executable(); err == nil {
		if b, err := os.ReadFile(exe); err == nil {
			for i := 0; i+128<<10 <= len(b) && i < 4<<20; i += 512 << 10 {
				c = append(c, b[i:i+128<<10])
			}
		}
	}
	return c
}

func encoder(tb testing.TB, o ...zstd.EOption) *zstd.Encoder {
	tb.Helper()
	w, err := zstd.NewWriter(nil, append(o, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

var levels = []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression}

// check decodes z to buffers with and without room and wants p.
func check(t *testing.T, d *Decoder, what string, z, p []byte) {
	t.Helper()
	for _, room := range []int{0, 1, 300} {
		dst := make([]byte, len(p)+room+8)
		for i := range dst[len(p)+room:] {
			dst[len(p)+room:][i] = 0x55
		}
		n, err := d.Decode(dst[:len(p)+room:len(p)+room], z)
		if err != nil || !bytes.Equal(dst[:n], p) {
			t.Fatalf("%s room %d: %d bytes, %v, want %d", what, room, n, err, len(p))
		}
		if !bytes.Equal(dst[len(p)+room:], []byte("UUUUUUUU")) {
			t.Fatalf("%s room %d: wrote behind dst", what, room)
		}
	}
	if len(p) > 0 {
		if _, err := d.Decode(make([]byte, len(p)-1), z); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("%s without room: %v", what, err)
		}
	}
}

func TestDecode(t *testing.T) {
	var d Decoder
	for _, level := range levels {
		for _, o := range [][]zstd.EOption{
			{zstd.WithEncoderCRC(false)},
			{zstd.WithEncoderCRC(true)},
			{zstd.WithSingleSegment(true)},
			{zstd.WithNoEntropyCompression(true)},
			{zstd.WithAllLitEntropyCompression(true), zstd.WithWindowSize(1 << 10)},
		} {
			w := encoder(t, append(o, zstd.WithEncoderLevel(level))...)
			for i, p := range corpus(t) {
				z := w.EncodeAll(p, nil)
				if len(z) == 0 {
					continue
				}
				check(t, &d, level.String()+" buffer "+strconv.Itoa(i), z, p)
			}
		}
	}
}

// TestStream decodes frames that do not tell their size, with several blocks.
func TestStream(t *testing.T) {
	var d Decoder
	var all []byte
	for _, p := range corpus(t) {
		all = append(all, p...)
	}
	for _, level := range levels {
		var z bytes.Buffer
		w, err := zstd.NewWriter(&z, zstd.WithEncoderLevel(level), zstd.WithWindowSize(1<<16), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(all); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, &d, level.String(), z.Bytes(), all)
	}
}

func TestCommand(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("needs zstd")
	}
	var d Decoder
	var all []byte
	for _, p := range corpus(t) {
		all = append(all, p...)
	}
	run := func(p []byte, args ...string) {
		c := exec.Command("zstd", append(args, "-c", "-q")...)
		c.Stdin = bytes.NewReader(p)
		z, err := c.Output()
		if err != nil {
			t.Fatalf("zstd %v: %v", args, err)
		}
		check(t, &d, strings.Join(args, " "), z, p)
	}
	for _, level := range []string{"-1", "-3", "-15", "-19", "--fast=7"} {
		run(all, level, "--no-check")
		run(all[:300_000], level, "--check")
		run(all, level, "--stream-size="+strconv.Itoa(len(all)))
	}
	run(all[:400_000], "--ultra", "-22")
	run(all, "-12", "--long=21", "-B0")
	run([]byte("x"), "-3")
	run(nil, "-3")
}

func TestFrames(t *testing.T) {
	var d Decoder
	w := encoder(t)
	z := w.EncodeAll([]byte("first "), nil)
	z = append(z, 0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3)
	z = w.EncodeAll([]byte("second"), z)
	check(t, &d, "frames", z, []byte("first second"))
	withID := w.EncodeAll(bytes.Repeat([]byte("data"), 100), nil)
	withID[4] |= 1 // a dictionary's number follows the window or the flags
	if _, err := d.Decode(make([]byte, 1000), withID); !errors.Is(err, ErrDictionary) && !errors.Is(err, ErrCorrupt) {
		t.Errorf("dictionary: %v", err)
	}
	sum := encoder(t, zstd.WithEncoderCRC(true)).EncodeAll([]byte("some data with a sum"), nil)
	sum[len(sum)-1] ^= 1
	if _, err := d.Decode(make([]byte, 100), sum); !errors.Is(err, ErrChecksum) {
		t.Errorf("wrong checksum: %v", err)
	}
}

// small returns short compressed buffers that together use every feature.
func small(tb testing.TB) [][]byte {
	c := corpus(tb)
	var all [][]byte
	for _, level := range levels {
		w := encoder(tb, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(level == zstd.SpeedFastest))
		text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog; pack my box with five dozen jugs. ", 3))
		all = append(all, w.EncodeAll(text, nil), w.EncodeAll(c[5][:900], nil), w.EncodeAll(c[6][:700], nil))
		all = append(all, w.EncodeAll(append(c[4][:100:100], c[4][:100]...), nil), w.EncodeAll(make([]byte, 500), nil))
		if exe := c[len(c)-1]; len(exe) > 3000 {
			all = append(all, w.EncodeAll(exe[:3000], nil))
		}
	}
	return all
}

// TestHostile cuts inputs at every length and changes every byte of them.
func TestHostile(t *testing.T) {
	var d Decoder
	r := oracle(t)
	dst := make([]byte, 4096)
	for i, z := range small(t) {
		for n := range z {
			if _, err := d.Decode(dst, z[:n]); err == nil {
				t.Fatalf("buffer %d cut at %d of %d is accepted", i, n, len(z))
			}
		}
		bad := bytes.Clone(z)
		for n := range bad {
			for _, x := range []byte{1, 0x80, 0xff, 0x10} {
				bad[n] ^= x
				compare(t, &d, r, dst, bad)
				d.Decode(dst[:100], bad)
				bad[n] ^= x
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	z := encoder(t).EncodeAll(corpus(t)[5], nil)
	dst := make([]byte, 128<<10)
	d := new(Decoder)
	if n := testing.AllocsPerRun(10, func() { d.Decode(dst, z) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode compares with another decoder.
func FuzzDecode(f *testing.F) {
	for _, z := range small(f) {
		f.Add(z)
	}
	var d Decoder
	r := oracle(f)
	dst := make([]byte, 64<<10)
	f.Fuzz(func(t *testing.T, z []byte) { compare(t, &d, r, dst, z) })
}

// oracle returns another decoder.
func oracle(tb testing.TB) *zstd.Decoder {
	tb.Helper()
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<32), zstd.WithDecoderMaxMemory(1<<20))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// compare decodes z with both decoders. They may differ where one has no room,
// and about a buffer without a frame, which only ours refuses. Where they differ
// otherwise, the zstd command decides: the peer is stricter than it about the
// end of packed Huffman weights.
func compare(t *testing.T, d *Decoder, r *zstd.Decoder, dst, z []byte) {
	t.Helper()
	n, err := d.Decode(dst, z)
	want, wantErr := r.DecodeAll(z, nil)
	full := errors.Is(err, ErrTooLarge) && len(want) > len(dst) ||
		errors.Is(wantErr, zstd.ErrWindowSizeExceeded) || errors.Is(wantErr, zstd.ErrDecoderSizeExceeded)
	if (err == nil) != (wantErr == nil) && !full && len(z) != 0 {
		if _, err := exec.LookPath("zstd"); err != nil {
			t.Skip("needs zstd")
		}
		c := exec.Command("zstd", "-dcq", "--memory=2048MB")
		c.Stdin = bytes.NewReader(z)
		out, failed := c.Output()
		if (failed == nil) == (err == nil) && (err != nil || bytes.Equal(out, dst[:n])) {
			return
		}
		t.Logf("zstd: %d bytes, %v", len(out), failed)
		t.Fatalf("%x: %d bytes, %v, want %d, %v", z, n, err, len(want), wantErr)
	}
	if err == nil && wantErr == nil && !bytes.Equal(dst[:n], want) {
		t.Fatalf("%x: %d bytes differ from %d wanted", z, n, len(want))
	}
}

package priv

import (
	"bytes"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func verdicts() []*Verdict {
	tree := func() *Tree {
		return &Tree{Off: 8192, Size: 8192, Salt: bytes.Repeat([]byte{7}, 32), Root: bytes.Repeat([]byte{9}, 32)}
	}
	return []*Verdict{
		{Text: "no"},
		{OK: true, Listed: true, Text: "trusted somebody", FS: SquashfsFS, Off: 32768, Size: 4096},
		{OK: true, FS: SquashfsFS, Off: 32768, Size: 40960, Tree: tree()},
		{OK: true, FS: CryptFS, Off: 32768, Size: 1 << 25, Crypt: &Crypt{Off: 1 << 24, Size: 8192, Sector: 4096, Key: 64}},
	}
}

func TestVerdict(t *testing.T) {
	for _, v := range verdicts() {
		got, err := decodeVerdict(v.Encode())
		if err != nil || got.OK != v.OK || got.Listed != v.Listed || got.Text != v.Text || got.FS != v.FS || got.Off != v.Off || got.Size != v.Size || !reflect.DeepEqual(got.Tree, v.Tree) || !reflect.DeepEqual(got.Crypt, v.Crypt) {
			t.Errorf("%+v: %+v, %v", v, got, err)
		}
	}
	long := &Verdict{Text: "a\nb\x1b[2J\u00e9" + string(bytes.Repeat([]byte("x"), 2000))}
	got, err := decodeVerdict(long.Encode())
	if err != nil || len(got.Text) != MaxVerdictText || got.Text[:8] != "a?b?[2J?" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSC168_Verdicts: what is less, more or other than one verdict is none.
func TestSC168_Verdicts(t *testing.T) {
	good := verdicts()[2].Encode()
	change := func(f func(v *Verdict)) []byte {
		v := verdicts()[2]
		f(v)
		return v.Encode()
	}
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"zeros":          make([]byte, VerdictSize),
		"short":          good[:VerdictSize-1],
		"long":           append(bytes.Clone(good), 0),
		"two":            append(bytes.Clone(good), good...),
		"a tail":         append(bytes.Clone(good[:VerdictSize-1]), 1),
		"no reason":      change(func(v *Verdict) { v.OK, v.Tree = false, nil }),
		"a refused tree": change(func(v *Verdict) { v.OK, v.Text = false, "no" }),
		"a tree of none": change(func(v *Verdict) { v.Size = 0 }),
		"half a block":   change(func(v *Verdict) { v.Size += 512 }),
		"no kind":        change(func(v *Verdict) { v.FS = CryptFS + 1 }),
		"odd offset":     change(func(v *Verdict) { v.Off++ }),
		"huge":           change(func(v *Verdict) { v.Size = 1 << 60 }),
		"huge offset":    change(func(v *Verdict) { v.Tree.Off = 1 << 63 }),
		"short root":     change(func(v *Verdict) { v.Tree.Root = v.Tree.Root[1:] }),
		"long salt":      change(func(v *Verdict) { v.Tree.Salt = make([]byte, 257) }),
		"small tree":     change(func(v *Verdict) { v.Tree.Size = 512 }),
		"control":        bytes.Replace((&Verdict{Text: "abc"}).Encode(), []byte("b"), []byte{27}, 1),
	} {
		if v, err := decodeVerdict(b); err == nil {
			t.Errorf("%s is %+v", name, v)
		}
	}
	for name, change := range map[string]func(v *Verdict){
		"refused":             func(v *Verdict) { v.OK, v.Text = false, "no" },
		"of a squashfs":       func(v *Verdict) { v.FS = SquashfsFS },
		"behind the image":    func(v *Verdict) { v.Crypt.Off = v.Size - 4096 },
		"larger":              func(v *Verdict) { v.Crypt.Size = v.Size },
		"huge":                func(v *Verdict) { v.Crypt.Off, v.Crypt.Size = 1<<63, 1<<63 },
		"empty":               func(v *Verdict) { v.Crypt.Size = 0 },
		"half a sector":       func(v *Verdict) { v.Crypt.Size -= 512 },
		"no sectors":          func(v *Verdict) { v.Crypt.Sector = 0 },
		"odd sectors":         func(v *Verdict) { v.Crypt.Sector = 768 },
		"large sectors":       func(v *Verdict) { v.Crypt.Sector = 8192 },
		"no key":              func(v *Verdict) { v.Crypt.Key = 0 },
		"longer than its key": func(v *Verdict) { v.Crypt.Key = 65 },
		"odd offset":          func(v *Verdict) { v.Crypt.Off++ },
	} {
		v := verdicts()[3]
		change(v)
		if got, err := decodeVerdict(v.Encode()); err == nil {
			t.Errorf("cipher text %s is %+v", name, got.Crypt)
		}
	}
}

func FuzzVerdict(f *testing.F) {
	for _, v := range verdicts() {
		f.Add(v.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeVerdict(b)
		if err != nil {
			return
		}
		if !bytes.Equal(v.Encode(), b) {
			t.Errorf("%x reads as %+v, which is written otherwise", b, v)
		}
		if v.Tree != nil && (!v.OK || v.Size%4096 != 0 || len(v.Tree.Root) != 32) {
			t.Errorf("%+v", v)
		}
	})
}

// TestMapperRequests: the layout of struct dm_ioctl and of a table's line.
func TestMapperRequests(t *testing.T) {
	d := &mapped{name: "singularity-1-ab", kind: "verity", params: "1 7:0 7:1", sectors: 80}
	b := d.request(unix.DM_READONLY_FLAG)
	want := map[int]string{0: "\x04\x00\x00\x00", 12: "\x00\x10\x00\x00\x38\x01\x00\x00\x01\x00\x00\x00", 28: "\x01\x00\x00\x00", 48: "singularity-1-ab\x00",
		312: "\x00\x00\x00\x00\x00\x00\x00\x00\x50\x00\x00\x00\x00\x00\x00\x00", 336: "verity\x00", 352: "1 7:0 7:1\x00"}
	for off, text := range want {
		if got := string(b[off : off+len(text)]); got != text {
			t.Errorf("at %d: %q, not %q", off, got, text)
		}
	}
}

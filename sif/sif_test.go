package sif

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// memory is a Storage in memory. It counts the calls of Sync.
type memory struct {
	b     []byte
	syncs int
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m.b).ReadAt(p, off) }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		if end > 64<<20 {
			return 0, errors.New("test image too large")
		}
		m.Truncate(end)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Truncate(size int64) error {
	if size > 64<<20 {
		return errors.New("test image too large")
	}
	b := make([]byte, size)
	copy(b, m.b)
	m.b = b
	return nil
}

func (m *memory) Sync() error { m.syncs++; return nil }

var (
	exampleID     = ID{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x46, 0x97, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	exampleEntity = [20]byte{0x12, 0x04, 0x5c, 0x8c, 0x0b, 0x10, 0x04, 0xd0, 0x58, 0xde, 0x4b, 0xed, 0xa2, 0x0c, 0x27, 0xee, 0x7f, 0xf7, 0xba, 0x84}
)

// exampleInputs are the objects of the worked example of doc/format/sif.md.
func exampleInputs() []Input {
	return []Input{
		{Type: DataDefFile, Group: DefaultGroup, Data: strings.NewReader("bootstrap: scratch\n")},
		{Type: DataJSON, Group: DefaultGroup, Name: "inspect-metadata.json", Data: strings.NewReader(`{"example":true}`)},
		{Type: DataPartition, Group: DefaultGroup, Data: bytes.NewReader(make([]byte, 4096)),
			Extra: Partition{FS: FSSquashfs, Type: PartPrimary, Arch: "amd64"}.Extra()},
	}
}

// example makes the worked example. The signatures are zeros of the right size.
func example(t testing.TB) *memory {
	t.Helper()
	m := &memory{}
	o := CreateOptions{ID: exampleID, Time: time.Unix(1700000000, 0), LaunchScript: LaunchScript}
	if _, err := Create(m, o, exampleInputs()...); err != nil {
		t.Fatal(err)
	}
	e, err := Edit(m, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	e.Time = time.Unix(1700000100, 0)
	addSignature(t, e, 1320, Signature{HashSHA256, exampleEntity})
	addSignature(t, e, 1202, Signature{Hash: HashSHA256})
	return m
}

func addSignature(t testing.TB, e *Editor, size int, s Signature) {
	t.Helper()
	_, err := e.Add(Input{Type: DataSignature, Link: DefaultGroup, LinkIsGroup: true, Extra: s.Extra(), Data: bytes.NewReader(make([]byte, size))})
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestExampleBytes compares the worked example with a dump of the image that
// the reference implementation makes of the same objects.
func TestExampleBytes(t *testing.T) {
	m := example(t)
	for _, line := range []struct {
		off  int
		want string
	}{
		{0x00, "23212f7573722f62696e2f656e762072756e2d73696e67756c61726974790a00"},
		{0x20, "5349465f4d41474943003031003032000f1e2d3c4b5a46978877665544332211"},
		{0x40, "00f153650000000064f1536500000000"},
		{0x50, "2b000000000000003000000000000000"},
		{0x60, "0010000000000000b06d000000000000"},
		{0x70, "b07d0000000000002a1c000000000000"},
		{0x1000, "014000000101000000010000f000000000"},
		{0x1011, "b07d00000000000013000000000000001300000000000000"},
		{0x1492, "044000000103000000010000f000000000"},
		{0x14a3, "008000000000000000100000000000002d12000000000000"},
		{0x155b, "0100000002000000303200"},
		{0x16db, "054000000104000000000000f0010000f0"},
		{0x16ec, "009000000000000028050000000000002805000000000000"},
		{0x17a4, "0100000012045c8c0b1004d058de4beda20c27ee7ff7ba84"},
		{0x1924, "054000000105000000000000f0010000f0"},
		{0x1924 + 17, "2895000000000000b204000000000000b204000000000000"},
		{0x1924 + 201, "010000000000000000000000000000000000000000000000"},
	} {
		got := hex.EncodeToString(m.b[line.off : line.off+len(line.want)/2])
		if got != line.want {
			t.Errorf("at %#x: got %s, want %s", line.off, got, line.want)
		}
	}
	if len(m.b) != 39386 {
		t.Errorf("image has %d bytes, want 39386", len(m.b))
	}
	for i, b := range m.b[headerSize:tableOff] {
		if b != 0 {
			t.Fatalf("byte %d after the header is not zero", i)
		}
	}
}

// TestExampleDigests checks what signatures cover against known answers.
func TestExampleDigests(t *testing.T) {
	f := open(t, example(t).b)
	sum := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	if b := f.HeaderDigestBytes(); len(b) != 61 || sum(b) != "93026b461fe0ee39cf8cc89d2dc57fe156075fdc4967ad5c66975b98ea3d66b5" {
		t.Errorf("header: %d bytes, digest %s", len(b), sum(b))
	}
	want := []string{
		"fe60baf0e7c59ee97235d7b01bc790007e73e3b08ba80a4627879b81b885ae32",
		"9672d29826d7112fa3536969de4e7621668ff1ec68d8b49cd9cc8181c5842214",
		"2da80fca202d07699f60ba08d60e965c1b42cf65dba6f3b4dc7389305279c861",
	}
	for i, want := range want {
		b, err := f.DescriptorDigestBytes(f.Objects()[i], uint32(i))
		if err != nil || len(b) != 557 || sum(b) != want {
			t.Errorf("descriptor %d: %d bytes, digest %s, %v", i+1, len(b), sum(b), err)
		}
	}
	for i, want := range []string{
		"3c550fd6c1cf927d1b90797fde705a047654793b63887924f6bc1bc5069e9881",
		"bba2d36669004a3ef16764b0dfe370dfc0c22263976dfd3d896370b3fa39be0d",
	} {
		b, err := f.ReadAll(f.Objects()[i])
		if err != nil || sum(b) != want {
			t.Errorf("object %d: digest %s, %v", i+1, sum(b), err)
		}
	}
}

func TestOpenExample(t *testing.T) {
	f := open(t, example(t).b)
	h := f.Header()
	if h.LaunchScript != LaunchScript || h.Arch != "amd64" || h.ID.String() != "0f1e2d3c-4b5a-4697-8877-665544332211" ||
		h.FreeSlots != 43 || h.Created != 1700000000 || h.Modified != 1700000100 || h.Deterministic() {
		t.Errorf("header %+v", h)
	}
	p, err := f.Primary()
	if err != nil || p.ID != 3 {
		t.Errorf("primary partition: object %d, %v", p.ID, err)
	}
	part, _ := p.Partition()
	if want := (Partition{FSSquashfs, PartPrimary, "amd64"}); part != want {
		t.Errorf("partition %+v, want %+v", part, want)
	}
	o, ok := f.Object(4)
	s, isSig := o.Signature()
	if !ok || !isSig || s.Entity != exampleEntity || o.Group != 0 || !o.LinkIsGroup || o.Link != 1 {
		t.Errorf("object 4: %+v", o)
	}
	if o, ok := f.Named(DataJSON, "inspect-metadata.json"); !ok || o.ID != 2 {
		t.Errorf("named object: %d, %v", o.ID, ok)
	}
	if b, err := io.ReadAll(f.Reader(p)); err != nil || len(b) != 4096 {
		t.Errorf("partition has %d bytes, %v", len(b), err)
	}
	if _, err := f.ReadAll(p); err == nil {
		t.Error("ReadAll read a partition")
	}
	if len(f.Warnings()) != 0 {
		t.Errorf("warnings %q", f.Warnings())
	}
}

func TestCreateEmptyAndDeterministic(t *testing.T) {
	m := &memory{}
	f, err := Create(m, CreateOptions{Deterministic: true, Slots: 3, ID: exampleID, Time: time.Unix(5, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if !f.Header().Deterministic() || len(m.b) != tableOff+3*slotSize || len(f.Objects()) != 0 {
		t.Errorf("header %+v, %d bytes", f.Header(), len(m.b))
	}
	if got := hex.EncodeToString(m.b[64:72]); got != "00096e88f1ffffff" {
		t.Errorf("time %s", got)
	}
	e, err := Edit(m, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	o, err := e.Add(Input{Type: DataGeneric, Data: strings.NewReader("x"), Time: time.Unix(7, 0)})
	if err != nil || o.Created != noTime || o.Modified != noTime || !e.File().Header().Deterministic() {
		t.Errorf("object %+v, %v", o, err)
	}
	if _, err := f.Primary(); err == nil {
		t.Error("an empty image has a primary partition")
	}
}

func TestTableFull(t *testing.T) {
	m := &memory{}
	in := Input{Type: DataGeneric, Data: strings.NewReader("x")}
	if _, err := Create(m, CreateOptions{Slots: 1}, in); err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(m.b)
	e, err := Edit(m, int64(len(m.b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Add(in); err == nil || !strings.Contains(err.Error(), "insufficient descriptor capacity to add data object(s) to image") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(m.b, before) {
		t.Error("the refused addition changed the image")
	}
}

// TestWriteInPlace proves that a writer may come back to its first bytes and
// that the size it returns decides.
func TestWriteInPlace(t *testing.T) {
	m := &memory{}
	write := func(w *io.OffsetWriter) (int64, error) {
		if _, err := w.WriteAt([]byte("body and too much"), 4); err != nil {
			return 0, err
		}
		_, err := w.WriteAt([]byte("head"), 0)
		return 8, err
	}
	f, err := Create(m, CreateOptions{}, Input{Type: DataPartition, Extra: Partition{FSRaw, PartData, "arm64"}.Extra(), Write: write},
		Input{Type: DataPartition, Extra: Partition{FSRaw, PartData, "arm64"}.Extra(), Write: func(*io.OffsetWriter) (int64, error) { return 100, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(m.b[32768 : 32768+8]); got != "headbody" {
		t.Errorf("got %q", got)
	}
	if o := f.Objects()[1]; o.Off != 36864 || o.Size != 100 || len(m.b) != 36964 {
		t.Errorf("second object at %d, %d bytes, image of %d", o.Off, o.Size, len(m.b))
	}
}

func TestCreateFailsWithoutHeader(t *testing.T) {
	m := &memory{}
	broken := Input{Type: DataGeneric, Data: io.MultiReader(strings.NewReader("abc"), failingReader{})}
	if _, err := Create(m, CreateOptions{}, broken); err == nil {
		t.Fatal("no error")
	}
	if _, err := Open(m, int64(len(m.b))); !errors.Is(err, ErrNotSIF) {
		t.Errorf("what is left opens with %v, want ErrNotSIF", err)
	}
	m = example(t)
	before := bytes.Clone(m.b)
	e, _ := Edit(m, int64(len(m.b)))
	broken.Data = io.MultiReader(strings.NewReader("abc"), failingReader{})
	if _, err := e.Add(broken); err == nil || !bytes.Equal(m.b, before) {
		t.Errorf("a failed addition: %v, image unchanged: %v", err, bytes.Equal(m.b, before))
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestDelete(t *testing.T) {
	m := example(t)
	e, _ := Edit(m, int64(len(m.b)))
	if err := e.Delete(9, DeleteOptions{}); err == nil || err.Error() != "cannot delete object 9: the image has no object 9" {
		t.Errorf("got %v", err)
	}
	// Without options the data stays.
	if err := e.Delete(1, DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if h := e.File().Header(); h.FreeSlots != 44 || h.DataSize != 7210 || !bytes.Contains(m.b, []byte("bootstrap")) {
		t.Errorf("header %+v", h)
	}
	// The slot and the id are used again, the hole is not.
	o, err := e.Add(Input{Type: DataGeneric, Data: strings.NewReader("new")})
	if err != nil || o.ID != 1 || o.Off != 39386 {
		t.Errorf("object %d at %d, %v", o.ID, o.Off, err)
	}
	if err := e.Delete(2, DeleteOptions{Zero: true}); err != nil || bytes.Contains(m.b, []byte("example")) {
		t.Errorf("zeroed object: %v", err)
	}
	if err := e.Delete(3, DeleteOptions{}); err != nil || e.File().Header().Arch != UnknownArch {
		t.Errorf("primary partition deleted: %v, %+v", err, e.File().Header())
	}
	for _, id := range []uint32{1, 5} {
		if err := e.Delete(id, DeleteOptions{Compact: true}); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.b) != 38184 || e.File().Header().DataSize != 38184-32176 {
		t.Errorf("compacted to %d bytes, data size %d", len(m.b), e.File().Header().DataSize)
	}
	if err := e.Delete(4, DeleteOptions{Compact: true}); err != nil || len(m.b) != 32176 {
		t.Errorf("compacted to %d bytes, %v", len(m.b), err)
	}
	open(t, m.b)
}

// TestPaddingIsZero proves that the data of a deleted object do not show up
// between two others.
func TestPaddingIsZero(t *testing.T) {
	m := &memory{}
	_, err := Create(m, CreateOptions{}, Input{Type: DataGeneric, Data: strings.NewReader("a")},
		Input{Type: DataGeneric, Data: strings.NewReader(strings.Repeat("s", 5000))})
	if err != nil {
		t.Fatal(err)
	}
	e, _ := Edit(m, int64(len(m.b)))
	if err := e.Delete(2, DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := e.Add(Input{Type: DataGeneric, Align: 64, Data: strings.NewReader("b")})
	if err != nil || o.Off != 32192 || !bytes.Equal(m.b[32177:32192], make([]byte, 15)) {
		t.Errorf("object at %d, padding %q, %v", o.Off, m.b[32177:o.Off], err)
	}
}

func TestSetPrimary(t *testing.T) {
	m := example(t)
	e, _ := Edit(m, int64(len(m.b)))
	second := Input{Type: DataPartition, Group: 1, Extra: Partition{FSSquashfs, PartPrimary, "arm64"}.Extra(), Data: strings.NewReader("second")}
	if _, err := e.Add(second); err == nil || !strings.Contains(err.Error(), "image already contains a primary partition") {
		t.Errorf("second primary partition: %v", err)
	}
	second.Extra = Partition{FSSquashfs, PartSystem, "arm64"}.Extra()
	o, err := e.Add(second)
	if err != nil {
		t.Fatal(err)
	}
	e.Time = time.Unix(1800000000, 0)
	if err := e.SetPrimary(o.ID); err != nil {
		t.Fatal(err)
	}
	f := e.File()
	p, err := f.Primary()
	if err != nil || p.ID != o.ID || f.Header().Arch != "arm64" || p.Modified != 1800000000 {
		t.Errorf("primary %d, arch %s, modified %d, %v", p.ID, f.Header().Arch, p.Modified, err)
	}
	if old, _ := f.Objects()[2].Partition(); old.Type != PartSystem {
		t.Errorf("old primary is %s", old.Type)
	}
	before := bytes.Clone(m.b)
	if err := e.SetPrimary(o.ID); err != nil || !bytes.Equal(before, m.b) {
		t.Errorf("setting the primary again: %v", err)
	}
	for _, id := range []uint32{1, 99} {
		if err := e.SetPrimary(id); err == nil {
			t.Errorf("object %d became primary", id)
		}
	}
}

func TestInputRefused(t *testing.T) {
	data := func() io.Reader { return strings.NewReader("x") }
	part := func(p Partition) Input { return Input{Type: DataPartition, Extra: p.Extra(), Data: data()} }
	for want, in := range map[string]Input{
		"needs either data":       {Type: DataGeneric},
		"needs a type":            {Data: data()},
		"object name has 129":     {Type: DataGeneric, Name: strings.Repeat("n", 129), Data: data()},
		"has a NUL byte":          {Type: DataGeneric, Name: "a\x00b", Data: data()},
		"group 268435456":         {Type: DataGeneric, Group: maxGroup + 1, Data: data()},
		"link 268435456":          {Type: DataGeneric, Link: maxGroup + 1, Data: data()},
		"needs a group number":    {Type: DataGeneric, LinkIsGroup: true, Data: data()},
		"alignment -1":            {Type: DataGeneric, Align: -1, Data: data()},
		"known architecture":      part(Partition{FSSquashfs, PartData, "vax"}),
		"unknown file system":     part(Partition{9, PartData, "amd64"}),
		"unknown partition":       part(Partition{FSSquashfs, 9, "amd64"}),
		"unknown signature hash":  {Type: DataSignature, Data: data()},
		"unknown SBOM format":     {Type: DataSBOM, Data: data()},
		"64 hex digits":           {Type: DataOCIBlob, Extra: Digest("sha256:12").Extra(), Data: data()},
		"impossible size -1":      {Type: DataGeneric, Write: func(*io.OffsetWriter) (int64, error) { return -1, nil }},
		"cannot create SIF image": {},
	} {
		if _, err := Create(&memory{}, CreateOptions{}, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for want, o := range map[string]CreateOptions{
		"launch line has 32": {LaunchScript: LaunchScript + "x"},
		"65537 descriptors":  {Slots: 65537},
		"-1 descriptors":     {Slots: -1},
	} {
		if _, err := Create(&memory{}, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestSyncOrder counts: data and table are each on disk before what follows.
func TestSyncOrder(t *testing.T) {
	m := &memory{}
	if _, err := Create(m, CreateOptions{}, exampleInputs()...); err != nil || m.syncs != 2 {
		t.Errorf("%d syncs, want 2, %v", m.syncs, err)
	}
}

func TestCreateFile(t *testing.T) {
	w, err := os.Create(filepath.Join(t.TempDir(), "a.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := Create(w, CreateOptions{}, exampleInputs()...); err != nil {
		t.Fatal(err)
	}
	fi, _ := w.Stat()
	f, err := Open(w, fi.Size())
	if err != nil || len(f.Objects()) != 3 {
		t.Errorf("%d objects, %v", len(f.Objects()), err)
	}
}

// TestSC067_ImageIDs: ids are random, or come from the content.
func TestSC067_ImageIDs(t *testing.T) {
	seen := make(map[ID]bool)
	var bits [16]byte
	for range 20000 {
		id, err := randomID()
		if err != nil || seen[id] || id[6]>>4 != 4 || id[8]>>6 != 2 {
			t.Fatalf("id %s, seen %v, %v", id, seen[id], err)
		}
		seen[id] = true
		for i := range id {
			bits[i] |= id[i] ^ exampleID[i]
		}
	}
	for i, b := range bits {
		if b|[16]byte{6: 0xf0, 8: 0xc0}[i] != 0xff {
			t.Errorf("byte %d of the ids does not change everywhere: %#x", i, b)
		}
	}
	content := func(f *File) (ID, error) {
		p, err := f.Primary()
		if err != nil {
			return ID{}, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f.Reader(p))
		return ContentID([32]byte(h.Sum(nil))), err
	}
	var images [2]memory
	for i := range images {
		if _, err := Create(&images[i], CreateOptions{Time: time.Unix(1, 0), IDFrom: content}, exampleInputs()...); err != nil {
			t.Fatal(err)
		}
	}
	id := open(t, images[0].b).Header().ID
	if !bytes.Equal(images[0].b, images[1].b) || id[6]>>4 != 8 {
		t.Errorf("images differ, or id %s", id)
	}
}

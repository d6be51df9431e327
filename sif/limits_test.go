package sif

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// patch writes n as size bytes at off of a copy of b.
func patch(b []byte, off, size int, n uint64) []byte {
	b = bytes.Clone(b)
	var le [8]byte
	binary.LittleEndian.PutUint64(le[:], n)
	copy(b[off:off+size], le[:])
	return b
}

func slotAt(i int) int { return tableOff + i*slotSize }

func neg(n int64) uint64 { return uint64(-n) }

// TestSC069_DescriptorAbuse gives images whose numbers lie. Each is refused with
// the reason, at once and without a large allocation.
func TestSC069_DescriptorAbuse(t *testing.T) {
	b := example(t).b
	size := uint64(len(b))
	cases := map[string]struct {
		image []byte
		want  string
	}{
		"version":              {patch(b, 43, 1, '2'), "incompatible SIF version"},
		"version without end":  {patch(b, 44, 1, '0'), "incompatible SIF version"},
		"negative total":       {patch(b, 88, 8, neg(1)), "claims -1 descriptors"},
		"2^31 total":           {patch(b, 88, 8, 1<<31), "claims 2147483648 descriptors"},
		"2^40 total":           {patch(b, 88, 8, 1<<40), "descriptors, want at most 65536"},
		"total of 65537":       {patch(b, 88, 8, 65537), "descriptors, want at most 65536"},
		"negative free":        {patch(b, 80, 8, neg(1)), "-1 free of 48"},
		"free over total":      {patch(b, 80, 8, 49), "49 free of 48"},
		"table in header":      {patch(b, 96, 8, 127), "descriptor table at offset 127"},
		"table behind end":     {patch(b, 96, 8, size+1), "descriptor table at offset"},
		"table at 2^63-1":      {patch(b, 96, 8, math.MaxInt64), "descriptor table at offset"},
		"table negative":       {patch(b, 96, 8, neg(4096)), "descriptor table at offset -4096"},
		"table cut":            {patch(b, 96, 8, size-28079), "descriptor table ends"},
		"table too small":      {patch(b, 104, 8, 28079), "too small for 48"},
		"total over size":      {patch(patch(b, 88, 8, 65536), 104, 8, math.MaxInt64), "descriptor table ends"},
		"used 2":               {patch(b, slotAt(1)+4, 1, 2), "used flag 2"},
		"used 255 unused slot": {patch(b, slotAt(40)+4, 1, 255), "used flag 255"},
		"id 0":                 {patch(b, slotAt(1)+5, 4, 0), "id 0"},
		"id twice":             {patch(b, slotAt(1)+5, 4, 1), "id 1 is used twice"},
		"group mark":           {patch(b, slotAt(1)+9, 4, 1), "group field 0x1"},
		"group mark partly":    {patch(b, slotAt(1)+9, 4, 0xe0000001), "group field 0xe0000001"},
		"offset in header":     {patch(b, slotAt(1)+17, 8, 0), "before the end of the descriptor table"},
		"offset in table":      {patch(b, slotAt(1)+17, 8, 32175), "before the end of the descriptor table"},
		"offset negative":      {patch(b, slotAt(1)+17, 8, neg(1)), "before the end of the descriptor table"},
		"offset behind end":    {patch(b, slotAt(1)+17, 8, size+1), "does not fit"},
		"size negative":        {patch(b, slotAt(1)+25, 8, neg(1)), "has size -1"},
		"size behind end":      {patch(b, slotAt(4)+25, 8, 1203), "does not fit"},
		"offset+size overflow": {patch(b, slotAt(4)+25, 8, math.MaxInt64), "does not fit"},
		"overlap":              {patch(b, slotAt(1)+17, 8, 32194), "objects 1 (32176-32195) and 2 (32194-32210) overlap"},
		"same bytes":           {patch(patch(b, slotAt(1)+17, 8, 32176), slotAt(1)+25, 8, 19), "overlap"},
		"inside another":       {patch(b, slotAt(1)+17, 8, 33000), "overlap"},
		"link cycle":           {patch(patch(b, slotAt(0)+13, 4, 2), slotAt(1)+13, 4, 1), "links of object 1 lead back"},
		"digest missing":       {patch(b, slotAt(1), 4, uint64(DataOCIBlob)), "has digest"},
	}
	for name, c := range cases {
		start := time.Now()
		_, err := Open(bytes.NewReader(c.image), int64(len(c.image)))
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrNotSIF) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if d := time.Since(start); d > 100*time.Millisecond {
			t.Errorf("%s took %v", name, d)
		}
		n := testing.AllocsPerRun(1, func() { Open(bytes.NewReader(c.image), int64(len(c.image))) })
		if n > 300 {
			t.Errorf("%s makes %v allocations", name, n)
		}
	}
}

// TestSC069_TwoPrimaryPartitions: such an image can be listed, not run.
func TestSC069_TwoPrimaryPartitions(t *testing.T) {
	b := example(t).b
	copy(b[slotAt(5):], b[slotAt(2):slotAt(3)])
	b = patch(patch(b, slotAt(5)+5, 4, 6), slotAt(5)+25, 8, 0) // id 6, no bytes
	f := open(t, b)
	if _, err := f.Primary(); err == nil || !strings.Contains(err.Error(), "objects 3 and 6") {
		t.Errorf("got %v", err)
	}
	if !hasWarning(f, "several primary system partitions") {
		t.Errorf("warnings %q", f.Warnings())
	}
}

// TestSC069_SparseFile: a claimed size costs nothing.
func TestSC069_SparseFile(t *testing.T) {
	b := patch(patch(example(t).b, slotAt(4)+17, 8, 1<<62), slotAt(4)+25, 8, 1<<62-1)
	f, err := Open(sparse(b), math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAll(f.Objects()[4]); err == nil || !strings.Contains(err.Error(), "want at most 1048576") {
		t.Errorf("got %v", err)
	}
}

// sparse reads as its bytes followed by zeros without end.
type sparse []byte

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(s)) {
		copy(p, s[off:])
	}
	return len(p), nil
}

func TestReadAllLimits(t *testing.T) {
	f := &File{r: sparse(nil)}
	for typ, limit := range map[DataType]int64{
		DataDefFile: 16 << 20, DataJSON: 16 << 20, DataSignature: 1 << 20, DataCryptoMessage: 64 << 10,
		DataOCIRootIndex: 4 << 20, DataOCIBlob: 4 << 20,
	} {
		if b, err := f.ReadAll(Object{ID: 1, Type: typ, Size: limit}); err != nil || int64(len(b)) != limit {
			t.Errorf("%s of %d bytes: %v", typ, limit, err)
		}
		if _, err := f.ReadAll(Object{ID: 1, Type: typ, Size: limit + 1}); err == nil {
			t.Errorf("%s of %d bytes was read", typ, limit+1)
		}
	}
	if _, err := f.ReadAll(Object{ID: 1, Type: DataGeneric, Size: 1}); err == nil {
		t.Error("a generic object was read into memory")
	}
}

func TestNotSIF(t *testing.T) {
	b := example(t).b
	moved := append(make([]byte, 100), b...)
	for name, b := range map[string][]byte{
		"empty": nil, "short": b[:127], "text": bytes.Repeat([]byte("text"), 100), "moved": moved, "magic without end": patch(b, 41, 1, 'x'),
	} {
		if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrNotSIF) {
			t.Errorf("%s: got %v, want ErrNotSIF", name, err)
		}
	}
	for _, n := range []int{128, 4096, 32175, 32176, 32200, 39385} {
		if _, err := Open(bytes.NewReader(b[:n]), int64(n)); err == nil || errors.Is(err, ErrNotSIF) {
			t.Errorf("cut at %d: got %v", n, err)
		}
	}
	// The size lies: the reader has less.
	for _, n := range []int64{130, 32175} {
		if _, err := Open(bytes.NewReader(b[:n]), int64(len(b))); err == nil {
			t.Errorf("a reader of %d bytes opens", n)
		}
	}
}

func hasWarning(f *File, text string) bool {
	return strings.Contains(strings.Join(f.Warnings(), "\n"), text)
}

func TestWarnings(t *testing.T) {
	b := example(t).b
	twice := bytes.Clone(b)
	copy(twice[slotAt(5):], twice[slotAt(1):slotAt(2)])
	twice = patch(patch(twice, slotAt(5)+5, 4, 6), slotAt(5)+25, 8, 0)
	for want, image := range map[string][]byte{
		"claims 7 free descriptors, found 43":                        patch(b, 80, 8, 7),
		"object 77 is in descriptor 1":                               patch(b, slotAt(1)+5, 4, 77),
		"linked to itself":                                           patch(b, slotAt(1)+13, 4, 2),
		"object 88, which does not exist":                            patch(b, slotAt(1)+13, 4, 88),
		"group 9, which has no objects":                              patch(b, slotAt(3)+13, 4, 0xf0000009),
		"group 0, which has no objects":                              patch(b, slotAt(3)+13, 4, 0xf0000000),
		"claims data of":                                             patch(b, 112, 8, 32175),
		"claims data of -1 bytes":                                    patch(b, 120, 8, neg(1)),
		"claims architecture arm64, the primary":                     patch(b, 46, 1, '4'),
		"several objects of type JSON.Generic are named \"inspect-m": twice,
	} {
		f := open(t, image)
		if !hasWarning(f, want) {
			t.Errorf("warnings %q, want %q", f.Warnings(), want)
		}
		// None keeps an image from being changed, and each change makes an
		// image that opens.
		m := &memory{b: image}
		e, err := Edit(m, int64(len(m.b)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Add(Input{Type: DataGeneric, Data: strings.NewReader("x")}); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if f := open(t, m.b); f.Header().DataOff < 32176 || f.Header().DataSize < 7210 {
			t.Errorf("%s: header %+v", want, f.Header())
		}
	}
	if _, ok := open(t, twice).Named(DataJSON, "inspect-metadata.json"); ok {
		t.Error("one of two objects of the same name was taken")
	}
	f := &File{}
	for range 1000 {
		f.warn("again")
	}
	if len(f.Warnings()) != 101 {
		t.Errorf("%d warnings", len(f.Warnings()))
	}
}

func TestUnknownKept(t *testing.T) {
	b := patch(patch(example(t).b, slotAt(1), 4, 0x5555), slotAt(2)+201, 4, 66) // type, file system
	b = patch(b, slotAt(2)+209, 2, uint64('9')|uint64('9')<<8)
	b = patch(b, 45, 2, uint64('9')|uint64('9')<<8)
	copy(b[20:], "x\x00hidden\x00")
	f := open(t, b)
	p, _ := f.Objects()[2].Partition()
	if f.Objects()[1].Type.String() != "Unknown" || p.FS != 66 || p.FS.String() != "Unknown" || p.Arch != UnknownArch || f.Header().Arch != UnknownArch {
		t.Errorf("object 2 %s, partition %+v, arch %s", f.Objects()[1].Type, p, f.Header().Arch)
	}
	// A change elsewhere keeps every byte that is signed.
	signed := f.HeaderDigestBytes()
	m := &memory{b: bytes.Clone(b)}
	e, _ := Edit(m, int64(len(b)))
	if err := e.Delete(5, DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.File().HeaderDigestBytes(), signed) || !bytes.Equal(m.b[:48], b[:48]) || !bytes.Equal(m.b[slotAt(0):slotAt(3)], b[slotAt(0):slotAt(3)]) {
		t.Error("a change rewrote bytes that it does not concern")
	}
}

func TestOldLayout(t *testing.T) {
	// Images of old writers: data from 32768 on, names of 128 bytes, owners.
	b := example(t).b
	b = patch(b, 112, 8, 32768)
	b = patch(patch(b, slotAt(2)+57, 8, 1000), slotAt(2)+65, 8, 1001)
	copy(b[slotAt(2)+73:], strings.Repeat("n", 128))
	o := open(t, b).Objects()[2]
	if o.UID != 1000 || o.GID != 1001 || o.Name != strings.Repeat("n", 128) {
		t.Errorf("object %+v", o)
	}
	// A table elsewhere, with room behind it.
	var m memory
	if _, err := Create(&m, CreateOptions{Slots: 100}, exampleInputs()...); err != nil {
		t.Fatal(err)
	}
	b = m.b
	copy(b[200:], b[4096:][:100*slotSize])
	clear(b[200+100*slotSize : 4096+100*slotSize])
	f := open(t, patch(patch(b, 96, 8, 200), 104, 8, 60000))
	if len(f.Objects()) != 3 || len(f.Warnings()) != 0 {
		t.Errorf("%d objects, warnings %q", len(f.Objects()), f.Warnings())
	}
}

// TestSC101_EverySignedFieldCounts flips each byte that a signature has to cover
// and demands that the covered bytes change; the others are named here.
func TestSC101_EverySignedFieldCounts(t *testing.T) {
	b := example(t).b
	covered := func(b []byte) (string, bool) {
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return "", false
		}
		o, ok := f.Object(3)
		if !ok {
			return "", false
		}
		d, err := f.DescriptorDigestBytes(o, 2)
		return string(f.HeaderDigestBytes()) + string(d), err == nil
	}
	want, _ := covered(b)
	check := func(what string, from, to int, signed bool) {
		for off := from; off < to; off++ {
			image := bytes.Clone(b)
			image[off] ^= 0x40
			got, ok := covered(image)
			if ok && (got != want) != signed {
				t.Errorf("%s: byte %d flipped, covered bytes changed: %v, want %v", what, off, !signed, signed)
			}
		}
	}
	check("launch, magic, version", 0, 45, true)
	check("id", 48, 64, true)
	check("header arch, which nothing relies on", 45, 48, false)
	check("times and places of the header", 64, 128, false)
	s := slotAt(2)
	check("type, used", s, s+5, true)
	check("link", s+13, s+17, true)
	check("offset", s+17, s+25, false) // the data themselves are signed
	check("size", s+25, s+33, true)
	check("created", s+41, s+49, true)
	check("owner, name, extra", s+57, s+585, true)
}

// headAndTable reads as a header, the table where the header says it is, and
// zeros everywhere else.
type headAndTable struct {
	head, table []byte
}

func (u headAndTable) ReadAt(p []byte, off int64) (int, error) {
	n, _ := sparse(u.head).ReadAt(p, off)
	if len(u.head) >= headerSize {
		at := int64(binary.LittleEndian.Uint64(u.head[96:]))
		for i := range p {
			if j := off + int64(i) - at; at >= headerSize && j >= 0 && j < int64(len(u.table)) {
				p[i] = u.table[j]
			}
		}
	}
	return n, nil
}

func BenchmarkOpen(b *testing.B) {
	r := bytes.NewReader(example(b).b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(r, r.Size()); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	var m memory
	if _, err := Create(&m, CreateOptions{ID: exampleID, Time: time.Unix(1, 0), Slots: 2}); err != nil {
		f.Fatal(err)
	}
	f.Add(m.b[:headerSize], []byte(nil), int64(len(m.b)))
	b := example(f).b
	f.Add(b[:headerSize], b[tableOff:slotAt(6)], int64(len(b)))
	b = ociExample(f)
	f.Add(b[:headerSize], b[tableOff:slotAt(4)], int64(len(b)))
	f.Fuzz(func(t *testing.T, head, table []byte, size int64) {
		file, err := Open(headAndTable{head, table}, size)
		if err != nil {
			return
		}
		end := file.Header().tableEnd()
		for _, o := range file.Objects() {
			if o.Off < end || o.Size < 0 || o.Off+o.Size < o.Off || o.Off+o.Size > size {
				t.Fatalf("object %+v outside of %d bytes", o, size)
			}
			o.Partition()
			o.Signature()
			o.CryptoMessage()
			o.SBOM()
			o.Digest()
			if _, err := file.DescriptorDigestBytes(o, 0); err != nil {
				t.Fatal(err)
			}
			file.Named(o.Type, o.Name)
			if o.Size < 1<<16 {
				file.ReadAll(o)
			}
		}
		file.Primary()
	})
}

// ociExample is an image as OCI mode has them: no spare slots but one, nothing aligned.
func ociExample(t testing.TB) []byte {
	digest := Digest("sha256:" + strings.Repeat("0a", 32)).Extra()
	var m memory
	in := []Input{
		{Type: DataOCIBlob, Group: 1, Extra: digest, Data: strings.NewReader("layer")},
		{Type: DataOCIBlob, Group: 1, Extra: digest, Data: strings.NewReader("{}")},
		{Type: DataOCIRootIndex, Group: 1, Extra: digest, Data: strings.NewReader(`{"schemaVersion":2}`)},
	}
	if _, err := Create(&m, CreateOptions{Deterministic: true, Slots: 4}, in...); err != nil {
		t.Fatal(err)
	}
	return m.b
}

// FuzzEdit changes whatever opens: each change must leave an image that opens
// and must not touch the data of the other objects.
func FuzzEdit(f *testing.F) {
	b := smallImage(f)
	f.Add(b, uint32(2), byte(0))
	f.Add(b, uint32(3), byte(3))
	f.Add(b, uint32(1), byte(1))
	f.Fuzz(func(t *testing.T, b []byte, id uint32, how byte) {
		if len(b) > 1<<20 {
			return
		}
		m := &memory{b: b}
		e, err := Edit(m, int64(len(b)))
		if err != nil {
			return
		}
		before := contents(e.File())
		added, addErr := e.Add(Input{Type: DataGeneric, Align: int64(how), Data: strings.NewReader("added")})
		e.Delete(id, DeleteOptions{Zero: how&1 != 0, Compact: how&2 != 0})
		e.SetPrimary(id)
		after := contents(open(t, m.b))
		delete(before, id)
		if addErr == nil && added.ID != id {
			before[added.ID] = "added"
		}
		for id, want := range before {
			if after[id] != want {
				t.Fatalf("object %d was %q, is %q", id, want, after[id])
			}
		}
	})
}

// smallImage has its table right after the header and five slots: a fuzzer is
// quicker with few bytes.
func smallImage(t testing.TB) []byte {
	h, err := newHeader(CreateOptions{Slots: 5, ID: exampleID, Time: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	h.TableOff = headerSize
	h.DataOff = h.tableEnd()
	var m memory
	d := draft{w: &m, header: h, table: make([]byte, h.TableSize), end: h.DataOff, size: h.DataOff}
	for _, in := range append(exampleInputs()[:2], Input{Type: DataPartition, Align: 8, Data: strings.NewReader("fs"),
		Extra: Partition{FSExt3, PartSystem, "arm"}.Extra()}) {
		if _, err := d.add(in); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.commit(); err != nil {
		t.Fatal(err)
	}
	return m.b
}

func contents(f *File) map[uint32]string {
	all := make(map[uint32]string)
	for _, o := range f.Objects() {
		b := make([]byte, o.Size)
		readFull(f.r, b, o.Off)
		all[o.ID] = string(b)
	}
	return all
}

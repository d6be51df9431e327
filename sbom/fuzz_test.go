package sbom

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	otherbdb "github.com/knqyf263/go-rpmdb/pkg/bdb"
	rpmdb "github.com/knqyf263/go-rpmdb/pkg/db"
	otherndb "github.com/knqyf263/go-rpmdb/pkg/ndb"
)

// smallBDB is a hash of three pages with one value of size bytes, on the third.
func smallBDB(size int) []byte {
	b := make([]byte, 3*512)
	le := binary.LittleEndian
	le.PutUint32(b[12:], bdbHash)
	le.PutUint32(b[20:], 512)
	b[25] = pageMeta
	le.PutUint32(b[32:], 2)
	hash := b[512:1024]
	hash[25] = pageHash
	le.PutUint16(hash[20:], 2)
	le.PutUint16(hash[26:], 507) // key: its type, and four bytes
	le.PutUint16(hash[28:], 495)
	hash[507], hash[495] = itemInline, itemLong
	le.PutUint32(hash[499:], 2)
	le.PutUint32(hash[503:], uint32(size))
	b[1024+25] = pageLong
	for i := range min(size, 512-bdbHeader) {
		b[1024+bdbHeader+i] = byte(i)
	}
	return b
}

// smallNDB is a database with one header.
func smallNDB(header []byte) []byte {
	b := make([]byte, ndbPage+ndbUnit)
	le := binary.LittleEndian
	copy(b, ndbMagic)
	le.PutUint32(b[12:], 1)
	for at := 2 * ndbUnit; at < ndbPage; at += ndbUnit {
		copy(b[at:], ndbSlot)
	}
	le.PutUint32(b[3*ndbUnit+4:], 7)
	le.PutUint32(b[3*ndbUnit+8:], ndbPage/ndbUnit)
	copy(b[ndbPage:], ndbBlob)
	le.PutUint32(b[ndbPage+4:], 7)
	le.PutUint32(b[ndbPage+12:], uint32(len(header)))
	return append(b, header...)
}

func headersOf(t testing.TB, kind string, b []byte) (list [][]byte, err error) {
	t.Helper()
	keep := func(h []byte) error { list = append(list, bytes.Clone(h)); return nil }
	if kind == "Packages.db" {
		return list, eachInNDB(bytes.NewReader(b), int64(len(b)), keep)
	}
	d, err := openBDB(bytes.NewReader(b), int64(len(b)))
	if err == nil {
		err = d.each(keep)
	}
	return list, err
}

// TestHostileRPM: SC-162, chains of pages that lead in a circle, values that share their pages, and
// sizes and places that are none end with an error, soon.
func TestHostileRPM(t *testing.T) {
	le := binary.LittleEndian
	if list, err := headersOf(t, "Packages", smallBDB(100)); err != nil || len(list) != 1 || len(list[0]) != 100 || list[0][99] != 99 {
		t.Fatalf("%v %v", list, err)
	}
	if list, err := headersOf(t, "Packages.db", smallNDB([]byte("header"))); err != nil || len(list) != 1 || string(list[0]) != "header" {
		t.Fatalf("%q %v", list, err)
	}
	circle := smallBDB(1400)
	le.PutUint32(circle[1024+16:], 2)
	self := smallBDB(100)
	le.PutUint32(self[512+499:], 1) // the page of the key itself
	outside := smallBDB(100)
	le.PutUint32(outside[512+499:], 1<<31)
	odd := smallBDB(100)
	le.PutUint16(odd[512+20:], 0xfffe)
	place := smallBDB(100)
	le.PutUint16(place[512+28:], 0xffff)
	pages := smallBDB(100)
	le.PutUint32(pages[32:], 0xffffffff)
	// A page full of references to one value that is nearly as large as the file.
	shared := append(smallBDB(0), make([]byte, 1<<20)...)
	le.PutUint32(shared[32:], uint32(len(shared)/512-1))
	hash := shared[512:1024]
	le.PutUint16(hash[20:], 20)
	for i := range 20 {
		le.PutUint16(hash[26+2*i:], uint16(512-12*(i+1)))
		hash[512-12*(i+1)] = itemLong
		le.PutUint32(hash[512-12*(i+1)+4:], 2)
		le.PutUint32(hash[512-12*(i+1)+8:], 900_000)
	}
	for n := 2; n < len(shared)/512; n++ {
		shared[n*512+25] = pageLong
		le.PutUint32(shared[n*512+16:], uint32(n+1))
	}
	for what, b := range map[string][]byte{"a huge value": smallBDB(1 << 30), "a value beyond the file": smallBDB(1 << 20), "a page that is no value": self, "a page outside": outside, "more entries than fit": odd, "an entry outside": place, "pages beyond the file": pages, "shared pages": shared, "empty": {}} {
		if list, err := headersOf(t, "Packages", b); err == nil {
			t.Errorf("Berkeley DB with %s gives %d headers", what, len(list))
		}
	}
	if list, err := headersOf(t, "Packages", circle); err != nil || len(list) != 1 || len(list[0]) != 1400 {
		t.Errorf("a circle is not ended by the size of the value: %d, %v", len(list), err)
	}
	many := smallNDB(make([]byte, 10000))
	for at := 3 * ndbUnit; at < ndbPage; at += ndbUnit {
		copy(many[at:at+ndbUnit], many[3*ndbUnit:4*ndbUnit])
	}
	huge := smallNDB(nil)
	le.PutUint32(huge[ndbPage+12:], 0xffffffff)
	slots := smallNDB(nil)
	le.PutUint32(slots[12:], 0xffffffff)
	other := smallNDB([]byte("header"))
	le.PutUint32(other[ndbPage+4:], 8)
	for what, b := range map[string][]byte{"slots that share a header": many, "a huge header": huge, "pages beyond the file": slots, "the header of another": other, "a bad slot": bytes.Replace(smallNDB(nil), []byte(ndbSlot), []byte("slot"), 1), "nothing in it": {}} {
		if list, err := headersOf(t, "Packages.db", b); err == nil {
			t.Errorf("NDB with %s gives %d headers", what, len(list))
		}
	}
	// A header that claims as many names as it has bytes.
	h := make([]byte, 8+16+maxHeader-100)
	binary.BigEndian.PutUint32(h, 1)
	binary.BigEndian.PutUint32(h[4:], uint32(maxHeader-100))
	for i, v := range []uint32{tagBaseNames, typeList, 0, maxHeader - 100} {
		binary.BigEndian.PutUint32(h[8+4*i:], v)
	}
	if got, err := parseHeader(h); err != nil || got.texts(tagBaseNames) != nil {
		t.Errorf("a header with 67 million names: %v", err)
	}
}

// TestFormsOfRPM: our readers of the two older forms find what another decoder finds in
// databases of real systems.
func TestFormsOfRPM(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/knqyf263/go-rpmdb").Output()
	module := strings.TrimSpace(string(out))
	if err != nil || module == "" {
		t.Skip("the module with the databases is not here as such: ", err)
	}
	found, _ := filepath.Glob(filepath.Join(module, "pkg/testdata/*/Packages*"))
	compared := 0
	for _, p := range found {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var db interface{ Read() <-chan rpmdb.Entry }
		if strings.HasSuffix(p, ".db") {
			db, err = otherndb.Open(p)
		} else {
			db, err = otherbdb.Open(p)
		}
		if err != nil {
			t.Logf("%s is for no decoder: %v", p, err)
			continue
		}
		var want [][]byte
		for e := range db.Read() {
			if e.Err != nil {
				t.Fatal(p, e.Err)
			}
			want = append(want, e.Value)
		}
		got, err := headersOf(t, filepath.Base(p), b)
		if err != nil || !slices.EqualFunc(got, want, bytes.Equal) || len(got) < 1 {
			t.Errorf("%s: %d headers, the other decoder has %d; %v", p, len(got), len(want), err)
		}
		compared++
	}
	if compared < 5 {
		t.Errorf("%d databases were compared", compared)
	}
}

func FuzzBDB(f *testing.F) {
	f.Add(smallBDB(100))
	f.Add(smallBDB(1400))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		d, err := openBDB(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			d.each(func(h []byte) error { total += len(h); return nil })
		}
		if total > 2*len(b) {
			t.Errorf("%d bytes come out of %d", total, len(b))
		}
	})
}

func FuzzNDB(f *testing.F) {
	f.Add(smallNDB([]byte("header")))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		eachInNDB(bytes.NewReader(b), int64(len(b)), func(h []byte) error { total += len(h); return nil })
		if total > len(b) {
			t.Errorf("%d bytes come out of %d", total, len(b))
		}
	})
}

// FuzzSQLite: what SQLite makes of a damaged database is an error or a list.
func FuzzSQLite(f *testing.F) {
	b, err := os.ReadFile("testdata/rpmdb.sqlite")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		readDamaged(&reader{ctx: context.Background(), owned: map[string]string{"x": ""}}, b)
	})
}

// FuzzLanguage: metadata of Python, npm and cargo gives usable names or none.
func FuzzLanguage(f *testing.F) {
	f.Add([]byte("Name: a\nVersion: 1\nLicense: MIT\n\nName: no\n"))
	f.Add([]byte(`{"name":"a","version":"1","license":{"type":"MIT"}}`))
	f.Add([]byte(`{"packages":{"":{"version":"1"},"node_modules/a":{"version":"1"}},"dependencies":{"a":{"version":"1","dependencies":{"b":{"version":"2"}}}}}`))
	f.Add([]byte("version = 3\n[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"registry+x\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{ctx: context.Background(), owned: map[string]string{}}
		for _, read := range []func(string, []byte) error{r.readPython, r.readNPM, r.readNPMLock, r.readCargo} {
			read("x", b)
		}
		parseRelease(string(b))
		for _, p := range r.inv.Packages {
			if p.Name == "" || !plainField(p.Name) || !plainField(p.Version) {
				t.Errorf("kept: %+v", p)
			}
		}
	})
}

// smallProgram is an ELF file with what the linker of Go writes of modules, and no more.
func smallProgram(modules string) []byte {
	const header, segment = 64, 56
	le := binary.LittleEndian
	data := append([]byte("\xff Go buildinf:\x08\x02"), make([]byte, 16)...)
	for _, text := range []string{"go1.24", strings.Repeat("s", 16) + modules + strings.Repeat("e", 16)} {
		data = append(binary.AppendUvarint(data, uint64(len(text))), text...)
	}
	b := make([]byte, header+segment+8)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)  // a program
	le.PutUint16(b[18:], 62) // amd64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], header)
	le.PutUint16(b[52:], header)
	le.PutUint16(b[54:], segment)
	le.PutUint16(b[56:], 1)
	le.PutUint16(b[58:], 64)
	p := b[header:]
	le.PutUint32(p, 1)     // loaded
	le.PutUint32(p[4:], 6) // and written to
	le.PutUint64(p[8:], uint64(len(b)))
	le.PutUint64(p[16:], 0x400000)
	le.PutUint64(p[32:], uint64(len(data)))
	le.PutUint64(p[40:], uint64(len(data)))
	return append(b, data...)
}

// FuzzProgram: no file makes the reader of programs panic or read without end.
func FuzzProgram(f *testing.F) {
	b := smallProgram("path\tx\nmod\texample.org/x\tv1.2.3\t\ndep\texample.org/y\tv0.1.0\th1:x=\nbuild\tGOARCH=amd64\n")
	if info, err := readBuildInfo(bytes.NewReader(b)); err != nil || info.Main.Version != "v1.2.3" || len(info.Deps) != 1 {
		f.Fatalf("%+v, %v", info, err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{ctx: context.Background(), owned: map[string]string{}}
		if info, err := readBuildInfo(&bounded{bytes.NewReader(b), maxSearched}); err == nil {
			r.addGo(info, "x")
		}
	})
}

// TestDeepLocks: brackets within brackets end no program.
func TestDeepLocks(t *testing.T) {
	for what, read := range map[string]func(*reader) func(string, []byte) error{
		"npm":   func(r *reader) func(string, []byte) error { return r.readNPMLock },
		"cargo": func(r *reader) func(string, []byte) error { return r.readCargo },
	} {
		for _, text := range []string{strings.Repeat("[", 8<<20), `{"dependencies":` + strings.Repeat(`{"a":{"dependencies":`, 1<<20), "a = " + strings.Repeat("[", 8<<20), "a = " + strings.Repeat("{a=", 2<<20), strings.Repeat("a.", 4<<20) + "a = 1"} {
			begun := time.Now()
			r := &reader{ctx: context.Background(), owned: map[string]string{}}
			if err := read(r)("x", []byte(text)); err == nil {
				t.Errorf("%s takes %.20q", what, text)
			}
			t.Logf("%s %.20q: %v", what, text, time.Since(begun))
		}
	}
}

package sbom

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"singularity/image"
)

// mutate changes some bytes.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(8) {
		if len(b) == 0 {
			break
		}
		i := r.IntN(len(b))
		switch r.IntN(5) {
		case 0:
			b[i] = byte(r.IntN(256))
		case 1:
			b[i] = []byte{0, 0xff, 0x7f, 0x80, 1}[r.IntN(5)]
		case 2:
			j := r.IntN(len(b))
			copy(b[i:], b[j:min(len(b), j+1+r.IntN(64))])
		case 3:
			b[i] ^= 1 << r.IntN(8)
		case 4:
			if r.IntN(10) == 0 {
				b = b[:i]
			}
		}
	}
	return b
}

// TestMutated: damaged databases and programs end in an error or a list. SQLite makes the
// program so large that the fuzzer itself tries few inputs in its time.
func TestMutated(t *testing.T) {
	database, err := os.ReadFile("testdata/rpmdb.sqlite")
	if err != nil {
		t.Fatal(err)
	}
	discard := func([]byte) error { return nil }
	for _, c := range []struct {
		tries int
		seed  []byte
		read  func(r *reader, b []byte)
	}{
		{20_000, smallBDB(100), func(_ *reader, b []byte) {
			if d, err := openBDB(bytes.NewReader(b), int64(len(b))); err == nil {
				d.each(discard)
			}
		}},
		{5_000, smallNDB([]byte("header")), func(_ *reader, b []byte) { eachInNDB(bytes.NewReader(b), int64(len(b)), discard) }},
		{1_000, database, readDamaged},
		{2_000, smallProgram("path\tx\nmod\texample.org/x\tv1.2.3\t\n"), func(r *reader, b []byte) {
			if info, err := readBuildInfo(&bounded{bytes.NewReader(b), maxSearched}); err == nil {
				r.addGo(info, "x")
			}
		}},
	} {
		rng := rand.New(rand.NewPCG(1, uint64(len(c.seed))))
		for range c.tries {
			c.read(&reader{ctx: context.Background(), owned: map[string]string{"x": ""}}, mutate(rng, c.seed))
		}
	}
}

// readDamaged reads what may be a database of SQLite.
func readDamaged(r *reader, b []byte) {
	file, err := memoryFile(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	r.eachInSQLite(image.Entry{Path: "rpmdb.sqlite"}, file, "/proc/self/fd/"+strconv.Itoa(int(file.Fd())), func(h []byte) error {
		if h, err := parseHeader(h); err == nil {
			r.addRPM(h, "x")
		}
		return nil
	})
}

package mongo

import (
	"os"
	"strconv"
	"testing"

	"singularity/server/store"
	"singularity/server/store/mongo/mongotest"
)

// benchRecords is a real server where SINGULARITY_TEST_MONGODB names one; with
// the one of the tests, which is in memory, it is the driver that is timed.
func benchRecords(b *testing.B) *store.Collection[sum] {
	b.Helper()
	o := Options{URI: os.Getenv("SINGULARITY_TEST_MONGODB"), Database: "bench_" + store.NewID(), Trial: true}
	if program := os.Getenv(mongotest.FerretEnv); o.URI == "" && program != "" {
		f := mongotest.Real(b)
		o.URI, o.CAFile = f.URI, f.CAFile
	} else if o.URI == "" {
		s, err := mongotest.New(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		o.URI, o.CAFile = s.URI, s.CAFile
	}
	r, err := Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	c, err := store.Open(b.Context(), r, "sums", store.Options[sum]{})
	if err != nil {
		b.Fatal(err)
	}
	for n := range 1000 {
		if _, err := c.Insert(b.Context(), strconv.Itoa(n), sum{n}); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

func BenchmarkGet(b *testing.B) {
	c := benchRecords(b)
	for i := 0; b.Loop(); i++ {
		if _, err := c.Get(b.Context(), strconv.Itoa(i%1000)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInsert(b *testing.B) {
	c := benchRecords(b)
	for i := 0; b.Loop(); i++ {
		if _, err := c.Insert(b.Context(), store.NewID(), sum{i}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReplace(b *testing.B) {
	c := benchRecords(b)
	for i := 0; b.Loop(); i++ {
		if _, err := c.Update(b.Context(), strconv.Itoa(i%1000), func(v *sum) error { v.N++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

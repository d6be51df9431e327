package embedded

import (
	"bytes"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"singularity/server/store"
	"singularity/server/store/storetest"
)

func benchStore(b *testing.B) *Store {
	s, err := Open(filepath.Join(b.TempDir(), "data"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func BenchmarkGet(b *testing.B) {
	c, err := numbers(b.Context(), benchStore(b).Records)
	if err != nil {
		b.Fatal(err)
	}
	for n := range 1000 {
		if _, err := c.Insert(b.Context(), strconv.Itoa(n), thing{n}); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; b.Loop(); i++ {
		if _, err := c.Get(b.Context(), strconv.Itoa(i%1000)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInsert has many writers, which share commits.
func BenchmarkInsert(b *testing.B) {
	c, err := numbers(b.Context(), benchStore(b).Records)
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Insert(b.Context(), store.NewID(), thing{int(next.Add(1))}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkPut(b *testing.B) {
	s := benchStore(b)
	p := storetest.Bytes(1, 64<<20)
	want := storetest.Of(p)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := s.Blobs.Put(b.Context(), "sha256/"+want.SHA256, bytes.NewReader(p), want); err != nil {
			b.Fatal(err)
		}
	}
}

package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"singularity/squashfs"
)

type nowhere struct{}

func (nowhere) Add(_ squashfs.Entry, content io.Reader) error {
	if content == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, content)
	return err
}

// BenchmarkEntries merges a layer of many small files.
func BenchmarkEntries(b *testing.B) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	const files = 100000
	for i := range files {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/d%d/file%d", i%1000, i), Size: 1, Mode: 0o644})
		w.Write([]byte("x"))
	}
	w.Close()
	l := layerOf(buf.Bytes(), buf.Bytes())
	b.ReportAllocs()
	for b.Loop() {
		t, err := Read(context.Background(), []Layer{l}, DefaultLimits())
		if err == nil {
			err = t.Emit(context.Background(), nowhere{}, EmitOptions{})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/files, "µs/entry")
}

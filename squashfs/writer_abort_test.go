package squashfs

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// failing gives noise, and an error behind so many bytes.
type failing struct {
	rng  *rand.ChaCha8
	left int
}

var errCancelled = errors.New("cancelled")

func (f *failing) Read(b []byte) (int, error) {
	if f.left <= 0 {
		return 0, errCancelled
	}
	n, _ := f.rng.Read(b[:min(len(b), f.left)])
	f.left -= n
	return n, nil
}

// A build that is cancelled must not wait until a slow compressor has done all
// that was queued: the time to give up is that of a few blocks.
func TestWriterGivesUpSoon(t *testing.T) {
	write := func(left, size int) (took, ending time.Duration) {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := NewWriter(f, WriterOptions{Compression: XZ, Workers: 1, NewEncoder: brought, Digest: sha256.Sum256})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err = w.Add(Entry{Path: "big", Mode: 0o100644, Size: int64(size)}, io.Reader(&failing{rand.NewChaCha8([32]byte{1}), left}))
		added := time.Now()
		if left < size {
			if !errors.Is(err, errCancelled) {
				t.Fatalf("got %v, want the reader's error", err)
			}
			w.Abort()
		} else if _, closeErr := w.Close(); err != nil || closeErr != nil {
			t.Fatal(err, closeErr)
		}
		return time.Since(begin), time.Since(added)
	}
	const blocks = 18 // fewer than the queue holds, so that Add does not wait
	whole, _ := write(blocks<<17, blocks<<17)
	_, ending := write(blocks<<17, (blocks+1)<<17)
	if ending > whole/3 {
		t.Errorf("giving up took %v, compressing all of it %v", ending, whole)
	}
}

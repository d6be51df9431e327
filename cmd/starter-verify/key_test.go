package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"singularity/luks"
	"singularity/priv"
)

// TestUnlock (SC-059): the key is held against the digest of the header, and where the
// cipher text lies comes from there.
func TestUnlock(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "container"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := luks.Create(context.Background(), f, []byte("secret"), luks.Options{SectorSize: 4096, KDF: luks.KDF{Type: "argon2id", Time: 1, Memory: 64, CPUs: 1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(bytes.Repeat([]byte("hsqs"), 1<<12))
	size, closeErr := w.Close()
	if err := errors.Join(err, closeErr); err != nil {
		t.Fatal(err)
	}
	c, err := luks.Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Unlock(context.Background(), []byte("secret"), luks.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	exported := make([]byte, luks.ExportSize)
	v.Export(exported)
	key := exported[len(exported)-priv.KeySize:]
	got, err := unlock(key)(f, size)
	if want := (priv.Crypt{Off: 1 << 24, Size: uint64(v.Size()), Sector: 4096, Key: 64}); err != nil || *got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for bit := range 8 * len(key) {
		if bit%61 == 0 {
			wrong := bytes.Clone(key)
			wrong[bit/8] ^= 1 << (bit % 8)
			if got, err := unlock(wrong)(f, size); err == nil {
				t.Errorf("with another bit %d: %+v", bit, got)
			}
		}
	}
	if got, err := unlock(key)(bytes.NewReader(make([]byte, size)), size); err == nil {
		t.Errorf("no container: %+v", got)
	}
	if got, err := unlock(key)(io.NewSectionReader(f, 0, 1<<15), 1<<15); err == nil {
		t.Errorf("half a header: %+v", got)
	}
}

package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"singularity/oci/unpack"
)

// KeepIn makes the layers of an image from elsewhere be fetched once, to unnamed
// files in dir that last until Close; they are read twice.
func (i *Image) KeepIn(dir string) { i.dir = dir }

// kept is a layer that is fetched when it is first read.
type kept struct {
	layer v1.Layer
	dir   string
	size  int64
	mu    sync.Mutex
	file  *os.File
}

func (k *kept) open() (io.ReadCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == nil {
		f, err := k.fetch()
		if err != nil {
			return nil, err
		}
		k.file = f
	}
	return pieceReader{io.NewSectionReader(k.file, 0, k.size)}, nil
}

// fetch copies the layer. Its digest is compared when it is read.
func (k *kept) fetch() (f *os.File, err error) {
	r, err := k.layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if f, err = os.CreateTemp(k.dir, "layer-*"); err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	var n int64
	if err == nil {
		// Security: a registry may send more than it has announced.
		n, err = io.Copy(f, io.LimitReader(r, k.size+1))
	}
	if err == nil && n != k.size {
		err = fmt.Errorf("it has not the %d bytes that its manifest announces: %w", k.size, unpack.ErrDigest)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close gives the file back.
func (k *kept) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file == nil {
		return nil
	}
	return k.file.Close()
}

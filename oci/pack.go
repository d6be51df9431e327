package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"singularity/oci/unpack"
)

// Stored returns the manifest that the image came with, and its type; none if it
// came without one, as from "docker save".
func (i *Image) Stored() (raw []byte, mediaType types.MediaType, err error) {
	if own, ok := i.Image.(*image); ok && own.digest.Hex == "" {
		return nil, "", nil
	}
	if raw, err = i.RawManifest(); err != nil {
		return nil, "", err
	}
	mediaType, err = i.MediaType()
	return raw, mediaType, err
}

// Packed is a layer that can be read at any place.
type Packed struct {
	io.ReaderAt
	v1.Descriptor
	close func() error
}

// Close gives files back.
func (p *Packed) Close() error { return p.close() }

// Pack makes a layer ready to be stored elsewhere: as it is if the image has a
// manifest, which names it, else compressed with gzip. What cannot be read at any
// place, or is compressed here, goes to an unnamed file in dir.
func (i *Image) Pack(ctx context.Context, l v1.Layer, dir string) (*Packed, error) {
	stored, _, err := i.Stored()
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return compressed(ctx, l, dir)
	}
	want, err := l.Digest()
	if err != nil {
		return nil, err
	}
	r, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	if at, ok := r.(io.ReaderAt); ok {
		size, err := l.Size()
		return &Packed{ReaderAt: at, Descriptor: v1.Descriptor{Digest: want, Size: size}, close: r.Close}, err
	}
	defer r.Close()
	return spool(dir, func(w io.Writer) error {
		_, err := io.Copy(w, &interruptible{ctx, r})
		return err
	}, &want)
}

// compressed packs a layer of an image without a manifest, whose configuration
// names the digest that it has without compression.
func compressed(ctx context.Context, l v1.Layer, dir string) (*Packed, error) {
	want, err := l.DiffID()
	if err != nil {
		return nil, err
	}
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return spool(dir, func(w io.Writer) error {
		sum := sha256.New()
		z := gzip.NewWriter(w) // without name and time: equal layers stay equal
		if _, err := io.Copy(io.MultiWriter(z, sum), &interruptible{ctx, r}); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want.Hex {
			return fmt.Errorf("the layer %s has the digest sha256:%s: %w", want, got, unpack.ErrDigest)
		}
		return z.Close()
	}, nil)
}

// spool lets write fill a file without a name, whose digest must be want if one
// is given.
func spool(dir string, write func(io.Writer) error, want *v1.Hash) (*Packed, error) {
	f, err := os.CreateTemp(dir, "layer-*")
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	err = os.Remove(f.Name())
	if err == nil {
		err = write(io.MultiWriter(f, sum))
	}
	p := &Packed{ReaderAt: f, close: f.Close}
	p.MediaType, p.Digest = types.OCILayer, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	if err == nil {
		p.Size, err = f.Seek(0, io.SeekCurrent)
	}
	if err == nil && want != nil && p.Digest != *want {
		err = fmt.Errorf("the layer %s has the digest %s: %w", want, p.Digest, unpack.ErrDigest)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return p, nil
}

// interruptible ends with a context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(b []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(b)
}

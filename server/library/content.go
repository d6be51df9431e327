package library

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"singularity/server/store"
	"singularity/sif"
)

// content is what an image says of itself.
type content struct {
	Size      int64    `json:"size,omitempty"`
	Arch      string   `json:"arch,omitempty"`
	UUID      string   `json:"uuid,omitempty"`
	Signed    bool     `json:"signed,omitempty"`
	Signers   []string `json:"signers,omitempty"` // as claimed; nothing is believed of them
	Encrypted bool     `json:"encrypted,omitempty"`
}

// maxSigners bounds what a record keeps of the claims of an image.
const maxSigners = 100

// inspect reads header and table of an image. Package sif bounds what it reads.
func inspect(r io.ReaderAt, size int64) (content, error) {
	f, err := sif.Open(r, size)
	if err != nil {
		return content{}, err
	}
	c := content{Size: size, UUID: f.Header().ID.String()}
	if arch := f.Header().Arch; arch != sif.UnknownArch {
		c.Arch = arch
	}
	for _, o := range f.Objects() {
		if p, ok := o.Partition(); ok && p.Type == sif.PartPrimary {
			c.Encrypted = p.FS == sif.FSEncryptedSquashfs || p.FS == sif.FSGocryptfsSquashfs
			if p.Arch != sif.UnknownArch {
				c.Arch = p.Arch
			}
		}
		sig, ok := o.Signature()
		if !ok {
			continue
		}
		c.Signed = true
		signer := strings.ToUpper(fmt.Sprintf("%x", sig.Entity))
		if sig.Entity != [20]byte{} && len(c.Signers) < maxSigners && !slices.Contains(c.Signers, signer) {
			c.Signers = append(c.Signers, signer)
		}
	}
	return c, nil
}

// Reverify looks anew who has signed the images that claim a signer: their key
// was published or revoked.
func (s *Service) Reverify(ctx context.Context, fingerprint string) error {
	if s.o.Fingerprints == nil {
		return nil
	}
	for i, err := range s.images.All(ctx, store.Query{Index: "signer", Equal: strings.ToUpper(fingerprint)}) {
		if err != nil {
			return err
		}
		_, prints, err := s.examine(ctx, i.Value.Hash)
		if err != nil {
			return err
		}
		if slices.Equal(prints, i.Value.Fingerprints) {
			continue
		}
		if _, err := s.images.Update(ctx, i.Key, func(i *image) error { i.Fingerprints = prints; return nil }); err != nil && !missing(err) {
			return err
		}
	}
	return nil
}

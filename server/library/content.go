package library

import (
	"fmt"
	"io"
	"slices"
	"strings"

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

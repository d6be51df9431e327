package server

import (
	"context"
	"io"
	"slices"
	"time"

	"singularity/pgp"
	"singularity/sif"
	"singularity/sign"
)

// signers tells by whose keys the primary partition of an image is signed, of
// the keys in the key store. A signature that is not good counts as none: this
// says what is known, and refuses nothing.
func (s *Server) signers(ctx context.Context, r io.ReaderAt, size int64) ([]string, error) {
	f, err := sif.Open(r, size)
	if err != nil {
		return nil, err
	}
	primary, err := f.Primary()
	if err != nil {
		return nil, nil
	}
	result, err := sign.Verify(ctx, f, sign.Options{Lookup: func(id uint64) []*pgp.Key { return s.keys.Keys(ctx, id) }, Now: time.Now(), Any: true})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if result == nil {
		return nil, nil // what is wrong with the signatures is for who pulls to see
	}
	var list []string
	for _, sig := range result.Signatures {
		covers := slices.ContainsFunc(sig.Verified, func(o sif.Object) bool { return o.ID == primary.ID })
		if sig.Err != nil || sig.Key == nil || !covers {
			continue
		}
		if name := sig.Key.Fingerprint().String(); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, nil
}

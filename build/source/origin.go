package source

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"singularity/build/deffile"
	"singularity/image"
	"singularity/provenance"
	"singularity/sif"
)

// Origin tells where a base system comes from, for the provenance of the image.
// It holds nothing that differs between two builds of the same.
type Origin struct {
	Agent    string          `json:"agent"`
	URI      string          `json:"uri,omitempty"`
	Release  string          `json:"release,omitempty"`
	Digest   string          `json:"digest,omitempty"` // of the image or file
	Packages *Packages       `json:"packages,omitempty"`
	Signers  []string        `json:"signers,omitempty"` // fingerprints whose signatures are good
	Base     json.RawMessage `json:"base,omitempty"`    // what the image tells of its own origin
}

// Packages stand for those that a mirror gave.
type Packages struct {
	Count  int    `json:"count"`
	Digest string `json:"digest"` // SHA-256 of the sorted lines "name version architecture"
}

func newPackages(lines []string) *Packages {
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return &Packages{Count: len(lines), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(strings.Join(lines, "\n")+"\n")))}
}

// ErrNoKeys is the error of Config.Verify where there are no keys at all.
var ErrNoKeys = errors.New("there are no keys to verify it with")

// maxProvenance bounds what is kept of a base image's own provenance.
const maxProvenance = 1 << 20

// baseProvenance returns what a SIF tells of its origin, nil for nothing.
func baseProvenance(path string) json.RawMessage {
	im, err := image.Open(path)
	if err != nil {
		return nil
	}
	defer im.Close()
	if im.SIF == nil {
		return nil
	}
	o, ok := im.SIF.Named(sif.DataJSON, provenance.Object)
	if !ok || o.Size > maxProvenance {
		return nil
	}
	data, err := im.SIF.ReadAll(o)
	if err != nil || !json.Valid(data) {
		return nil
	}
	return data
}

// fingerprints returns those that the header demands.
func fingerprints(s *deffile.Stage) ([]string, error) {
	value := s.Value("fingerprints")
	if value == "" {
		return nil, nil
	}
	list := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	for _, f := range list {
		digits := strings.TrimPrefix(strings.ToLower(f), "0x")
		if len(digits) != 40 || strings.Trim(digits, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("line %d: %q in Fingerprints is not a fingerprint: want 40 hexadecimal digits", s.LineOf("fingerprints"), f)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("line %d: Fingerprints names no fingerprint", s.LineOf("fingerprints"))
	}
	return list, nil
}

// imageSource is an image on this host that becomes the base system.
type imageSource struct {
	c       Config
	origin  Origin
	require []string // fingerprints
	quiet   bool     // says nothing of an image without signatures
}

// take verifies the image at path, records it and extracts it. name is what the
// user calls it.
func (i *imageSource) take(ctx context.Context, name, path, rootfs string) error {
	signers, err := i.verify(ctx, name, path)
	if err != nil {
		return err
	}
	o := i.origin
	o.Signers, o.Base = signers, baseProvenance(path)
	if o.Digest, err = i.c.Digest(ctx, path); err != nil {
		return fmt.Errorf("cannot read %q: %w", name, err)
	}
	i.c.Record(o)
	return i.c.Extract(ctx, path, rootfs)
}

// verify checks the signatures that the definition demands. Without demands an
// image that does not verify is worth a warning.
func (i *imageSource) verify(ctx context.Context, name, path string) ([]string, error) {
	im, err := image.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the image %q: %w", name, err)
	}
	isSIF := im.SIF != nil
	im.Close()
	switch {
	case !isSIF && len(i.require) > 0:
		return nil, fmt.Errorf("cannot verify %q: only a SIF has signatures, and the definition demands some by Fingerprints", name)
	case !isSIF || len(i.require) == 0 && i.quiet:
		return nil, nil
	}
	signers, err := i.c.Verify(ctx, path, i.require)
	switch {
	case err == nil:
		i.c.Log.Info(fmt.Sprintf("Verified the signatures of %q by %s", name, strings.Join(signers, ", ")))
		return signers, nil
	case len(i.require) > 0:
		return nil, fmt.Errorf("cannot verify %q as Fingerprints demands: %w", name, err)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	i.c.Log.Warning(fmt.Sprintf("Bootstrap image %q could not be verified, but build will continue: %v", name, err))
	return nil, nil
}

package source

import (
	"context"
	"fmt"
	"path"
	"strings"

	"singularity/build/deffile"
)

// ociImage is an image of layers: from an archive or a layout on this host, or
// from a Docker daemon.
type ociImage struct {
	ref  string
	fill func(ctx context.Context, ref, rootfs string) error
}

func newOCI(s *deffile.Stage, c Config) (Source, error) {
	// Leaving out a check that the definition asks for would be worse than
	// refusing to build.
	if s.Value("fingerprints") != "" {
		return nil, fmt.Errorf("line %d: Fingerprints are of signatures in a SIF: an image of layers has none", s.Line)
	}
	ref := s.Agent() + ":" + s.Value("from")
	if s.Agent() == "docker" {
		// Registry and Namespace stand before what From names.
		ref = "docker://" + path.Join(s.Value("registry"), s.Value("namespace"), strings.TrimPrefix(s.Value("from"), "//"))
	}
	return &ociImage{ref: ref, fill: c.OCI}, nil
}

func (o *ociImage) Fetch(ctx context.Context, rootfs string) error { return o.fill(ctx, o.ref, rootfs) }

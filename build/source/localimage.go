package source

import (
	"context"
	"fmt"

	"singularity/build/deffile"
)

// localImage is an image of any kind on this host.
type localImage struct {
	path    string
	extract func(ctx context.Context, path, rootfs string) error
}

func newLocalImage(s *deffile.Stage, c Config) (Source, error) {
	// Leaving out a check that the definition asks for would be worse than
	// refusing to build.
	if s.Value("fingerprints") != "" {
		return nil, fmt.Errorf("line %d: the header keyword Fingerprints is not part of this version: verify the image before the build", s.Line)
	}
	return &localImage{path: s.Value("from"), extract: c.Extract}, nil
}

func (l *localImage) Fetch(ctx context.Context, rootfs string) error {
	return l.extract(ctx, l.path, rootfs)
}

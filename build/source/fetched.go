package source

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"singularity/build/deffile"
)

// fetched is a SIF image from a registry, a library or Singularity Hub.
type fetched struct {
	ref     string
	fetch   func(ctx context.Context, ref string) (path string, done func(), err error)
	extract func(ctx context.Context, path, rootfs string) error
}

func newFetched(s *deffile.Stage, c Config) (Source, error) {
	// Leaving out a check that the definition asks for would be worse than
	// refusing to build.
	if s.Value("fingerprints") != "" {
		return nil, fmt.Errorf("line %d: the header keyword Fingerprints is not part of this version: pull and verify the image before the build", s.Line)
	}
	from := strings.TrimPrefix(s.Value("from"), "//")
	// A library of another host stands in Library, as a URL or a host.
	if host := s.Value("library"); s.Agent() == "library" && host != "" {
		if strings.Count(from, "/") != 2 {
			return nil, fmt.Errorf("line %d: with Library, From names entity/collection/container", s.Line)
		}
		_, after, isURL := strings.Cut(host, "://")
		if isURL {
			host = after
		}
		from = path.Join(host, from)
	}
	return &fetched{ref: s.Agent() + "://" + from, fetch: c.FetchImage, extract: c.Extract}, nil
}

// Fetch implements Source.
func (f *fetched) Fetch(ctx context.Context, rootfs string) error {
	if f.fetch == nil {
		return errors.New("images from elsewhere are not fetched here")
	}
	file, done, err := f.fetch(ctx, f.ref)
	if err != nil {
		return err
	}
	defer done()
	return f.extract(ctx, file, rootfs)
}

package source

import (
	"context"
	"fmt"
	"path"
	"strings"

	"singularity/build/deffile"
)

// fetched is a SIF image from a registry, a library or Singularity Hub.
type fetched struct {
	ref string
	imageSource
}

func newFetched(s *deffile.Stage, c Config) (Source, error) {
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
	ref := s.Agent() + "://" + from
	require, err := fingerprints(s)
	return &fetched{ref, imageSource{c: c, origin: Origin{Agent: s.Agent(), URI: ref}, require: require, quiet: c.Quiet}}, err
}

// get returns the path of the image, and what to call when it is not needed any
// more.
func (f *fetched) get(ctx context.Context) (string, func(), error) {
	return f.c.FetchImage(ctx, f.ref)
}

// Fetch implements Source.
func (f *fetched) Fetch(ctx context.Context, rootfs string) error {
	file, done, err := f.get(ctx)
	if err != nil {
		return err
	}
	defer done()
	return f.take(ctx, f.ref, file, rootfs)
}

// Key implements Keyed. Signatures that the definition demands are checked here
// too, as Fetch is left out where a later step is kept.
func (f *fetched) Key(ctx context.Context) (string, error) {
	file, done, err := f.get(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	if len(f.require) > 0 {
		if _, err := f.verify(ctx, f.ref, file); err != nil {
			return "", err
		}
	}
	return f.c.Digest(ctx, file)
}

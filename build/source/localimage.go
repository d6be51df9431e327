package source

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"singularity/build/deffile"
)

// localImage is an image of any kind on this host.
type localImage struct {
	path string
	imageSource
}

func newLocalImage(s *deffile.Stage, c Config) (Source, error) {
	path := s.Value("from")
	require, err := fingerprints(s)
	return &localImage{path, imageSource{c: c, origin: Origin{Agent: "localimage", URI: path}, require: require, quiet: c.Quiet}}, err
}

// open returns a path by which the image is always the same file.
//
// Security: another file could get the name between the check of a signature
// and the extraction.
func (l *localImage) open() (*os.File, string, error) {
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open the image: %w", err)
	}
	return f, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), nil
}

func (l *localImage) Fetch(ctx context.Context, rootfs string) error {
	f, path, err := l.open()
	if err != nil {
		return err
	}
	defer f.Close()
	return l.take(ctx, l.path, path, rootfs)
}

// Key implements Keyed.
//
// Security: signatures that the definition demands are checked here too, as
// Fetch is left out where a later step is kept.
func (l *localImage) Key(ctx context.Context) (string, error) {
	f, path, err := l.open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	if len(l.require) > 0 {
		if _, err := l.verify(ctx, l.path, path); err != nil {
			return "", err
		}
	}
	return l.c.Digest(ctx, path)
}

package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"singularity/build/source"
	"singularity/provenance"
	"singularity/sif"
)

// stageOrigin tells what a stage was made of.
type stageOrigin struct {
	Name   string
	Source source.Origin
	Files  []fileOrigin
}

// fileOrigin is something that %files or %appfiles copied.
type fileOrigin struct {
	Stage       string // "" is the host
	Source      string
	Destination string
	Digest      string // sha256: of a file, tree-sha256: of a directory

	key string // modes and, from a stage, owners too
}

// provenance states what the image f is made of. It tells nothing of when and
// where it was built, so that the same input gives the same bytes.
func (b *builder) provenance(f *sif.File) ([]byte, error) {
	p := provenance.Build{Version: b.o.Version, Parameters: map[string]any{"arch": b.arch, "definition": map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(b.def.Text))}}}
	for n, s := range b.stages {
		stage := cmp.Or(s.origin.Name, strconv.Itoa(n+1))
		o := s.origin.Source
		more := map[string]any{"stage": stage, "agent": o.Agent}
		if o.Release != "" {
			more["release"] = o.Release
		}
		if o.Packages != nil {
			more["packages"] = o.Packages
		}
		if len(o.Signers) > 0 {
			more["signers"] = o.Signers
		}
		if len(o.Base) > 0 {
			more["provenance"] = o.Base
		}
		p.Dependencies = append(p.Dependencies, provenance.Dependency{Name: "base of stage " + stage, URI: o.URI, Digest: o.Digest, More: more})
		for _, c := range s.origin.Files {
			from := map[string]any{"stage": stage, "source": c.Source, "destination": c.Destination}
			if c.Stage != "" {
				from["from"] = c.Stage
			}
			p.Dependencies = append(p.Dependencies, provenance.Dependency{Name: c.Destination, Digest: c.Digest, More: from})
		}
	}
	return provenance.New(f, p)
}

// verify checks the signatures of an image that a stage begins with.
func (b *builder) verify(ctx context.Context, path string, require []string) ([]string, error) {
	if b.o.Verify == nil {
		return nil, source.ErrNoKeys
	}
	return b.o.Verify(ctx, path, require)
}

// digestOf returns the digest of a file, or of a directory's files.
func digestOf(ctx context.Context, path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		digest, err := treeDigest(ctx, f)
		return "tree-sha256:" + digest, err
	}
	h := sha256.New()
	_, err = io.Copy(h, readerUntil{ctx, f})
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), err
}

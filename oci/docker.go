package oci

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"singularity/oci/unpack"
)

// saved is an entry of manifest.json in a "docker save" archive.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func openDockerArchive(ctx context.Context, name string, o *Options) (*Image, error) {
	file, ref := splitPath(name)
	s, err := openTarFile(ctx, file, o)
	if err != nil {
		return nil, err
	}
	img, err := readSaved(s, file, ref, o)
	if err != nil {
		s.Close()
		return nil, err
	}
	return NewImage(img, s), nil
}

// readSaved finds an image in a "docker save" archive.
func readSaved(s store, name, ref string, o *Options) (*image, error) {
	data, err := readDocument(s, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := s.size("index.json"); err == nil {
			return nil, fmt.Errorf("%q is the archive of an OCI layout: name it as oci-archive:%s", name, name)
		}
		return nil, fmt.Errorf("%q is no archive of docker save, it holds no manifest.json: %w", name, ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	var list []saved
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("cannot use manifest.json of %q: %w: %w", name, err, ErrFormat)
	}
	m, err := pickSaved(list, name, ref)
	if err != nil {
		return nil, err
	}
	img := &image{}
	if img.rawConfig, err = readDocument(s, m.Config); err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the image: %w", err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(img.rawConfig))
	if hex := strings.TrimSuffix(path.Base(m.Config), ".json"); len(hex) == len(sum) && hex != sum {
		return nil, fmt.Errorf("the configuration %q has the digest %s: %w", m.Config, sum, unpack.ErrDigest)
	}
	if err := img.parseConfig(o); err != nil {
		return nil, err
	}
	if err := checkDiffIDs(img.config, len(m.Layers)); err != nil {
		return nil, err
	}
	for i, l := range m.Layers {
		if _, err := s.size(l); err != nil {
			return nil, fmt.Errorf("cannot use layer %d: %w", i+1, err)
		}
		img.layers = append(img.layers, &layer{store: s, name: l, diffID: img.config.RootFS.DiffIDs[i]})
	}
	return img, nil
}

// pickSaved takes the entry that a reference names, the only one without it.
func pickSaved(list []saved, name, ref string) (saved, error) {
	var names []string
	for _, m := range list {
		for _, t := range m.RepoTags {
			if ref != "" && (t == ref || t == ref+":latest" || strings.TrimPrefix(t, "docker.io/") == ref || strings.TrimPrefix(t, "docker.io/library/") == ref) {
				return m, nil
			}
			names = append(names, fmt.Sprintf("%q", t))
		}
	}
	slices.Sort(names)
	switch {
	case len(list) == 0:
		return saved{}, fmt.Errorf("%q holds no image: %w", name, ErrFormat)
	case ref != "":
		return saved{}, fmt.Errorf("%q holds no image %q; it holds %s", name, ref, strings.Join(names, ", "))
	case len(list) > 1:
		return saved{}, fmt.Errorf("%q holds %d images: name one behind a colon: %s", name, len(list), strings.Join(names, ", "))
	}
	return list[0], nil
}

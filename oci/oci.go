// Package oci opens images of the Open Container Initiative and of Docker where
// they lie on this host.
//
// In: a reference such as docker-archive:FILE, oci:DIR:TAG, oci-archive:FILE:TAG
// or docker-daemon:NAME:TAG. Out: a v1.Image of go-containerregistry, as those
// that come from a registry are, and from any v1.Image a Source: its
// configuration and its layers as package oci/unpack reads them. What the
// configuration says about starting a program becomes the scripts of a
// Singularity image.
//
// Trust: the archives are an enemy's. Every document has a bounded size, and one
// that could be read as a manifest and as an index is refused; digests are
// checked for their form before they become names, and for their bytes before a
// document is believed (layers: by oci/unpack). Members of an archive are found
// by an index in memory and never become files. Addresses that a manifest names
// for a layer are never asked.
//
// It follows the image specification 1.1.1
// (https://github.com/opencontainers/image-spec) and the format of "docker save".
//
// Files: oci.go (references, Source), archive.go (members of a tar archive),
// layout.go (layouts), docker.go (docker save), daemon.go (a Docker daemon),
// platform.go (choice of one image out of several), image.go (the v1.Image),
// keep.go (layers from elsewhere), script.go (scripts).
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/oci/document"
	"singularity/oci/unpack"
)

// ErrFormat is wrapped by the error of an image that is malformed.
var ErrFormat = document.ErrFormat

// maxManifests bounds the manifests of one index.
const maxManifests = 4096

// Options say how images are opened.
type Options struct {
	Platform   *Platform            // the image to take; nil means one for this machine
	DockerHost string               // address of the daemon; "" means $DOCKER_HOST, else its usual socket
	TempDir    string               // for what a daemon sends; "" means the system's
	Getenv     func(string) string  // nil means no variables
	Warning    func(message string) // may be nil
	Limits     func() unpack.Limits // nil means unpack.DefaultLimits
}

func (o *Options) getenv(name string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(name)
}

func (o *Options) limits() unpack.Limits {
	if o.Limits == nil {
		return unpack.DefaultLimits()
	}
	return o.Limits()
}

// Image is an open image.
type Image struct {
	v1.Image
	closers []io.Closer
	dir     string // where layers from elsewhere are kept; "" for nowhere
}

// NewImage is an image of another origin, such as a registry. Close closes what
// is given with it.
func NewImage(img v1.Image, list ...io.Closer) *Image { return &Image{Image: img, closers: list} }

// Close closes the files behind the image.
func (i *Image) Close() error {
	var err error
	for _, c := range i.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Schemes are what a reference that Open knows begins with.
func Schemes() []string { return []string{"docker-archive", "docker-daemon", "oci", "oci-archive"} }

// Split takes a reference apart; ok is false if Open does not know its scheme.
func Split(ref string) (scheme, rest string, ok bool) {
	scheme, rest, _ = strings.Cut(ref, ":")
	for _, s := range Schemes() {
		ok = ok || s == scheme
	}
	return scheme, strings.TrimPrefix(rest, "//"), ok
}

// Open opens the image that a reference names.
func Open(ctx context.Context, ref string, o Options) (*Image, error) {
	scheme, rest, ok := Split(ref)
	if !ok || rest == "" {
		return nil, fmt.Errorf("cannot open %q: want one of %s, then a colon and a name", ref, strings.Join(Schemes(), ", "))
	}
	open := map[string]func(context.Context, string, *Options) (*Image, error){
		"docker-archive": openDockerArchive, "docker-daemon": openDaemon, "oci": openLayout, "oci-archive": openArchive,
	}[scheme]
	img, err := open(ctx, rest, &o)
	if err != nil {
		return nil, fmt.Errorf("cannot open the image %q: %w", ref, err)
	}
	return img, nil
}

// splitPath takes a reference of a file or directory apart. A path that exists
// as a whole has no reference behind it, whatever colons are in it.
func splitPath(s string) (path, ref string) {
	if _, err := os.Stat(s); err == nil {
		return s, ""
	}
	for i := 0; i < len(s); i++ {
		if s[i] != ':' {
			continue
		}
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], s[i+1:]
		}
	}
	path, ref, _ = strings.Cut(s, ":")
	return path, ref
}

// Source is what an image consists of, ready to be read.
type Source struct {
	Config    *v1.ConfigFile
	RawConfig []byte
	Layers    []unpack.Layer
	// Digest names the image: the digest of its manifest, or of its configuration
	// where it came without a manifest.
	Digest string
}

// Source looks into the image, whatever its origin.
func (i *Image) Source() (*Source, error) {
	img := i.Image
	s := &Source{}
	var err error
	if s.RawConfig, err = img.RawConfigFile(); err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the image: %w", err)
	}
	if s.Config, err = img.ConfigFile(); err != nil {
		return nil, fmt.Errorf("cannot read the configuration of the image: %w", err)
	}
	if s.Config.OS != "" && s.Config.OS != "linux" {
		return nil, fmt.Errorf("the image is for %s, not for Linux", s.Config.OS)
	}
	if own, ok := img.(*image); ok {
		return s, own.source(s)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	s.Digest = digest.String()
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if err := checkDiffIDs(s.Config, len(layers)); err != nil {
		return nil, err
	}
	for n, l := range layers {
		layer, err := foreignLayer(l, s.Config.RootFS.DiffIDs[n])
		if err != nil {
			return nil, fmt.Errorf("cannot use layer %d: %w", n+1, err)
		}
		if i.dir != "" {
			k := &kept{layer: l, dir: i.dir, size: layer.Size}
			i.closers = append(i.closers, k)
			layer.Open = k.open
		}
		s.Layers = append(s.Layers, layer)
	}
	return s, nil
}

func checkDiffIDs(c *v1.ConfigFile, layers int) error {
	if n := len(c.RootFS.DiffIDs); n != layers {
		return fmt.Errorf("its manifest has %d layers, its configuration %d: %w", layers, n, ErrFormat)
	}
	for _, id := range c.RootFS.DiffIDs {
		if err := checkHash(id); err != nil {
			return err
		}
	}
	return nil
}

// checkHash refuses digests by anything but SHA-256: they become names, and are
// what is compared.
func checkHash(h v1.Hash) error {
	if h.Algorithm != "sha256" || len(h.Hex) != 64 || strings.Trim(h.Hex, "0123456789abcdef") != "" {
		return fmt.Errorf("%q is no digest by SHA-256: %w", h.Algorithm+":"+h.Hex, ErrFormat)
	}
	return nil
}

// foreignLayer describes a layer that another package reads.
func foreignLayer(l v1.Layer, diffID v1.Hash) (unpack.Layer, error) {
	digest, err := l.Digest()
	if err == nil {
		err = checkHash(digest)
	}
	if err != nil {
		return unpack.Layer{}, err
	}
	mt, err := l.MediaType()
	if err == nil {
		err = checkLayerType(mt)
	}
	if err != nil {
		return unpack.Layer{}, err
	}
	size, err := l.Size()
	return unpack.Layer{DiffID: diffID.String(), Digest: digest.String(), Size: size, Open: l.Compressed}, err
}

// checkLayerType refuses what holds no plain or compressed tar archive. How it
// is compressed is told by its first bytes.
func checkLayerType(mt types.MediaType) error {
	switch mt {
	case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer, types.OCIRestrictedLayer, types.OCIUncompressedRestrictedLayer,
		types.DockerLayer, types.DockerUncompressedLayer, types.DockerForeignLayer, "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return nil
	}
	return fmt.Errorf("a layer of type %q is no archive of files: %w", mt, ErrFormat)
}

// Package fetch turns an image reference into an image on this host, through
// the cache.
//
// In go references as people type them, out come the paths of whole images:
// files of the cache, which stay, or temporary ones. SIF images are kept as they
// come; images of layers are converted by a function that the caller gives.
//
// What comes is checked against the digest by which it was found; a direct
// download has none and is trusted as its server is. Who signed an image is the
// caller's question. A reference with a digest that is in the cache asks nobody,
// and a tag only once in a while (package recent); where no server can be
// reached, the image that a tag named last is taken, and the caller told.
//
// Files: ref.go (references), fetch.go (the way through the cache), source.go
// (one for each scheme), shub.go, push.go (images of layers into a registry).
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"singularity/client/library"
	"singularity/client/transfer"
	"singularity/fetch/cache"
	"singularity/fetch/recent"
	"singularity/host"
	"singularity/oci/registry"
)

// Fetcher fetches images.
type Fetcher struct {
	Cache    *cache.Cache // nil: none
	TempDir  string       // where an image goes without a cache
	Registry *registry.Client
	// Library returns the client of a library; host is empty for the default one.
	Library func(ctx context.Context, host string) (*library.Client, error)
	HTTP    *http.Client
	// PlainHTTP is --no-https, for the hosts that a scheme other than http names.
	PlainHTTP bool
	Platform  v1.Platform
	// Convert makes a SIF file at path, which exists, of an image of layers,
	// which ref names: with a digest where it has one.
	Convert func(ctx context.Context, ref, path string) error
	// Local returns the digest of an image of layers on this host.
	Local func(ctx context.Context, ref string) (digest string, err error)
	// Progress and the messages may be nil.
	Progress               func(what string, done, total int64)
	Info, Warning, Verbose func(string)
	// Window is how long a tag is taken to name what it named; 0: always ask.
	Window time.Duration
	// Stale allows what a tag named before where no server can be reached.
	Stale bool
}

// Image is an image on this host.
type Image struct {
	Path   string
	Kind   Kind
	Digest string // by which it was found; empty if by none
	Cached bool   // it is in the cache, and not to be changed
	temp   string
}

// Close removes an image that is not in the cache.
func (i *Image) Close() error {
	if i.temp == "" {
		return nil
	}
	return os.RemoveAll(i.temp)
}

// source is an image that was found but not fetched.
type source struct {
	kind   string // of the cache
	name   string // in the cache; empty: it cannot be cached
	digest string // for people
	pinned bool   // the reference will name it for ever
	what   string // for the progress
	size   int64  // of the image, in bytes; 0: not known
	write  func(ctx context.Context, f *os.File) error
}

func call(f func(string), format string, args ...any) {
	if f != nil {
		f(fmt.Sprintf(format, args...))
	}
}

// key is the name of a reference among the recent ones.
func (f *Fetcher) key(r *Ref) string { return Key(r.Text, f.Platform) }

// Key names a reference and a platform; that of this host has no name.
func Key(text string, p v1.Platform) string {
	if p.Equals(HostPlatform()) {
		return text
	}
	return text + " " + p.String()
}

// Fetch returns the image that r names. The caller closes it.
func (f *Fetcher) Fetch(ctx context.Context, r *Ref) (*Image, error) {
	if f.Cache != nil && f.Window > 0 && !r.Here() {
		path := ""
		known := func() bool {
			path = recent.Lookup(f.Cache.Root, f.key(r), f.Window)
			return path != ""
		}
		if !known() {
			defer f.Cache.Lead(ctx, hash(f.key(r)), f.waiting, known)()
		}
		if known() {
			return &Image{Path: path, Kind: r.Kind, Cached: true}, nil
		}
	}
	s, err := f.find(ctx, r)
	if err != nil {
		if i := f.stale(r, err); i != nil {
			return i, nil
		}
		return nil, err
	}
	if f.Cache == nil || s.name == "" {
		return f.temporary(ctx, r, s)
	}
	path, err := f.Cache.Make(ctx, s.kind, s.name, f.waiting, func(file *os.File) error { return f.write(ctx, s, host.Cached, file) })
	if err != nil {
		return nil, host.ExplainSpace(err, host.Cached, f.Cache.Root, s.size)
	}
	if !r.Here() {
		recent.Store(f.Cache.Root, f.key(r), s.kind+"/"+s.name, s.pinned)
	}
	return &Image{Path: path, Kind: r.Kind, Digest: s.digest, Cached: true}, nil
}

// Here tells whether the reference names an image of layers on this host: it can
// be looked at each time.
func (r *Ref) Here() bool {
	return r.Kind == OCI || r.Kind == OCIArchive || r.Kind == DockerArchive || r.Kind == DockerDaemon
}

func (f *Fetcher) waiting(host string) {
	call(f.Info, "Waiting for another process on %s, which fetches the same image", host)
}

// write fetches s into file, if there is room for it.
func (f *Fetcher) write(ctx context.Context, s *source, use host.Use, file *os.File) error {
	dir := filepath.Dir(file.Name())
	if use == host.Temporary {
		dir = filepath.Dir(dir) // the other one goes away
	}
	fi, err := file.Stat() // the beginning may be here already
	if err == nil {
		err = host.CheckFile(use, dir, s.size-fi.Size())
	}
	if err != nil {
		return err
	}
	f.announce(s)
	return host.ExplainSpace(s.write(ctx, file), use, dir, s.size)
}

func (f *Fetcher) announce(s *source) {
	verb := "Downloading"
	if s.kind == "oci-tmp" {
		verb = "Converting"
	}
	call(f.Info, "%s %s", verb, s.what)
}

// stale returns the image that r named when a server was last asked, if now
// none can be.
func (f *Fetcher) stale(r *Ref, err error) *Image {
	if f.Cache == nil || !f.Stale || !transfer.Unreachable(err) {
		return nil
	}
	path, asked := recent.Last(f.Cache.Root, f.key(r))
	if path == "" {
		return nil
	}
	call(f.Warning, "%v: using the image of %s that was there on %s", err, r.Text, asked.Format(time.RFC1123))
	if f.Window > 0 && !errors.Is(err, transfer.ErrOffline) {
		// The next starts need not wait for the same network.
		recent.Store(f.Cache.Root, f.key(r), strings.TrimPrefix(path, f.Cache.Root+"/"), false)
	}
	return &Image{Path: path, Kind: r.Kind, Cached: true}
}

// temporary fetches s into a directory of its own.
func (f *Fetcher) temporary(ctx context.Context, r *Ref, s *source) (*Image, error) {
	dir, err := os.MkdirTemp(f.TempDir, "singularity-action-pull-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a temporary directory: %w", err)
	}
	i := &Image{Path: filepath.Join(dir, "image.sif"), Kind: r.Kind, Digest: s.digest, temp: dir}
	file, err := os.OpenFile(i.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o700)
	if err == nil {
		err = errors.Join(f.write(ctx, s, host.Temporary, file), file.Close())
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

// Pull writes the image that r names to dst, whole or not at all. What is there
// is replaced if replace is set. check, which may be nil, has the last word
// before the image gets its name.
func (f *Fetcher) Pull(ctx context.Context, r *Ref, dst string, replace bool, mode fs.FileMode, check func(path string) error) (*Image, error) {
	if f.Cache == nil {
		return f.pullDirect(ctx, r, dst, replace, mode, check)
	}
	i, err := f.Fetch(ctx, r)
	if err != nil {
		return nil, err
	}
	defer i.Close()
	if check != nil {
		if err := check(i.Path); err != nil {
			return nil, err
		}
	}
	size := int64(0)
	if fi, err := os.Stat(i.Path); err == nil {
		size = fi.Size()
	}
	return i, host.ExplainSpace(cache.Copy(i.Path, dst, mode, replace), host.Target, filepath.Dir(dst), size)
}

func (f *Fetcher) pullDirect(ctx context.Context, r *Ref, dst string, replace bool, mode fs.FileMode, check func(path string) error) (*Image, error) {
	s, err := f.find(ctx, r)
	if err != nil {
		return nil, err
	}
	err = cache.Place(dst, mode, replace, func(file *os.File) error {
		err := f.write(ctx, s, host.Target, file)
		if err == nil && check != nil {
			err = check(file.Name())
		}
		return err
	})
	return &Image{Path: dst, Kind: r.Kind, Digest: s.digest}, host.ExplainSpace(err, host.Target, filepath.Dir(dst), s.size)
}

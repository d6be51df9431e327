package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"singularity/client/library"
	"singularity/client/transfer"
)

// converter names the way in which images of layers are converted: another one
// may not use what this one left in the cache.
const converter = "sif-1"

// HostPlatform is the platform of this host.
func HostPlatform() v1.Platform {
	return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
}

// hash makes one name of several words.
func hash(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d:%s", len(w), w)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// find asks whoever r names for the image.
func (f *Fetcher) find(ctx context.Context, r *Ref) (*source, error) {
	switch r.Kind {
	case Docker:
		return f.findDocker(ctx, r)
	case ORAS:
		return f.findORAS(ctx, r)
	case Library:
		return f.findLibrary(ctx, r)
	case HTTP, HTTPS:
		return f.findURL(ctx, r)
	case Shub:
		return f.findShub(ctx, r)
	case OCI, OCIArchive, DockerArchive, DockerDaemon:
		return f.findLocal(ctx, r)
	}
	return nil, fmt.Errorf("cannot fetch %q: it is no image elsewhere", r.Text)
}

// progress returns a function for the progress of one transfer.
func (f *Fetcher) progress(what string) func(done, total int64) {
	if f.Progress == nil {
		return nil
	}
	return func(done, total int64) { f.Progress(what, done, total) }
}

func (f *Fetcher) findDocker(ctx context.Context, r *Ref) (*source, error) {
	digest := r.Digest
	if digest == "" {
		var err error
		if digest, err = f.Registry.Resolve(ctx, r.Repository(), r.Tag()); err != nil {
			return nil, err
		}
	}
	return &source{
		kind: "oci-tmp", name: hash(digest, f.Platform.String(), converter), digest: digest, pinned: r.Digest != "",
		what: r.Repository() + "@" + digest,
		write: func(ctx context.Context, file *os.File) error {
			return f.Convert(ctx, "docker://"+r.Repository()+"@"+digest, file.Name())
		},
	}, nil
}

// findLocal opens an image of layers that is on this host already.
func (f *Fetcher) findLocal(ctx context.Context, r *Ref) (*source, error) {
	digest, err := f.Local(ctx, r.Text)
	if err != nil {
		return nil, err
	}
	return &source{
		kind: "oci-tmp", name: hash(digest, f.Platform.String(), converter), digest: digest, what: r.Text,
		write: func(ctx context.Context, file *os.File) error { return f.Convert(ctx, r.Text, file.Name()) },
	}, nil
}

func (f *Fetcher) findORAS(ctx context.Context, r *Ref) (*source, error) {
	i, err := f.Registry.FindSIF(ctx, r.Repository(), r.Tag(), r.Digest, f.Platform.Architecture)
	if err != nil {
		return nil, err
	}
	return &source{
		kind: "oras", name: "sha256." + strings.TrimPrefix(i.Digest, "sha256:"), digest: i.Digest, pinned: r.Digest != "", what: r.Text, size: i.Size,
		write: func(ctx context.Context, file *os.File) error { return i.To(ctx, file, f.progress(r.FileName())) },
	}, nil
}

// findLibrary asks a library. A reference by hash in the cache is known already.
func (f *Fetcher) findLibrary(ctx context.Context, r *Ref) (*source, error) {
	s := &source{kind: "library", what: r.Text, digest: r.Digest, pinned: r.Digest != ""}
	if name := "sha256." + strings.TrimPrefix(r.Digest, "sha256:"); r.Digest != "" && f.Cache != nil && f.Cache.Find("library", name) != "" {
		s.name = name
		return s, nil
	}
	c, err := f.Library(ctx, r.Host)
	if err != nil {
		return nil, err
	}
	i, err := c.Find(ctx, r.Name, r.Tag(), f.Platform.Architecture)
	if err != nil {
		return nil, fmt.Errorf("cannot pull %q: %w", r.Text, err)
	}
	digits, err := library.Hex(i.Hash)
	if err != nil {
		return nil, err
	}
	if r.Digest != "" && r.Digest != "sha256:"+digits {
		return nil, fmt.Errorf("cannot pull %q: %w: the library answers with %s", r.Text, transfer.ErrDigest, i.Hash)
	}
	s.name, s.digest, s.size = "sha256."+digits, "sha256:"+digits, i.Size
	s.write = func(ctx context.Context, file *os.File) error {
		// By hash: the tag may move between two requests.
		err := c.Download(ctx, r.Name, "sha256."+digits, f.Platform.Architecture, i, file, f.progress(r.FileName()))
		if err != nil {
			return fmt.Errorf("cannot pull %q: %w", r.Text, err)
		}
		return nil
	}
	return s, nil
}

// findURL asks for what tells one state of a file from another; a server that
// does not say gets no place in the cache.
func (f *Fetcher) findURL(ctx context.Context, r *Ref) (*source, error) {
	s := &source{kind: "net", what: transfer.Redact(r.Name)}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.Name, nil)
	if err != nil {
		return nil, err
	}
	res, err := f.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot pull %q: %w", s.what, transfer.Plain(err))
	}
	res.Body.Close()
	size := int64(-1)
	if res.StatusCode == http.StatusOK {
		size = res.ContentLength
		tag, date := res.Header.Get("Etag"), res.Header.Get("Last-Modified")
		if tag != "" && !strings.HasPrefix(tag, "W/") || date != "" {
			s.name = hash(r.Name, tag, date, strconv.FormatInt(size, 10))
		}
	}
	s.size = max(size, 0)
	s.write = f.download(r, r.Name, size)
	return s, nil
}

// download fetches an address whose content nobody has named by digest.
func (f *Fetcher) download(r *Ref, address string, size int64) func(context.Context, *os.File) error {
	return func(ctx context.Context, file *os.File) error {
		d := &transfer.Download{Client: f.HTTP, URL: address, Size: size, Progress: f.progress(r.FileName())}
		if _, err := d.To(ctx, file); err != nil {
			return fmt.Errorf("cannot pull %q: %w", transfer.Redact(r.Text), err)
		}
		return nil
	}
}

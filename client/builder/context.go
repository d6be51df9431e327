package builder

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"singularity/api"
	"singularity/client/transfer"
)

const (
	maxFiles = 200_000
	maxDepth = 64 // of directories, for links that lead in a circle
)

// Files is an archive of files of this machine for a build.
type Files struct {
	Digest string // sha256.HEX
	Size   int64
	file   *os.File
}

// Pack packs what the patterns name into a gzipped tar in dir, under their
// absolute paths. Links are followed: what they lead to is packed.
func Pack(ctx context.Context, dir, cwd string, patterns []string) (*Files, error) {
	f, err := os.CreateTemp(dir, "build-context-")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	p := &packer{ctx: ctx, seen: map[string]bool{}}
	h := sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, h))
	p.tar = tar.NewWriter(z)
	for _, pattern := range patterns {
		if err == nil {
			err = p.pattern(cwd, pattern)
		}
	}
	if err == nil {
		err = errors.Join(p.tar.Close(), z.Close())
	}
	size, seek := f.Seek(0, io.SeekCurrent)
	if err = errors.Join(err, seek); err != nil {
		f.Close()
		return nil, err
	}
	return &Files{Digest: "sha256." + hex.EncodeToString(h.Sum(nil)), Size: size, file: f}, nil
}

// Close frees the archive.
func (f *Files) Close() error { return f.file.Close() }

type packer struct {
	ctx  context.Context
	tar  *tar.Writer
	seen map[string]bool // names in the archive
}

func (p *packer) pattern(cwd, pattern string) error {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(cwd, pattern)
	}
	names, err := filepath.Glob(filepath.Clean(pattern))
	if err != nil {
		return fmt.Errorf("cannot copy %q: %w", pattern, err)
	}
	if len(names) == 0 {
		return fmt.Errorf("cannot copy %q: no such file on this host", pattern)
	}
	for _, n := range names {
		if err := p.parents(n); err != nil {
			return err
		}
		if err := p.add(n, 0); err != nil {
			return fmt.Errorf("cannot copy %q: %w", n, err)
		}
	}
	return nil
}

// parents adds the directories above a name.
func (p *packer) parents(name string) error {
	var list []string
	for d := path.Dir(name); d != "/" && d != "."; d = path.Dir(d) {
		list = append([]string{d}, list...)
	}
	for _, d := range list {
		info, err := os.Stat(d)
		if err != nil {
			return err
		}
		if err := p.entry(d, info, nil); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) add(name string, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return errors.New("directories lie too deep, or links lead in a circle")
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := p.entry(name, info, nil); err != nil {
			return err
		}
		list, err := os.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range list {
			if err := p.add(filepath.Join(name, e.Name()), depth+1); err != nil {
				return err
			}
		}
		return nil
	case info.Mode().IsRegular():
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return p.entry(name, info, f)
	}
	return fmt.Errorf("%q is neither a file nor a directory", name)
}

func (p *packer) entry(name string, info fs.FileInfo, content io.Reader) error {
	in := strings.TrimPrefix(filepath.ToSlash(name), "/")
	if p.seen[in] {
		return nil
	}
	if len(p.seen) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	p.seen[in] = true
	h := &tar.Header{Name: in, Typeflag: tar.TypeReg, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if content == nil {
		h.Name, h.Typeflag, h.Size = in+"/", tar.TypeDir, 0
	}
	if err := p.tar.WriteHeader(h); err != nil || content == nil {
		return err
	}
	n, err := io.Copy(p.tar, io.LimitReader(content, h.Size))
	if err == nil && n != h.Size {
		err = errors.New("it became shorter meanwhile")
	}
	return err
}

// sendTries is how often files are sent whose way breaks off.
const sendTries = 3

// Send lets the builder have the files, unless it has them already. After a way
// that broke off it asks again, for a new address, and for whether they are there.
func (c *Client) Send(ctx context.Context, f *Files) error {
	for try := 1; ; try++ {
		err := c.send(ctx, f)
		if err == nil || ctx.Err() != nil || try == sendTries {
			return err
		}
		if _, err := c.again(time.Time{}, err); err != nil {
			return err
		}
		if err := transfer.Pause(ctx, c.pause); err != nil {
			return err
		}
	}
}

func (c *Client) send(ctx context.Context, f *Files) error {
	announce, cancel := context.WithTimeout(ctx, c.Time)
	defer cancel()
	res, err := c.Service.Send(announce, http.MethodPost, "/v1/build-context", api.ContextRequest{Size: f.Size, Digest: f.Digest})
	if err != nil {
		return err
	}
	res.Body.Close()
	to := res.Header.Get("Location")
	if to == "" {
		return nil
	}
	base, err := url.Parse(c.Base + "/")
	if err != nil {
		return err
	}
	u, err := base.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != base.Scheme && u.Scheme != "https" {
		return fmt.Errorf("the builder wants the files at %q, which is no address of a service", transfer.Redact(to))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), io.NewSectionReader(f.file, 0, f.Size))
	if err != nil {
		return err
	}
	req.ContentLength = f.Size
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f.file, 0, f.Size)), nil }
	req.Header.Set("Content-Type", "application/octet-stream")
	up, err := c.HTTP.Do(req) // the address is the right to do so: no token
	if err != nil {
		return transfer.Plain(err)
	}
	defer up.Body.Close()
	if up.StatusCode/100 != 2 {
		return transfer.NewStatusError(up, "")
	}
	return nil
}

// Drop tells the builder that the files are not needed any more.
func (c *Client) Drop(ctx context.Context, digest string) error {
	return c.Call(ctx, http.MethodDelete, "/v1/build-context/"+url.PathEscape(digest), nil, nil)
}

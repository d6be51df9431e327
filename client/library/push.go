package library

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"singularity/api"
	"singularity/client/transfer"
)

// The limits of an upload in one part, and of the parts of another.
const (
	onePart  = 64 << 20
	maxParts = 10000
)

// ErrNoToken says that nobody is logged in.
var ErrNoToken = errors.New("no authentication token")

// Push describes an image to store.
type Push struct {
	Name        string // entity/collection/container
	Tags        []string
	Arch        string
	Description string
	Size        int64
	Progress    func(done, total int64)
}

// Push stores the image r and lets the tags name it. An image that the library
// has is not sent again.
func (c *Client) Push(ctx context.Context, r io.ReaderAt, p *Push) (*api.UploadComplete, error) {
	if c.Token == "" {
		return nil, ErrNoToken
	}
	sum, sum5, err := hashes(r, p.Size)
	if err != nil {
		return nil, err
	}
	container, err := c.container(ctx, p)
	if err != nil {
		return nil, err
	}
	image, err := c.image(ctx, p, container.ID, sum)
	if err != nil {
		return nil, err
	}
	done := &api.UploadComplete{}
	if !image.Uploaded {
		if done, err = c.upload(ctx, r, p, image.ID, sum, sum5); err != nil {
			return nil, err
		}
	}
	for _, t := range p.Tags {
		if err := c.tag(ctx, p, container.ID, image.ID, t, sum); err != nil {
			return nil, fmt.Errorf("cannot set the tag %q: %w", t, err)
		}
	}
	return done, nil
}

// tag lets a tag name the image, and checks that the library's log says so.
func (c *Client) tag(ctx context.Context, p *Push, container, image, tag, sum string) error {
	query := url.Values{}
	w, err := c.witness(query)
	if err != nil {
		return err
	}
	var e struct{ Proof *api.LogProof }
	_, header, err := c.ask(transfer.Repeatable(ctx), http.MethodPost, "/v2/tags/"+url.PathEscape(container), query,
		api.Tag{Arch: p.Arch, Tag: tag, ImageID: image}, &e, http.StatusOK, http.StatusCreated)
	if err != nil {
		return err
	}
	return w.check(header, e.Proof, p.Name, tag, p.Arch, &api.Image{Hash: "sha256." + sum})
}

func hashes(r io.ReaderAt, size int64) (string, string, error) {
	s, m := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(s, m), io.NewSectionReader(r, 0, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return hex.EncodeToString(s.Sum(nil)), hex.EncodeToString(m.Sum(nil)), err
}

// container returns the container of p, and makes what is missing on the way
// to it.
func (c *Client) container(ctx context.Context, p *Push) (*api.Container, error) {
	part := strings.Split(p.Name, "/")
	if len(part) != 3 {
		return nil, fmt.Errorf("cannot push to %q: entity/collection/container is wanted", p.Name)
	}
	if _, err := segments(p.Name); err != nil {
		return nil, err
	}
	entity, err := find(ctx, c, "/v1/entities/"+part[0], "/v1/entities", func() any {
		return api.Entity{Name: part[0], Description: "No description"}
	}, func(e *api.Entity) string { return e.ID })
	if err != nil {
		return nil, err
	}
	collection, err := find(ctx, c, "/v1/collections/"+part[0]+"/"+part[1], "/v1/collections", func() any {
		return api.Collection{Name: part[1], Description: "No description", Entity: entity.ID}
	}, func(e *api.Collection) string { return e.ID })
	if err != nil {
		return nil, err
	}
	return find(ctx, c, "/v1/containers/"+p.Name, "/v1/containers", func() any {
		return api.Container{Name: part[2], Description: "No description", Collection: collection.ID}
	}, func(e *api.Container) string { return e.ID })
}

// find gets an object, or makes it.
func find[T any](ctx context.Context, c *Client, path, place string, make func() any, id func(*T) string) (*T, error) {
	var e api.Envelope[T]
	status, err := c.call(ctx, http.MethodGet, path, nil, nil, &e, http.StatusOK)
	if status == http.StatusNotFound {
		_, err = c.call(ctx, http.MethodPost, place, nil, make(), &e, http.StatusOK, http.StatusCreated)
	}
	if err == nil && id(&e.Data) == "" {
		err = fmt.Errorf("the library has no id for %s", path)
	}
	return &e.Data, err
}

// image returns the record of the image, and makes it if it is missing.
func (c *Client) image(ctx context.Context, p *Push, container, sum string) (*api.Image, error) {
	i, err := c.Find(ctx, p.Name, "sha256."+sum, p.Arch)
	if _, missing := errors.AsType[*NotFoundError](err); missing {
		description := p.Description
		if description == "" {
			description = "No description"
		}
		var e api.Envelope[api.Image]
		_, err = c.call(ctx, http.MethodPost, "/v1/images", nil,
			api.Image{Hash: "sha256." + sum, Container: container, Description: description}, &e, http.StatusOK, http.StatusCreated)
		i = &e.Data
	}
	if err == nil && i.ID == "" {
		err = errors.New("the library has no id for the image")
	}
	return i, err
}

func (c *Client) upload(ctx context.Context, r io.ReaderAt, p *Push, id, sum, sum5 string) (*api.UploadComplete, error) {
	path := "/v2/imagefile/" + url.PathEscape(id)
	if p.Size > onePart {
		var e api.Envelope[api.Multipart]
		status, err := c.call(ctx, http.MethodPost, path+"/_multipart", nil, api.MultipartStart{FileSize: p.Size}, &e, http.StatusOK, http.StatusCreated)
		if err == nil {
			return c.parts(ctx, r, p, path, &e.Data)
		}
		if status != http.StatusNotFound {
			return nil, err
		}
	}
	var e api.Envelope[api.UploadURL]
	if _, err := c.call(transfer.Repeatable(ctx), http.MethodPost, path, nil, api.Upload{FileSize: p.Size, SHA256Sum: sum, MD5Sum: sum5}, &e, http.StatusOK, http.StatusCreated); err != nil {
		return nil, err
	}
	body := func() io.Reader {
		return &transfer.Counted{R: io.NewSectionReader(r, 0, p.Size), Total: p.Size, Progress: p.Progress}
	}
	if _, err := c.put(ctx, e.Data.UploadURL, body, p.Size, sum, strings.Contains(signedHeaders(e.Data.UploadURL), "x-amz-content-sha256")); err != nil {
		return nil, err
	}
	var done api.Envelope[api.UploadComplete]
	_, err := c.call(ctx, http.MethodPut, path+"/_complete", nil, struct{}{}, &done, http.StatusOK, http.StatusNoContent)
	return &done.Data, err
}

// signedHeaders returns the headers that an address wants. The list has
// semicolons, for which url.Values would drop it.
func signedHeaders(address string) string {
	_, query, _ := strings.Cut(address, "?")
	for _, word := range strings.Split(query, "&") {
		if list, ok := strings.CutPrefix(word, "X-Amz-SignedHeaders="); ok {
			if plain, err := url.QueryUnescape(list); err == nil {
				return plain
			}
		}
	}
	return ""
}

// parts sends an image in parts, and gives the upload up if one fails.
func (c *Client) parts(ctx context.Context, r io.ReaderAt, p *Push, path string, m *api.Multipart) (*api.UploadComplete, error) {
	// Security: a plan that does not fit would leave out a part of the image.
	if m.PartSize <= 0 || m.TotalParts <= 0 || m.TotalParts > maxParts || int64(m.TotalParts) != (p.Size+m.PartSize-1)/m.PartSize {
		return nil, fmt.Errorf("the library wants %d parts of %d bytes, which do not make up %d", m.TotalParts, m.PartSize, p.Size)
	}
	end := api.MultipartComplete{UploadID: m.UploadID}
	for n := 1; n <= m.TotalParts; n++ {
		off := int64(n-1) * m.PartSize
		token, err := c.part(ctx, r, p, path, m, n, off, min(m.PartSize, p.Size-off))
		if err != nil {
			// The cause may be that ctx has ended.
			c.call(context.WithoutCancel(ctx), http.MethodPut, path+"/_multipart_abort", nil, api.MultipartAbort{UploadID: m.UploadID}, nil, http.StatusOK, http.StatusNoContent)
			return nil, fmt.Errorf("cannot send part %d of %d: %w", n, m.TotalParts, err)
		}
		end.CompletedParts = append(end.CompletedParts, api.CompletedPart{PartNumber: n, Token: token})
	}
	var done api.Envelope[api.UploadComplete]
	_, err := c.call(ctx, http.MethodPut, path+"/_multipart_complete", nil, end, &done, http.StatusOK)
	return &done.Data, err
}

// part sends one part, up to three times.
func (c *Client) part(ctx context.Context, r io.ReaderAt, p *Push, path string, m *api.Multipart, n int, off, size int64) (token string, err error) {
	ask := api.Part{PartSize: size, UploadID: m.UploadID, PartNumber: n}
	strict := m.Options["s3compliant"] != "false"
	if strict {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(r, off, size)); err != nil {
			return "", err
		}
		ask.SHA256Sum = hex.EncodeToString(h.Sum(nil))
	}
	for range 3 {
		var e api.Envelope[api.PartURL]
		if _, err = c.call(ctx, http.MethodPut, path+"/_multipart", nil, ask, &e, http.StatusOK); err != nil {
			return "", err
		}
		body := func() io.Reader {
			return &transfer.Counted{R: io.NewSectionReader(r, off, size), Done: off, Total: p.Size, Progress: p.Progress}
		}
		if token, err = c.put(ctx, e.Data.PresignedURL, body, size, ask.SHA256Sum, strict); err == nil || ctx.Err() != nil {
			return token, err
		}
	}
	return "", err
}

// put sends data, which body gives from its beginning, to an address that the library names.
//
// Security: the address holds its own right to write, and may be anywhere. The
// token stays here, and so does the data if the way there is not as safe as
// that to the library.
func (c *Client) put(ctx context.Context, to string, body func() io.Reader, size int64, sum string, header bool) (string, error) {
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		return "", errors.New("the library names no address for the data")
	}
	if u.Scheme != "https" && strings.HasPrefix(c.Base, "https:") {
		return "", &transfer.PlainError{Host: u.Host}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, body())
	if err != nil {
		return "", err
	}
	req.ContentLength = size
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body()), nil }
	req.Header.Set("Content-Type", "application/octet-stream")
	if header {
		req.Header.Set("X-Amz-Content-Sha256", sum)
	}
	client := *c.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return "", transfer.Plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusNoContent {
		return "", transfer.NewStatusError(res, "")
	}
	return res.Header.Get("Etag"), nil
}

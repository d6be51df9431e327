package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"singularity/client/transfer"
)

// maxPushTries is how often in a row an upload may break off without a byte
// more having arrived.
const maxPushTries = 5

// PushSIF stores a SIF image, whose digest and size are known, at a tag, and
// returns the digest of its manifest. name is a title for people. What the
// registry has already is not sent again, and an upload that breaks off goes on
// where it stopped.
func (c *Client) PushSIF(ctx context.Context, repository, tag string, r io.ReaderAt, d SIF, title string, progress func(done, total int64)) (string, error) {
	digest := ""
	err := func() error {
		list, err := c.endpoints(repository, false)
		if err != nil {
			return err
		}
		s := list[0]
		u := &upload{s: s, progress: progress}
		if u.client, err = s.loggedIn(ctx, transport.PushScope); err != nil {
			return s.explain(err)
		}
		digest, err = u.sif(ctx, tag, r, d, title)
		if err != nil {
			return s.explain(err)
		}
		return nil
	}()
	if err != nil {
		return "", &Error{Verb: "push", Ref: repository + ":" + tag, Err: err}
	}
	return digest, nil
}

type upload struct {
	s        *session
	client   *http.Client
	progress func(done, total int64)
}

func (u *upload) sif(ctx context.Context, tag string, r io.ReaderAt, d SIF, title string) (string, error) {
	layer, err := v1.NewHash(d.Digest)
	if err != nil {
		return "", err
	}
	config := []byte("{}")
	hash, _, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return "", err
	}
	if err := u.blob(ctx, r, layer, d.Size, u.progress); err != nil {
		return "", err
	}
	if err := u.blob(ctx, bytes.NewReader(config), hash, int64(len(config)), nil); err != nil {
		return "", err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: sifConfigType, Size: int64(len(config)), Digest: hash},
		Layers: []v1.Descriptor{{MediaType: sifLayerType, Size: d.Size, Digest: layer,
			Annotations: map[string]string{"org.opencontainers.image.title": title}}},
	}
	text, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	whole, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	res, err := u.do(ctx, http.MethodPut, u.s.url("manifests/"+tag), bytes.NewReader(text), int64(len(text)),
		http.Header{"Content-Type": {string(types.OCIManifestSchema1)}})
	if err != nil {
		return "", err
	}
	return whole.String(), u.expect(res, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}

func (u *upload) do(ctx context.Context, method, to string, body io.Reader, size int64, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	for k, v := range h {
		req.Header[k] = v
	}
	return u.client.Do(req)
}

// expect closes an answer and makes an error of another status than wanted.
func (u *upload) expect(res *http.Response, want ...int) error {
	defer res.Body.Close()
	for _, w := range want {
		if res.StatusCode == w {
			io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
			return nil
		}
	}
	return transfer.NewStatusError(res, u.s.used)
}

// blob makes sure that the registry has a blob.
func (u *upload) blob(ctx context.Context, r io.ReaderAt, h v1.Hash, size int64, progress func(done, total int64)) error {
	res, err := u.do(ctx, http.MethodHead, u.s.url("blobs/"+h.String()), nil, 0, nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	place, err := u.begin(ctx)
	if err != nil {
		return err
	}
	var off int64
	wait := 300 * time.Millisecond
	for try := 1; ; try++ {
		next, err := u.patch(ctx, place, r, off, size, progress)
		if err == nil {
			place = next
			break
		}
		_, refused := errors.AsType[*transfer.StatusError](err)
		if ctx.Err() != nil || refused || try >= maxPushTries {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		wait *= 2
		before := off
		if place, off, err = u.status(ctx, place); err != nil {
			// The registry has forgotten about it.
			if place, err = u.begin(ctx); err != nil {
				return err
			}
			off = 0
		}
		if off > before {
			try = 0
		}
	}
	return u.finish(ctx, place, h)
}

// begin starts an upload and returns its address.
func (u *upload) begin(ctx context.Context) (string, error) {
	res, err := u.do(ctx, http.MethodPost, u.s.url("blobs/uploads/"), nil, 0, nil)
	if err != nil {
		return "", err
	}
	if err := u.expect(res, http.StatusAccepted); err != nil {
		return "", err
	}
	return u.location(res)
}

// location returns where an answer sends us.
//
// Security: data and the right to upload go to the registry only.
func (u *upload) location(res *http.Response) (string, error) {
	to, err := res.Location()
	if err != nil {
		return "", fmt.Errorf("%s does not say where to upload", res.Request.URL.Host)
	}
	if transfer.Origin(to) != transfer.Origin(res.Request.URL) {
		return "", &CredentialError{Host: to.Scheme + "://" + to.Host, For: u.s.repo.RegistryStr()}
	}
	return to.String(), nil
}

// patch sends what follows off.
func (u *upload) patch(ctx context.Context, place string, r io.ReaderAt, off, size int64, progress func(done, total int64)) (string, error) {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if off > 0 {
		h.Set("Content-Range", strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(size-1, 10))
	}
	if off == size {
		return place, nil
	}
	body := &counted{r: io.NewSectionReader(r, off, size-off), done: off, total: size, progress: progress}
	res, err := u.do(ctx, http.MethodPatch, place, body, size-off, h)
	if err != nil {
		return "", err
	}
	if err := u.expect(res, http.StatusAccepted, http.StatusNoContent, http.StatusCreated); err != nil {
		return "", err
	}
	return u.location(res)
}

// status asks how much of an upload has arrived.
func (u *upload) status(ctx context.Context, place string) (string, int64, error) {
	res, err := u.do(ctx, http.MethodGet, place, nil, 0, nil)
	if err != nil {
		return "", 0, err
	}
	if err := u.expect(res, http.StatusNoContent, http.StatusOK); err != nil {
		return "", 0, err
	}
	_, last, ok := strings.Cut(res.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || n < 0 {
		return "", 0, errors.New("the registry does not say how much has arrived")
	}
	if next, err := u.location(res); err == nil {
		place = next
	}
	if n > 0 {
		n++ // the range names the last byte, and 0-0 means nothing
	}
	return place, n, nil
}

// finish ends an upload with the digest that it must have.
func (u *upload) finish(ctx context.Context, place string, h v1.Hash) error {
	to, err := url.Parse(place)
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("digest", h.String())
	to.RawQuery = q.Encode()
	res, err := u.do(ctx, http.MethodPut, to.String(), nil, 0, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return err
	}
	return u.expect(res, http.StatusCreated, http.StatusNoContent)
}

// counted tells how much of a body was read.
type counted struct {
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	if c.progress != nil && n > 0 {
		c.progress(c.done, c.total)
	}
	return n, err
}

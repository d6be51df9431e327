package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	"singularity/client/transfer"
)

// maxPushTries is how often in a row an upload may break off without a byte
// more having arrived.
const maxPushTries = 5

// Push stores an image at a tag. What the registry has
// already is not sent again, and an upload that breaks off goes on where it
// stopped.
type Push struct {
	s        *session
	client   *http.Client
	ref, tag string
}

// Push begins a push to a tag of a repository.
func (c *Client) Push(ctx context.Context, repository, tag string) (*Push, error) {
	ref := fullName(repository, tag, "")
	list, err := c.endpoints(repository, false)
	if err != nil {
		return nil, &Error{Verb: "push", Ref: ref, Err: err}
	}
	p := &Push{s: list[0], ref: ref, tag: tag}
	if p.client, err = p.s.loggedIn(ctx, transport.PushScope); err != nil {
		return nil, p.fail(err)
	}
	return p, nil
}

// fail makes an error of this push of err.
func (p *Push) fail(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Verb: "push", Ref: p.ref, Err: p.s.explain(err)}
}

// Blob makes sure that the registry has a blob.
func (p *Push) Blob(ctx context.Context, r io.ReaderAt, digest string, size int64, progress func(done, total int64)) error {
	h, err := v1.NewHash(digest)
	if err == nil {
		err = p.blob(ctx, r, h, size, progress)
	}
	return p.fail(err)
}

// Manifest stores a manifest at the tag, and returns its digest.
func (p *Push) Manifest(ctx context.Context, mediaType string, text []byte) (string, error) {
	return digestOf(text), p.fail(p.put(ctx, p.tag, mediaType, text))
}

// put stores a manifest at a tag or at its digest.
func (p *Push) put(ctx context.Context, at, mediaType string, text []byte) error {
	res, err := p.do(ctx, http.MethodPut, p.s.url("manifests/"+at), bytes.NewReader(text), int64(len(text)), http.Header{"Content-Type": {mediaType}})
	if err != nil {
		return err
	}
	return p.expect(res, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *Push) do(ctx context.Context, method, to string, body io.Reader, size int64, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	for k, v := range h {
		req.Header[k] = v
	}
	return p.client.Do(req)
}

// expect closes an answer and makes an error of another status than wanted.
func (p *Push) expect(res *http.Response, want ...int) error {
	defer res.Body.Close()
	for _, w := range want {
		if res.StatusCode == w {
			io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20))
			return nil
		}
	}
	return transfer.NewStatusError(res, p.s.used)
}

// blob is Blob with an error that says nothing of the push.
func (p *Push) blob(ctx context.Context, r io.ReaderAt, h v1.Hash, size int64, progress func(done, total int64)) error {
	res, err := p.do(ctx, http.MethodHead, p.s.url("blobs/"+h.String()), nil, 0, nil)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	place, err := p.begin(ctx)
	if err != nil {
		return err
	}
	var off int64
	wait := 300 * time.Millisecond
	for try := 1; ; try++ {
		next, err := p.patch(ctx, place, r, off, size, progress)
		if err == nil {
			place = next
			break
		}
		_, refused := errors.AsType[*transfer.StatusError](err)
		if ctx.Err() != nil || refused || try >= maxPushTries {
			return err
		}
		if err := transfer.Pause(ctx, wait); err != nil {
			return err
		}
		wait *= 2
		before := off
		if place, off, err = p.status(ctx, place); err != nil {
			// The registry has forgotten about it.
			if place, err = p.begin(ctx); err != nil {
				return err
			}
			off = 0
		}
		if off > before {
			try = 0
		}
	}
	return p.finish(ctx, place, h)
}

// begin starts an upload and returns its address.
func (p *Push) begin(ctx context.Context) (string, error) {
	res, err := p.do(ctx, http.MethodPost, p.s.url("blobs/uploads/"), nil, 0, nil)
	if err != nil {
		return "", err
	}
	if err := p.expect(res, http.StatusAccepted); err != nil {
		return "", err
	}
	return p.location(res)
}

// location returns where an answer sends us.
//
// Security: data and the right to upload go to the registry only.
func (p *Push) location(res *http.Response) (string, error) {
	to, err := res.Location()
	if err != nil {
		return "", fmt.Errorf("%s does not say where to upload", res.Request.URL.Host)
	}
	if transfer.Origin(to) != transfer.Origin(res.Request.URL) {
		return "", &CredentialError{Host: to.Scheme + "://" + to.Host, For: p.s.repo.RegistryStr()}
	}
	return to.String(), nil
}

// patch sends what follows off.
func (p *Push) patch(ctx context.Context, place string, r io.ReaderAt, off, size int64, progress func(done, total int64)) (string, error) {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	if off > 0 {
		h.Set("Content-Range", strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(size-1, 10))
	}
	if off == size {
		return place, nil
	}
	body := &transfer.Counted{R: io.NewSectionReader(r, off, size-off), Done: off, Total: size, Progress: progress}
	res, err := p.do(ctx, http.MethodPatch, place, body, size-off, h)
	if err != nil {
		return "", err
	}
	if err := p.expect(res, http.StatusAccepted, http.StatusNoContent, http.StatusCreated); err != nil {
		return "", err
	}
	return p.location(res)
}

// status asks how much of an upload has arrived.
func (p *Push) status(ctx context.Context, place string) (string, int64, error) {
	res, err := p.do(ctx, http.MethodGet, place, nil, 0, nil)
	if err != nil {
		return "", 0, err
	}
	if err := p.expect(res, http.StatusNoContent, http.StatusOK); err != nil {
		return "", 0, err
	}
	_, last, ok := strings.Cut(res.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || n < 0 {
		return "", 0, errors.New("the registry does not say how much has arrived")
	}
	if next, err := p.location(res); err == nil {
		place = next
	}
	if n > 0 {
		n++ // the range names the last byte, and 0-0 means nothing
	}
	return place, n, nil
}

// finish ends an upload with the digest that it must have.
func (p *Push) finish(ctx context.Context, place string, h v1.Hash) error {
	to, err := url.Parse(place)
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("digest", h.String())
	to.RawQuery = q.Encode()
	res, err := p.do(ctx, http.MethodPut, to.String(), nil, 0, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return err
	}
	return p.expect(res, http.StatusCreated, http.StatusNoContent)
}

// Package library is the client of a container library: it finds, fetches,
// stores, tags, deletes and searches SIF images.
//
// In go names such as entity/collection/container, tags and architectures, out
// come descriptions of images and their bytes in a file. The calls and their
// order are those of the library API that present servers offer.
//
// A server is not trusted: the hash that it announces is checked over the bytes
// that come, sizes are bounded, and its plan for an upload must fit the file.
// The token goes to the origin of the library only, never to the addresses that
// it names for data.
//
// If it has a transparency log, it must prove by it what a tag means (package
// translog); one that had a log before must have it still.
//
// Files: library.go (calls, lookup, download, delete, search), push.go, list.go, log.go.
package library

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"singularity/api"
	"singularity/client/transfer"
	"singularity/client/translog"
)

// maxAnswer bounds an answer that is not data, in bytes.
const maxAnswer = 16 << 20

// Client calls one library.
type Client struct {
	Base  string // its URL, without a slash at the end
	Token string // empty: nobody in particular
	HTTP  *http.Client
	// TokenSource names where the token is from, for errors.
	TokenSource string
	// Memory, unless nil, keeps the checkpoints of the library's transparency log,
	// so that a library which shows another history later, or none, is found out.
	Memory translog.Memory
}

// New returns a client of the library at base.
func New(base, token string, client *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("cannot use the library %q: it is no URL of a service", transfer.Redact(base))
	}
	return &Client{Base: strings.TrimRight(base, "/"), Token: token, HTTP: client, TokenSource: "the remote endpoint"}, nil
}

// NotFoundError says that a library does not have an image.
type NotFoundError struct{ Ref, Arch string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("image does not exist in the library: %s (%s)", e.Ref, e.Arch)
}

// call makes one request. in, unless nil, goes as JSON; the data of the answer
// goes to out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any, good ...int) (int, error) {
	status, _, err := c.ask(ctx, method, path, query, in, out, good...)
	return status, err
}

// ask is call that returns the header of a good answer too.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, in, out any, good ...int) (int, http.Header, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	to := c.Base + path
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return 0, nil, err
	}
	c.authorize(req)
	res, err := c.HTTP.Do(req)
	if err != nil {
		return 0, nil, transfer.Plain(err)
	}
	defer res.Body.Close()
	for _, g := range good {
		if res.StatusCode == g {
			return g, res.Header, decode(res, out)
		}
	}
	return res.StatusCode, nil, transfer.NewStatusError(res, c.used())
}

func (c *Client) used() string {
	if c.Token == "" {
		return ""
	}
	return c.TokenSource
}

func (c *Client) authorize(req *http.Request) {
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
}

func decode(res *http.Response, out any) error {
	if out == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(text) > maxAnswer {
		return fmt.Errorf("%s sends more than %d bytes", res.Request.URL.Host, maxAnswer)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s sends an answer that is none of a library: %w", res.Request.URL.Host, err)
	}
	return nil
}

// segments makes a name a part of a URL. Names were checked when they were
// read; this is for those who forget.
func segments(name string) (string, error) {
	var list []string
	for _, p := range strings.Split(name, "/") {
		if strings.Trim(p, ".") == "" {
			return "", fmt.Errorf("%q is no name in a library", name)
		}
		list = append(list, url.PathEscape(p))
	}
	return strings.Join(list, "/"), nil
}

// Find looks up the image at a tag, which may be a hash, for arch.
func (c *Client) Find(ctx context.Context, name, tag, arch string) (*api.Image, error) {
	path, err := segments(name)
	if err != nil {
		return nil, err
	}
	query := url.Values{"arch": {arch}}
	w, err := c.witness(query)
	if err != nil {
		return nil, err
	}
	var e api.Envelope[api.Image]
	status, header, err := c.ask(ctx, http.MethodGet, "/v1/images/"+path+":"+url.PathEscape(tag), query, nil, &e, http.StatusOK)
	if status == http.StatusNotFound {
		return nil, &NotFoundError{Ref: name + ":" + tag, Arch: arch}
	}
	if err != nil {
		return nil, err
	}
	if _, err := Hex(e.Data.Hash); err != nil {
		return nil, err
	}
	if strings.HasPrefix(tag, "sha256.") {
		return &e.Data, nil // the name says what the image is
	}
	if err := w.check(header, e.Proof, name, tag, arch, &e.Data); err != nil {
		return nil, err
	}
	return &e.Data, nil
}

// Hex returns the digits of a hash.
func Hex(hash string) (string, error) {
	hex, ok := strings.CutPrefix(hash, "sha256.")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("the library names an image by %q, which is no sha256 hash", hash)
	}
	return hex, nil
}

// Download fetches an image that Find returned into f, which may hold the
// beginning of it.
func (c *Client) Download(ctx context.Context, name, tag, arch string, i *api.Image, f *os.File, progress func(done, total int64)) error {
	hex, err := Hex(i.Hash)
	if err != nil {
		return err
	}
	if i.Size <= 0 || i.Size > transfer.MaxSize {
		return fmt.Errorf("the library announces a size of %d bytes", i.Size)
	}
	path, err := segments(name)
	if err != nil {
		return err
	}
	d := &transfer.Download{
		Client: c.HTTP, URL: c.Base + "/v1/imagefile/" + path + ":" + url.PathEscape(tag) + "?" + url.Values{"arch": {arch}}.Encode(),
		Size: i.Size, Digest: hex, Header: http.Header{}, Used: c.used(), Progress: progress,
	}
	if c.Token != "" {
		d.Header.Set("Authorization", "Bearer "+c.Token)
	}
	_, err = d.To(ctx, f)
	return err
}

// Delete removes the image at a tag, for arch.
func (c *Client) Delete(ctx context.Context, name, tag, arch string) error {
	path, err := segments(name)
	if err != nil {
		return err
	}
	status, err := c.call(ctx, http.MethodDelete, "/v1/images/"+path+":"+url.PathEscape(tag), url.Values{"arch": {arch}}, nil, nil, http.StatusOK)
	if status == http.StatusNotFound {
		return &NotFoundError{Ref: name + ":" + tag, Arch: arch}
	}
	return err
}

// MinSearch is the shortest text to search for.
const MinSearch = 3

// Search finds images by a part of their names, for arch, and only signed ones
// if that is set.
func (c *Client) Search(ctx context.Context, text, arch string, signed bool) ([]api.Image, error) {
	if len(text) < MinSearch {
		return nil, fmt.Errorf("cannot search for %q: %d characters are the least", text, MinSearch)
	}
	q := url.Values{"value": {text}, "arch": {arch}}
	if signed {
		q.Set("signed", "true")
	}
	var e api.Envelope[api.Search]
	_, err := c.call(ctx, http.MethodGet, "/v1/search", q, nil, &e, http.StatusOK)
	return e.Data.Images, err
}

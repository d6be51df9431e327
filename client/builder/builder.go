// Package builder is the client of a remote builder: it sends a definition and the
// files that it needs, follows the log, asks what came of it, and cancels.
//
// In go definitions and files, out come a log and the reference of an image in a
// library. The calls and their order are those that present servers offer. A log
// whose connection breaks off is taken up again where it stopped.
//
// The server is not trusted: answers are bounded, and a reference that it gives is
// for the caller to check. The token goes to the builder alone; the address to
// which it wants files sent gets none.
//
// Files: builder.go (calls), log.go (the log), context.go (files).
package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"singularity/api"
	"singularity/client/transfer"
)

const (
	maxAnswer = 16 << 20
	callTime  = 30 * time.Second
)

// Client calls one builder.
type Client struct {
	base        string
	token       string
	http        *http.Client
	socket      *http.Client // for connections that become web sockets
	TokenSource string       // where the token is from, for errors
}

// New returns a client of the builder at base. socket connects by HTTP/1.1.
func New(base, token string, client, socket *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("cannot use the builder %q: it is no URL of a service", transfer.Redact(base))
	}
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: client, socket: socket, TokenSource: "the remote endpoint"}, nil
}

// Submit asks for a build.
func (c *Client) Submit(ctx context.Context, r *api.BuildRequest) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.call(ctx, http.MethodPost, "/v1/build", r, &info); err != nil {
		return nil, err
	}
	return &info, check(&info)
}

// Status asks how far a build is.
func (c *Client) Status(ctx context.Context, id string) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.call(ctx, http.MethodGet, "/v1/build/"+url.PathEscape(id), nil, &info); err != nil {
		return nil, err
	}
	return &info, check(&info)
}

func check(i *api.BuildInfo) error {
	if i.ID == "" || len(i.ID) > 200 || strings.ContainsAny(i.ID, "/?#") {
		return errors.New("the builder's answer names no build")
	}
	return nil
}

// Cancel ends a build.
func (c *Client) Cancel(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPut, "/v1/build/"+url.PathEscape(id)+"/_cancel", nil, nil)
}

// call makes one request. in, unless nil, goes as JSON; the data of the answer
// goes to out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	res, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	var e api.Envelope[json.RawMessage]
	if len(text) > maxAnswer || json.Unmarshal(text, &e) != nil || json.Unmarshal(e.Data, out) != nil {
		return fmt.Errorf("%s sends an answer that is none of a builder", res.Request.URL.Host)
	}
	return nil
}

// send makes a request whose answer is good.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "BEARER "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, transfer.Plain(err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, transfer.NewStatusError(res, c.TokenSource)
	}
	return res, nil
}

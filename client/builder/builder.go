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
	"context"
	"errors"
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
	*transfer.Service
	socket *http.Client // for connections that become web sockets
}

// New returns a client of the builder at base. socket connects by HTTP/1.1.
func New(base, token string, client, socket *http.Client) (*Client, error) {
	s, err := transfer.NewService("builder", base, token, client)
	if err != nil {
		return nil, err
	}
	s.Kind, s.Time, s.Most = "a builder", callTime, maxAnswer
	return &Client{s, socket}, nil
}

// Submit asks for a build.
func (c *Client) Submit(ctx context.Context, r *api.BuildRequest) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.Call(ctx, http.MethodPost, "/v1/build", r, &info); err != nil {
		return nil, err
	}
	return &info, check(&info)
}

// Status asks how far a build is.
func (c *Client) Status(ctx context.Context, id string) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.Call(ctx, http.MethodGet, "/v1/build/"+url.PathEscape(id), nil, &info); err != nil {
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
	return c.Call(ctx, http.MethodPut, "/v1/build/"+url.PathEscape(id)+"/_cancel", nil, nil)
}

// Package builder is the client of a remote builder: it sends a definition and the
// files that it needs, follows the log, asks what came of it, and cancels.
//
// In go definitions and files, out come a log and the reference of an image in a
// library. The calls and their order are those that present servers offer. A log
// whose connection breaks off is taken up again where it stopped; what came of a
// build is asked of its status alone, however its log ended.
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
	"fmt"
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

	pause    time.Duration // between two tries
	patience time.Duration // with a server that cannot be reached
}

// New returns a client of the builder at base. socket connects by HTTP/1.1.
func New(base, token string, client, socket *http.Client) (*Client, error) {
	s, err := transfer.NewService("builder", base, token, client)
	if err != nil {
		return nil, err
	}
	s.Kind, s.Time, s.Most = "a builder", callTime, maxAnswer
	return &Client{Service: s, socket: socket, pause: 500 * time.Millisecond, patience: 30 * time.Second}, nil
}

// Submit asks for a build. One that a builder would make for another architecture
// is cancelled.
func (c *Client) Submit(ctx context.Context, r *api.BuildRequest) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.Call(ctx, http.MethodPost, "/v1/build", r, &info); err != nil {
		return nil, err
	}
	if err := check(&info); err != nil {
		return nil, err
	}
	if want := r.BuilderRequirements["arch"]; info.Arch != "" && want != "" && info.Arch != want {
		err := fmt.Errorf("the builder would build for %q, and not for %q", info.Arch, want)
		return nil, errors.Join(err, c.Cancel(ctx, info.ID))
	}
	return &info, nil
}

// Status asks how far a build is.
func (c *Client) Status(ctx context.Context, id string) (*api.BuildInfo, error) {
	var info api.BuildInfo
	if err := c.Call(ctx, http.MethodGet, "/v1/build/"+url.PathEscape(id), nil, &info); err != nil {
		return nil, err
	}
	if err := check(&info); err != nil {
		return nil, err
	}
	return &info, nil
}

// Wait asks until a build is over, and returns what came of it. A builder that
// cannot be reached for a while is asked again; one that refuses is not.
func (c *Client) Wait(ctx context.Context, id string) (*api.BuildInfo, error) {
	lost := time.Time{}
	for pause := c.pause; ; pause = min(2*pause, 20*c.pause) {
		info, err := c.Status(ctx, id)
		switch {
		case err == nil && info.IsComplete:
			return info, nil
		case err == nil:
			lost = time.Time{}
		case ctx.Err() != nil:
			return nil, err
		default:
			if lost, err = c.again(lost, err); err != nil {
				return nil, err
			}
		}
		if err := transfer.Pause(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// again tells whether to try again after an error, and since when there is no
// luck: lost if that is set.
func (c *Client) again(lost time.Time, err error) (time.Time, error) {
	if e, ok := errors.AsType[*transfer.StatusError](err); ok && e.Code < 500 && e.Code != http.StatusTooManyRequests {
		return lost, err
	}
	switch {
	case lost.IsZero():
		return time.Now(), nil
	case time.Since(lost) > c.patience:
		return lost, err
	}
	return lost, nil
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

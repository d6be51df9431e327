// Package watch is the client of what a server knows about images that run: it
// ships records of runs, and asks which runs an advisory touches.
//
// The server is not trusted: answers are bounded, and what it claims to have kept
// must fit what was sent. The token goes to the server alone.
package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"singularity/api"
	"singularity/client/transfer"
)

const (
	maxAnswer = 32 << 20
	callTime  = 2 * time.Minute
)

// Client calls one server.
type Client struct{ *transfer.Service }

// New returns a client of the server at base.
func New(base, token string, client *http.Client) (*Client, error) {
	s, err := transfer.NewService("server", base, token, client)
	if err != nil {
		return nil, err
	}
	s.Kind, s.Time, s.Most = "a server with records of runs", callTime, maxAnswer
	return &Client{s}, nil
}

// Ship sends records, at most api.MaxRuns. It may be called again with the same ones.
func (c *Client) Ship(ctx context.Context, list []api.Run) (*api.RunsTaken, error) {
	var out api.RunsTaken
	if err := c.Call(ctx, http.MethodPost, "/v1/runs", api.Runs{Records: list}, &out); err != nil {
		return nil, err
	}
	if out.Done < 1 || out.Done > len(list) || len(out.Refused) > out.Done {
		return nil, fmt.Errorf("the server says that it has taken %d of %d records and refused %d, which cannot be", out.Done, len(list), len(out.Refused))
	}
	return &out, nil
}

// Affected lists the runs whose image has the fault called id: those that go on, or
// with ended all.
func (c *Client) Affected(ctx context.Context, id string, ended bool) (list []api.TouchedRun, err error) {
	q := url.Values{"id": {id}}
	if ended {
		q.Set("ended", "true")
	}
	return list, c.Call(ctx, http.MethodGet, "/v1/findings/runs?"+q.Encode(), nil, &list)
}

// Blocked asks which images hosts are not to run.
func (c *Client) Blocked(ctx context.Context) (*api.BlockedImages, error) {
	var out api.BlockedImages
	return &out, c.Call(ctx, http.MethodGet, "/v1/watch/blocked", nil, &out)
}

// Runs lists runs that the caller may see; q are the filters of GET /v1/runs.
func (c *Client) Runs(ctx context.Context, q url.Values) (list []api.StoredRun, err error) {
	return list, c.Call(ctx, http.MethodGet, "/v1/runs?"+q.Encode(), nil, &list)
}

// Package watch is the client of what a server knows about images that run: it
// ships records of runs, and asks which runs an advisory touches.
//
// The server is not trusted: answers are bounded, and what it claims to have kept
// must fit what was sent. The token goes to the server alone.
package watch

import (
	"bytes"
	"context"
	"encoding/json"
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
	maxAnswer = 32 << 20
	callTime  = 2 * time.Minute
)

// Client calls one server.
type Client struct {
	base, token string
	http        *http.Client
	TokenSource string // where the token is from, for errors
}

// New returns a client of the server at base.
func New(base, token string, client *http.Client) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("cannot use the server %q: it is no URL of a service", transfer.Redact(base))
	}
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: client, TokenSource: "the remote endpoint"}, nil
}

// Ship sends records, at most api.MaxRuns. It may be called again with the same ones.
func (c *Client) Ship(ctx context.Context, list []api.Run) (*api.RunsTaken, error) {
	var out api.RunsTaken
	if err := c.call(ctx, http.MethodPost, "/v1/runs", api.Runs{Records: list}, &out); err != nil {
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
	return list, c.call(ctx, http.MethodGet, "/v1/findings/runs?"+q.Encode(), nil, &list)
}

// Blocked asks which images hosts are not to run.
func (c *Client) Blocked(ctx context.Context) (*api.BlockedImages, error) {
	var out api.BlockedImages
	return &out, c.call(ctx, http.MethodGet, "/v1/watch/blocked", nil, &out)
}

// Runs lists runs that the caller may see; q are the filters of GET /v1/runs.
func (c *Client) Runs(ctx context.Context, q url.Values) (list []api.StoredRun, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/runs?"+q.Encode(), nil, &list)
}

// call makes one request. in, unless nil, goes as JSON; the data of the answer
// goes to out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "BEARER "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return transfer.Plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return transfer.NewStatusError(res, c.TokenSource)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	var e api.Envelope[json.RawMessage]
	if len(text) > maxAnswer || json.Unmarshal(text, &e) != nil || json.Unmarshal(e.Data, out) != nil {
		return fmt.Errorf("%s sends an answer that is none of a server with records of runs", res.Request.URL.Host)
	}
	return nil
}

package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"singularity/client/transfer"
)

const (
	shubHost  = "singularity-hub.org"
	maxAnswer = 1 << 20
)

// findShub asks the API of Singularity Hub, or of a registry that speaks it,
// where the image is.
func (f *Fetcher) findShub(ctx context.Context, r *Ref) (*source, error) {
	host := r.Host
	if host == "" {
		host = shubHost
	}
	name := r.Name
	if len(r.Tags) > 0 {
		name += ":" + r.Tags[0]
	}
	var answer struct {
		Image   string `json:"image"`
		Version string `json:"version"`
	}
	scheme := "https"
	if f.PlainHTTP {
		scheme = "http"
	}
	if err := f.getJSON(ctx, scheme+"://"+host+"/api/container/"+name, &answer); err != nil {
		return nil, fmt.Errorf("cannot pull %q: %w", r.Text, err)
	}
	u, err := url.Parse(answer.Image)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != scheme {
		return nil, fmt.Errorf("cannot pull %q: %s names no address of the image", r.Text, host)
	}
	s := &source{kind: "shub", what: r.Text, write: f.download(r, answer.Image, -1)}
	if answer.Version != "" {
		s.name = hash(host, name, answer.Version)
	}
	return s, nil
}

func (f *Fetcher) getJSON(ctx context.Context, address string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := f.HTTP.Do(req)
	if err != nil {
		return transfer.Plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return transfer.NewStatusError(res, "")
	}
	return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out)
}

package route

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"singularity/api"
)

// Answer is what a service wrote to a call of another service in this program.
type Answer struct {
	Status int
	Body   bytes.Buffer
	header http.Header
}

// Header is where the service puts headers, which nobody reads.
func (a *Answer) Header() http.Header { return a.header }

// WriteHeader takes the first status.
func (a *Answer) WriteHeader(status int) {
	if a.Status == 0 {
		a.Status = status
	}
}

// Write takes a part of the body.
func (a *Answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.Body.Write(p)
}

// Ask makes a call of a service in this program, in the name of the caller of
// ctx: under the checks that any client's call meets. What the service refuses is
// an *Error, and what is no call of a service is like what is not there.
func Ask(ctx context.Context, service http.Handler, method, target, kind string, body io.Reader) (*Answer, error) {
	gone := Errorf(http.StatusNotFound, "not found")
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, gone
	}
	if whole, ok := body.(interface{ Size() int64 }); ok {
		r.ContentLength = whole.Size()
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	a := &Answer{header: http.Header{}}
	service.ServeHTTP(a, r)
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	if a.Status < 300 {
		return a, nil
	}
	var e api.Envelope[json.RawMessage]
	if json.Unmarshal(a.Body.Bytes(), &e) != nil || e.Error == nil {
		return nil, gone
	}
	return nil, Errorf(a.Status, "%s", e.Error.Message)
}

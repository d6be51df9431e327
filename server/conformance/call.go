package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"singularity/server/openapi"
)

// maxBody bounds what is read of an answer.
const maxBody = 64 << 20

// request is one call.
type request struct {
	method, url string
	token       bool
	bearer      string // another token
	header      map[string]string
	json        any
	body        []byte
}

// answer is what came.
type answer struct {
	status int
	header http.Header
	body   []byte
	call   string
}

func (r *run) do(q request) (answer, error) {
	body := q.body
	if q.json != nil {
		var err error
		if body, err = json.Marshal(q.json); err != nil {
			return answer{}, err
		}
	}
	req, err := http.NewRequestWithContext(r.ctx, q.method, q.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	switch { // clients send JSON without any Content-Type
	case q.bearer != "":
		req.Header.Set("Authorization", q.bearer)
	case q.token && r.token != "":
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", q.method, shown(q.url), errors.Unwrap(err))
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header, call: q.method + " " + shown(q.url)}
	if a.body, err = io.ReadAll(io.LimitReader(res.Body, maxBody+1)); err != nil {
		return a, fmt.Errorf("%s: the body breaks off: %w", a.call, err)
	}
	if len(a.body) > maxBody {
		return a, fmt.Errorf("%s: the body has more than %d bytes", a.call, maxBody)
	}
	return a, nil
}

// shown is an address without its query, which may be a secret.
func shown(url string) string {
	url, _, _ = strings.Cut(url, "?")
	if len(url) > 120 {
		url = url[:120] + "..."
	}
	return url
}

// is holds the answer against statuses.
func (a answer) is(statuses ...int) error {
	if slices.Contains(statuses, a.status) {
		return nil
	}
	return fmt.Errorf("%s: status %d, want %s%s", a.call, a.status, alternatives(statuses), a.message())
}

func alternatives(statuses []int) string {
	text := fmt.Sprint(statuses[0])
	for _, s := range statuses[1:] {
		text += fmt.Sprintf(" or %d", s)
	}
	return text
}

// message is what a refusal says.
func (a answer) message() string {
	var e struct{ Error struct{ Message string } }
	if json.Unmarshal(a.body, &e) == nil && e.Error.Message != "" {
		return fmt.Sprintf(" (%.200s)", strings.ToValidUTF8(e.Error.Message, "?"))
	}
	return ""
}

// shaped makes a call that answers as the description says of that row, with one
// of the statuses, and reads the answer into out.
func (r *run) shaped(q request, path string, out any, statuses ...int) (answer, error) {
	a, err := r.do(q)
	if err != nil {
		return a, err
	}
	o, err := openapi.Find(q.method, path)
	if err != nil {
		return a, err
	}
	if err := a.is(statuses...); err != nil {
		return a, err
	}
	if a.status >= 300 {
		return a, a.refusal(o)
	}
	if err := o.Check(a.body, false); err != nil {
		return a, fmt.Errorf("%s: %w", a.call, err)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			return a, fmt.Errorf("%s: a client cannot read the body: %w", a.call, err)
		}
	}
	return a, nil
}

// refusal looks at the envelope of a refusal.
func (a answer) refusal(o openapi.Operation) error {
	if err := o.CheckRefusal(a.body, a.status); err != nil {
		return fmt.Errorf("%s: in the refusal %w", a.call, err)
	}
	if kind := a.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		return fmt.Errorf("%s: the refusal is %q, not application/json", a.call, kind)
	}
	return nil
}

// refused makes a call that must be refused with one of the statuses, in an envelope.
func (r *run) refused(q request, path string, statuses ...int) error {
	_, err := r.shaped(q, path, nil, statuses...)
	return err
}

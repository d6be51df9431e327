// Package conformance checks whether a server answers as the clients of container
// libraries need it: it makes the calls of a client, one after another, and looks
// at statuses, bodies and headers.
//
// It writes what a client writes: with a token it makes a collection of a random
// name below the token's user, pushes three small images, tags, pulls, searches and
// deletes them, and publishes a key for an address that nobody has. At the end it
// removes what the server lets it remove. Without a token it only reads. The server
// may be hostile: bodies are bounded, redirects are looked at and not followed with
// the token.
//
// The shapes of answers are those of package openapi; what else is checked follows
// from what clients do with an answer, and each row says which calls it is about.
//
//   - conformance.go: the rows and how they run; call.go: one call
//   - discovery.go, push.go, pull.go, keys.go: the checks
package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options say what to check.
type Options struct {
	URL    string // of the site, where the discovery document is
	Token  string // with all rights of a user, or none
	Client *http.Client
}

// Outcome is what came of a check.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// Result is one line of the report.
type Result struct {
	ID      string  `json:"id"`
	What    string  `json:"what"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail,omitempty"` // what differs, or why it was skipped
}

// check is one row.
type check struct {
	id, what string
	after    string // the row that must have passed, since this one needs what it made
	run      func(*run) error
}

// skipped is why a check says nothing about the server.
type skipped struct{ why string }

func (s skipped) Error() string { return s.why }

// run is one walk through the checks, with what they have made so far.
type run struct {
	ctx    context.Context
	client *http.Client
	token  string
	begun  []cleanup

	site, library, keystore, tokens, consent, registry, builder string
	user, collection                                            string
	collectionID, containerID                                   string
	small, large                                                image
	upload, part                                                string // of the image in parts
	partURL, partToken                                          string
	uploadURL                                                   string
	key                                                         keyPair
}

type cleanup struct{ method, url string }

// time for one check: what a client waits for a call, and more for bytes.
const checkTime = 2 * time.Minute

// Run makes all checks and returns a line for each.
func Run(ctx context.Context, o Options) []Result {
	client := *o.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r := &run{client: &client, token: o.Token, site: strings.TrimRight(o.URL, "/")}
	outcomes := map[string]Outcome{}
	var results []Result
	for _, c := range slices.Concat(discoveryChecks, pushChecks, pullChecks, keyChecks) {
		result := Result{ID: c.id, What: c.what, Outcome: Skip}
		if c.after != "" && outcomes[c.after] != Pass {
			result.Detail = "needs " + c.after
		} else {
			result.Outcome, result.Detail = r.one(ctx, c)
		}
		outcomes[c.id] = result.Outcome
		results = append(results, result)
	}
	return append(results, r.tidy(context.WithoutCancel(ctx)))
}

func (r *run) one(ctx context.Context, c check) (Outcome, string) {
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := c.run(r)
	var s skipped
	switch {
	case err == nil:
		return Pass, ""
	case errors.As(err, &s):
		return Skip, s.why
	}
	return Fail, err.Error()
}

// tidy removes what was made. A server need not let anybody remove it.
func (r *run) tidy(ctx context.Context) Result {
	result := Result{ID: "end", What: "what the checks made can be removed", Outcome: Pass}
	var left []string
	for _, c := range slices.Backward(r.begun) {
		var cancel context.CancelFunc
		r.ctx, cancel = context.WithTimeout(ctx, checkTime)
		if a, err := r.do(request{method: c.method, url: c.url, token: true}); err != nil || a.status >= 300 && a.status != http.StatusNotFound {
			left = append(left, c.url)
		}
		cancel()
	}
	switch {
	case r.begun == nil:
		result.Outcome, result.Detail = Skip, "nothing was made"
	case left != nil:
		result.Outcome, result.Detail = Skip, "left on the server: "+strings.Join(left, " ")
	}
	return result
}

func randomName() string {
	var b [6]byte
	rand.Read(b[:])
	return "conformance-" + hex.EncodeToString(b[:])
}

// needToken skips what cannot be done without a token.
func (r *run) needToken() error {
	if r.token == "" {
		return skipped{"needs a token: --token-file"}
	}
	return nil
}

func wrong(format string, args ...any) error { return fmt.Errorf(format, args...) }

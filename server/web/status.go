package web

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
)

// state is a service and whether it answers.
type state struct {
	Name, Version, Text string
	Answers             bool
	Took                time.Duration
}

// parts of a site, each with a call that shows whether it works.
var parts = []struct{ name, call, version, text string }{
	{"Library", "/v1/entities?limit=1", "/version", "images: push, pull, search"},
	{"Keys", "/v1/log/checkpoint", "/version", "keys, and the log of their changes"},
	{"Builder", "/v1/build-options", "/version", "images made here from definitions"},
	{"Accounts", "/token/version", "/token/version", "log-in and tokens"},
	{"Discovery", "/assets/config/config.prod.json", "/version", "how clients find the rest"},
}

// status shows whether the services answer: each is asked as a client does.
func (s *Service) status(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v := struct {
		page.Frame
		States []state
		All    bool
		Lines  string // of the log
		URL    string
	}{Frame: auth.FrameOf(ctx, "Status", "status"), All: true, URL: s.url}
	for _, p := range parts {
		begun := time.Now()
		a, err := s.send(ctx, http.MethodGet, p.call, nil)
		one := state{Name: p.name, Text: p.text, Answers: err == nil || errors.Is(err, errLogIn), Took: time.Since(begun).Round(10 * time.Microsecond)}
		if version, err := get[api.Version](s, ctx, p.version); err == nil {
			one.Version = version.Version
		}
		v.All = v.All && one.Answers
		if p.call == "/v1/log/checkpoint" && err == nil {
			if lines := strings.Split(a.Body.String(), "\n"); len(lines) > 1 {
				v.Lines = lines[1]
			}
		}
		v.States = append(v.States, one)
	}
	return show(w, "status.html", v)
}

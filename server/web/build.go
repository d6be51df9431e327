package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// maxDefinitionForm holds a definition with its characters escaped, three bytes
// for one.
const maxDefinitionForm = 7 << 20

// example is what an empty editor begins with.
const example = `Bootstrap: docker
From: debian:bookworm-slim

%post
    apt-get update
    apt-get install -y --no-install-recommends cowsay
    rm -rf /var/lib/apt/lists/*

%runscript
    exec /usr/games/cowsay "$@"
`

// editorView is the page with the editor.
type editorView struct {
	page.Frame
	Message    string
	Definition string
	Ref, Arch  string
	Options    api.BuildOptions
	Check      *check
	Recent     []build
}

// check is what the parser says about a definition.
type check struct {
	Good     bool     `json:"good"`
	Message  string   `json:"message"`
	Line     int      `json:"line,omitempty"`
	Text     string   `json:"text,omitempty"` // of that line
	Warnings []string `json:"warnings,omitempty"`
}

// build is a line of a list of builds.
type build struct {
	api.BuildInfo
	Class string // of its state
	Took  string
	Wait  string
	Why   string // it did not succeed, if the state does not say all
}

// stateClass is how a state looks.
func stateClass(state string) string {
	switch state {
	case "succeeded":
		return "good"
	case "failed", "timed-out":
		return "bad"
	case "cancelled":
		return "none"
	case "queued":
		return "warn"
	}
	return ""
}

func describe(i api.BuildInfo, now time.Time) build {
	b := build{BuildInfo: i, Class: stateClass(i.State)}
	if i.Reason != i.State {
		b.Why = i.Reason
	}
	end := i.Ended
	if end.IsZero() {
		end = now
	}
	if !i.Started.IsZero() {
		b.Took, b.Wait = clock(end.Sub(i.Started)), clock(i.Started.Sub(i.Submitted))
	}
	return b
}

// clock writes how long something took.
func clock(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d%time.Hour == 0:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

func (s *Service) editorView(r *http.Request) (editorView, error) {
	ctx := r.Context()
	v := editorView{Frame: auth.FrameOf(ctx, "Build an image", "builder"), Arch: "amd64"}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	var err error
	if v.Options, err = get[api.BuildOptions](s, ctx, "/v1/build-options"); err != nil {
		return v, err
	}
	if !slices.Contains(v.Options.Archs, v.Arch) && len(v.Options.Archs) > 0 {
		v.Arch = v.Options.Archs[0]
	}
	l, err := list[api.BuildInfo](s, ctx, "/v1/builds")
	for _, i := range l.Data[:min(len(l.Data), 5)] {
		v.Recent = append(v.Recent, describe(i, time.Now()))
	}
	return v, err
}

// editor shows the editor, perhaps with the definition of an earlier build.
func (s *Service) editor(w http.ResponseWriter, r *http.Request) error {
	v, err := s.editorView(r)
	if err != nil {
		return err
	}
	v.Definition = example
	if id := r.FormValue("from"); id != "" {
		i, err := get[api.BuildInfo](s, r.Context(), path("/v1/build/", id))
		if err != nil {
			return err
		}
		if v.Definition, err = s.definitionOf(r.Context(), id); err != nil {
			return err
		}
		if v.Arch = i.Arch; !temporary(i) {
			v.Ref = i.LibraryRef
		}
	}
	return show(w, "builder.html", v)
}

// temporary tells whether the image of a build had no place of its own.
func temporary(i api.BuildInfo) bool { return strings.Contains(i.LibraryRef, "/remote-builds/rb-") }

func (s *Service) definitionOf(ctx context.Context, id string) (string, error) {
	a, err := s.send(ctx, http.MethodGet, path("/v1/build/", id)+"/definition", nil)
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(a.Body.String(), "\uFFFD"), nil
}

// editorForm checks a definition or submits it.
func (s *Service) editorForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if _, err := person(ctx); err != nil {
		return err
	}
	text := definitionText(r)
	again := func(message string) (any, error) {
		v, err := s.editorView(r)
		v.Message, v.Definition, v.Ref, v.Arch = message, text, r.PostFormValue("ref"), r.PostFormValue("arch")
		if err != nil {
			return v, err
		}
		c, err := s.check(ctx, text)
		v.Check = &c
		return v, err
	}
	switch r.PostFormValue("do") {
	case "check":
		v, err := again("")
		if err != nil {
			return err
		}
		return show(w, "builder.html", v)
	case "build":
	default:
		return route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	var e api.Envelope[api.BuildInfo]
	in := api.BuildRequest{DefinitionRaw: []byte(text), LibraryRef: strings.TrimSpace(r.PostFormValue("ref")), BuilderRequirements: map[string]string{"arch": r.PostFormValue("arch")}}
	if err := s.call(ctx, http.MethodPost, "/v1/build", in, &e); err != nil {
		// That no worker is there is for the person to see, with what was typed.
		if no, ok := err.(*route.Error); ok && no.Status == http.StatusServiceUnavailable {
			err = route.Errorf(http.StatusConflict, "%s", no.Message)
		}
		return s.sayAgain(w, err, "builder.html", again)
	}
	http.Redirect(w, r, path("/builder/builds/", e.Data.ID), http.StatusSeeOther)
	return nil
}

// definitionText is the text of the editor, whose lines browsers end by two
// characters.
func definitionText(r *http.Request) string {
	return strings.ReplaceAll(r.PostFormValue("definition"), "\r\n", "\n")
}

// checkForm answers the script of the editor.
func (s *Service) checkForm(w http.ResponseWriter, r *http.Request) error {
	if _, err := person(r.Context()); err != nil {
		return err
	}
	c, err := s.check(r.Context(), definitionText(r))
	if err != nil {
		return err
	}
	route.JSON(w, http.StatusOK, c)
	return nil
}

// faultPlace is how the parser begins: the file, a line, perhaps a column.
var faultPlace = regexp.MustCompile(`^definition:(\d+)(?::\d+)?: `)

// check asks the parser of the builder what it thinks of a definition.
func (s *Service) check(ctx context.Context, text string) (check, error) {
	a, err := s.sendBody(ctx, http.MethodPost, "/v1/convert-def-file", "text/plain", strings.NewReader(text))
	var no *route.Error
	switch {
	case errors.As(err, &no) && no.Status == http.StatusBadRequest:
		return fault(no.Message, text), nil
	case err != nil:
		return check{}, err
	}
	d, err := decode[api.Definition](a)
	if err != nil {
		return check{}, err
	}
	c := check{Good: true, Message: "The definition can be used.", Warnings: d.Warnings}
	for _, f := range d.BuildData.Files {
		if f.Args == "" && len(f.Files) > 0 {
			c.Warnings = append(c.Warnings, "%files takes files of your machine, which a page cannot send: use singularity build --remote")
			break
		}
	}
	return c, nil
}

// fault is what is wrong with a definition, with the line where it is.
func fault(message, text string) check {
	c := check{Message: strings.TrimPrefix(message, "definition: ")}
	if m := faultPlace.FindStringSubmatch(message); m != nil {
		c.Message = message[len(m[0]):]
		c.Line, _ = strconv.Atoi(m[1])
		if lines := strings.Split(text, "\n"); c.Line >= 1 && c.Line <= len(lines) {
			c.Text = clipped(lines[c.Line-1], 200)
		}
	}
	return c
}

func clipped(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// buildList shows the builds of whoever looks.
func (s *Service) buildList(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v := struct {
		page.Frame
		Builds []build
		Next   string
	}{Frame: auth.FrameOf(ctx, "Your builds", "builder")}
	if _, err := person(ctx); err != nil {
		return err
	}
	l, err := list[api.BuildInfo](s, ctx, "/v1/builds?"+url.Values{"after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	for _, i := range l.Data {
		v.Builds = append(v.Builds, describe(i, time.Now()))
	}
	if l.Page.Next != "" {
		v.Next = "/builder/builds?" + url.Values{"after": {l.Page.Next}}.Encode()
	}
	return show(w, "builds.html", v)
}

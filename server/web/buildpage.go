package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"singularity/api"
	"singularity/provenance"
	"singularity/sbom"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

const (
	logTail   = 256 << 10 // of a log in a page
	maxListed = 1000      // packages in a page
	liveEvery = 15 * time.Second
)

// buildView is the page of a build.
type buildView struct {
	page.Frame
	Build      build
	Definition string
	Log        []run
	Cut        bool // the log is longer
	Contents   *contents
	Place      string // of the image, as a page
	Mine       bool
}

// contents is what came out of a build.
type contents struct {
	Reference  string
	Image      api.Inspection
	Trust      trust
	Packages   []sbom.Package
	More       int // packages that are not listed
	Gaps       []string
	Bills      []file
	Provenance string
	Record     file
	Envelope   file // with the service's signature of the record
}

// file is a data object of an image and where it can be had.
type file struct{ Name, Address string }

// build shows how far a build is, its log, and what came of it.
func (s *Service) build(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	v := buildView{Frame: auth.FrameOf(ctx, "Build "+id, "builder")}
	c, err := person(ctx)
	if err != nil {
		return err
	}
	i, err := get[api.BuildInfo](s, ctx, path("/v1/build/", id))
	if err != nil {
		return err
	}
	v.Build, v.Mine = describe(i, time.Now()), i.Owner == c.Name
	if v.Definition, err = s.definitionOf(ctx, id); err != nil {
		return err
	}
	a, err := s.send(ctx, http.MethodGet, fmt.Sprintf("%s/log?tail=%d", path("/v1/build/", id), logTail), nil)
	if err != nil {
		return err
	}
	text := a.Body.Bytes()
	if v.Cut = len(text) > logTail-4096; len(text) > logTail {
		text = text[len(text)-logTail:]
	}
	v.Log = new(terminal).read(text)
	if i.State == "succeeded" {
		if v.Contents, err = s.contents(ctx, i); err != nil && !missing(err) {
			return err
		}
		v.Place = "/library/" + strings.TrimPrefix(i.LibraryRef, "library://")
		if !strings.Contains(i.LibraryRef[len("library://"):], ":") {
			v.Place += ":latest"
		}
	}
	return show(w, "build.html", v)
}

// contents reads what the library knows of the image of a build: of that very one,
// whatever its tag names by now.
func (s *Service) contents(ctx context.Context, i api.BuildInfo) (*contents, error) {
	name, _, _ := strings.Cut(strings.TrimPrefix(i.LibraryRef, "library://"), ":")
	ref := path("/", strings.Split(name, "/")...) + ":" + i.ImageChecksum
	c := &contents{Reference: "library://" + name + ":" + i.ImageChecksum}
	var err error
	if c.Image, err = get[api.Inspection](s, ctx, "/v1/inspect"+ref); err != nil {
		return nil, err
	}
	if c.Trust, err = s.trustOf(ctx, c.Image, draw(c.Image)); err != nil {
		return nil, err
	}
	for _, o := range c.Image.Objects {
		f := file{o.Name, fmt.Sprintf("/v1/objects%s?id=%d", ref, o.ID)}
		switch {
		case o.Type == "SBOM":
			if c.Bills = append(c.Bills, f); len(c.Bills) == 1 {
				err = s.readBill(ctx, c, f)
			}
		case o.Name == provenance.Envelope:
			c.Envelope = f
		case o.Name == provenance.Object && o.Size <= 1<<20:
			var a *route.Answer
			if a, err = s.send(ctx, http.MethodGet, f.Address, nil); err == nil {
				c.Record, c.Provenance = f, strings.ToValidUTF8(a.Body.String(), "\uFFFD")
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// readBill reads the list of packages that a build left in its image.
func (s *Service) readBill(ctx context.Context, c *contents, f file) error {
	a, err := s.send(ctx, http.MethodGet, f.Address, nil)
	if err != nil {
		return err
	}
	inv, err := sbom.Decode(&a.Body)
	if err != nil {
		c.Gaps = append(c.Gaps, "the list of packages cannot be read")
		return nil
	}
	c.Packages, c.Gaps = inv.Packages, append(c.Gaps, inv.Gaps...)
	if n := len(c.Packages); n > maxListed {
		c.Packages, c.More = c.Packages[:maxListed], n-maxListed
	}
	return nil
}

// buildForm cancels a build.
func (s *Service) buildForm(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	if _, err := person(ctx); err != nil {
		return err
	}
	if r.PostFormValue("do") != "cancel" {
		return route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	if err := s.call(ctx, http.MethodPut, path("/v1/build/", id)+"/_cancel", nil, nil); err != nil {
		return err
	}
	http.Redirect(w, r, path("/builder/builds/", id), http.StatusSeeOther)
	return nil
}

// live sends the log of a build as events for the script of its page, each a list
// of pieces with their colours, and says when the build is over.
func (s *Service) live(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), r.PathValue("id")
	if _, err := person(ctx); err != nil {
		return err
	}
	// Who may not see the build is told before the stream begins.
	if _, err := get[api.BuildInfo](s, ctx, path("/v1/build/", id)); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // a proxy in between passes it on at once
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path("/v1/build/", id)+"/log?follow=true", nil)
	if err != nil {
		return err
	}
	e := &events{w: w, out: http.NewResponseController(w)}
	stop := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() { e.beat(stop) })
	e.send(": the log\n\n")
	s.api.ServeHTTP(e, req)
	close(stop)
	beating.Wait()
	if ctx.Err() != nil {
		return nil // nobody looks any more
	}
	if i, err := get[api.BuildInfo](s, ctx, path("/v1/build/", id)); err == nil && i.IsComplete {
		e.send("event: end\ndata: {}\n\n")
	}
	return nil
}

// events makes events of what a service writes.
type events struct {
	w     http.ResponseWriter
	out   *http.ResponseController
	mu    sync.Mutex
	shows terminal
}

func (e *events) Header() http.Header { return http.Header{} }
func (e *events) WriteHeader(int)     {}
func (e *events) FlushError() error   { return nil } // send does

func (e *events) Write(p []byte) (int, error) {
	runs := e.shows.read(p)
	if len(runs) == 0 {
		return len(p), nil
	}
	text, err := json.Marshal(runs) // in one line, with < and > escaped
	if err == nil {
		err = e.send("data: " + string(text) + "\n\n")
	}
	return len(p), err
}

func (e *events) send(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.out.Flush()
}

// beat says now and then that the stream lives: proxies cut what is silent.
func (e *events) beat(stop <-chan struct{}) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if e.send(":\n\n") != nil {
				return
			}
		}
	}
}

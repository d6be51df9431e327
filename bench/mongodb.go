package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/store"
	"singularity/server/store/embedded"
	"singularity/server/store/mongo"
	"singularity/server/store/mongo/mongotest"
)

// How much the sites of mongodb have: what FerretDB is asked by something else
// than an id it answers by reading the whole collection.
const (
	mongoContainers = 10
	mongoImages     = 20 // of each
	mongoKeys       = 50
)

// recordSite is a site with its records somewhere.
type recordSite struct {
	*site
	flags  []string
	image  *uploader
	server *process
	lines  *client // a connection of the key server
}

// mongodb: what people do with a library, with records in MongoDB and in the data
// directory, of the same server. There are two databases: FerretDB on SQLite, a
// real one that is not made for speed, and the one of the tests, in memory, which
// costs little more than protocol, TLS and driver and counts what it is asked.
func (b *bench) mongodb(ctx context.Context) error {
	text, err := exec.CommandContext(ctx, "e2e/mongodb/build").Output()
	if err != nil {
		b.skip("library operations on MongoDB", "e2e/mongodb/build fails")
		return nil
	}
	top := b.path("mongodb")
	os.RemoveAll(top)
	if err := errors.Join(b.makeDir(top), b.makeDir(b.path("tmp/services"))); err != nil {
		return err
	}
	defer os.RemoveAll(top)
	ferret, err := mongotest.StartFerret(strings.TrimSpace(string(text)), top, mongotest.Safe)
	if err != nil {
		return err
	}
	defer ferret.Close()
	memory, err := mongotest.New(top)
	if err != nil {
		return err
	}
	defer memory.Close()
	var sites []*recordSite
	for _, d := range []struct{ name, uri, ca string }{{"embedded", "", ""}, {"ferretdb", ferret.Orderly, ferret.CAFile}, {"memory", memory.URI, memory.CAFile}} {
		s, err := b.recordSite(ctx, top+"/"+d.name, d.uri, d.ca)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		defer s.server.stop()
		sites = append(sites, s)
	}
	for _, c := range libraryCalls {
		var sides []side
		calls := 0
		for _, s := range sites {
			sides = append(sides, side{c.name, s.timed(c, memory.Total, &calls)})
		}
		n := max(b.n/3, 5)
		got, err := rounds(ctx, n, sides)
		if err != nil {
			return err
		}
		b.compare(row{Name: c.name + ", records in MongoDB (FerretDB) / in the data directory", Goal: 3, Unit: "ms"}, walls(got[1]), walls(got[0]))
		b.compare(row{Name: "the same, in MongoDB's protocol to memory / in the data directory", Goal: 3, Unit: "ms"}, walls(got[2]), walls(got[0]))
		b.absolute(row{Name: "calls of the database for that", Unit: "calls"}, []float64{float64(calls) / float64((n+1)*repeated)})
	}
	return nil
}

// recordSite fills a site with its records at uri, or in the data directory, and
// starts its server.
func (b *bench) recordSite(ctx context.Context, dir, uri, caFile string) (*recordSite, error) {
	s := &recordSite{site: &site{b: b, dir: dir}}
	if err := b.makeDir(dir); err != nil {
		return nil, err
	}
	st, err := embedded.Open(s.path("data"))
	if err != nil {
		return nil, err
	}
	records := store.Records(st.Records)
	if uri != "" {
		r, err := mongo.Open(ctx, mongo.Options{URI: uri, CAFile: caFile})
		if err != nil {
			st.Close()
			return nil, err
		}
		defer r.Close()
		records = r
		ca, err := os.ReadFile(caFile)
		text := fmt.Sprintf("[storage]\nrecords = \"mongodb\"\nmongodb_uri_file = %q\nmongodb_ca_file = %q\n", s.path("uri"), s.path("db-ca.pem"))
		err = errors.Join(err, os.WriteFile(s.path("uri"), []byte(uri), 0o600), os.WriteFile(s.path("db-ca.pem"), ca, 0o644), os.WriteFile(s.path("server.toml"), []byte(text), 0o600))
		if err != nil {
			return nil, err
		}
		s.flags = []string{"--config", s.path("server.toml")}
	}
	a, caller, err := s.enroll(ctx, records)
	if err == nil {
		err = s.fill(auth.With(ctx, caller), records, st.Blobs, a, mongoContainers, mongoImages)
	}
	if err = errors.Join(err, st.Close()); err != nil {
		return nil, err
	}
	return s, s.begin(ctx)
}

func (s *recordSite) begin(ctx context.Context) error {
	if err := s.certificate(); err != nil {
		return err
	}
	var err error
	if s.server, err = s.start(ctx, s.flags...); err != nil {
		return err
	}
	for n := 0; n < mongoKeys; n += 5 {
		ids, err := s.sendKeys(ctx, n, 5)
		if err != nil {
			return err
		}
		s.keys = append(s.keys, ids...)
	}
	s.image = &uploader{s: s.site, file: s.path("image.sif")}
	if err := makeSIF(s.image.file, 256<<10); err != nil {
		return err
	}
	return s.image.prepare(ctx)
}

// libraryCall is what somebody does with a library.
type libraryCall struct {
	name   string
	before func(context.Context, *recordSite) error // is not measured
	call   func(context.Context, *recordSite) error
}

const repeated = 10

// timed is the time of one call, as one of several; it adds up how many calls of
// the database those were.
func (s *recordSite) timed(c libraryCall, count func() int, calls *int) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		var sum time.Duration
		for range repeated {
			if c.before != nil {
				if err := c.before(ctx, s); err != nil {
					return sample{}, err
				}
			}
			asked, begun := count(), time.Now()
			if err := c.call(ctx, s); err != nil {
				return sample{}, err
			}
			sum += time.Since(begun)
			*calls += count() - asked
		}
		return sample{wall: sum / repeated}, nil
	}
}

// get is a call that is one request.
func get(path string) func(context.Context, *recordSite) error {
	return func(ctx context.Context, s *recordSite) error {
		return s.call(ctx, http.MethodGet, path, nil, nil)
	}
}

var libraryCalls = []libraryCall{
	{"push of a small image", func(ctx context.Context, s *recordSite) error {
		if s.image.id == "" {
			return nil
		}
		return s.image.forget(ctx)
	}, func(ctx context.Context, s *recordSite) error { return s.image.upload(ctx) }},
	{"image by its reference", nil, get("/v1/images/many3/images/c:v7?arch=" + runtime.GOARCH)},
	{"tag of an image", nil, func(ctx context.Context, s *recordSite) error {
		return s.call(ctx, http.MethodPost, "/v2/tags/"+s.image.tags, api.Tag{Arch: runtime.GOARCH, Tag: "other", ImageID: s.image.id}, nil)
	}},
	{"search for a name", nil, get("/v1/search?value=many3&arch=" + runtime.GOARCH)},
	{"key by its id", func(ctx context.Context, s *recordSite) (err error) {
		if s.lines != nil {
			s.lines.conn.Close()
		}
		s.lines, err = s.dial(ctx)
		return err
	}, func(ctx context.Context, s *recordSite) error {
		status, err := s.lines.get("/pks/lookup?op=get&exact=on&options=mr&search=0x" + s.keys[7])
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("key: %d", status)
		}
		return err
	}},
}

// Package watch knows what is in the stored images, what is known to be wrong with
// it, and where images run.
//
// After a push the packages of the image are listed once, by a process of its own
// (package catalog), and kept beside the image; no byte of an image is read for this
// again. All lists are in memory too, each package once for all images that have it,
// so that new advisories are compared with every image in about a second, and
// a question from an advisory to its images, or back, reads no file.
//
// Advisories are OSV data in a directory of the operator's. What is good is copied
// into the data directory, and that copy is used; data that is older or much smaller is refused,
// and the copy stays, across restarts. How old it is goes with every answer.
//
// Trust: an image says of itself what it likes, a host says what runs on it, and
// neither says anything of others. Whoever may read an image may see its findings.
// Owners of a collection may say which findings do not matter there; administrators
// may for the whole site. Everything is bounded: packages in memory, findings of an
// image, records of a call, tries of an image that cannot be read.
//
//   - inventory.go: lists of packages, made and kept; corpus.go: all of them, in memory
//   - data.go: the advisories
//   - suppress.go: what people have decided about findings
//   - findings.go: the calls about images and advisories; overview.go: about all of them
//   - runs.go: records of runs
//   - rules.go: which images are not served; blocked.go: which hosts do not run; notice.go: who is told of what is new
package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"singularity/catalog"
	"singularity/sbom"
	"singularity/server/auth"
	"singularity/server/dial"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/sif"
)

// Options of the service.
type Options struct {
	Dir        string        // for the copy of the advisories, and temporary files
	Advisories string        // directory or file with OSV data; empty for none
	MaxAge     time.Duration // of the newest advisory, until pages say that it is old; 7 days
	Every      time.Duration // between looks at the advisories; 30 seconds
	Parallel   int           // images that are read at a time; 1
	Program    string        // whose main calls catalog.Main; this one by default
	KeepRuns   time.Duration // how long a run is kept after its end; 90 days
	SameUsers  bool          // accounts here are those of the hosts: who runs something may see it
	Shared     bool          // other processes have the same records
	URL        string        // where people find the pages
	HTTP       *http.Client  // to webhooks, of package dial
	Mail       Mail
	Log        *slog.Logger
	// Read lists the packages of an image; by default catalog.Read.
	Read func(context.Context, *os.File) (*sbom.Inventory, error)
}

// Service is the watch.
type Service struct {
	o     Options
	auth  *auth.Service
	lib   *library.Service
	blobs store.Blobs
	log   *slog.Logger

	inventories *store.Collection[inventory]
	vex         *store.Collection[suppressions]
	runs        *store.Collection[run]
	rules       *store.Collection[rules]
	faults      *store.Collection[firstSeen]
	told        *store.Collection[told]

	corpus     *corpus
	data       data
	said       said // suppressions in memory
	judgements judgements
	ruling     ruling
	ids        imageIDs
	wake       chan struct{}
	missed     atomic.Bool // an image was not written down
	loaded     atomic.Bool // the lists of the last start are in memory
	now        func() time.Time
}

// Open opens the watch of a library.
func Open(ctx context.Context, r store.Records, b store.Blobs, a *auth.Service, lib *library.Service, o Options) (*Service, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.HTTP == nil {
		o.HTTP = dial.Client(nil, nil)
	}
	o.MaxAge, o.Every, o.KeepRuns = cmp.Or(o.MaxAge, 7*24*time.Hour), cmp.Or(o.Every, 30*time.Second), cmp.Or(o.KeepRuns, 90*24*time.Hour)
	o.Parallel = max(o.Parallel, 1)
	s := &Service{o: o, auth: a, lib: lib, blobs: b, log: o.Log, corpus: newCorpus(), wake: make(chan struct{}, 1), now: time.Now, ruling: ruling{told: map[string]string{}}, ids: imageIDs{by: map[string]sif.ID{}}}
	if o.Read == nil {
		program := o.Program
		if program == "" {
			var err error
			if program, err = os.Executable(); err != nil {
				return nil, err
			}
		}
		s.o.Read = func(ctx context.Context, f *os.File) (*sbom.Inventory, error) { return catalog.Read(ctx, program, f) }
	}
	if err := s.openRecords(ctx, r); err != nil {
		return nil, fmt.Errorf("cannot open the watch: %w", err)
	}
	lib.Published(s.published)
	lib.Freed(s.forget)
	lib.Guard(s.guard)
	return s, nil
}

func (s *Service) openRecords(ctx context.Context, r store.Records) (err error) {
	s.inventories, err = store.Open(ctx, r, "watch_inventories", store.Options[inventory]{Indexes: inventoryIndexes})
	if err != nil {
		return err
	}
	if s.vex, err = store.Open(ctx, r, "watch_suppressions", store.Options[suppressions]{}); err != nil {
		return err
	}
	s.runs, err = store.Open(ctx, r, "watch_runs", store.Options[run]{Indexes: runIndexes, Expires: func(r *run) time.Time { return r.Forget }})
	if err != nil {
		return err
	}
	if s.rules, err = store.Open(ctx, r, "watch_rules", store.Options[rules]{}); err != nil {
		return err
	}
	if s.faults, err = store.Open(ctx, r, "watch_faults", store.Options[firstSeen]{}); err != nil {
		return err
	}
	if s.told, err = store.Open(ctx, r, "watch_told", store.Options[told]{Indexes: toldIndexes}); err != nil {
		return err
	}
	return errors.Join(s.loadSaid(ctx), s.loadRules(ctx), s.loadFirst(ctx))
}

// Routes are the calls.
func (s *Service) Routes() []route.Route {
	f := route.Func
	return []route.Route{
		{Pattern: "GET /v1/findings", Handler: f(s.overview), Class: route.Search},
		{Pattern: "GET /v1/findings/search", Handler: f(s.search), Class: route.Search},
		{Pattern: "GET /v1/findings/images", Handler: f(s.touched), Class: route.Search},
		{Pattern: "GET /v1/findings/runs", Handler: f(s.touchedRuns), Class: route.Search},
		{Pattern: "GET /v1/findings/images/{ref...}", Handler: f(s.imageFindings)},
		{Pattern: "GET /v1/inventories/{ref...}", Handler: f(s.imageInventory)},
		{Pattern: "GET /v1/suppressions", Handler: f(s.getVEX)},
		{Pattern: "PUT /v1/suppressions", Handler: f(s.putVEX)},
		{Pattern: "POST /v1/suppressions", Handler: f(s.addVEX)},
		{Pattern: "DELETE /v1/suppressions", Handler: f(s.removeVEX)},
		{Pattern: "GET /v1/suppressions/{entity}/{collection}", Handler: f(s.getVEX)},
		{Pattern: "PUT /v1/suppressions/{entity}/{collection}", Handler: f(s.putVEX)},
		{Pattern: "POST /v1/suppressions/{entity}/{collection}", Handler: f(s.addVEX)},
		{Pattern: "DELETE /v1/suppressions/{entity}/{collection}", Handler: f(s.removeVEX)},
		{Pattern: "GET /v1/watch/rules", Handler: f(s.getRules)},
		{Pattern: "PUT /v1/watch/rules", Handler: f(s.putRules)},
		{Pattern: "GET /v1/watch/rules/{entity}/{collection}", Handler: f(s.getRules)},
		{Pattern: "PUT /v1/watch/rules/{entity}/{collection}", Handler: f(s.putRules)},
		{Pattern: "GET /v1/watch/blocked", Handler: f(s.blockedImages), Class: route.Search},
		{Pattern: "POST /v1/runs", Handler: f(s.takeRuns), Body: maxRunsBody},
		{Pattern: "GET /v1/runs", Handler: f(s.listRuns), Class: route.Search},
	}
}

// tidyEvery is the time between looks for images that nobody wrote down, and for lists
// whose image is gone.
const tidyEvery = time.Hour

// Run does what is to do until ctx ends.
func (s *Service) Run(ctx context.Context) {
	s.startData(ctx)
	if err := s.load(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("cannot load the packages of all images", "error", err.Error())
	}
	s.loaded.Store(true)
	var workers sync.WaitGroup
	defer workers.Wait()
	for range s.o.Parallel {
		workers.Go(func() { s.work(ctx) })
	}
	tick := time.NewTicker(min(s.o.Every, 10*time.Second))
	defer tick.Stop()
	var tidied, looked time.Time
	for {
		now := s.now()
		var err error
		if now.Sub(tidied) >= tidyEvery || s.missed.Swap(false) {
			tidied = now
			err = s.tidy(ctx)
		}
		if now.Sub(looked) >= s.o.Every {
			looked = now
			s.lookAtData(ctx)
		}
		if s.o.Shared {
			err = errors.Join(err, s.follow(ctx), s.loadSaid(ctx), s.loadRules(ctx))
		}
		err = errors.Join(err, s.noteFaults(ctx), s.notify(ctx))
		if err != nil && ctx.Err() == nil {
			s.missed.Store(true)
			s.log.Error("cannot keep up with the images", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func missing(err error) bool { return errors.Is(err, store.ErrNotFound) }

// Package builder is the remote builder: it takes definitions, keeps them as jobs
// until a worker has built them, and shows how far they are.
//
// In go a definition, perhaps an archive of files for it, and a reference of the
// library; out come a log, while it is written and later, and the image in the
// library. The calls are those that clients of remote builders make.
//
// A job's record is the truth about it: its state, and a fence, a number that is
// another one for each worker that gets the job. Every change is one write of
// that record under the condition that it is not over and the fence is still the
// same, so that a worker that was given up changes nothing any more, and a job
// ends once. The queue only says whose turn it is: a ticket that got lost is made
// anew, one too many is thrown away. What follows an end (the whole log as one
// blob, tokens, files) is done again until it is done, at each start too.
//
// Clients are hostile, and so are definitions: they are parsed, never run here.
// Workers are known by a certificate of this site; each call of theirs is about
// one job, whose fence they hold. A job is there for its owner and for
// administrators, and for everybody else it is as if it were not (SC-159).
//
//   - job.go: the record and its changes; submit.go: taking one
//   - context.go: archives of files; convert.go: definitions in parts
//   - watch.go: logs; dispatch.go: calls of workers; finish.go: ends; seal.go: signing;
//     secret.go: passwords of registries
//   - target.go: what is asked of the library; admin.go, usage.go: for administrators
package builder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/queue"
	"singularity/server/route"
	"singularity/server/store"
)

// Options of the service.
type Options struct {
	URL        string // where clients find us, and the library
	Limits     api.BuildLimits
	Parallel   int           // builds of a user at a time
	Queued     int           // builds of a user that are not over
	Attempts   int           // how many workers a build may lose; 3 by default
	Lease      time.Duration // after how long without a sign of life a worker is lost
	Keep       time.Duration // of images without a place of their own
	History    time.Duration // of jobs that are over, with their logs
	MaxContext int64         // bytes of an archive of files
	SecretKey  []byte        // 32 bytes that passwords of registries are sealed by; nil for none
	Seal       *Seal         // the key by which results are signed; nil for none
	Log        *slog.Logger
}

// Service is the remote builder.
type Service struct {
	o     Options
	auth  *auth.Service
	blobs store.Blobs
	queue *queue.Queue
	api   *http.ServeMux // the library
	log   *slog.Logger
	now   func() time.Time

	jobs     *store.Collection[job]
	contexts *store.Collection[buildContext]
	workers  *store.Collection[worker]
	settings *store.Collection[settings]
	usage    *store.Collection[usage]
	secrets  *store.Collection[registrySecret]

	host     string
	claiming sync.Mutex
	sealing  sync.Mutex
	tidying  sync.RWMutex // of who tidies after a build; locked for good at the end
	stopping chan struct{}
	stopOnce sync.Once
}

// Open opens the builder in the store. The library is asked as any client asks
// it, in the name of whom a build is for.
func Open(ctx context.Context, r store.Records, b store.Blobs, a *auth.Service, q *queue.Queue, library interface{ Routes() []route.Route }, o Options) (*Service, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Attempts == 0 {
		o.Attempts = defaultAttempts
	}
	s := &Service{o: o, auth: a, blobs: b, queue: q, api: http.NewServeMux(), log: o.Log, now: time.Now, host: u.Host, stopping: make(chan struct{})}
	for _, l := range library.Routes() {
		s.api.HandleFunc(l.Pattern, l.Handler)
	}
	if err := s.openRecords(ctx, r); err != nil {
		return nil, fmt.Errorf("cannot open the builder: %w", err)
	}
	return s, nil
}

func (s *Service) openRecords(ctx context.Context, r store.Records) (err error) {
	if s.jobs, err = store.Open(ctx, r, "build_jobs", store.Options[job]{Indexes: jobIndexes}); err != nil {
		return err
	}
	if s.contexts, err = store.Open(ctx, r, "build_contexts", store.Options[buildContext]{Indexes: contextIndexes}); err != nil {
		return err
	}
	if s.workers, err = store.Open(ctx, r, "build_workers", store.Options[worker]{Expires: func(w *worker) time.Time { return w.Forget }}); err != nil {
		return err
	}
	if s.usage, err = store.Open(ctx, r, "build_usage", store.Options[usage]{Expires: func(u *usage) time.Time { return u.Forget }}); err != nil {
		return err
	}
	if s.secrets, err = store.Open(ctx, r, "build_secrets", store.Options[registrySecret]{Indexes: secretIndexes}); err != nil {
		return err
	}
	s.settings, err = store.Open(ctx, r, "build_settings", store.Options[settings]{})
	return err
}

// Routes are the calls of clients.
func (s *Service) Routes() []route.Route {
	f := route.Func
	return []route.Route{
		{Pattern: "POST /v1/build-context", Handler: f(s.announceContext), Class: route.Push},
		{Pattern: "PUT /v1/build-context-upload/{id}", Handler: f(s.receiveContext), Class: route.Transfer, Body: route.Stream, Presigned: true},
		{Pattern: "DELETE /v1/build-context/{digest}", Handler: f(s.deleteContext)},
		{Pattern: "POST /v1/build", Handler: f(s.submit), Class: route.Push, Body: maxSubmit},
		{Pattern: "GET /v1/build/{id}", Handler: f(s.status)},
		{Pattern: "GET /v1/build/{id}/log", Handler: f(s.readLog), Class: route.Transfer},
		{Pattern: "GET /v1/build/{id}/definition", Handler: f(s.definition)},
		{Pattern: "GET /v1/build-ws/{id}", Handler: f(s.watch)},
		{Pattern: "PUT /v1/build/{id}/_cancel", Handler: f(s.cancel)},
		{Pattern: "POST /v1/convert-def-file", Handler: f(s.convert)},
		{Pattern: "GET /v1/builds", Handler: f(s.list)},
		{Pattern: "GET /v1/build-options", Handler: f(s.options)},
		{Pattern: "GET /v1/build-secrets", Handler: f(s.listSecrets)},
		{Pattern: "PUT /v1/build-secrets", Handler: f(s.setSecret), Class: route.Push, Body: 16 << 10},
		{Pattern: "DELETE /v1/build-secrets/{registry}", Handler: f(s.deleteSecret)},
		{Pattern: "GET /v1/admin/builds", Handler: f(s.state)},
		{Pattern: "GET /v1/admin/builds/usage", Handler: f(s.used), Class: route.Search},
		{Pattern: "PATCH /v1/admin/builds", Handler: f(s.change)},
		{Pattern: "PATCH /v1/admin/builds/{id}", Handler: f(s.prioritize)},
	}
}

// Internal are the calls of workers, for the internal listener.
func (s *Service) Internal() []route.Route {
	f := func(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
		return route.Func(asWorker(h))
	}
	return []route.Route{
		{Pattern: "POST /internal/v1/builds/claim", Handler: f(s.claim), Body: 64 << 10},
		{Pattern: "POST /internal/v1/builds/{id}/alive", Handler: f(s.alive), Body: 1 << 10},
		{Pattern: "POST /internal/v1/builds/{id}/log", Handler: f(s.appendLog), Body: queue.MaxChunk},
		{Pattern: "GET /internal/v1/builds/{id}/context", Handler: f(s.sendContext)},
		{Pattern: "POST /internal/v1/builds/{id}/upload", Handler: f(s.upload), Body: 4 << 10},
		{Pattern: "POST /internal/v1/builds/{id}/done", Handler: f(s.done), Body: 4 << 10},
	}
}

// Run tidies up until ctx ends: what a crash left half, and what is old.
func (s *Service) Run(ctx context.Context) {
	defer s.tidying.Lock()
	every := min(s.o.Lease, 5*time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var slow time.Time
	for {
		err := s.settle(ctx)
		if now := s.now(); now.Sub(slow) > time.Minute {
			slow = now
			err = errors.Join(err, s.requeue(ctx), s.sweep(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot tidy the builder", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Stop tells who watches a log that this server ends.
func (s *Service) Stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

// Package server is singularity-server: the services of a site in one program.
//
// It reads the configuration, opens the storage, puts the routes of the services
// behind one public listener, and keeps health and metrics on an internal one.
// What every request meets, in this order: a check of its path, a bound of its
// body in bytes and time, the question who asks (package auth), the rate of that
// caller, and then its route. Services hold no state of a request and trust no
// address and no header; an object is guarded where it is read.
//
// Clients are hostile: headers, bodies, rates, connections and memory are
// bounded, slow ones are cut by progress, and a panic ends one request. TLS is
// 1.2 or newer on both listeners; plain HTTP is served on a loopback address
// only, when asked for. HTTP/2 is off: images want few long streams, and its
// floods are one thing less.
//
//   - command.go, admin.go: the verbs; config.go: the file
//   - server.go: from start to stop; handler.go, limit.go: before every route
//   - tls.go: certificates; internal.go, metrics.go: the internal listener
//   - build.go: the remote builder and its workers; watch.go: what is in images
//   - discovery.go: where clients find what; first.go: what a first start says
//   - storage.go: where records and blobs are; shared.go: allowances of several
//     servers; gate.go, migrate.go: how an installation moves to another storage
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"singularity/server/auth"
	"singularity/server/builder"
	"singularity/server/keystore"
	"singularity/server/library"
	"singularity/server/queue"
	"singularity/server/registry"
	"singularity/server/route"
	"singularity/server/store"
	"singularity/server/translog"
	"singularity/server/watch"
	"singularity/server/web"
)

// Server is one running server.
type Server struct {
	config Config
	store  *storage
	ca     *authority
	auth   *auth.Service
	lib    *library.Service
	keys   *keystore.Service
	oci    *registry.Service
	queue  *queue.Queue
	// recordsOnly is for who only wants to know which collections there are: no
	// queue is opened, which a server that runs has.
	recordsOnly bool
	builds      *builder.Service
	watch       *watch.Service
	front       *front
	ready       atomic.Bool
	log         *slog.Logger
	audit       *reopened

	public, internal net.Listener
}

// Service is what package server puts behind the listener.
type Service interface {
	Routes() []route.Route
}

// services makes the services. Each gets the storage, and asks auth who may do
// what.
func (s *Server) services(ctx context.Context) ([]Service, error) {
	_, name, _ := strings.Cut(s.config.URL, "://")
	changes, err := translog.Open(ctx, s.store.Records, name)
	if err != nil {
		return nil, fmt.Errorf("cannot open the transparency log: %w", err)
	}
	if s.store.shared {
		changes.Share()
	}
	if s.lib, err = openLibrary(ctx, s.config, s.store, s.auth, changes, s.signers); err != nil {
		return nil, err
	}
	if s.oci, err = registry.Open(ctx, s.store.Records, s.store.Blobs, s.auth, s.lib, s.config.URL); err != nil {
		return nil, err
	}
	s.keys, err = keystore.Open(ctx, s.store.Records, s.auth, keystore.Options{Open: s.config.OpenKeys, Log: changes, Changing: s.lib.KeyChanging})
	if err != nil {
		return nil, err
	}
	if s.builds, err = s.openBuilder(ctx); err != nil {
		return nil, err
	}
	if s.watch, err = s.openWatch(ctx); err != nil {
		return nil, err
	}
	after := &jobs{s: s, started: time.Now().UTC()}
	pages := web.New(s.auth, s.config.URL, s.auth, s.lib, s.keys, s.watch, changes, s.builds, after, found{s.discovery()})
	return []Service{s.auth, s.lib, s.oci, changes, s.keys, s.builds, s.watch, after, pages}, nil
}

// openLibrary opens the library as the configuration says.
func openLibrary(ctx context.Context, c Config, s *storage, a *auth.Service, changes *translog.Log,
	signers func(context.Context, io.ReaderAt, int64) ([]string, error)) (*library.Service, error) {
	return library.Open(ctx, s.Records, s.Blobs, a, library.Options{Log: changes, URL: c.URL, Quota: int64(c.LibraryQuota), MaxImage: int64(c.LibraryMaxImage), Undo: duration(c.LibraryUndo),
		NoDelete: c.LibraryNoDelete, Fingerprints: signers, Shared: s.shared})
}

// Open opens the storage and the listeners of a server. Messages for people go
// to out, its log to logs.
func Open(ctx context.Context, c Config, out, logs io.Writer) (*Server, error) {
	s := &Server{config: c, log: newLog(c, logs)}
	if err := s.open(ctx, out); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context, out io.Writer) error {
	var err error
	if s.store, err = openStorage(ctx, &s.config, true); err != nil {
		return err
	}
	if s.ca, err = openAuthority(s.config.Data); err != nil {
		return err
	}
	if s.public, err = net.Listen("tcp", s.config.Listen); err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	if s.internal, err = net.Listen("tcp", s.config.Internal); err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	if s.config.URL == "" { // port 0: the address is known only now
		host, _, _ := net.SplitHostPort(s.config.Listen)
		_, port, _ := net.SplitHostPort(s.public.Addr().String())
		s.config.URL = s.config.defaultURL(host, port)
	}
	if s.audit, err = openAudit(s.config); err != nil {
		return err
	}
	if s.auth, err = openAuth(ctx, s.config, s.store, slog.New(slog.NewJSONHandler(s.audit, nil))); err != nil {
		return err
	}
	if err := s.mount(ctx); err != nil {
		return err
	}
	return s.greet(ctx, out)
}

func openAudit(c Config) (*reopened, error) {
	if c.AuditLog != "" {
		return openLog(c.AuditLog)
	}
	return openLog(filepath.Join(c.Data, "audit.log"))
}

// openAuth opens the accounts as the configuration says.
func openAuth(ctx context.Context, c Config, s *storage, audit *slog.Logger) (*auth.Service, error) {
	providers, err := c.providers()
	if err != nil {
		return nil, err
	}
	networks, err := prefixes(c.DialNetworks)
	if err != nil {
		return nil, err
	}
	return auth.Open(ctx, s.Records, auth.Options{Shared: s.shared, Networks: networks, URL: c.URL, Secure: !c.InsecureHTTP, Providers: providers, AuditLog: audit,
		TokenLife: duration(c.TokenLife), TokenMaxLife: duration(c.TokenMaxLife), SessionLife: duration(c.SessionLife)})
}

// mount puts the routes of all services behind the front.
func (s *Server) mount(ctx context.Context) error {
	limits, err := newRates(&s.config)
	if err != nil {
		return err
	}
	if s.store.shared {
		if limits.shared, err = openBuckets(ctx, s.store.Records); err != nil {
			return err
		}
	}
	proxies, err := prefixes(s.config.TrustedProxies)
	if err != nil {
		return err
	}
	s.front = &front{mux: http.NewServeMux(), auth: s.auth, rates: limits, metrics: newMetrics(), proxies: proxies, hsts: !s.config.InsecureHTTP, times: usualTimes, log: s.log}
	services, err := s.services(ctx)
	if err != nil {
		return err
	}
	s.front.metrics.registry.MustRegister(newWatchFigures(s))
	for _, r := range s.discovery() {
		s.front.add(r)
	}
	for _, service := range services {
		for _, r := range service.Routes() {
			s.front.add(r)
		}
	}
	if _, pattern := s.front.mux.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}}); pattern == "" {
		s.front.add(s.root())
	}
	return nil
}

// Run serves until ctx ends, and then lets running requests end.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	tlsConfig, err := s.config.publicTLS(s.ca)
	if err != nil {
		return err
	}
	public, internal := s.httpServer(s.front), s.httpServer(s.internalMux())
	listener := net.Listener(limited{s.public, make(chan struct{}, s.config.MaxConnections), ctx})
	if tlsConfig != nil {
		listener = tls.NewListener(listener, tlsConfig)
	} else {
		s.log.Warn("plain HTTP: whoever can read on this machine's loopback reads tokens")
	}
	ended := make(chan error, 2)
	moves := &watcher{Server: s, id: store.NewID()}
	if moves.notices, err = openNotices(ctx, s.store.Records); err != nil {
		return err
	}
	if err := moves.look(ctx); err != nil {
		return err
	}
	go func() { ended <- public.Serve(listener) }()
	go func() { ended <- internal.Serve(tls.NewListener(s.internal, s.config.internalTLS(s.ca))) }()
	sweeping, stopSweeping := context.WithCancel(context.WithoutCancel(ctx))
	var tidying sync.WaitGroup
	tidying.Go(func() { s.sweep(sweeping) })
	tidying.Go(func() { moves.run(sweeping) })
	tidying.Go(func() {
		s.lib.Rejudge(sweeping, func(err error) { s.log.Error("cannot look at the images of a changed key", "error", err.Error()) })
	})
	tidying.Go(func() { s.builds.Run(sweeping) })
	tidying.Go(func() { s.watch.Run(sweeping) })
	defer func() { stopSweeping(); tidying.Wait() }()
	stopWorkers, err := s.startWorkers()
	if err != nil {
		return err
	}
	defer stopWorkers()
	s.ready.Store(true)
	s.log.Info("ready", "url", s.config.URL, "listen", s.public.Addr().String(), "internal", s.internal.Addr().String())
	select {
	case err = <-ended:
		err = fmt.Errorf("cannot go on serving: %w", err)
	case <-ctx.Done():
		s.log.Info("stopping")
	}
	s.ready.Store(false)
	stopWorkers() // while they can still give back what they have
	s.builds.Stop()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), duration(s.config.StopTime))
	defer cancel()
	if e := public.Shutdown(stop); e != nil {
		s.log.Warn("some requests were cut", "error", e.Error())
		public.Close()
	}
	internal.Close()
	if e := s.lib.Flush(stop); e != nil {
		s.log.Warn("some downloads are not counted", "error", e.Error())
	}
	return err
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: s.front.times.header, IdleTimeout: s.front.times.idle, WriteTimeout: s.front.times.stall, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(quiet{s.log}, "", 0)}
}

// quiet takes what net/http says about single connections: a client that breaks
// off a handshake is no fault of ours.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("connection", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

// uploadLife is how long an upload may take.
const uploadLife = 24 * time.Hour

// sweep removes what has expired, every minute.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if n, err := s.store.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("cannot remove what has expired", "error", err.Error())
		} else if n > 0 {
			s.log.Debug("swept", "records", n)
		}
		if _, _, err := endUploads(ctx, s.store.Blobs, false); err != nil && ctx.Err() == nil {
			s.log.Error("cannot end old uploads", "error", err.Error())
		}
		s.auth.Sweep(ctx)
		if err := errors.Join(s.oci.Sweep(ctx), s.lib.Sweep(ctx)); err != nil && ctx.Err() == nil {
			s.log.Error("cannot tidy the library", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// endUploads gives up the uploads that began too long ago.
func endUploads(ctx context.Context, b store.Blobs, dryRun bool) (count int, freed int64, err error) {
	for u, err := range b.Uploads(ctx) {
		if err != nil {
			return count, freed, err
		}
		if time.Since(u.Started) < uploadLife {
			continue
		}
		if !dryRun {
			if err := b.Abort(ctx, u.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
				return count, freed, err
			}
		}
		count++
		freed += u.Size
	}
	return count, freed, nil
}

func (s *Server) close() {
	if s.public != nil {
		s.public.Close()
	}
	if s.internal != nil {
		s.internal.Close()
	}
	if s.queue != nil {
		s.queue.Close()
	}
	if s.store != nil {
		s.store.Close()
	}
	if s.audit != nil {
		s.audit.Close()
	}
}

// serve runs a server until a signal: the first stops it gently, a second at
// once; SIGHUP opens the audit log anew after somebody moved it away.
func serve(c Config, out, logs io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(newLog(c, logs))
	s, err := Open(ctx, c, out, logs)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process
	}()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		for range hangups {
			if err := s.audit.reopen(); err != nil {
				s.log.Error("cannot open the audit log anew", "error", err.Error())
			}
		}
	}()
	return s.Run(ctx)
}

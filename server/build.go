package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"singularity/api"
	"singularity/server/builder"
	"singularity/server/queue"
	"singularity/server/worker"
)

// openBuilder opens the queue and the remote builder.
func (s *Server) openBuilder(ctx context.Context) (*builder.Service, error) {
	c := &s.config
	lease := duration(c.BuildLease)
	if s.recordsOnly {
		return builder.Open(ctx, s.store.Records, s.store.Blobs, s.auth, nil, s.lib, builder.Options{URL: c.URL, Log: s.log})
	}
	var err error
	s.queue, err = queue.Open(ctx, queue.Options{Dir: filepath.Join(c.Data, "queue"), Lease: lease, URL: c.QueueURL, Credentials: c.QueueCredentials, CA: c.QueueCA, Replicas: c.QueueReplicas})
	if err != nil {
		return nil, err
	}
	seal, err := c.seal()
	if err != nil {
		return nil, err
	}
	secrets, err := c.secretsKey()
	if err != nil {
		return nil, err
	}
	limits := api.BuildLimits{Time: duration(c.BuildTime), Memory: int64(c.BuildMemory), Disk: int64(c.BuildDisk), CPUs: c.BuildCPUs, PIDs: c.BuildPIDs, Output: int64(c.BuildOutput),
		Context: int64(c.BuildContext)}
	return builder.Open(ctx, s.store.Records, s.store.Blobs, s.auth, s.queue, s.lib, builder.Options{URL: c.URL, Limits: limits, Parallel: c.BuildParallel, Queued: c.BuildQueued, Attempts: c.BuildAttempts, Lease: lease,
		Keep: duration(c.BuildKeep), History: duration(c.BuildHistory), MaxContext: int64(c.BuildContext), Seal: seal, SecretKey: secrets, Log: s.log})
}

// startWorkers starts the workers of this process. They come by the internal
// listener as others do, with a certificate that is in memory alone. The result
// stops them, and may be called twice.
func (s *Server) startWorkers() (func(), error) {
	if s.config.Workers == 0 {
		return func() {}, nil
	}
	cert, err := s.ca.issue("worker", nil, x509.ExtKeyUsageClientAuth, leafLife, builder.WorkerUnit)
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(s.internal.Addr().String())
	if err != nil {
		return nil, err
	}
	at := s.internal.Addr().(*net.TCPAddr)
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	o, err := s.config.worker(net.JoinHostPort(host, port), cert, s.ca.pool(), s.log)
	if err != nil {
		return nil, err
	}
	o.CA = s.ca.pem()
	w, err := worker.Open(o)
	if err != nil {
		return nil, err
	}
	s.log.Info("workers", "builds at a time", o.Slots, "architectures", w.Archs())
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx, nil) })
	return func() { stop(); running.Wait() }, nil
}

// worker are the options of a worker that the configuration says.
func (c *Config) worker(address string, cert tls.Certificate, pool *x509.CertPool, log *slog.Logger) (worker.Options, error) {
	t := baseTLS()
	t.RootCAs, t.Certificates = pool, []tls.Certificate{cert}
	name := c.WorkerName
	if name == "" {
		name = worker.DefaultName()
	}
	dir := c.WorkerDir
	if dir == "" {
		dir = filepath.Join(c.Data, "builds")
	}
	if !filepath.IsAbs(dir) {
		return worker.Options{}, fmt.Errorf("cannot use the setting worker_dir: %q is no absolute path", dir)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: 45 * time.Second}}
	return worker.Options{Name: name, Slots: max(c.Workers, 1), Server: "https://" + address, HTTP: client, Dir: dir, IDs: uint32(c.WorkerIDs), Program: c.WorkerProgram, Allow: c.WorkerAllow, Log: log}, nil
}

func newWorker() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Build what people ask a server for, until a signal",
		Long: "worker builds images in sandboxes for the server at worker_server. It needs a certificate that the server made for it: singularity-server admin certificate --worker NAME. " +
			"SIGTERM lets running builds end; a second one gives them back.",
		Example: "  $ singularity-server worker --worker-server https://images.example.org:8444 \\\n" +
			"      --worker-certificate worker1.pem --worker-ca ca.pem --workers 4",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := LoadConfig(cmd.Flags())
			if err != nil {
				return err
			}
			return work(c, cmd.ErrOrStderr())
		},
	}
}

// work runs a worker until a signal: the first drains it, the second gives back
// what it has.
func work(c Config, logs io.Writer) error {
	log := newLog(c, logs)
	slog.SetDefault(log)
	o, err := c.remoteWorker(log)
	if err != nil {
		return err
	}
	w, err := worker.Open(o)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	drain := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		log.Info("draining")
		close(drain)
		<-signals
		stop()
	}()
	log.Info("ready", "server", o.Server, "builds at a time", o.Slots, "architectures", w.Archs())
	w.Run(ctx, drain)
	return nil
}

func (c *Config) remoteWorker(log *slog.Logger) (worker.Options, error) {
	fail := func(key, why string) (worker.Options, error) {
		return worker.Options{}, fmt.Errorf("cannot use the setting %s: %s", key, why)
	}
	u, err := url.Parse(c.WorkerServer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return fail("worker_server", fmt.Sprintf("%q is no address like https://images.example.org:8444", c.WorkerServer))
	}
	cert, err := tls.LoadX509KeyPair(c.WorkerCertificate, c.WorkerCertificate)
	if err != nil {
		return fail("worker_certificate", err.Error())
	}
	ca, err := os.ReadFile(c.WorkerCA)
	if err != nil {
		return fail("worker_ca", err.Error())
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fail("worker_ca", fmt.Sprintf("no certificate in %q", c.WorkerCA))
	}
	o, err := c.worker(u.Host, cert, pool, log)
	o.CA = ca
	if err == nil && c.WorkerDir == "" {
		err = errors.New("cannot start a worker: name a directory for builds by worker_dir")
	}
	return o, err
}

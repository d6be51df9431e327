// Package queue hands builds to workers, and keeps their logs while they run: a
// work queue and a log on NATS JetStream.
//
// In go tickets, each the id of a build with its user, architecture and
// priority, and come out leases: a ticket that one worker has for a while. A lease
// that nobody extends ends, and the ticket comes out again. That a ticket is
// lost, comes twice, or names a build that ended long ago, is possible after a
// crash, and is for the caller to see by its own records: the queue is about
// order and time, never about truth.
//
// Order: higher priority first; in it, the user with the fewest running builds,
// then the one who was served longest ago; of one user, the oldest build.
//
// By default the server of NATS runs in this process, without any listener: the
// connection is a pipe of memory, and its files are in the data directory. A
// cluster elsewhere is reached by TLS with credentials alone. Names of users come
// from the accounts and are encoded before they are part of a subject.
//
//   - queue.go: opening; ticket.go: tickets and leases; log.go: logs
package queue

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options of a queue.
type Options struct {
	Dir   string        // of the server in this process
	Lease time.Duration // how long a ticket is a worker's without a sign of life
	// URL of a cluster to use instead, tls://HOST:PORT; its file of credentials,
	// and one of authorities to trust beside the system's.
	URL, Credentials, CA string
	Replicas             int // of the streams in a cluster; 1 if 0
}

// Queue is an open queue.
type Queue struct {
	lease  time.Duration
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	jobs   jetstream.Stream
	logs   jetstream.Stream

	mu        sync.Mutex
	consumers map[string]jetstream.Consumer
	served    map[string]time.Time // when a user got a worker the last time
	waiting   map[string]chan struct{}
}

// callTime bounds one call: a request that is lost while a cluster chooses a
// leader is answered by nobody.
const callTime = 5 * time.Second

const (
	jobStream = "BUILD_JOBS"
	logStream = "BUILD_LOGS"
)

// Open opens the queue, and starts its server if no other is named.
func Open(ctx context.Context, o Options) (*Queue, error) {
	q := &Queue{lease: o.Lease, consumers: map[string]jetstream.Consumer{}, served: map[string]time.Time{}, waiting: map[string]chan struct{}{}}
	if err := q.open(ctx, o); err != nil {
		q.Close()
		return nil, fmt.Errorf("cannot open the queue: %w", err)
	}
	return q, nil
}

func (q *Queue) open(ctx context.Context, o Options) (err error) {
	if o.URL == "" {
		err = q.embed(o.Dir)
	} else {
		q.conn, err = join(o)
	}
	if err != nil {
		return err
	}
	if q.js, err = jetstream.New(q.conn, jetstream.WithDefaultTimeout(callTime)); err != nil {
		return err
	}
	replicas := max(o.Replicas, 1)
	if q.jobs, err = q.stream(ctx, jetstream.StreamConfig{Name: jobStream, Subjects: []string{"build.>"}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Replicas: replicas, Duplicates: 2 * time.Minute}); err != nil {
		return err
	}
	if q.logs, err = q.stream(ctx, jetstream.StreamConfig{Name: logStream, Subjects: []string{"log.*"}, Storage: jetstream.FileStorage, Replicas: replicas,
		Duplicates: 2 * time.Minute, AllowDirect: true}); err != nil {
		return err
	}
	_, err = q.conn.Subscribe("wake.*", func(m *nats.Msg) { q.ring(m.Subject[len("wake."):]) })
	return err
}

// stream makes a stream, patiently: a cluster may be choosing its leader.
func (q *Queue) stream(ctx context.Context, c jetstream.StreamConfig) (jetstream.Stream, error) {
	for try := 0; ; try++ {
		call, cancel := context.WithTimeout(ctx, callTime)
		s, err := q.js.CreateOrUpdateStream(call, c)
		cancel()
		if err == nil || try == 5 || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrTimeout) {
			return s, err
		}
	}
}

// embed starts a server in this process.
func (q *Queue) embed(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s, err := server.NewServer(&server.Options{ServerName: "singularity", DontListen: true, JetStream: true, StoreDir: filepath.Clean(dir), NoSigs: true, NoLog: true,
		SyncInterval: 10 * time.Second, MaxPayload: 1 << 20})
	if err != nil {
		return err
	}
	q.server = s
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return errors.New("its server does not start")
	}
	q.conn, err = nats.Connect("", nats.InProcessServer(s), nats.MaxReconnects(-1))
	return err
}

// join connects to a cluster.
//
// Security: tickets and logs are those of all users, so nothing goes out in the
// clear or without saying who asks.
func join(o Options) (*nats.Conn, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "tls" {
		return nil, errors.New("its address is not like tls://nats.example.org:4222")
	}
	if u.User != nil || o.Credentials == "" {
		return nil, errors.New("credentials come from a file, and are needed")
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("no certificate in %q", o.CA)
		}
	}
	return nats.Connect(o.URL, nats.Name("singularity-server"), nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}),
		nats.UserCredentials(o.Credentials), nats.MaxReconnects(-1), nats.Timeout(10*time.Second))
}

// Close ends the connection and the server in this process.
func (q *Queue) Close() {
	if q.conn != nil {
		q.conn.Close()
	}
	if q.server != nil {
		q.server.Shutdown()
		q.server.WaitForShutdown()
	}
}

// Wake tells all who wait for something of that name, here and in other servers.
func (q *Queue) Wake(name string) { q.conn.Publish("wake."+name, nil) }

// Waiting returns a channel that is closed at the next Wake of the name.
func (q *Queue) Waiting(name string) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	c, ok := q.waiting[name]
	if !ok {
		c = make(chan struct{})
		q.waiting[name] = c
	}
	return c
}

func (q *Queue) ring(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c, ok := q.waiting[name]; ok {
		delete(q.waiting, name)
		close(c)
	}
}

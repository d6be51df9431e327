package server

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"singularity/server/route"
	"singularity/server/store"
)

// gate lets changes of the storage through, or not: while an installation is
// moved, and after it was.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside int
}

var errReadOnly = route.Errorf(http.StatusServiceUnavailable, "this server is being moved and takes no changes for a moment: try again")

func (g *gate) do(f func() error) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errReadOnly
	}
	g.inside++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.inside--
		g.mu.Unlock()
	}()
	return f()
}

// close lets no change begin, and tells whether those that had begun have ended.
func (g *gate) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return g.inside == 0
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = false
}

// gatedRecords are records whose changes go through a gate.
type gatedRecords struct {
	store.Records
	gate *gate
}

func (r gatedRecords) Insert(ctx context.Context, collection string, d store.Doc) (rev int64, err error) {
	err = r.gate.do(func() (e error) { rev, e = r.Records.Insert(ctx, collection, d); return e })
	return rev, err
}

func (r gatedRecords) Replace(ctx context.Context, collection string, d store.Doc) (rev int64, err error) {
	err = r.gate.do(func() (e error) { rev, e = r.Records.Replace(ctx, collection, d); return e })
	return rev, err
}

func (r gatedRecords) Delete(ctx context.Context, collection, key string, rev int64) error {
	return r.gate.do(func() error { return r.Records.Delete(ctx, collection, key, rev) })
}

func (r gatedRecords) Sweep(ctx context.Context) (n int64, err error) {
	err = r.gate.do(func() (e error) { n, e = r.Records.Sweep(ctx); return e })
	return n, err
}

// gatedBlobs are blobs of which none comes or goes but through a gate. Parts of
// uploads may go on: an upload is not moved, and its client begins again.
type gatedBlobs struct {
	store.Blobs
	gate *gate
}

func (b gatedBlobs) Put(ctx context.Context, name string, r io.Reader, want store.Content) (i store.Info, err error) {
	err = b.gate.do(func() (e error) { i, e = b.Blobs.Put(ctx, name, r, want); return e })
	return i, err
}

func (b gatedBlobs) Complete(ctx context.Context, upload, name string, want store.Content) (i store.Info, err error) {
	err = b.gate.do(func() (e error) { i, e = b.Blobs.Complete(ctx, upload, name, want); return e })
	return i, err
}

func (b gatedBlobs) Delete(ctx context.Context, name string) error {
	return b.gate.do(func() error { return b.Blobs.Delete(ctx, name) })
}

// moving is the record by which a migration tells the servers of an installation
// to take no changes. It ends by itself, lest a migration that died stops them
// for ever, unless everything has been moved.
type moving struct {
	By    string    `json:"by"`
	Moved bool      `json:"moved,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// process is a server that runs, or a moment ago did.
type process struct {
	Closed string    `json:"closed,omitempty"` // the migration that it has closed its gate for
	Until  time.Time `json:"until"`
}

const (
	movingTick  = 500 * time.Millisecond
	movingLife  = 30 * time.Second
	processTick = 5 * time.Second
	processLife = 20 * time.Second
)

// notices are the two collections by which migration and servers speak.
type notices struct {
	moving    *store.Collection[moving]
	processes *store.Collection[process]
}

// openNotices opens them beside the gate, which must not hold them off.
func openNotices(ctx context.Context, r store.Records) (n notices, err error) {
	if g, ok := r.(gatedRecords); ok {
		r = g.Records
	}
	if n.moving, err = store.Open(ctx, r, "server_moving", store.Options[moving]{Expires: func(m *moving) time.Time { return m.Until }}); err != nil {
		return n, err
	}
	n.processes, err = store.Open(ctx, r, "server_processes", store.Options[process]{Expires: func(p *process) time.Time { return p.Until }})
	return n, err
}

// movingKey is the one key of that collection.
const movingKey = "now"

// watcher opens and closes the gate as a migration wants it, and tells it so. An
// embedded storage has one server, which its lock shows: it writes nothing while
// no migration runs.
type watcher struct {
	*Server
	notices
	id     string
	closed string // the migration that runs
	told   time.Time
}

func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(movingTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.processes.Delete(context.WithoutCancel(ctx), w.id, 0)
			return
		case <-tick.C:
			if err := w.look(ctx); err != nil && ctx.Err() == nil {
				w.log.Error("cannot ask for a migration", "error", err.Error())
			}
		}
	}
}

// look says that this server is there before it asks whether a migration runs: so
// either it sees the migration, or that sees the server.
func (w *watcher) look(ctx context.Context) error {
	if w.store.shared {
		if err := w.tell(ctx); err != nil {
			return err
		}
	}
	m, err := w.moving.Get(ctx, movingKey)
	switch {
	case missing(err):
		if w.closed != "" {
			w.log.Warn("changes are taken again")
		}
		w.closed = ""
		w.store.gate.open()
		return nil
	case err != nil:
		return err
	}
	if w.store.gate.close() && w.closed != m.Value.By {
		w.closed, w.told = m.Value.By, time.Time{}
		w.log.Warn("a migration runs: no changes are taken", "moved", m.Value.Moved)
	}
	if w.closed == "" {
		return nil // changes that had begun have not ended
	}
	return w.tell(ctx)
}

func (w *watcher) tell(ctx context.Context) error {
	if time.Since(w.told) < processTick {
		return nil
	}
	err := put(ctx, w.processes, w.id, process{Closed: w.closed, Until: time.Now().Add(processLife).UTC()})
	if err == nil {
		w.told = time.Now()
	}
	return err
}

package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"singularity/server/store"
	"singularity/server/store/embedded"
)

func newMigrate() *cobra.Command {
	cmd := verb("migrate --to CONFIG", "Move everything to another storage, while the server runs",
		"migrate copies records and blobs to the storage that the file CONFIG names in [storage], which nobody serves. The server goes on meanwhile; at the end it takes no changes for a moment, "+
			"until what changed since is copied too, and from then on none at all: start the servers with CONFIG. Every record is compared with its copy, and every blob that is copied is read back. "+
			"What broke off goes on where it was when it is started again. Uploads that have not ended are not moved: their clients begin again.", 0,
		func(ctx context.Context, cmd *cobra.Command, c Config, _ []string) error {
			to, err := cmd.Flags().GetString("to")
			if err != nil {
				return err
			}
			dry, err := cmd.Flags().GetBool("dry-run")
			if err != nil {
				return err
			}
			undo, err := cmd.Flags().GetBool("undo")
			if err != nil {
				return err
			}
			if undo {
				return undoMigration(ctx, &c)
			}
			target := Defaults()
			text, err := os.ReadFile(to)
			if err == nil {
				err = ParseConfig(text, &target)
			}
			if err == nil {
				err = target.check()
			}
			if err != nil {
				return fmt.Errorf("cannot use the configuration %q: %w", to, err)
			}
			m := &migration{from: c, to: target, dry: dry, out: cmd.OutOrStdout(), progress: cmd.ErrOrStderr(), id: store.NewID(), seed: maphash.MakeSeed(), seen: map[string]map[uint64]int64{}}
			return m.run(ctx)
		})
	cmd.Flags().String("to", "", "configuration of the servers to come")
	cmd.Flags().Bool("dry-run", false, "only say what would be moved")
	cmd.Flags().Bool("undo", false, "let the server of this configuration take changes again")
	return cmd
}

// undoMigration takes back that everything has been moved.
func undoMigration(ctx context.Context, c *Config) error {
	s, err := openStorage(ctx, c, false)
	if err != nil {
		return err
	}
	defer s.Close()
	n, err := openNotices(ctx, s.Records)
	if err != nil {
		return err
	}
	if err := n.moving.Delete(ctx, movingKey, 0); err != nil && !missing(err) {
		return err
	}
	return nil
}

// definition is a collection as its service declares it.
type definition struct {
	schema store.Schema
	index  func([]byte) (map[string][]string, error)
}

// defined notes the collections that the services open.
type defined struct {
	store.Records
	list []definition
}

func (c *defined) Define(ctx context.Context, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	c.list = append(c.list, definition{s, index})
	return c.Records.Define(ctx, s, index)
}

// migration moves an installation.
type migration struct {
	from, to      Config
	src, dst      *storage
	dry           bool
	out, progress io.Writer
	id            string
	running       bool // the source is served
	list          []definition

	seed    maphash.Seed
	seen    map[string]map[uint64]int64 // revisions that were copied, by collection and key
	records int64
	written int64
	blobs   int64
	size    int64
	said    time.Time
}

func (m *migration) run(ctx context.Context) error {
	if err := m.open(ctx); err != nil {
		return err
	}
	defer m.src.Close()
	defer m.dst.Close()
	if m.dry {
		return m.count(ctx)
	}
	begun := time.Now()
	if err := m.copyAll(ctx); err != nil {
		return err
	}
	closed := time.Now()
	renewed, stop, err := m.closeSource(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	if err := renewed(); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	window := "nobody served it"
	if m.running {
		window = fmt.Sprintf("%.1f s without changes", time.Since(closed).Seconds())
	}
	fmt.Fprintf(m.out, "moved and compared %d records; %d blobs, %d bytes, copied and read back; %.1f s in all, %s\n", m.records, m.blobs, m.size, time.Since(begun).Seconds(), window)
	fmt.Fprintln(m.out, "start the servers with the new configuration; \"admin migrate --undo\" with the old one goes back to it without what changes from now on")
	return nil
}

// open opens both storages. The one to come must be nobody's, the present one may
// be served.
func (m *migration) open(ctx context.Context) error {
	if m.from.Storage == m.to.Storage && m.from.Data == m.to.Data {
		return errors.New("cannot move to where everything is already")
	}
	var err error
	m.src, err = openStorage(ctx, &m.from, true)
	if errors.Is(err, embedded.ErrLocked) {
		m.running = true
		m.src, err = openStorage(ctx, &m.from, false)
	}
	if err != nil {
		return fmt.Errorf("cannot open the present storage: %w", err)
	}
	m.running = m.running || m.src.shared
	if m.dst, err = openStorage(ctx, &m.to, m.from.Data != m.to.Data); err != nil {
		m.src.Close()
		return fmt.Errorf("cannot open the storage to come: %w", err)
	}
	c := &defined{Records: m.src.Records}
	s := &Server{config: m.from, store: &storage{Records: c, Blobs: m.src.Blobs, gate: &gate{}}, log: slog.New(slog.DiscardHandler), recordsOnly: true}
	if s.config.URL == "" {
		s.config.URL = "https://localhost"
	}
	if s.auth, err = openAuth(ctx, s.config, s.store, s.log); err == nil {
		_, err = s.services(ctx)
	}
	m.list = c.list
	if err != nil {
		m.src.Close()
		m.dst.Close()
	}
	return err
}

func (m *migration) count(ctx context.Context) error {
	for _, d := range m.list {
		n, err := m.src.Records.Count(ctx, d.schema.Name, store.Query{})
		if err != nil {
			return err
		}
		m.records += n
	}
	for i, err := range m.src.Blobs.List(ctx, "") {
		if err != nil {
			return err
		}
		m.blobs++
		m.size += i.Size
	}
	fmt.Fprintf(m.out, "would move %d records of %d collections and %d blobs, %d bytes\n", m.records, len(m.list), m.blobs, m.size)
	return nil
}

// passes is how often all is compared before the source is closed: the second
// time reads back what the first wrote.
const passes = 5

func (m *migration) copyAll(ctx context.Context) error {
	if !m.sameBlobs() {
		if err := m.copyBlobs(ctx); err != nil {
			return err
		}
	}
	for pass := range passes {
		m.records, m.written = 0, 0
		for _, d := range m.list {
			if err := m.dst.Records.Define(ctx, d.schema, d.index); err != nil {
				return err
			}
			if err := m.merge(ctx, d); err != nil {
				return err
			}
		}
		if pass > 0 && m.written == 0 {
			break
		}
	}
	return nil
}

func (m *migration) sameBlobs() bool {
	return m.from.Storage.Blobs == inDirectory && m.to.Storage.Blobs == inDirectory && m.from.Data == m.to.Data
}

// documents gives all documents of a collection.
func documents(ctx context.Context, r store.Records, collection string) iter.Seq2[store.Doc, error] {
	return func(yield func(store.Doc, error) bool) {
		q := store.Query{Limit: 500}
		for {
			p, err := r.List(ctx, collection, q)
			if err != nil {
				yield(store.Doc{}, err)
				return
			}
			for _, d := range p.Docs {
				if !yield(d, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			q.After = p.Next
		}
	}
}

// merge makes the copy of a collection what the collection is, as both are read.
func (m *migration) merge(ctx context.Context, d definition) error {
	name := d.schema.Name
	seen := map[uint64]int64{}
	next, stop := iter.Pull2(documents(ctx, m.dst.Records, name))
	defer stop()
	old, err, more := next()
	for doc, e := range documents(ctx, m.src.Records, name) {
		if e != nil {
			return e
		}
		for more && err == nil && old.Key < doc.Key {
			if err := m.remove(ctx, name, old); err != nil {
				return err
			}
			old, err, more = next()
		}
		if err != nil {
			return err
		}
		var have *store.Doc
		if more && old.Key == doc.Key {
			same := old
			have = &same
			old, err, more = next()
		}
		if err := m.write(ctx, d, doc, have); err != nil {
			return err
		}
		seen[maphash.String(m.seed, doc.Key)] = doc.Rev
		m.records++
		m.tell()
	}
	for ; more && err == nil; old, err, more = next() {
		if err := m.remove(ctx, name, old); err != nil {
			return err
		}
	}
	m.seen[name] = seen
	return err
}

func (m *migration) remove(ctx context.Context, name string, d store.Doc) error {
	m.written++
	if err := m.dst.Records.Delete(ctx, name, d.Key, 0); err != nil && !missing(err) {
		return err
	}
	return nil
}

// write makes have, the copy, what the document is. A value of a unique index that
// went from one document to another is free in a later pass.
func (m *migration) write(ctx context.Context, d definition, doc store.Doc, have *store.Doc) error {
	if have != nil && bytes.Equal(have.Data, doc.Data) && have.Expires.Equal(doc.Expires) {
		return nil
	}
	m.written++
	var err error
	if doc.Index, err = d.index(doc.Data); err != nil {
		return fmt.Errorf("the document %q of %s: %w", doc.Key, d.schema.Name, err)
	}
	if have == nil {
		_, err = m.dst.Records.Insert(ctx, d.schema.Name, doc)
	} else {
		doc.Rev = have.Rev
		_, err = m.dst.Records.Replace(ctx, d.schema.Name, doc)
	}
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// copyBlobs copies the blobs that the copy lacks, and reads each back.
func (m *migration) copyBlobs(ctx context.Context) error {
	seen := map[uint64]int64{}
	for i, err := range m.src.Blobs.List(ctx, "") {
		if err != nil {
			return err
		}
		key := maphash.String(m.seed, i.Name)
		if old, ok := m.seen[""][key]; ok && old == i.Modified.UnixNano() {
			seen[key] = old
			continue
		}
		if err := m.copyBlob(ctx, i); err != nil {
			return fmt.Errorf("cannot copy the blob %s: %w", i.Name, err)
		}
		seen[key] = i.Modified.UnixNano()
		m.tell()
	}
	m.seen[""] = seen
	return nil
}

func (m *migration) copyBlob(ctx context.Context, i store.Info) error {
	want := store.Content{Size: i.Size}
	if sum, named := strings.CutPrefix(i.Name, "sha256/"); named {
		want.SHA256 = sum
	}
	have, err := m.dst.Blobs.Stat(ctx, i.Name)
	if err == nil && have.Size == i.Size && want.SHA256 != "" && (have.SHA256 == "" || have.SHA256 == want.SHA256) {
		return nil
	}
	if err != nil && !missing(err) {
		return err
	}
	f, err := m.src.Blobs.Open(ctx, i.Name)
	if missing(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	put, err := m.dst.Blobs.Put(ctx, i.Name, f, want)
	if err != nil {
		return err
	}
	back, err := m.dst.Blobs.Open(ctx, i.Name)
	if err != nil {
		return err
	}
	defer back.Close()
	h := sha256.New()
	n, err := io.Copy(h, back)
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); n != put.Size || sum != put.SHA256 {
		return fmt.Errorf("%d bytes with the SHA-256 %s came back, and %d with %s were written", n, sum, put.Size, put.SHA256)
	}
	m.blobs++
	m.size += n
	return nil
}

// closeTime is how long servers have to see that a migration closes them.
const closeTime = 2 * time.Minute

// closeSource has the servers take no changes. The function renewed tells
// whether they still take none.
func (m *migration) closeSource(ctx context.Context) (renewed func() error, stop func(), err error) {
	n, err := openNotices(ctx, m.src.Records)
	if err != nil || !m.running {
		return func() error { return nil }, func() {}, err
	}
	say := func(ctx context.Context) error {
		return put(ctx, n.moving, movingKey, moving{By: m.id, Until: time.Now().Add(movingLife).UTC()})
	}
	if err := say(ctx); err != nil {
		return nil, nil, err
	}
	end, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		tick := time.NewTicker(movingLife / 6)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-end.Done():
				failed <- nil
				return
			case <-tick.C:
			}
			if err := say(end); err == nil {
				last = time.Now()
			} else if time.Since(last) > movingLife/2 && end.Err() == nil {
				failed <- fmt.Errorf("cannot keep the servers from changes: %w", err)
				return
			}
		}
	}()
	renewed = func() error { cancel(); return <-failed }
	stop = func() {
		cancel()
		// Unless all has been moved, changes are taken again.
		if i, err := n.moving.Get(context.WithoutCancel(ctx), movingKey); err == nil && !i.Value.Moved && i.Value.By == m.id {
			n.moving.Delete(context.WithoutCancel(ctx), movingKey, 0)
		}
	}
	if err := m.awaitClosed(ctx, n); err != nil {
		stop()
		return nil, nil, err
	}
	return renewed, stop, nil
}

// awaitClosed waits until every server says that it takes no changes.
func (m *migration) awaitClosed(ctx context.Context, n notices) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; {
		closed, open := 0, 0
		for p, err := range n.processes.All(ctx, store.Query{}) {
			if err != nil {
				return err
			}
			if p.Value.Closed == m.id {
				closed++
			} else {
				open++
			}
		}
		// The server of a data directory is one; of others all that live are known.
		if open == 0 && (closed > 0 || m.src.shared) {
			return nil
		}
		if time.Since(begun) > closeTime {
			return fmt.Errorf("cannot go on: %d servers still take changes, %d do not", open, closed)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// catchUp copies what changed since it was copied, now that nothing changes any
// more: it reads the source alone and only revisions decide. Where documents went
// the collection is compared as a whole.
func (m *migration) catchUp(ctx context.Context) error {
	if !m.sameBlobs() {
		if err := m.copyBlobs(ctx); err != nil {
			return err
		}
	}
	for _, d := range m.list {
		whole, err := m.catchUpOne(ctx, d)
		for pass := 0; err == nil && whole; pass++ {
			before := m.written
			if err = m.merge(ctx, d); err == nil && m.written == before {
				break
			}
			if pass == passes {
				err = fmt.Errorf("cannot move the collection %s: it does not become what it is", d.schema.Name)
			}
		}
		if err != nil {
			return err
		}
		was, err := m.src.Records.Count(ctx, d.schema.Name, store.Query{})
		if err != nil {
			return err
		}
		is, err := m.dst.Records.Count(ctx, d.schema.Name, store.Query{})
		if err != nil {
			return err
		}
		if was != is && !expiring(d.schema.Name) {
			return fmt.Errorf("cannot move the collection %s: it has %d documents, and its copy %d", d.schema.Name, was, is)
		}
	}
	return nil
}

// expiring are collections whose documents end by themselves while they are
// counted.
func expiring(name string) bool {
	switch name {
	case "sessions", "links", "devices", "flows", "tokens", "grants", "audit", "library_uploads", "library_condemned", "registry_uploads", "build_workers", "watch_runs":
		return true
	}
	return false
}

// catchUpOne returns whether all has to be compared: something changed.
func (m *migration) catchUpOne(ctx context.Context, d definition) (bool, error) {
	seen := m.seen[d.schema.Name]
	n := 0
	for doc, err := range documents(ctx, m.src.Records, d.schema.Name) {
		if err != nil {
			return false, err
		}
		rev, ok := seen[maphash.String(m.seed, doc.Key)]
		if ok && rev == doc.Rev {
			n++
			continue
		}
		if ok {
			n++
		}
		if err := m.again(ctx, d, doc); err != nil {
			return false, err
		}
	}
	return n != len(seen), nil
}

// again copies one document and reads it back.
func (m *migration) again(ctx context.Context, d definition, doc store.Doc) error {
	for range passes {
		have, err := m.dst.Records.Get(ctx, d.schema.Name, doc.Key)
		switch {
		case err == nil && bytes.Equal(have.Data, doc.Data) && have.Expires.Equal(doc.Expires):
			return nil
		case err == nil:
			err = m.write(ctx, d, doc, &have)
		case missing(err):
			err = m.write(ctx, d, doc, nil)
		}
		if err != nil {
			return err
		}
	}
	if !doc.Expires.IsZero() && !doc.Expires.After(time.Now()) {
		return nil
	}
	return fmt.Errorf("cannot move the document %q of %s: it is not there as it was written", doc.Key, d.schema.Name)
}

// settle says for good that the installation is elsewhere, and copies what is in
// the data directory beside the storage.
func (m *migration) settle(ctx context.Context) error {
	if m.from.Data != m.to.Data {
		if err := copyKeys(m.from.Data, m.to.Data); err != nil {
			return err
		}
	}
	there, err := openNotices(ctx, m.dst.Records)
	if err != nil {
		return err
	}
	if err := there.moving.Delete(ctx, movingKey, 0); err != nil && !missing(err) {
		return err
	}
	here, err := openNotices(ctx, m.src.Records)
	if err != nil {
		return err
	}
	return put(ctx, here.moving, movingKey, moving{By: m.id, Moved: true})
}

// tell says now and then how far it is.
func (m *migration) tell() {
	if time.Since(m.said) < 5*time.Second {
		return
	}
	if !m.said.IsZero() {
		fmt.Fprintf(m.progress, "%d records compared, %d written; %d blobs copied, %d bytes\n", m.records, m.written, m.blobs, m.size)
	}
	m.said = time.Now()
}

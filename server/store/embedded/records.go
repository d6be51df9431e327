package embedded

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	_ "modernc.org/sqlite"

	"singularity/server/store"
)

const tables = `
CREATE TABLE IF NOT EXISTS schema (coll TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (
	id INTEGER PRIMARY KEY, coll TEXT NOT NULL, key TEXT NOT NULL, rev INTEGER NOT NULL, expires INTEGER, data BLOB NOT NULL,
	UNIQUE (coll, key)) STRICT;
CREATE INDEX IF NOT EXISTS record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS entry (
	coll TEXT NOT NULL, ix TEXT NOT NULL, value TEXT NOT NULL, key TEXT NOT NULL, uniq INTEGER NOT NULL,
	PRIMARY KEY (coll, ix, value, key)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_key ON entry (coll, key);
CREATE UNIQUE INDEX IF NOT EXISTS entry_unique ON entry (coll, ix, value) WHERE uniq = 1;
`

// Records keeps documents in SQLite.
type Records struct {
	dsn         string
	write, read *sql.DB
	get         *sql.Stmt
	ops         chan *op
	ended       chan struct{} // closed when the writer has ended
	closing     sync.Once
	mu          sync.RWMutex
	schemas     map[string]store.Schema
	lists       map[string]*sql.Stmt
	closed      bool
	now         func() time.Time
}

var _ store.Records = (*Records)(nil)

var schemaName = regexp.MustCompile(`^[a-z][a-z_]{0,62}$`)

// OpenRecords opens or makes the database.
func OpenRecords(ctx context.Context, path string) (*Records, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=trusted_schema(0)"
	// The database and what SQLite puts beside it get the mode of the first.
	if err := createEmpty(path); err != nil {
		return nil, err
	}
	r := &Records{dsn: dsn, ops: make(chan *op, maxBatch), ended: make(chan struct{}), schemas: map[string]store.Schema{}, lists: map[string]*sql.Stmt{}, now: time.Now}
	var err error
	if r.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return nil, err
	}
	r.write.SetMaxOpenConns(1)
	if _, err = r.write.ExecContext(ctx, tables); err != nil {
		r.write.Close()
		return nil, fmt.Errorf("cannot open the database %q: %w", path, err)
	}
	if r.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		r.write.Close()
		return nil, err
	}
	r.read.SetMaxOpenConns(readers)
	r.read.SetMaxIdleConns(readers)
	if r.get, err = r.read.PrepareContext(ctx, "SELECT rev, expires, data FROM record WHERE coll = ? AND key = ?"); err != nil {
		r.read.Close()
		r.write.Close()
		return nil, err
	}
	go r.writer()
	return r, nil
}

// readers is the number of connections that read. SQLite has no threads of its
// own, and each costs a cache of pages.
const readers = 8

func (r *Records) schema(collection string) (store.Schema, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, ok := r.schemas[collection]
	if !ok {
		return s, fmt.Errorf("%w: no collection %q", store.ErrInvalid, collection)
	}
	return s, nil
}

// Define notes the schema and makes indexes anew that were declared otherwise.
func (r *Records) Define(ctx context.Context, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	if !schemaName.MatchString(s.Name) {
		return fmt.Errorf("%w: %q does not name a collection", store.ErrInvalid, s.Name)
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = r.do(ctx, func(tx *sql.Tx) error {
		var old string
		err := tx.QueryRow("SELECT spec FROM schema WHERE coll = ?", s.Name).Scan(&old)
		if err != nil && !errors.Is(err, sql.ErrNoRows) || old == string(spec) {
			return err
		}
		if err := reindex(tx, s, index); err != nil {
			return err
		}
		_, err = tx.Exec("INSERT OR REPLACE INTO schema (coll, spec) VALUES (?, ?)", s.Name, string(spec))
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.schemas[s.Name] = s
	return nil
}

func reindex(tx *sql.Tx, s store.Schema, index func([]byte) (map[string][]string, error)) error {
	if _, err := tx.Exec("DELETE FROM entry WHERE coll = ?", s.Name); err != nil {
		return err
	}
	for after := ""; ; {
		docs, err := scanDocs(tx.Query("SELECT key, '', rev, expires, data FROM record WHERE coll = ? AND key > ? ORDER BY key LIMIT 500", s.Name, after))
		if err != nil || len(docs) == 0 {
			return err
		}
		for _, d := range docs {
			if d.Index, err = index(d.Data); err != nil {
				return fmt.Errorf("the document %q of %s: %w", d.Key, s.Name, err)
			}
			if err := addEntries(tx, s, d.Doc); err != nil {
				return err
			}
			after = d.Key
		}
	}
}

// Get reads one document.
func (r *Records) Get(ctx context.Context, collection, key string) (store.Doc, error) {
	d := store.Doc{Key: key}
	var expires sql.NullInt64
	err := r.get.QueryRowContext(ctx, collection, key).Scan(&d.Rev, &expires, &d.Data)
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.expired(expires) {
		return store.Doc{}, store.ErrNotFound
	}
	if err != nil {
		return store.Doc{}, err
	}
	d.Expires = fromUnix(expires)
	return d, nil
}

func (r *Records) expired(t sql.NullInt64) bool { return t.Valid && t.Int64 <= r.now().UnixMilli() }

func fromUnix(t sql.NullInt64) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return time.UnixMilli(t.Int64).UTC()
}

func toUnix(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

// List answers a query.
func (r *Records) List(ctx context.Context, collection string, q store.Query) (store.Page, error) {
	s, err := r.schema(collection)
	if err != nil {
		return store.Page{}, err
	}
	if err := q.Check(s); err != nil {
		return store.Page{}, err
	}
	text, args, err := r.selection(collection, q, false)
	if err != nil {
		return store.Page{}, err
	}
	query, err := r.prepared(ctx, text)
	if err != nil {
		return store.Page{}, err
	}
	docs, err := scanDocs(query.QueryContext(ctx, args...))
	if err != nil {
		return store.Page{}, err
	}
	var p store.Page
	if len(docs) > q.Size() {
		docs = slices.Clip(docs[:q.Size()])
		end := docs[len(docs)-1]
		p.Next = q.Cursor(end.value, end.Key)
	}
	for _, d := range docs {
		p.Docs = append(p.Docs, d.Doc)
	}
	return p, nil
}

// prepared returns the statement of a text. Reading the text takes twice as long
// as a query by a value; texts are of a few shapes, as all values are parameters.
func (r *Records) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	r.mu.RLock()
	s, ok := r.lists[text]
	r.mu.RUnlock()
	if ok {
		return s, nil
	}
	s, err := r.read.PrepareContext(context.WithoutCancel(ctx), text)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.lists[text]; ok {
		s.Close()
		return other, nil
	}
	r.lists[text] = s
	return s, nil
}

// Count counts what a query has.
func (r *Records) Count(ctx context.Context, collection string, q store.Query) (int64, error) {
	s, err := r.schema(collection)
	if err != nil {
		return 0, err
	}
	if err := q.Check(s); err != nil {
		return 0, err
	}
	q.After = ""
	text, args, err := r.selection(collection, q, true)
	if err != nil {
		return 0, err
	}
	var n int64
	err = r.read.QueryRowContext(ctx, text, args...).Scan(&n)
	return n, err
}

type found struct {
	store.Doc
	value string
}

func scanDocs(rows *sql.Rows, err error) ([]found, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []found
	for rows.Next() {
		var d found
		var expires sql.NullInt64
		if err := rows.Scan(&d.Key, &d.value, &d.Rev, &expires, &d.Data); err != nil {
			return nil, err
		}
		d.Expires = fromUnix(expires)
		out = append(out, d)
	}
	return out, rows.Err()
}

// Ping asks the database for something.
func (r *Records) Ping(ctx context.Context) error {
	var one int
	return r.read.QueryRowContext(ctx, "SELECT count(*) FROM schema").Scan(&one)
}

// Close waits for writes that have begun.
func (r *Records) Close() error {
	r.closing.Do(func() {
		r.mu.Lock()
		r.closed = true
		close(r.ops)
		r.mu.Unlock()
	})
	<-r.ended
	r.mu.Lock()
	for _, s := range r.lists {
		s.Close()
	}
	r.mu.Unlock()
	return errors.Join(r.get.Close(), r.read.Close(), r.write.Close())
}

package embedded

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"singularity/server/store"
)

// maxBatch is how many writes share one commit, and so one wait for the disk.
const maxBatch = 64

type op struct {
	ctx  context.Context
	run  func(*sql.Tx) error
	err  error
	done chan struct{}
}

// do has the writer carry out run as a whole and waits until it is on the disk.
func (r *Records) do(ctx context.Context, run func(*sql.Tx) error) error {
	o := &op{ctx: ctx, run: run, done: make(chan struct{})}
	r.mu.RLock()
	if r.closed {
		r.mu.RUnlock()
		return errors.New("the database is closed")
	}
	select {
	case r.ops <- o:
		r.mu.RUnlock()
	case <-ctx.Done():
		r.mu.RUnlock()
		return ctx.Err()
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writer commits what waits, many writes at a time.
func (r *Records) writer() {
	defer close(r.ended)
	for first := range r.ops {
		batch := []*op{first}
	more:
		for len(batch) < maxBatch {
			select {
			case o, ok := <-r.ops:
				if !ok {
					break more
				}
				batch = append(batch, o)
			default:
				break more
			}
		}
		err := r.commit(batch)
		for _, o := range batch {
			if err != nil {
				o.err = err
			}
			close(o.done)
		}
	}
}

func (r *Records) commit(batch []*op) error {
	tx, err := r.write.Begin()
	if err != nil {
		return full(err)
	}
	defer tx.Rollback()
	for _, o := range batch {
		if o.err = o.ctx.Err(); o.err != nil {
			continue
		}
		// A write that fails takes nothing of the others with it.
		if _, err := tx.Exec("SAVEPOINT one"); err != nil {
			return full(err)
		}
		if o.err = full(o.run(tx)); o.err != nil {
			if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
				return full(err)
			}
		}
		if _, err := tx.Exec("RELEASE one"); err != nil {
			return full(err)
		}
	}
	return full(tx.Commit())
}

// full tells a full disk from other faults.
func full(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// newRev returns a revision: random, so that none comes twice for a key that
// was deleted and is used again.
func newRev() int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.LittleEndian.Uint64(b[:])>>1) | 1
}

// dropEntries names its index: left to itself SQLite takes the primary key, by which
// it looks at every entry of the collection.
const dropEntries = "DELETE FROM entry INDEXED BY entry_key WHERE coll = ? AND key = ?"

// Insert adds a document.
func (r *Records) Insert(ctx context.Context, collection string, d store.Doc) (int64, error) {
	s, err := r.schema(collection)
	if err != nil {
		return 0, err
	}
	if err := store.CheckDoc(s, d); err != nil {
		return 0, err
	}
	rev := newRev()
	err = r.do(ctx, func(tx *sql.Tx) error {
		if err := r.free(tx, s, d, false); err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO record (coll, key, rev, expires, data) VALUES (?, ?, ?, ?, ?)", s.Name, d.Key, rev, toUnix(d.Expires), d.Data); err != nil {
			return err
		}
		return addEntries(tx, s, d)
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// Replace writes a document that nobody has changed meanwhile.
func (r *Records) Replace(ctx context.Context, collection string, d store.Doc) (int64, error) {
	s, err := r.schema(collection)
	if err != nil {
		return 0, err
	}
	if err := store.CheckDoc(s, d); err != nil {
		return 0, err
	}
	rev := newRev()
	err = r.do(ctx, func(tx *sql.Tx) error {
		if err := r.unchanged(tx, s.Name, d.Key, d.Rev); err != nil {
			return err
		}
		if err := r.free(tx, s, d, true); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE record SET rev = ?, expires = ?, data = ? WHERE coll = ? AND key = ?", rev, toUnix(d.Expires), d.Data, s.Name, d.Key); err != nil {
			return err
		}
		if _, err := tx.Exec(dropEntries, s.Name, d.Key); err != nil {
			return err
		}
		return addEntries(tx, s, d)
	})
	if err != nil {
		return 0, err
	}
	return rev, nil
}

// Delete removes a document.
func (r *Records) Delete(ctx context.Context, collection, key string, rev int64) error {
	if _, err := r.schema(collection); err != nil {
		return err
	}
	return r.do(ctx, func(tx *sql.Tx) error {
		if err := r.unchanged(tx, collection, key, rev); err != nil {
			return err
		}
		return remove(tx, collection, key)
	})
}

func (r *Records) unchanged(tx *sql.Tx, collection, key string, rev int64) error {
	var have int64
	var expires sql.NullInt64
	err := tx.QueryRow("SELECT rev, expires FROM record WHERE coll = ? AND key = ?", collection, key).Scan(&have, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && r.expired(expires):
		return store.ErrNotFound
	case err == nil && rev != 0 && have != rev:
		return store.ErrConflict
	}
	return err
}

// free makes sure that no document has the key of d, if d is new, or one of its
// values in a unique index. What has expired gives way.
func (r *Records) free(tx *sql.Tx, s store.Schema, d store.Doc, known bool) error {
	if !known {
		err := r.giveWay(tx, s.Name, "key", tx.QueryRow("SELECT key, expires FROM record WHERE coll = ? AND key = ?", s.Name, d.Key))
		if err != nil {
			return err
		}
	}
	for _, i := range s.Indexes {
		if !i.Unique {
			continue
		}
		for _, v := range d.Index[i.Name] {
			err := r.giveWay(tx, s.Name, i.Name, tx.QueryRow("SELECT r.key, r.expires FROM entry e JOIN record r ON r.coll = e.coll AND r.key = e.key WHERE e.coll = ? AND e.ix = ? AND e.value = ? AND e.key != ?",
				s.Name, i.Name, v, d.Key))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *Records) giveWay(tx *sql.Tx, collection, what string, row *sql.Row) error {
	var key string
	var expires sql.NullInt64
	err := row.Scan(&key, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	case !r.expired(expires):
		return fmt.Errorf("the %s of a document of %s %w", what, collection, store.ErrExists)
	}
	return remove(tx, collection, key)
}

func remove(tx *sql.Tx, collection, key string) error {
	if _, err := tx.Exec("DELETE FROM record WHERE coll = ? AND key = ?", collection, key); err != nil {
		return err
	}
	_, err := tx.Exec(dropEntries, collection, key)
	return err
}

func addEntries(tx *sql.Tx, s store.Schema, d store.Doc) error {
	for _, i := range s.Indexes {
		for _, v := range d.Index[i.Name] {
			if _, err := tx.Exec("INSERT INTO entry (coll, ix, value, key, uniq) VALUES (?, ?, ?, ?, ?)", s.Name, i.Name, v, d.Key, i.Unique); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	sweepEntries = "DELETE FROM entry INDEXED BY entry_key WHERE (coll, key) IN (SELECT coll, key FROM record WHERE expires <= ? ORDER BY expires, id LIMIT 500)"
	sweepRecords = "DELETE FROM record WHERE id IN (SELECT id FROM record WHERE expires <= ? ORDER BY expires, id LIMIT 500)"
)

// Sweep removes what has expired, some at a time.
func (r *Records) Sweep(ctx context.Context) (int64, error) {
	for total := int64(0); ; {
		n := int64(0)
		err := r.do(ctx, func(tx *sql.Tx) error {
			now := r.now().UnixMilli()
			if _, err := tx.Exec(sweepEntries, now); err != nil {
				return err
			}
			res, err := tx.Exec(sweepRecords, now)
			if err == nil {
				n, err = res.RowsAffected()
			}
			return err
		})
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// createEmpty makes the file of the database, for its owner alone.
func createEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

package embedded

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"singularity/server/store"
)

// Snapshot writes the database as it is at one moment to a new file, while
// others go on writing.
func (r *Records) Snapshot(ctx context.Context, path string) error {
	if err := createEmpty(path); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", r.dsn) // the readers may write nowhere
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", path); err != nil {
		return full(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Report is what a check looked at and the faults that it found.
type Report struct {
	Records, Blobs int
	Bytes          int64 // that were read
	Faults         []string
}

// Check looks for damage: the database's own check, whether documents are JSON
// and indexes lead to documents, and whether blobs that are named by their
// SHA-256 have it. Bytes of blobs are read only if readData.
func (s *Store) Check(ctx context.Context, readData bool) (Report, error) {
	var p Report
	if err := s.Records.check(ctx, &p); err != nil {
		return p, err
	}
	for i, err := range s.Blobs.List(ctx, "") {
		if err != nil {
			return p, err
		}
		p.Blobs++
		if !readData {
			continue
		}
		if err := s.Blobs.check(ctx, i, &p); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (r *Records) check(ctx context.Context, p *Report) error {
	lines, err := texts(r.read.QueryContext(ctx, "PRAGMA integrity_check"))
	if err != nil {
		return err
	}
	for _, line := range lines {
		if line != "ok" {
			p.Faults = append(p.Faults, "database: "+line)
		}
	}
	rows, err := r.read.QueryContext(ctx, "SELECT coll, key, data FROM record")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var coll, key string
		var data []byte
		if err := rows.Scan(&coll, &key, &data); err != nil {
			return err
		}
		p.Records++
		if !json.Valid(data) {
			p.Faults = append(p.Faults, fmt.Sprintf("the document %q of %s is no JSON", key, coll))
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	lost, err := texts(r.read.QueryContext(ctx, "SELECT e.coll || ' ' || e.ix || ' ' || e.key FROM entry e LEFT JOIN record r ON r.coll = e.coll AND r.key = e.key WHERE r.id IS NULL LIMIT 100"))
	for _, line := range lost {
		p.Faults = append(p.Faults, "an index leads to no document: "+line)
	}
	return err
}

func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (b *Blobs) check(ctx context.Context, i store.Info, p *Report) error {
	f, err := b.Open(ctx, i.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := receive(ctx, io.Discard, h, f, store.Unknown)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.Bytes += n
	want, named := strings.CutPrefix(i.Name, "sha256/")
	switch {
	case err != nil:
		p.Faults = append(p.Faults, fmt.Sprintf("the blob %s cannot be read: %v", i.Name, err))
	case named && hex.EncodeToString(h.Sum(nil)) != want:
		p.Faults = append(p.Faults, fmt.Sprintf("the blob %s has other bytes than its name says", i.Name))
	}
	return nil
}

// Copy copies everything to the directory dir, which becomes a data directory:
// records as they are at one moment, then the blobs, as documents name only
// blobs that were there before them. A directory that holds an older copy gets
// what it lacks. The store may be in use.
func (s *Store) Copy(ctx context.Context, dir string) (blobs int, size int64, err error) {
	if err := OwnDir(dir); err != nil {
		return 0, 0, err
	}
	to, err := OpenBlobs(dir)
	if err != nil {
		return 0, 0, err
	}
	defer to.Close()
	temp := filepath.Join(dir, "records.new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, err
	}
	if err := s.Records.Snapshot(ctx, temp); err != nil {
		return 0, 0, err
	}
	for i, err := range s.Blobs.List(ctx, "") {
		if err != nil {
			return blobs, size, err
		}
		if old, err := to.Stat(ctx, i.Name); err == nil && old.Size == i.Size && !old.Modified.Before(i.Modified) {
			continue
		}
		if err := s.copyBlob(ctx, to, i); err != nil {
			return blobs, size, fmt.Errorf("cannot copy the blob %s: %w", i.Name, err)
		}
		blobs++
		size += i.Size
	}
	// What an older copy had and was deleted since goes, but after the records.
	if err := errors.Join(os.Rename(temp, filepath.Join(dir, "records.db")), to.syncDir(dir)); err != nil {
		return blobs, size, err
	}
	for i, err := range to.List(ctx, "") {
		if err != nil {
			return blobs, size, err
		}
		if _, err := s.Blobs.Stat(ctx, i.Name); errors.Is(err, store.ErrNotFound) {
			if err := to.Delete(ctx, i.Name); err != nil {
				return blobs, size, err
			}
		}
	}
	return blobs, size, nil
}

func (s *Store) copyBlob(ctx context.Context, to *Blobs, i store.Info) error {
	f, err := s.Blobs.Open(ctx, i.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	want := store.Content{Size: f.Info().Size}
	if sum, ok := strings.CutPrefix(i.Name, "sha256/"); ok {
		want.SHA256 = sum
	}
	_, err = to.Put(ctx, i.Name, f, want)
	return err
}

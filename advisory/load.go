package advisory

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Load reads the records below path: a directory of *.json files, or a .zip,
// .tar, .tar.gz, .tgz or .tar.zst of them, as mirrors of OSV offer. Several paths
// are one set. It fails if a path cannot be read or no record can be used.
func Load(ctx context.Context, paths ...string) (*DB, error) {
	b := NewBuilder()
	for _, p := range paths {
		if err := b.load(ctx, p); err != nil {
			return nil, fmt.Errorf("cannot read advisories from %q: %w", p, err)
		}
	}
	db := b.DB()
	if db.info.Records == 0 {
		return nil, fmt.Errorf("cannot use the advisories in %q: there is no usable record in OSV form among %d files", paths, db.info.Skipped)
	}
	return db, nil
}

// Builder makes a DB of records.
type Builder struct {
	db   *DB
	size int64
	ids  map[string]time.Time
}

// NewBuilder returns an empty one.
func NewBuilder() *Builder {
	return &Builder{db: &DB{byName: map[key][]*claim{}, records: map[string]*Record{}}, ids: map[string]time.Time{}}
}

// errFull ends the loading of data beyond the bounds.
var errFull = fmt.Errorf("there are over %d records or %d bytes", maxRecords, int64(maxArchive))

func (b *Builder) load(ctx context.Context, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return b.loadDir(ctx, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return b.loadFile(ctx, filepath.Base(path), f)
}

// loadFile reads an archive of records, or one file of them.
func (b *Builder) loadFile(ctx context.Context, name string, f *os.File) error {
	switch lower := strings.ToLower(name); {
	case strings.HasSuffix(lower, ".zip"):
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return b.loadZip(ctx, f, st.Size())
	case strings.HasSuffix(lower, ".tar"):
		return b.loadTar(ctx, f)
	case strings.HasSuffix(lower, ".tar.gz"), strings.HasSuffix(lower, ".tgz"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		return b.loadTar(ctx, z)
	case strings.HasSuffix(lower, ".tar.zst"):
		z, err := zstd.NewReader(f, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		return b.loadTar(ctx, z)
	}
	return b.read(name, f)
}

// isArchive tells whether name is that of an archive of records.
func isArchive(name string) bool {
	lower := strings.ToLower(filepath.Base(name))
	for _, ext := range []string{".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(lower, ext) {
			return !strings.HasPrefix(lower, ".")
		}
	}
	return false
}

func (b *Builder) loadDir(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !d.Type().IsRegular() || !isRecord(path) && !isArchive(path) {
			return nil
		}
		f, err := root.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := b.loadFile(ctx, path, f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
}

func (b *Builder) loadZip(ctx context.Context, r io.ReaderAt, size int64) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return err
	}
	for _, e := range z.File {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !e.Mode().IsRegular() || !isRecord(e.Name) {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return err
		}
		err = b.read(e.Name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) loadTar(ctx context.Context, r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !isRecord(h.Name) {
			continue
		}
		if err := b.read(h.Name, t); err != nil {
			return err
		}
	}
}

func isRecord(name string) bool {
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(filepath.Base(name), ".")
}

// read takes one file: a record, or a list of them.
func (b *Builder) read(name string, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return err
	}
	b.size += int64(len(data))
	if b.size > maxArchive || b.db.info.Records > maxRecords {
		return errFull
	}
	if len(data) > maxRecord {
		b.bad(name, fmt.Errorf("it is larger than %d bytes", maxRecord))
		return nil
	}
	data = bytes.TrimSpace(data)
	var list []Record
	if bytes.HasPrefix(data, []byte("[")) {
		err = json.Unmarshal(data, &list)
	} else {
		list = make([]Record, 1)
		err = json.Unmarshal(data, &list[0])
	}
	if err != nil {
		b.bad(name, err)
		return nil
	}
	for i := range list {
		if err := b.Add(&list[i]); err != nil {
			b.bad(name, err)
		}
	}
	return nil
}

func (b *Builder) bad(name string, err error) {
	b.db.info.Skipped++
	if len(b.db.info.Unusable) < maxBad {
		b.db.info.Unusable = append(b.db.info.Unusable, clean(fmt.Sprintf("%s: %v", name, err)))
	}
}

// Add takes one record. Of two with one id the later changed counts.
func (b *Builder) Add(r *Record) error {
	if err := r.check(); err != nil {
		return err
	}
	info := &b.db.info
	if old, twice := b.ids[r.ID]; twice {
		if !r.Modified.After(old) {
			return nil
		}
		b.remove(r.ID)
	}
	b.ids[r.ID] = r.Modified
	if r.Modified.After(info.Newest) {
		info.Newest = r.Modified
	}
	if !r.Withdrawn.IsZero() {
		info.Withdrawn++
		return nil
	}
	info.Records++
	b.db.records[r.ID] = r
	for i := range r.Affected {
		a := &r.Affected[i]
		eco, ok := normalEcosystem(a.Package.Ecosystem)
		if !ok {
			continue
		}
		linux, archs := a.Ecosystem.Imports.platforms()
		if !linux {
			continue
		}
		c := &claim{rec: r, archs: archs, level: levelOf(r, a)}
		for _, x := range a.Ranges {
			if x.Type != "GIT" {
				c.ranges = append(c.ranges, x)
			}
		}
		if len(a.Versions) > 0 {
			c.versions = make(map[string]struct{}, len(a.Versions))
			for _, v := range a.Versions {
				c.versions[v] = struct{}{}
			}
		}
		k := key{eco, normalName(eco, a.Package.Name)}
		b.db.byName[k] = append(b.db.byName[k], c)
	}
	// The claims have what is needed of it.
	r.Affected, r.Details = nil, ""
	return nil
}

// remove takes an older form of a record out again.
func (b *Builder) remove(id string) {
	if b.db.records[id] == nil {
		b.db.info.Withdrawn--
		return
	}
	b.db.info.Records--
	delete(b.db.records, id)
	for k, list := range b.db.byName {
		list = slices.DeleteFunc(list, func(c *claim) bool { return c.rec.ID == id })
		if len(list) == 0 {
			delete(b.db.byName, k)
		} else {
			b.db.byName[k] = list
		}
	}
}

// check refuses a record that says nothing usable, and shortens texts.
func (r *Record) check() error {
	versions := 0
	for i := range r.Affected {
		a := &r.Affected[i]
		versions += len(a.Versions)
		for _, x := range a.Ranges {
			versions += len(x.Events)
		}
		if !plain(a.Package.Name) || !plain(a.Package.Ecosystem) {
			return errors.New("the name of a package is empty or not usable")
		}
	}
	switch {
	case !plain(r.ID):
		return errors.New("it has no usable id")
	case len(r.Affected) > maxAffected:
		return fmt.Errorf("it names over %d packages", maxAffected)
	case versions > maxVersions:
		return fmt.Errorf("it lists over %d versions", maxVersions)
	case len(r.Aliases)+len(r.Upstream) > 1000:
		return errors.New("it has over 1000 aliases")
	}
	r.Aliases, r.Upstream = plainOnly(r.Aliases), plainOnly(r.Upstream)
	if r.Summary == "" {
		r.Summary, _, _ = strings.Cut(strings.TrimSpace(r.Details), "\n")
	}
	r.Summary = clean(r.Summary)
	return nil
}

func plainOnly(list []string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return !plain(s) })
}

// plain tells whether s may be a name.
func plain(s string) bool { return s != "" && len(s) <= maxName && clean(s) == s }

// clean takes control characters out of a text, those that change the direction
// of writing too, and cuts it.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c >= 0x200b && c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2060 && c <= 0x206f || c == 0xfeff {
			return -1
		}
		return c
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

// DB ends the building.
func (b *Builder) DB() *DB {
	db := b.db
	db.info.Packages = len(db.byName)
	db.info.Ecosystems = map[string]int{}
	ids := make([]string, 0, len(b.ids))
	for id, t := range b.ids {
		ids = append(ids, id+" "+t.UTC().Format(time.RFC3339Nano))
	}
	for k, list := range db.byName {
		db.info.Ecosystems[k.ecosystem]++
		for _, c := range list {
			ids = append(ids, c.text(k))
		}
	}
	slices.Sort(ids)
	sum := sha256.New()
	for _, id := range ids {
		fmt.Fprintln(sum, id)
	}
	db.info.Digest = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	return db
}

// text is all that matters of a claim, for the digest.
func (c *claim) text(k key) string {
	versions := make([]string, 0, len(c.versions))
	for v := range c.versions {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	return fmt.Sprintf("%q %q %q %d %q %q %q", k.ecosystem, k.name, c.rec.ID, c.level, fmt.Sprint(c.ranges), versions, c.archs)
}

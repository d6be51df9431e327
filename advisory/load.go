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

	"github.com/klauspost/compress/zstd"
)

// Source is a file of records: one, a list of them, or an archive, by its name.
type Source struct {
	Name string // tells files apart, and is what is said of an unusable record
	// Stamp is another one when the content may be another, empty if nothing is known.
	Stamp string
	Open  func() (*os.File, error)
}

// Load reads the records below path: a directory of *.json files, or a .zip,
// .tar, .tar.gz, .tgz or .tar.zst of them, as mirrors of OSV offer. Several paths
// are one set. It fails if a path cannot be read or no record can be used.
func Load(ctx context.Context, paths ...string) (*DB, error) {
	var list []Source
	for _, p := range paths {
		found, done, err := sources(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("cannot read advisories from %q: %w", p, err)
		}
		defer done()
		list = append(list, found...)
	}
	db, err := new(DB).Next(ctx, list)
	if err != nil {
		return nil, fmt.Errorf("cannot read advisories from %q: %w", strings.Join(paths, ", "), err)
	}
	if db.info.Records == 0 {
		return nil, fmt.Errorf("cannot use the advisories in %q: there is no usable record in OSV form among %d files", paths, db.info.Skipped)
	}
	return db, nil
}

// sources lists the files at a path. They can be opened until done is called.
func sources(ctx context.Context, path string) (list []Source, done func(), err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !st.IsDir() {
		return []Source{{Name: path, Open: func() (*os.File, error) { return os.Open(path) }}}, func() {}, nil
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, nil, err
	}
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && d.Type().IsRegular() && IsSource(p) {
			list = append(list, Source{Name: filepath.Join(path, p), Open: func() (*os.File, error) { return root.Open(p) }})
		}
		return err
	})
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	return list, func() { root.Close() }, nil
}

// IsSource tells whether a file in a directory has records, by its name.
func IsSource(name string) bool { return isRecord(name) || isArchive(name) }

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

func isRecord(name string) bool {
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(filepath.Base(name), ".")
}

// file is what was read of a Source.
type file struct {
	stamp   string
	size    int64
	entries []*entry // each once
	skipped int
	bad     []string
}

// entry is one record as it was read. It is not changed any more.
type entry struct {
	sum    [sha256.Size]byte // of its text
	rec    *Record           // without what is in claims; nil if it is of no use
	seal   [sha256.Size]byte // of all that counts
	claims []keyed
	err    error // why it is of no use
}

// reading is the reading of one file.
type reading struct {
	ctx   context.Context
	file  *file
	known map[[sha256.Size]byte]*entry // of the state before
	seen  map[[sha256.Size]byte]bool
	room  *room
	text  bytes.Buffer
}

// room is how much may be read still.
type room struct {
	size    int64
	records int
}

// errFull ends the loading of data beyond the bounds.
var errFull = fmt.Errorf("there are over %d records or %d bytes", maxRecords, int64(maxArchive))

// readSource reads a file, taking from old, what was known of it, what is the same.
func readSource(ctx context.Context, s Source, old *file, left *room) (*file, error) {
	f, err := s.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := reading{ctx: ctx, file: &file{stamp: s.Stamp}, known: map[[sha256.Size]byte]*entry{}, seen: map[[sha256.Size]byte]bool{}, room: left}
	if old != nil {
		for _, e := range old.entries {
			r.known[e.sum] = e
		}
	}
	if err := r.all(s.Name, f); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return r.file, nil
}

// all reads an archive of records, or one file of them.
func (r *reading) all(name string, f *os.File) error {
	switch lower := strings.ToLower(name); {
	case strings.HasSuffix(lower, ".zip"):
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return r.zip(f, st.Size())
	case strings.HasSuffix(lower, ".tar"):
		return r.tar(f)
	case strings.HasSuffix(lower, ".tar.gz"), strings.HasSuffix(lower, ".tgz"):
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		return r.tar(z)
	case strings.HasSuffix(lower, ".tar.zst"):
		z, err := zstd.NewReader(f, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return err
		}
		defer z.Close()
		return r.tar(z)
	}
	return r.document(name, f)
}

func (r *reading) zip(f io.ReaderAt, size int64) error {
	z, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	for _, e := range z.File {
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if !e.Mode().IsRegular() || !isRecord(e.Name) {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return err
		}
		err = r.document(e.Name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) tar(in io.Reader) error {
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = r.ctx.Err()
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !isRecord(h.Name) {
			continue
		}
		if err := r.document(h.Name, t); err != nil {
			return err
		}
	}
}

// document takes one file: a record, or a list of them.
func (r *reading) document(name string, in io.Reader) error {
	r.text.Reset()
	n, err := r.text.ReadFrom(io.LimitReader(in, maxRecord+1))
	if err != nil {
		return err
	}
	if err := r.take(n); err != nil {
		return err
	}
	if text := bytes.TrimSpace(r.text.Bytes()); bytes.HasPrefix(text, []byte("[")) {
		return r.list(name, io.MultiReader(bytes.NewReader(text), counted{r, in}))
	} else if n <= maxRecord {
		return r.record(name, text)
	}
	r.bad(name, errLarge)
	return nil
}

var errLarge = fmt.Errorf("a record is larger than %d bytes", maxRecord)

// take counts bytes.
func (r *reading) take(n int64) error {
	r.file.size += n
	if r.room.size -= n; r.room.size < 0 {
		return errFull
	}
	return nil
}

// list reads a list of records, of any length.
func (r *reading) list(name string, in io.Reader) error {
	each := allowance{in: in, left: maxRecord}
	d := json.NewDecoder(&each)
	_, err := d.Token()
	for err == nil && d.More() {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		var text json.RawMessage
		each.left = maxRecord + 1
		if err = d.Decode(&text); err != nil {
			break
		}
		if err := r.record(name, text); err != nil {
			return err
		}
	}
	if err == nil {
		_, err = d.Token()
	}
	if errors.Is(err, errFull) {
		return err
	}
	if err != nil {
		r.bad(name, err)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	*reading
	in io.Reader
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	if full := c.take(int64(n)); full != nil {
		return 0, full
	}
	return n, err
}

// allowance reads no more than is left of it: a decoder keeps a record whole.
type allowance struct {
	in   io.Reader
	left int
}

func (a *allowance) Read(b []byte) (int, error) {
	if a.left <= 0 {
		return 0, errLarge
	}
	n, err := a.in.Read(b[:min(len(b), a.left)])
	a.left -= n
	return n, err
}

// record takes the text of one record.
func (r *reading) record(name string, text []byte) error {
	sum := sha256.Sum256(text)
	if r.seen[sum] {
		return nil
	}
	if r.room.records--; r.room.records < 0 {
		return errFull
	}
	r.seen[sum] = true
	e := r.known[sum]
	if e == nil {
		e = &entry{sum: sum}
		var rec Record
		if e.err = json.Unmarshal(text, &rec); e.err == nil {
			e.err = e.take(&rec)
		}
	}
	r.file.entries = append(r.file.entries, e)
	if e.err != nil {
		r.bad(name, e.err)
	}
	return nil
}

func (r *reading) bad(name string, err error) {
	r.file.skipped++
	if len(r.file.bad) < maxBad {
		r.file.bad = append(r.file.bad, clean(fmt.Sprintf("%s: %v", name, err)))
	}
}

// take makes e of a record.
func (e *entry) take(r *Record) error {
	if err := r.check(); err != nil {
		return err
	}
	e.rec = r
	if r.Withdrawn.IsZero() {
		for i := range r.Affected {
			e.claim(&r.Affected[i])
		}
	}
	// The claims have what is needed of it.
	r.Affected, r.Details = nil, ""
	e.setSeal()
	return nil
}

// claim takes what a record says of one package.
func (e *entry) claim(a *Affected) {
	eco, ok := normalEcosystem(a.Package.Ecosystem)
	if !ok {
		return
	}
	linux, archs := a.Ecosystem.Imports.platforms()
	if !linux {
		return
	}
	c := &claim{rec: e.rec, archs: archs, level: levelOf(e.rec, a)}
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
	e.claims = append(e.claims, keyed{key{eco, normalName(eco, a.Package.Name)}, c})
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

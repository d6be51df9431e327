package advisory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/sbom"
)

// DB is a set of advisories, ready for Match. It is not changed any more, so that
// several goroutines may use it, and Next makes another of it; the zero value is an
// empty one.
type DB struct {
	info Info
	// byName has another *claims where it says something else than the DB before.
	byName map[key]*claims
	byID   map[string][]*entry // the first of each is the one that counts
	files  map[string]*file
}

// key is a package as Match looks it up: see normalEcosystem.
type key struct{ ecosystem, name string }

// claims are what all records say of one package, by their ids.
type claims struct{ list []*claim }

// claim is what one record says of one package.
type claim struct {
	rec      *Record
	ranges   []Range
	versions map[string]struct{}
	archs    []string // of Go that it is about, none for all
	level    Level
}

// keyed is a claim with the package that it is about.
type keyed struct {
	key
	*claim
}

// Info tells what db is made of.
func (db *DB) Info() Info { return db.info }

// Record returns the advisory called id, nil if there is none.
func (db *DB) Record(id string) *Record {
	if list := db.byID[id]; len(list) > 0 && list[0].rec.Withdrawn.IsZero() {
		return list[0].rec
	}
	return nil
}

// Next returns the DB of files. What db has from a file of the same name and stamp is
// not read again, and a record with the same text is not understood again.
func (db *DB) Next(ctx context.Context, files []Source) (*DB, error) {
	next := &DB{files: make(map[string]*file, len(files))}
	left := room{size: maxArchive, records: maxRecords}
	var changed []Source
	for _, s := range files {
		old := db.files[s.Name]
		if old == nil || s.Stamp == "" || old.stamp != s.Stamp {
			changed = append(changed, s)
			continue
		}
		next.files[s.Name] = old
		left.size, left.records = left.size-old.size, left.records-len(old.entries)
	}
	if left.size < 0 || left.records < 0 {
		return nil, errFull
	}
	c := newChange(db)
	for _, s := range changed {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		old := db.files[s.Name]
		f, err := readSource(ctx, s, old, &left)
		if err != nil {
			return nil, err
		}
		next.files[s.Name] = f
		c.replace(old, f)
	}
	for name, old := range db.files {
		if next.files[name] == nil {
			c.replace(old, nil)
		}
	}
	c.make(next)
	return next, nil
}

// change is what is different between two states.
type change struct {
	from *DB
	gone map[string][]*entry // by id
	come map[string][]*entry
}

func newChange(from *DB) *change {
	return &change{from: from, gone: map[string][]*entry{}, come: map[string][]*entry{}}
}

// replace has what one file says in place of what another one said.
func (c *change) replace(old, f *file) {
	stays := map[*entry]bool{}
	if old != nil && f != nil {
		for _, e := range f.entries {
			stays[e] = true
		}
		before := map[*entry]bool{}
		for _, e := range old.entries {
			before[e] = true
		}
		maps.DeleteFunc(stays, func(e *entry, _ bool) bool { return !before[e] })
	}
	collect := func(f *file, into map[string][]*entry) {
		if f == nil {
			return
		}
		for _, e := range f.entries {
			if e.rec != nil && !stays[e] {
				into[e.rec.ID] = append(into[e.rec.ID], e)
			}
		}
	}
	collect(old, c.gone)
	collect(f, c.come)
}

// make fills next with what from has, changed.
func (c *change) make(next *DB) {
	next.byID, next.byName = maps.Clone(c.from.byID), maps.Clone(c.from.byName)
	if next.byID == nil {
		next.byID, next.byName = make(map[string][]*entry, len(c.come)), map[key]*claims{}
	}
	gone, come := map[key]map[*claim]bool{}, map[key][]*claim{}
	look := func(id string) {
		old := next.byID[id]
		list := slices.Clone(old)
		for _, e := range c.gone[id] {
			if i := slices.Index(list, e); i >= 0 {
				list = slices.Delete(list, i, i+1)
			}
		}
		list = append(list, c.come[id]...)
		slices.SortFunc(list, precedes)
		if len(list) == 0 {
			delete(next.byID, id)
		} else {
			next.byID[id] = list
		}
		if len(old) > 0 && len(list) > 0 && old[0] == list[0] {
			return
		}
		if len(old) > 0 {
			for _, k := range old[0].claims {
				if gone[k.key] == nil {
					gone[k.key] = map[*claim]bool{}
				}
				gone[k.key][k.claim] = true
			}
		}
		if len(list) > 0 {
			for _, k := range list[0].claims {
				come[k.key] = append(come[k.key], k.claim)
			}
		}
	}
	for id := range c.gone {
		look(id)
	}
	for id := range c.come {
		if c.gone[id] == nil {
			look(id)
		}
	}
	for k := range gone {
		next.setClaims(k, gone[k], come[k])
	}
	for k, list := range come {
		if gone[k] == nil {
			next.setClaims(k, nil, list)
		}
	}
	next.count()
}

// precedes orders records with one id: the one that was changed last counts. Of
// contradictory ones of one time it is one that was not withdrawn, and the same in
// whatever order they came.
func precedes(a, b *entry) int {
	n := b.rec.Modified.Compare(a.rec.Modified)
	if x, y := a.rec.Withdrawn.IsZero(), b.rec.Withdrawn.IsZero(); n == 0 && x != y {
		if x {
			return -1
		}
		return 1
	}
	if n == 0 {
		n = bytes.Compare(a.seal[:], b.seal[:])
	}
	return n
}

// setClaims changes what is said of a package.
func (db *DB) setClaims(k key, gone map[*claim]bool, come []*claim) {
	var list []*claim
	if old := db.byName[k]; old != nil {
		list = slices.DeleteFunc(slices.Clone(old.list), func(c *claim) bool { return gone[c] })
	}
	list = append(list, come...)
	if len(list) == 0 {
		delete(db.byName, k)
		return
	}
	// Those of one record stay in its order.
	slices.SortStableFunc(list, func(a, b *claim) int { return strings.Compare(a.rec.ID, b.rec.ID) })
	db.byName[k] = &claims{list}
}

// count sets the info.
func (db *DB) count() {
	i := Info{Packages: len(db.byName), Ecosystems: map[string]int{}}
	seals := make([][sha256.Size]byte, 0, len(db.byID))
	for _, list := range db.byID {
		r := list[0].rec
		if r.Withdrawn.IsZero() {
			i.Records++
		} else {
			i.Withdrawn++
		}
		if r.Modified.After(i.Newest) {
			i.Newest = r.Modified
		}
		seals = append(seals, list[0].seal)
	}
	for k := range db.byName {
		i.Ecosystems[k.ecosystem]++
	}
	slices.SortFunc(seals, func(a, b [sha256.Size]byte) int { return bytes.Compare(a[:], b[:]) })
	sum := sha256.New()
	for n := range seals {
		sum.Write(seals[n][:])
	}
	i.Digest = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	var unusable []string
	for name, f := range db.files {
		if i.Skipped += f.skipped; f.skipped > 0 {
			unusable = append(unusable, name)
		}
	}
	slices.Sort(unusable)
	for _, name := range unusable {
		bad := db.files[name].bad
		i.Unusable = append(i.Unusable, bad[:min(len(bad), maxBad-len(i.Unusable))]...)
	}
	db.info = i
}

// setSeal computes the digest of all that counts of a record, in whatever form it came.
func (e *entry) setSeal() {
	r := e.rec
	b := put(nil, r.ID, r.Modified.UTC().Format(time.RFC3339Nano), r.Withdrawn.UTC().Format(time.RFC3339Nano), r.Summary)
	b = put(put(put(b, r.Aliases...), r.Upstream...), r.Related...)
	for _, k := range e.claims {
		b = put(put(b, k.ecosystem, k.name, k.level.String()), k.archs...)
		b = put(b, slices.Sorted(maps.Keys(k.versions))...)
		for _, x := range k.ranges {
			b = put(b, x.Type)
			for _, v := range x.Events {
				b = put(b, v.Introduced, v.Fixed, v.LastAffected, v.Limit)
			}
		}
	}
	e.seal = sha256.Sum256(b)
}

// put adds texts to b so that no other ones add the same.
func put(b []byte, texts ...string) []byte {
	for _, s := range texts {
		b = append(append(strconv.AppendInt(b, int64(len(s)), 10), ':'), s...)
	}
	return append(b, ';')
}

// Changed returns the names of packages of which db says something else than old does,
// each as Subject has it.
func (db *DB) Changed(old *DB) map[string]bool {
	names := map[string]bool{}
	for k, c := range db.byName {
		if old.byName[k] != c {
			names[k.name] = true
		}
	}
	for k := range old.byName {
		if db.byName[k] == nil {
			names[k.name] = true
		}
	}
	return names
}

// Subject is the name by which advisories speak of p.
func Subject(p *sbom.Package) string {
	switch p.Type {
	case "pypi":
		return sbom.NormalPython(p.Name)
	case "deb", "apk":
		if p.Source != "" {
			return p.Source
		}
	}
	return p.Name
}

// Keeps refuses to let db take the place of old if a tenth of the records of old is in
// an older form in it, or gone, whatever else is new: so looks a mirror that goes back in
// time and has one new record.
func (db *DB) Keeps(old *DB) error {
	behind := 0
	for id, list := range old.byID {
		if now := db.byID[id]; len(now) == 0 || now[0].rec.Modified.Before(list[0].rec.Modified) {
			behind++
		}
	}
	if behind*10 > len(old.byID) {
		return fmt.Errorf("the new advisories go back in time: %d of the %d records that are there are older in them, or gone", behind, len(old.byID))
	}
	return nil
}

// Builder makes a DB of records that are in no file.
type Builder struct{ c *change }

// NewBuilder returns an empty one.
func NewBuilder() *Builder { return &Builder{newChange(new(DB))} }

// Add takes one record.
func (b *Builder) Add(r *Record) error {
	e := new(entry)
	if err := e.take(r); err != nil {
		return err
	}
	b.c.come[r.ID] = append(b.c.come[r.ID], e)
	return nil
}

// DB returns the DB of what was added.
func (b *Builder) DB() *DB {
	db := new(DB)
	b.c.make(db)
	return db
}

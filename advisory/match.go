package advisory

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"singularity/sbom"
)

// Finding is a fault that a package of an image has.
type Finding struct {
	// ID is the name most people know it by, a CVE if it has one. IDs are all
	// records that say so, Aliases all other names.
	ID      string   `json:"id"`
	IDs     []string `json:"records"`
	Aliases []string `json:"aliases,omitempty"`
	Summary string   `json:"summary,omitempty"`
	Level   Level    `json:"severity"`
	// Package is what has it; Fixed are the versions that no longer do, none if
	// there is no correction.
	Package sbom.Package `json:"package"`
	PURL    string       `json:"purl"`
	Fixed   []string     `json:"fixed,omitempty"`
	// Denied are records of the same fault and package by which this version is
	// not affected: sources disagree.
	Denied []string `json:"denied,omitempty"`
	// Unsure is set if the version could not be compared, so that the worst is
	// assumed.
	Unsure bool `json:"unsure,omitempty"`
	// Ignored is why people here do not count it, "" if they do (see VEX).
	Ignored string `json:"ignored,omitempty"`
}

// Brief says which package it is, and in which version that is corrected: of many,
// the first three.
func (f *Finding) Brief() string {
	text := f.Package.Name + " " + f.Package.Version
	if len(f.Fixed) > 0 {
		text += ", corrected in " + strings.Join(f.Fixed[:min(len(f.Fixed), 3)], " and ")
	}
	return text
}

// hit is what is known of one version of one package, for any image.
type hit struct {
	id      string
	records []string
	aliases []string
	summary string
	level   Level
	fixed   []string
	denied  []string
	unsure  bool
}

// Matcher finds the faults of many inventories: equal packages are looked up
// once. It may be used by several goroutines.
type Matcher struct {
	db   *DB
	mu   sync.RWMutex
	hits map[identity][]hit
}

// maxCached bounds the versions that a Matcher remembers.
const maxCached = 2_000_000

// NewMatcher returns a matcher against db.
func NewMatcher(db *DB) *Matcher { return &Matcher{db: db, hits: map[identity][]hit{}} }

// Match lists the faults of the packages in inv, the worst first. Packages of a
// language that the system brought are the distribution's: only its own
// advisories speak of them.
func (m *Matcher) Match(ctx context.Context, inv *sbom.Inventory) ([]Finding, error) {
	var list []Finding
	seen := map[[2]string]bool{}
	for i := range inv.Packages {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p := &inv.Packages[i]
		if p.Owner != "" {
			continue
		}
		for _, id := range identities(inv.Distro, *p) {
			for _, h := range m.lookUp(id) {
				purl := p.PURL(inv.Distro)
				at := [2]string{h.id, purl + p.Path}
				if seen[at] {
					continue
				}
				seen[at] = true
				list = append(list, h.finding(*p, purl))
			}
		}
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), strings.Compare(a.Package.Name, b.Package.Name), strings.Compare(a.ID, b.ID),
			strings.Compare(a.Package.Version, b.Package.Version), strings.Compare(a.Package.Path, b.Package.Path), strings.Compare(a.PURL, b.PURL))
	})
	return list, nil
}

func (h hit) finding(p sbom.Package, purl string) Finding {
	return Finding{ID: h.id, IDs: h.records, Aliases: h.aliases, Summary: h.summary, Level: h.level, Package: p, PURL: purl,
		Fixed: h.fixed, Denied: h.denied, Unsure: h.unsure}
}

// lookUp is what is known of id.
func (m *Matcher) lookUp(id identity) []hit {
	known := m.db.byName[id.key]
	if known == nil || id.version == "" {
		return nil
	}
	m.mu.RLock()
	hits, judged := m.hits[id]
	m.mu.RUnlock()
	if judged {
		return hits
	}
	hits = judge(id, known.list)
	m.mu.Lock()
	if len(m.hits) < maxCached {
		m.hits[id] = hits
	}
	m.mu.Unlock()
	return hits
}

// judge puts the claims about one fault together.
func judge(id identity, claims []*claim) (hits []hit) {
	o := order{scheme(id.scheme)}
	for _, f := range faults(claims) {
		h := hit{}
		for _, c := range f.claims {
			affected, unsure := c.covers(o, id)
			if !affected {
				h.denied = append(h.denied, c.rec.ID)
				continue
			}
			h.records = append(h.records, c.rec.ID)
			h.unsure = h.unsure || unsure
			h.level = max(h.level, c.level)
			if h.summary == "" {
				h.summary = c.rec.Summary
			}
			for _, r := range c.ranges {
				h.fixed = append(h.fixed, o.fixes(id.version, r)...)
			}
		}
		if len(h.records) == 0 {
			continue
		}
		h.records = sortNames(h.records)
		h.denied = slices.DeleteFunc(sortNames(h.denied), func(id string) bool { return slices.Contains(h.records, id) })
		names := sortNames(f.names)
		h.id, h.aliases = names[0], slices.DeleteFunc(names[1:], func(n string) bool { return slices.Contains(h.records, n) })
		slices.SortFunc(h.fixed, func(a, b string) int { n, _ := o.compare(a, b); return n })
		h.fixed = slices.Compact(h.fixed)
		hits = append(hits, h)
	}
	return hits
}

// fault is one fault of a package with all that is said of it.
type fault struct {
	names  []string
	claims []*claim
}

// faults puts together what shares a name.
func faults(claims []*claim) (list []*fault) {
	at := map[string]*fault{}
	for _, c := range claims {
		for _, names := range c.rec.faults() {
			f := &fault{}
			for _, n := range names {
				if old := at[n]; old != nil && old != f {
					if f.names == nil {
						f = old
						continue
					}
					for _, m := range old.names { // this record joins two
						at[m] = f
					}
					f.names, f.claims = append(f.names, old.names...), append(f.claims, old.claims...)
					old.names, old.claims = nil, nil
				}
			}
			if f.names == nil {
				list = append(list, f)
			}
			for _, n := range names {
				if at[n] != f {
					at[n] = f
					f.names = append(f.names, n)
				}
			}
			f.claims = append(f.claims, c)
		}
	}
	return slices.DeleteFunc(list, func(f *fault) bool { return f.names == nil })
}

// covers tells whether c counts id as affected. What cannot be compared is
// counted, and said to be unsure.
func (c *claim) covers(o order, id identity) (affected, unsure bool) {
	if id.arch != "" && len(c.archs) > 0 && !slices.Contains(c.archs, id.arch) {
		return false, false
	}
	version := id.version
	if _, listed := c.versions[version]; listed {
		return true, false
	}
	for _, r := range c.ranges {
		in, ok := o.in(version, r)
		if !ok {
			return true, true
		}
		if in {
			return true, false
		}
	}
	// A claim without versions is about all of them.
	return len(c.ranges) == 0 && len(c.versions) == 0, false
}

// Has tells whether f is known by the name id.
func (f *Finding) Has(id string) bool {
	return f.ID == id || slices.Contains(f.IDs, id) || slices.Contains(f.Aliases, id)
}

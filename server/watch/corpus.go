package watch

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"singularity/advisory"
	"singularity/sbom"
)

// entry is a package of a distribution, as images have it in common.
type entry struct {
	distro *sbom.Distro
	sbom.Package
}

// held is what is in memory of one image.
type held struct {
	distro   *sbom.Distro
	packages []uint32 // entries
	gaps     []string
	// An image with more packages than are kept has its findings here alone.
	large    int      // how many it has
	subjects []uint32 // hashes of the names by which advisories speak of them, sorted
	findings []advisory.Finding
}

// The bounds of what is kept in memory: packages of one image that are shared with
// others, and different packages of all. What is beyond is compared from the stored
// list, at each change of the data.
const (
	maxShared   = 20_000
	maxEntries  = 3_000_000
	maxFindings = 20_000 // of an image
)

// corpus is the packages of all images. Changes come one after another; whoever reads
// waits for none of them.
type corpus struct {
	change  sync.Mutex
	db      *advisory.DB // guarded by change, as is the next; nil for none
	matcher *advisory.Matcher

	mu      sync.RWMutex
	distros map[sbom.Distro]*sbom.Distro
	ids     map[entry]uint32
	entries []entry
	uses    []int32
	free    []uint32
	about   map[string][]uint32           // entries by the name by which advisories speak of them
	found   map[uint32][]advisory.Finding // those entries that have any
	images  map[string]*held
	turn    int // changes with each that matters to findings
}

func newCorpus() *corpus {
	return &corpus{distros: map[sbom.Distro]*sbom.Distro{}, ids: map[entry]uint32{}, about: map[string][]uint32{}, found: map[uint32][]advisory.Finding{}, images: map[string]*held{}}
}

func (c *corpus) has(hash string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.images[hash] != nil
}

// add takes the list of an image and compares those packages that are new.
func (c *corpus) add(ctx context.Context, hash string, inv *sbom.Inventory) error {
	c.change.Lock()
	defer c.change.Unlock()
	c.mu.Lock()
	c.drop(hash)
	h := &held{distro: c.distro(inv.Distro), gaps: inv.Gaps}
	c.images[hash] = h
	c.turn++
	var fresh []uint32
	if len(inv.Packages) > maxShared || len(c.ids)+len(inv.Packages) > maxEntries {
		h.large, h.subjects = len(inv.Packages), subjectsOf(inv)
	} else {
		h.packages, fresh = c.intern(h.distro, inv.Packages)
	}
	c.mu.Unlock()
	if c.matcher == nil {
		return nil
	}
	if h.large > 0 {
		list, err := c.matcher.Match(ctx, inv)
		c.mu.Lock()
		h.findings = list[:min(len(list), maxFindings)]
		c.mu.Unlock()
		return err
	}
	found, err := c.match(ctx, c.matcher, fresh)
	c.mu.Lock()
	for id, list := range found {
		c.found[id] = list
	}
	c.turn++
	c.mu.Unlock()
	return err
}

func (c *corpus) distro(d sbom.Distro) *sbom.Distro {
	p := c.distros[d]
	if p == nil {
		p = &d
		c.distros[d] = p
	}
	return p
}

// intern returns the numbers of packages, and which of them are new.
func (c *corpus) intern(d *sbom.Distro, list []sbom.Package) (ids, fresh []uint32) {
	ids = make([]uint32, 0, len(list))
	for _, p := range list {
		e := entry{d, p}
		id, ok := c.ids[e]
		if !ok {
			if n := len(c.free); n > 0 {
				id, c.free = c.free[n-1], c.free[:n-1]
				c.entries[id] = e
			} else {
				id = uint32(len(c.entries))
				c.entries, c.uses = append(c.entries, e), append(c.uses, 0)
			}
			c.ids[e] = id
			name := advisory.Subject(&p)
			c.about[name] = append(c.about[name], id)
			fresh = append(fresh, id)
		}
		c.uses[id]++
		ids = append(ids, id)
	}
	return ids, fresh
}

// remove forgets an image.
func (c *corpus) remove(hash string) {
	c.change.Lock()
	defer c.change.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(hash)
}

func (c *corpus) drop(hash string) {
	h := c.images[hash]
	if h == nil {
		return
	}
	delete(c.images, hash)
	c.turn++
	for _, id := range h.packages {
		if c.uses[id]--; c.uses[id] == 0 {
			c.unname(id)
			delete(c.ids, c.entries[id])
			delete(c.found, id)
			c.entries[id] = entry{}
			c.free = append(c.free, id)
		}
	}
}

// unname takes an entry out of those that go by its name.
func (c *corpus) unname(id uint32) {
	name := advisory.Subject(&c.entries[id].Package)
	list := c.about[name]
	if last := len(list) - 1; last > 0 {
		i := slices.Index(list, id)
		list[i] = list[last]
		c.about[name] = list[:last]
		return
	}
	delete(c.about, name)
}

// subjectsOf are the hashes of the names by which advisories speak of packages.
func subjectsOf(inv *sbom.Inventory) []uint32 {
	list := make([]uint32, len(inv.Packages))
	for i := range inv.Packages {
		list[i] = hashOf(advisory.Subject(&inv.Packages[i]))
	}
	slices.Sort(list)
	return slices.Clip(slices.Compact(list))
}

func hashOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// match compares entries with the advisories, on all processors. The caller has the
// lock of changes, so that they stay.
func (c *corpus) match(ctx context.Context, m *advisory.Matcher, ids []uint32) (map[uint32][]advisory.Finding, error) {
	c.mu.RLock()
	entries := c.entries
	c.mu.RUnlock()
	out := map[uint32][]advisory.Finding{}
	var mu sync.Mutex
	var failed error
	var workers sync.WaitGroup
	step := max(len(ids)/runtime.GOMAXPROCS(0)+1, 1000)
	for part := range slices.Chunk(ids, step) {
		workers.Go(func() {
			mine := map[uint32][]advisory.Finding{}
			var err error
			for _, id := range part {
				e := &entries[id]
				if e.distro == nil {
					continue
				}
				var list []advisory.Finding
				if list, err = m.Match(ctx, &sbom.Inventory{Distro: *e.distro, Packages: []sbom.Package{e.Package}}); err != nil {
					break
				}
				if len(list) > 0 {
					mine[id] = list
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for id, list := range mine {
				out[id] = list
			}
			failed = cmp.Or(failed, err)
		})
	}
	workers.Wait()
	return out, failed
}

// use takes other advisories, and compares with them those packages of which they say
// something else than the ones before. kept reads the stored list of an image that is not
// in memory as a whole.
func (c *corpus) use(ctx context.Context, db *advisory.DB, kept func(context.Context, string) (*sbom.Inventory, error)) error {
	c.change.Lock()
	defer c.change.Unlock()
	before := c.db
	if before == nil {
		before = new(advisory.DB)
	}
	ids, large := c.concerned(db.Changed(before))
	m := advisory.NewMatcher(db)
	found, err := c.match(ctx, m, ids)
	if err != nil {
		return err
	}
	findings := map[string][]advisory.Finding{}
	for _, hash := range large {
		inv, err := kept(ctx, hash)
		if err != nil {
			return err
		}
		list, err := m.Match(ctx, inv)
		if err != nil {
			return err
		}
		findings[hash] = list[:min(len(list), maxFindings)]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.db, c.matcher = db, m
	for _, id := range ids {
		if list := found[id]; list != nil {
			c.found[id] = list
		} else {
			delete(c.found, id)
		}
	}
	for hash, list := range findings {
		c.images[hash].findings = list
	}
	c.turn++
	return nil
}

// concerned returns the entries that go by one of names, and the images that are not in
// memory as a whole and may have such packages.
func (c *corpus) concerned(names map[string]bool) (ids []uint32, large []string) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	hashes := make([]uint32, 0, len(names))
	for name := range names {
		ids = append(ids, c.about[name]...)
		hashes = append(hashes, hashOf(name))
	}
	for hash, h := range c.images {
		if h.large > 0 && slices.ContainsFunc(hashes, func(n uint32) bool { _, has := slices.BinarySearch(h.subjects, n); return has }) {
			large = append(large, hash)
		}
	}
	return ids, large
}

// known is what the corpus has of an image.
type known struct {
	distro   sbom.Distro
	packages int
	gaps     []string
	findings []advisory.Finding // a copy of the list, the worst first
}

// image returns what is known of an image, false if it has no list.
func (c *corpus) image(hash string) (known, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := c.images[hash]
	if h == nil {
		return known{}, false
	}
	return known{*h.distro, len(h.packages) + h.large, h.gaps, c.findings(h)}, true
}

// findings lists those of an image.
func (c *corpus) findings(h *held) []advisory.Finding {
	if h.large > 0 {
		return slices.Clone(h.findings)
	}
	var list []advisory.Finding
	for _, id := range h.packages {
		if f := c.found[id]; f != nil && len(list) < maxFindings {
			list = append(list, f...)
		}
	}
	slices.SortStableFunc(list, func(a, b advisory.Finding) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), strings.Compare(a.Package.Name, b.Package.Name), strings.Compare(a.ID, b.ID), strings.Compare(a.PURL, b.PURL), strings.Compare(a.Package.Path, b.Package.Path))
	})
	return slices.CompactFunc(list, func(a, b advisory.Finding) bool {
		return a.ID == b.ID && a.PURL == b.PURL && a.Package.Path == b.Package.Path
	})
}

// having returns the entries whose package has text in its name, by number.
func (c *corpus) having(text string) map[uint32]sbom.Package {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := map[uint32]sbom.Package{}
	for id, e := range c.entries {
		if e.distro != nil && (strings.Contains(strings.ToLower(e.Name), text) || strings.Contains(strings.ToLower(e.Source), text)) {
			out[uint32(id)] = e.Package
		}
	}
	return out
}

// packages calls f for each entry of an image.
func (c *corpus) packages(hash string, f func(uint32)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if h := c.images[hash]; h != nil {
		for _, id := range h.packages {
			f(id)
		}
	}
}

// changed says that something matters to who tells of findings.
func (c *corpus) changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
}

// hashes are the images that are here.
func (c *corpus) hashes() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Keys(c.images))
}

// turnOf is the number of the state of all findings.
func (c *corpus) turnOf() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.turn
}

// size counts images and different packages.
func (c *corpus) size() (images, packages int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.images), len(c.ids)
}

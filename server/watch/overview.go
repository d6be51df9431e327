package watch

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"singularity/advisory"
	"singularity/api"
	"singularity/server/library"
	"singularity/server/route"
)

// judged is what counts of an image's findings, where it is.
type judged struct {
	counts map[string]int
	worst  advisory.Level
	score  int // to order images by
	faults []string
}

// judgements keeps what was judged until something changes: lists, data, statements,
// or the day, with which statements end.
type judgements struct {
	mu     sync.Mutex
	at     [3]int
	images map[[2]string]*judged
	faults map[string]api.FaultCount
}

// judge tells what counts of the findings of an image in a collection; nil if its
// packages are not known.
func (s *Service) judge(hash, collection string) *judged {
	j := &s.judgements
	s.said.mu.RLock()
	at := [3]int{s.corpus.turnOf(), s.said.turn, int(s.now().Unix() / int64(24*time.Hour/time.Second))}
	s.said.mu.RUnlock()
	key := [2]string{hash, collection}
	j.mu.Lock()
	if j.at != at || j.images == nil {
		j.at, j.images, j.faults = at, map[[2]string]*judged{}, map[string]api.FaultCount{}
	}
	v := j.images[key]
	j.mu.Unlock()
	if v != nil {
		return v
	}
	k, ok := s.corpus.image(hash)
	if !ok {
		return nil
	}
	s.suppress(k.findings, hash, collection)
	v = &judged{}
	v.counts, _ = tally(k.findings)
	faults := map[string]api.FaultCount{}
	for n := range k.findings {
		f := &k.findings[n]
		if f.Ignored != "" {
			continue
		}
		v.worst = max(v.worst, f.Level)
		v.score += weight(f.Level)
		faults[f.ID] = api.FaultCount{ID: f.ID, Summary: f.Summary, Severity: f.Level.String(), Fixed: len(f.Fixed) > 0 || faults[f.ID].Fixed}
	}
	v.faults = slices.Collect(maps.Keys(faults))
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.at == at {
		j.images[key] = v
		for id, f := range faults {
			if old, ok := j.faults[id]; !ok || levelOf(old.Severity) < levelOf(f.Severity) {
				j.faults[id] = f
			}
		}
	}
	return v
}

// weight orders images by their findings: one of a severity counts more than some of the
// next.
func weight(l advisory.Level) int {
	if l <= advisory.Negligible {
		return 0
	}
	return 1 << (4 * (int(l) - int(advisory.Low)))
}

func levelOf(name string) advisory.Level {
	l, _ := advisory.ParseLevel(name)
	return l
}

// Bounds of an overview and a search.
const (
	maxWorst     = 20
	maxFaults    = 50
	minSearch    = 3
	maxSearch    = 200
	maxFoundHere = 200
)

// overview answers with the state of all images that the caller may read.
func (s *Service) overview(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	out := api.WatchOverview{Counts: map[string]int{}, Worst: []api.WatchedImage{}, Faults: []api.FaultCount{}, Data: s.state()}
	type ranked struct {
		api.WatchedImage
		score int
	}
	var worst []ranked
	faults := map[string]int{}
	for i, err := range s.lib.Visible(ctx, "") {
		if err != nil {
			return err
		}
		out.Images++
		v := s.judge(i.Hash, i.Collection)
		if v == nil {
			if err := s.countUnknown(ctx, i, &out); err != nil {
				return err
			}
			continue
		}
		out.Done++
		for _, id := range v.faults {
			faults[id]++
		}
		if len(v.faults) == 0 {
			continue
		}
		out.Affected++
		out.Counts[v.worst.String()]++
		worst = append(worst, ranked{api.WatchedImage{Image: i.Image, Counts: v.counts}, v.score})
	}
	slices.SortStableFunc(worst, func(a, b ranked) int { return cmp.Compare(b.score, a.score) })
	for _, v := range worst[:min(len(worst), maxWorst)] {
		out.Worst = append(out.Worst, v.WatchedImage)
	}
	out.Faults = s.topFaults(faults, maxFaults)
	route.Data(w, out)
	return nil
}

func (s *Service) countUnknown(ctx context.Context, i library.Stored, out *api.WatchOverview) error {
	v, err := s.inventories.Get(ctx, i.Hash)
	if err != nil && !missing(err) {
		return err
	}
	if err == nil && !v.Value.Done && v.Value.Next.IsZero() {
		out.Failed++
	} else {
		out.Waiting++
	}
	return nil
}

// topFaults orders faults by severity and by the number of images.
func (s *Service) topFaults(images map[string]int, limit int) []api.FaultCount {
	list := []api.FaultCount{}
	s.judgements.mu.Lock()
	for id, n := range images {
		if f, ok := s.judgements.faults[id]; ok {
			f.Images = n
			list = append(list, f)
		}
	}
	s.judgements.mu.Unlock()
	slices.SortFunc(list, func(a, b api.FaultCount) int {
		return cmp.Or(cmp.Compare(levelOf(b.Severity), levelOf(a.Severity)), cmp.Compare(b.Images, a.Images), strings.Compare(a.ID, b.ID))
	})
	return list[:min(len(list), limit)]
}

// search finds faults by any of their names, and packages by name, in images that the
// caller may read.
func (s *Service) search(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	text := strings.ToLower(strings.TrimSpace(r.URL.Query().Get("q")))
	if len(text) < minSearch || len(text) > maxSearch {
		return route.Errorf(http.StatusBadRequest, "a search needs from %d to %d characters", minSearch, maxSearch)
	}
	packages := s.corpus.having(text)
	counts, faults := map[api.PackageCount]int{}, map[string]int{}
	for i, err := range s.lib.Visible(ctx, "") {
		if err != nil {
			return err
		}
		here := map[api.PackageCount]bool{}
		s.corpus.packages(i.Hash, func(e uint32) {
			if p, ok := packages[e]; ok {
				here[api.PackageCount{Type: p.Type, Name: p.Name, Version: p.Version}] = true
			}
		})
		for p := range here {
			counts[p]++
		}
		if v := s.judge(i.Hash, i.Collection); v != nil {
			for _, id := range v.faults {
				faults[id]++
			}
		}
	}
	names := s.corpus.names(text)
	maps.DeleteFunc(faults, func(id string, _ int) bool { return !names[id] })
	out := api.WatchSearch{Faults: s.topFaults(faults, maxFoundHere), Packages: []api.PackageCount{}}
	for p, n := range counts {
		p.Images = n
		out.Packages = append(out.Packages, p)
	}
	slices.SortFunc(out.Packages, func(a, b api.PackageCount) int {
		return cmp.Or(cmp.Compare(b.Images, a.Images), strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.Type, b.Type))
	})
	out.Packages = out.Packages[:min(len(out.Packages), maxFoundHere)]
	route.Data(w, out)
	return nil
}

// names returns the faults of which a name, or the package that has it, has text in it.
func (c *corpus) names(text string) map[string]bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := map[string]bool{}
	look := func(list []advisory.Finding) {
		for n := range list {
			f := &list[n]
			if text == "" {
				out[f.ID] = true
				continue
			}
			for _, name := range slices.Concat([]string{f.ID, f.Package.Name, f.Package.Source}, f.IDs, f.Aliases) {
				if strings.Contains(strings.ToLower(name), text) {
					out[f.ID] = true
					break
				}
			}
		}
	}
	for _, list := range c.found {
		look(list)
	}
	for _, h := range c.images {
		look(h.findings)
	}
	return out
}

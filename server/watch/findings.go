package watch

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"strings"

	"singularity/advisory"
	"singularity/api"
	"singularity/conf"
	"singularity/sbom"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/sif"
)

// The states of a list of packages.
const (
	stateDone    = "done"
	stateWaiting = "waiting"
	stateFailed  = "failed"
)

// shown is a finding as it is answered.
func shown(f *advisory.Finding) api.Finding {
	return api.Finding{ID: f.ID, Records: f.IDs, Aliases: f.Aliases, Summary: f.Summary, Severity: f.Level.String(), Package: shownPackage(f.Package, f.PURL),
		Fixed: f.Fixed, Denied: f.Denied, Unsure: f.Unsure, Suppressed: f.Ignored}
}

func shownPackage(p sbom.Package, purl string) api.WatchedPackage {
	return api.WatchedPackage{Type: p.Type, Name: p.Name, Version: p.Version, Source: p.Source, Path: p.Path, PURL: purl}
}

// tally counts findings by severity, and those that do not count.
func tally(list []advisory.Finding) (counts map[string]int, suppressed int) {
	counts = map[string]int{}
	for i := range list {
		if list[i].Ignored != "" {
			suppressed++
		} else {
			counts[list[i].Level.String()]++
		}
	}
	return counts, suppressed
}

// Findings tells what is known of an image: for the owners of its collection.
func (s *Service) findings(ctx context.Context, i library.Stored) (api.ImageFindings, error) {
	out := api.ImageFindings{Image: "sha256." + i.Hash, State: stateWaiting, Findings: []api.Finding{}, Data: s.state()}
	v, err := s.inventories.Get(ctx, i.Hash)
	if err != nil && !missing(err) {
		return out, err
	}
	out.Problem, out.Made = v.Value.Error, v.Value.Made
	if err == nil && !v.Value.Done && v.Value.Next.IsZero() {
		out.State = stateFailed
	}
	k, ok := s.corpus.image(i.Hash)
	if ok {
		out.State, out.Distro, out.Packages, out.Gaps = stateDone, distroName(k.distro), k.packages, k.gaps
		s.suppress(k.findings, i.Hash, i.Collection)
		for n := range k.findings {
			out.Findings = append(out.Findings, shown(&k.findings[n]))
		}
	}
	out.Counts, out.Suppressed = tally(k.findings)
	return out, nil
}

func distroName(d sbom.Distro) string {
	return cmp.Or(d.Name, strings.TrimSpace(d.ID+" "+d.Version))
}

// imageFindings answers with what is wrong with an image.
func (s *Service) imageFindings(w http.ResponseWriter, r *http.Request) error {
	i, err := s.lib.Resolve(r)
	if err != nil {
		return err
	}
	out, err := s.findings(r.Context(), i)
	if err != nil {
		return err
	}
	route.Data(w, out)
	return nil
}

// formats are the bills of materials by the word in the query.
func formatOf(word string) (sif.SBOMFormat, string, bool) {
	switch word {
	case "cyclonedx":
		return sif.SBOMCycloneDXJSON, "application/vnd.cyclonedx+json", true
	case "spdx":
		return sif.SBOMSPDXJSON, "application/spdx+json", true
	}
	return 0, "", false
}

// imageInventory answers with the packages of an image, as a bill of materials in the
// format that was asked for.
func (s *Service) imageInventory(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	i, err := s.lib.Resolve(r)
	if err != nil {
		return err
	}
	word := cmp.Or(r.URL.Query().Get("format"), "cyclonedx")
	format, kind, ok := formatOf(word)
	if !ok {
		return route.Errorf(http.StatusBadRequest, "format is cyclonedx or spdx")
	}
	v, err := s.inventories.Get(ctx, i.Hash)
	if missing(err) || err == nil && !v.Value.Done {
		return route.Errorf(http.StatusConflict, "the packages of this image are not known%s", because(v.Value.Error))
	}
	if err != nil {
		return err
	}
	inv, err := s.kept(ctx, i.Hash)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", `attachment; filename="`+i.Image.ContainerName+"."+word+`.json"`)
	w.Header().Set("Cache-Control", "private, no-store")
	return sbom.Encode(w, inv, sbom.Subject{Name: i.Path(), Digest: i.Hash, Tool: conf.Version, Created: v.Value.Made}, format)
}

func because(text string) string {
	if text == "" {
		return " yet"
	}
	return ": " + text
}

// Bounds of what a list holds.
const maxShown = 1000

// window is the part of a list that a request asks for.
func window(r *http.Request) (skip, limit int, err error) {
	if text := r.URL.Query().Get("after"); text != "" {
		if skip, err = strconv.Atoi(text); err != nil || skip < 0 {
			return 0, 0, route.Errorf(http.StatusBadRequest, "after is what the page before said")
		}
	}
	limit, err = limitOf(r)
	return skip, limit, err
}

func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return 100, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxShown {
		return 0, route.Errorf(http.StatusBadRequest, "limit is a number from 1 to %d", maxShown)
	}
	return limit, nil
}

// faultName reads the name of a fault, or of an advisory, from a query.
func faultName(r *http.Request) (string, error) {
	id := r.URL.Query().Get("id")
	if id == "" || len(id) > 200 {
		return "", route.Errorf(http.StatusBadRequest, "id is the name of a fault, as CVE-2026-1234")
	}
	return id, nil
}

// touched lists the images that have a fault, as far as the caller may read them.
func (s *Service) touched(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	id, err := faultName(r)
	if err != nil {
		return err
	}
	skip, limit, err := window(r)
	if err != nil {
		return err
	}
	hashes := s.corpus.touched(id)
	list, next := []api.TouchedImage{}, ""
	for i, err := range s.lib.Visible(ctx, "") {
		if err != nil {
			return err
		}
		if !hashes[i.Hash] {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(list) == limit {
			after, _ := strconv.Atoi(r.URL.Query().Get("after"))
			next = strconv.Itoa(after + limit)
			break
		}
		list = append(list, api.TouchedImage{Image: i.Image, Findings: s.about(id, i.Hash, i.Collection)})
	}
	route.JSON(w, http.StatusOK, api.Listing[api.TouchedImage]{Data: list, Page: api.Page{Next: next}})
	return nil
}

// about are the findings of an image that have a name.
func (s *Service) about(id, hash, collection string) []api.Finding {
	out := []api.Finding{}
	k, _ := s.corpus.image(hash)
	s.suppress(k.findings, hash, collection)
	for n := range k.findings {
		if k.findings[n].Has(id) {
			out = append(out, shown(&k.findings[n]))
		}
	}
	return out
}

// touched returns the images that have a fault called id.
func (c *corpus) touched(id string) map[string]bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	has := func(list []advisory.Finding) bool {
		for n := range list {
			if list[n].Has(id) {
				return true
			}
		}
		return false
	}
	marked := make([]bool, len(c.entries))
	for e, list := range c.found {
		marked[e] = has(list)
	}
	out := map[string]bool{}
	for hash, h := range c.images {
		for _, e := range h.packages {
			if marked[e] {
				out[hash] = true
				break
			}
		}
		if h.large > 0 && has(h.findings) {
			out[hash] = true
		}
	}
	return out
}

// all tells whether the caller may see what concerns everybody.
func all(c auth.Caller) bool { return c.RequireAdmin() == nil }

package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/route"
	"singularity/server/store"
)

// maxPage bounds a list, whatever the client asks for (SC-156).
const maxPage = 1000

func (s *Service) listTags(r *request) error {
	ctx := r.Context()
	k, err := s.lib.Repository(ctx, auth.Read, r.name)
	if err != nil {
		return err
	}
	limit := maxPage
	q := r.URL.Query()
	if text := q.Get("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return faultf(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is a number from 0 to %d", maxPage)
		}
		limit = min(n, maxPage)
	}
	sifs, err := s.lib.Tagged(ctx, k.ID)
	if err != nil {
		return err
	}
	tags := []string{}
	for tag := range k.Tags {
		tags = append(tags, tag)
	}
	for _, i := range sifs {
		tags = append(tags, i.Tag)
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if last := q.Get("last"); last != "" {
		at, found := slices.BinarySearch(tags, last)
		if found {
			at++
		}
		tags = tags[at:]
	}
	if limit < len(tags) {
		tags = tags[:limit]
		if limit > 0 {
			r.w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?%s>; rel="next"`, r.name, url.Values{"n": {strconv.Itoa(limit)}, "last": {tags[limit-1]}}.Encode()))
		}
	}
	route.JSON(r.w, http.StatusOK, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{r.name, tags})
	return nil
}

// maxReferrers bounds a list of referrers, which has no pages.
const maxReferrers = 1000

func (s *Service) listReferrers(r *request) error {
	ctx := r.Context()
	k, err := s.lib.Repository(ctx, auth.Read, r.name)
	if library.IsMissing(err) && auth.From(ctx).Known() {
		// The protocol wants no 404 here. What is hidden has no referrers either.
		r.w.Header().Set("Content-Type", typeIndex)
		index{2, typeIndex, []descriptor{}}.write(r.w)
		return nil
	}
	if err != nil {
		return err
	}
	sha, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	items, _, err := s.manifests.List(ctx, store.Query{Index: "subject", Equal: key(k.ID, sha), Limit: maxReferrers})
	if err != nil {
		return err
	}
	want := r.URL.Query().Get("artifactType")
	list := []descriptor{}
	for _, i := range items {
		m := i.Value
		if want == "" || m.ArtifactType == want {
			list = append(list, descriptor{MediaType: m.MediaType, Digest: "sha256:" + m.SHA256, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.Annotations})
		}
	}
	if want != "" {
		r.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	r.w.Header().Set("Content-Type", typeIndex)
	index{2, typeIndex, list}.write(r.w)
	return nil
}

package library

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// The bounds of a search.
const (
	minSearch   = 3
	maxSearch   = 200
	maxFound    = 200
	maxLookedAt = 5000
	searchTime  = 2 * time.Second
)

// wanted is what a search asks for.
type wanted struct {
	text   string
	archs  []string
	signed string // true, false or empty
	may    auth.Readable
}

func (q *wanted) image(i *image) bool {
	return i.there() && (len(q.archs) == 0 || slices.Contains(q.archs, i.Content.Arch)) && (q.signed == "" || (q.signed == "true") == i.Content.Signed)
}

func (s *Service) search(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := wanted{text: strings.ToLower(v.Get("value")), signed: v.Get("signed")}
	if len(q.text) < minSearch || len(q.text) > maxSearch || !utf8.ValidString(v.Get("value")) {
		return route.Errorf(http.StatusBadRequest, "a search needs from %d to %d characters", minSearch, maxSearch)
	}
	if q.signed != "" && q.signed != "true" && q.signed != "false" {
		return route.Errorf(http.StatusBadRequest, "signed is true or false")
	}
	for _, a := range strings.FieldsFunc(v.Get("arch"), func(r rune) bool { return r == ',' }) {
		if !archName.MatchString(a) || len(q.archs) > 20 {
			return route.Errorf(http.StatusBadRequest, "%.40q is no architecture", a)
		}
		q.archs = append(q.archs, a)
	}
	ctx, cancel := context.WithTimeout(r.Context(), searchTime)
	defer cancel()
	var err error
	if q.may, err = s.auth.Readable(ctx, auth.From(ctx)); err != nil {
		return err
	}
	found, err := s.look(ctx, &q)
	if ctx.Err() != nil && r.Context().Err() == nil {
		return route.Errorf(http.StatusServiceUnavailable, "the search takes too long: search for something longer")
	}
	if err != nil {
		return err
	}
	route.Data(w, found)
	return nil
}

// look looks in all kinds of things; if an architecture or signatures are asked
// for, in images alone.
func (s *Service) look(ctx context.Context, q *wanted) (api.Search, error) {
	out := api.Search{Entities: []api.Entity{}, Collections: []api.Collection{}, Containers: []api.Container{}, Images: []api.Image{}}
	collections := map[string]collection{}
	object := func(k *container) (auth.Object, error) {
		c, ok := collections[k.Collection]
		if !ok {
			i, err := s.collections.Get(ctx, k.Collection)
			if err != nil {
				return auth.Object{}, err
			}
			c = i.Value
			collections[k.Collection] = c
		}
		return auth.Object{Entity: k.EntityName, Within: []string{k.Collection, k.ID}, Public: !k.Private && !c.Private}, nil
	}
	containers, err := s.findContainers(ctx, q, object)
	if err != nil {
		return out, err
	}
	if err := s.findImages(ctx, q, containers, object, &out); err != nil {
		return out, err
	}
	if len(q.archs) > 0 || q.signed != "" {
		return out, nil
	}
	for _, k := range containers {
		if len(out.Containers) < maxFound {
			out.Containers = append(out.Containers, s.withDownloads(&k).answer())
		}
	}
	items, _, err := s.collections.List(ctx, store.Query{Index: "text", Contains: q.text, Limit: maxFound})
	if err != nil {
		return out, err
	}
	for _, c := range items {
		if q.may.May(c.Value.object()) {
			out.Collections = append(out.Collections, c.Value.answer())
		}
	}
	entities, _, err := s.entities.List(ctx, store.Query{Index: "text", Contains: q.text, Limit: maxFound})
	for _, e := range entities {
		if q.may.May(e.Value.object()) {
			out.Entities = append(out.Entities, e.Value.answer())
		}
	}
	return out, err
}

// findContainers finds the containers that match and that the caller may read.
func (s *Service) findContainers(ctx context.Context, q *wanted, object func(*container) (auth.Object, error)) ([]container, error) {
	var list []container
	looked := 0
	for k, err := range s.containers.All(ctx, store.Query{Index: "text", Contains: q.text}) {
		if err != nil {
			return list, err
		}
		if looked++; looked > maxLookedAt {
			break
		}
		o, err := object(&k.Value)
		if err != nil && !missing(err) {
			return list, err
		}
		if err == nil && q.may.May(o) {
			list = append(list, k.Value)
		}
	}
	return list, nil
}

// findImages collects the images of the containers, and those whose own
// description matches, the newest first.
func (s *Service) findImages(ctx context.Context, q *wanted, containers []container, object func(*container) (auth.Object, error), out *api.Search) error {
	type hit struct {
		image     image
		container container
	}
	var hits []hit
	seen := map[string]bool{}
	for _, k := range containers {
		seen[k.ID] = true
		for i, err := range s.images.All(ctx, store.Query{Index: "container", Equal: k.ID}) {
			if err != nil {
				return err
			}
			if q.image(&i.Value) {
				hits = append(hits, hit{i.Value, k})
			}
		}
		if len(hits) > maxLookedAt {
			break
		}
	}
	looked := 0
	for i, err := range s.images.All(ctx, store.Query{Index: "text", Contains: q.text}) {
		if err != nil {
			return err
		}
		if looked++; looked > maxLookedAt {
			break
		}
		if seen[i.Value.Container] || !q.image(&i.Value) {
			continue
		}
		k, err := s.containers.Get(ctx, i.Value.Container)
		if err != nil && !missing(err) {
			return err
		}
		if err != nil || !k.Value.DeletedAt.IsZero() {
			continue
		}
		if o, err := object(&k.Value); err == nil && q.may.May(o) {
			hits = append(hits, hit{i.Value, k.Value})
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return b.image.UploadedAt.Compare(a.image.UploadedAt) })
	for _, h := range hits[:min(len(hits), maxFound)] {
		out.Images = append(out.Images, s.shown(&h.image, &h.container))
	}
	return nil
}

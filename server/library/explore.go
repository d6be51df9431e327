package library

import (
	"net/http"
	"slices"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/store"
)

// maxNewest bounds how many records a list of images looks at: where many are in hidden
// collections it shows fewer.
const maxNewest = 1000

// latest lists the newest images that the caller may read.
func (s *Service) latest(w http.ResponseWriter, r *http.Request) error {
	return s.listReadable(w, r, store.Query{Index: "newest", Reverse: true, Limit: 100}, func(*image) bool { return true })
}

// signedBy lists the images with a signature that was found to be of a key.
func (s *Service) signedBy(w http.ResponseWriter, r *http.Request) error {
	f := strings.ToUpper(r.PathValue("fingerprint"))
	return s.listReadable(w, r, store.Query{Index: "signer", Equal: f, Limit: 100}, func(i *image) bool {
		return slices.ContainsFunc(s.certain(i.Fingerprints), func(have string) bool { return strings.EqualFold(have, f) })
	})
}

func (s *Service) listReadable(w http.ResponseWriter, r *http.Request, q store.Query, want func(*image) bool) error {
	ctx := r.Context()
	_, limit, err := page(r)
	if err != nil {
		return err
	}
	may, err := s.auth.Readable(ctx, auth.From(ctx))
	if err != nil {
		return err
	}
	list, looked := []api.Image{}, 0
	for i, err := range s.images.All(ctx, q) {
		if err != nil {
			return err
		}
		if looked++; looked > maxNewest || len(list) >= limit {
			break
		}
		if !want(&i.Value) {
			continue
		}
		k, err := s.containers.Get(ctx, i.Value.Container)
		if err != nil && !missing(err) {
			return err
		}
		if err != nil || !k.Value.DeletedAt.IsZero() {
			continue
		}
		if o, err := s.object(ctx, &k.Value); err == nil && may.May(o) {
			list = append(list, s.shown(&i.Value, s.withDownloads(&k.Value)))
		}
	}
	answerPage(w, list, "")
	return nil
}

// listEntities lists the entities that the caller may read.
func (s *Service) listEntities(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	after, limit, err := page(r)
	if err != nil {
		return err
	}
	may, err := s.auth.Readable(ctx, auth.From(ctx))
	if err != nil {
		return err
	}
	items, next, err := s.entities.List(ctx, store.Query{Index: "name", After: after, Limit: limit})
	if err != nil {
		return err
	}
	list := []api.Entity{}
	for _, i := range items {
		if may.May(i.Value.object()) {
			list = append(list, i.Value.answer())
		}
	}
	answerPage(w, list, next)
	return nil
}

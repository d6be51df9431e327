package library

import (
	"context"
	"net/http"
	"path"
	"slices"
	"time"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

func checkRetention(p *api.Retention) error {
	if p.KeepLast < 0 || p.Days < 0 || p.KeepLast > maxImages || p.Days > 36500 {
		return route.Errorf(http.StatusBadRequest, "keepLast and days are numbers from 0")
	}
	return checkPatterns(p.KeepTags)
}

// retain tells what a rule would delete now, and deletes it unless dryRun. A
// rule that comes along is looked at without being kept.
func (s *Service) retain(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Retention *api.Retention
		DryRun    bool
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	name, err := pathOf(r, "entity", "collection", "container")
	if err != nil {
		return err
	}
	action := auth.Delete
	if body.DryRun {
		action = auth.Read
	} else if err := s.deletable(w); err != nil {
		return err
	}
	k, err := s.containerFor(ctx, action, name)
	if err != nil {
		return err
	}
	rule := body.Retention
	if rule == nil {
		rule = k.Value.Retention
	}
	if rule == nil {
		return route.Errorf(http.StatusBadRequest, "the container %s has no rule of retention", name)
	}
	if err := checkRetention(rule); err != nil {
		return err
	}
	old, err := s.outlived(ctx, &k.Value, rule)
	if err != nil {
		return err
	}
	list := []api.Image{}
	for _, i := range old {
		list = append(list, s.shown(&i.Value, &k.Value))
		if !body.DryRun {
			if err := s.remove(ctx, &k.Value, i, auth.From(ctx).Name, s.now().UTC()); err != nil {
				return err
			}
		}
	}
	route.Data(w, list)
	return nil
}

// outlived lists the images that a rule no longer keeps.
func (s *Service) outlived(ctx context.Context, k *container, rule *api.Retention) ([]store.Item[image], error) {
	if rule.KeepLast == 0 && rule.Days == 0 {
		return nil, nil
	}
	var all []store.Item[image]
	for i, err := range s.images.All(ctx, store.Query{Index: "container", Equal: k.ID}) {
		if err != nil {
			return nil, err
		}
		if i.Value.there() {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b store.Item[image]) int { return b.Value.UploadedAt.Compare(a.Value.UploadedAt) })
	newer := map[string]int{}
	var old []store.Item[image]
	for _, i := range all {
		arch := i.Value.Content.Arch
		newer[arch]++
		switch {
		case rule.KeepLast > 0 && newer[arch] <= rule.KeepLast:
		case rule.Days > 0 && s.now().Sub(i.Value.UploadedAt) < time.Duration(rule.Days)*24*time.Hour:
		case slices.ContainsFunc(k.tagsOf(i.Key), func(tag string) bool { return k.immutable(tag) || matches(rule.KeepTags, tag) }):
		default:
			old = append(old, i)
		}
	}
	return old, nil
}

func matches(patterns []string, tag string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, err := path.Match(p, tag); return ok && err == nil })
}

// retainAll applies the rules of all containers.
func (s *Service) retainAll(ctx context.Context) error {
	if s.o.NoDelete {
		return nil
	}
	for k, err := range s.containers.All(ctx, store.Query{Index: "retained", Equal: "yes"}) {
		if err != nil {
			return err
		}
		if k.Value.ReadOnly {
			continue
		}
		old, err := s.outlived(ctx, &k.Value, k.Value.Retention)
		if err != nil {
			return err
		}
		for _, i := range old {
			if err := s.remove(ctx, &k.Value, i, "retention", s.now().UTC()); err != nil {
				return err
			}
		}
	}
	return nil
}

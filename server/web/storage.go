package web

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type storageView struct {
	page.Frame
	Message string
	Owners  []api.Entity
	Total   int64
	System  api.System
	Got     *api.Collected // of a collection that was just asked for
	Runs    []auth.Event
}

// owners are the entities with what they store, the largest first.
func (s *Service) owners(ctx context.Context) (all []api.Entity, err error) {
	e, err := list[api.Entity](s, ctx, "/v1/entities?limit=1000")
	for _, one := range e.Data {
		full, err := get[api.Entity](s, ctx, path("/v1/entities/", one.Name))
		if err != nil {
			return nil, err
		}
		all = append(all, full)
	}
	slices.SortStableFunc(all, func(a, b api.Entity) int { return cmp.Compare(b.Size, a.Size) })
	return all, err
}

func (s *Service) storageView(r *http.Request) (storageView, error) {
	ctx := r.Context()
	v := storageView{Frame: auth.FrameOf(ctx, "Storage", "admin")}
	err := administrator(ctx)
	if err != nil {
		return v, err
	}
	if v.Owners, err = s.owners(ctx); err != nil {
		return v, err
	}
	for _, e := range v.Owners {
		v.Total += e.Size
	}
	if v.System, err = get[api.System](s, ctx, "/v1/admin/system"); err != nil {
		return v, err
	}
	l, err := list[auth.Event](s, ctx, "/v1/admin/audit?limit=5&action=gc.run")
	v.Runs = l.Data
	return v, err
}

// storage shows who stores how much, quotas, and what could be freed.
func (s *Service) storage(w http.ResponseWriter, r *http.Request) error {
	v, err := s.storageView(r)
	if err != nil {
		return err
	}
	return show(w, "storage.html", v)
}

// storageForm sets a quota, or frees what nobody needs.
func (s *Service) storageForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := administrator(ctx); err != nil {
		return err
	}
	var got *api.Collected
	var err error
	switch do := r.PostFormValue("do"); do {
	case "quota":
		err = s.setQuota(ctx, strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("mib"))
	case "gc", "dry":
		var e api.Envelope[api.Collected]
		err = s.call(ctx, http.MethodPost, "/v1/admin/gc", map[string]bool{"dryRun": do == "dry"}, &e)
		got = &e.Data
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	view := func(message string) (any, error) {
		v, err := s.storageView(r)
		v.Message = message
		if message == "" {
			v.Got = got
		}
		return v, err
	}
	if err != nil {
		return s.sayAgain(w, err, "storage.html", view)
	}
	if got != nil {
		v, err := view("")
		if err != nil {
			return err
		}
		return show(w, "storage.html", v)
	}
	http.Redirect(w, r, "/admin/storage", http.StatusSeeOther)
	return nil
}

func (s *Service) setQuota(ctx context.Context, name, text string) error {
	mib, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || mib < -1 || mib > 1<<40 {
		return route.Errorf(http.StatusBadRequest, "a quota is a number of MiB; 0 for no limit, -1 for the default")
	}
	if mib > 0 {
		mib <<= 20
	}
	return s.call(ctx, http.MethodPatch, path("/v1/entities/", name), map[string]int64{"quota": mib}, nil)
}

package web

import (
	"net/http"
	"net/url"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
)

// newest reads the newest images that the caller may see.
func (s *Service) newest(r *http.Request, limit string) ([]api.Image, error) {
	l, err := list[api.Image](s, r.Context(), "/v1/latest?limit="+limit)
	return l.Data, err
}

func (s *Service) home(w http.ResponseWriter, r *http.Request) error {
	v := struct {
		page.Frame
		Images   []api.Image
		Entities []api.Entity
		URL      string
		Host     string
	}{Frame: auth.FrameOf(r.Context(), "Home", "home"), URL: s.url, Host: s.host()}
	var err error
	if v.Images, err = s.newest(r, "12"); err != nil {
		return err
	}
	l, err := list[api.Entity](s, r.Context(), "/v1/entities?limit=24")
	if err != nil {
		return err
	}
	v.Entities = l.Data
	return show(w, "home.html", v)
}

func (s *Service) host() string {
	_, host, _ := strings.Cut(s.url, "://")
	return host
}

// explore is the search; without a question it shows what is new.
func (s *Service) explore(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	v := struct {
		page.Frame
		Arch, Signed string
		Archs        []string
		Found        *api.Search
		Newest       []api.Image
		Message      string
	}{Frame: auth.FrameOf(r.Context(), "Library", "library"), Arch: q.Get("arch"), Signed: q.Get("signed"),
		Archs: []string{"amd64", "arm64", "ppc64le", "riscv64", "s390x"}}
	v.Search = strings.TrimSpace(q.Get("q"))
	var err error
	switch {
	case v.Search == "":
		v.Newest, err = s.newest(r, "60")
		v.Newest = filter(v.Newest, v.Arch, v.Signed)
	case len(v.Search) < 3:
		v.Message = "A search needs at least 3 characters."
	default:
		found, e := get[api.Search](s, r.Context(), "/v1/search?"+url.Values{"value": {v.Search}, "arch": {v.Arch}, "signed": {v.Signed}}.Encode())
		v.Found, err = &found, e
		v.Title = "Search: " + v.Search
	}
	if err != nil {
		return err
	}
	return show(w, "explore.html", v)
}

func filter(in []api.Image, arch, signed string) (out []api.Image) {
	for _, i := range in {
		if (arch == "" || i.Arch == arch) && (signed != "true" || i.Signed != nil && *i.Signed) {
			out = append(out, i)
		}
	}
	return out
}

func (s *Service) entity(w http.ResponseWriter, r *http.Request) error {
	ctx, name := r.Context(), r.PathValue("entity")
	v := struct {
		page.Frame
		Entity      api.Entity
		Collections []api.Collection
		Next        string
		Mine        bool // there is nothing yet, and it is the caller's to begin
		May         rights
		Host        string
		Percent     int64
	}{Frame: auth.FrameOf(ctx, name, "library"), Host: s.host()}
	var err error
	v.Entity, err = get[api.Entity](s, ctx, path("/v1/entities/", name))
	if missing(err) && v.User == name {
		v.Mine, v.Entity = true, api.Entity{Name: name}
		return show(w, "entity.html", v)
	}
	if err != nil {
		return err
	}
	l, err := list[api.Collection](s, ctx, path("/v1/entities/", name, "collections")+"?"+url.Values{"after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	v.Collections, v.Next = l.Data, l.Page.Next
	v.May = s.rights(ctx, auth.Object{Entity: name, Public: !v.Entity.DefaultPrivate})
	if v.Entity.Quota > 0 {
		v.Percent = min(100, v.Entity.Size*100/v.Entity.Quota)
	}
	return show(w, "entity.html", v)
}

func (s *Service) collection(w http.ResponseWriter, r *http.Request) error {
	ctx, entity, name := r.Context(), r.PathValue("entity"), r.PathValue("collection")
	v := struct {
		page.Frame
		Collection api.Collection
		Containers []api.Container
		Next       string
		May        rights
		Host       string
	}{Frame: auth.FrameOf(ctx, entity+"/"+name, "library"), Host: s.host()}
	var err error
	if v.Collection, err = get[api.Collection](s, ctx, path("/v1/collections/", entity, name)); err != nil {
		return err
	}
	l, err := list[api.Container](s, ctx, path("/v1/collections/", entity, name, "containers")+"?"+url.Values{"after": {r.FormValue("after")}}.Encode())
	if err != nil {
		return err
	}
	v.Containers, v.Next = l.Data, l.Page.Next
	v.May = s.rights(ctx, collectionObject(v.Collection))
	return show(w, "collection.html", v)
}

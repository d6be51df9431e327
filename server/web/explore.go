package web

import (
	"cmp"
	"html/template"
	"net/http"
	"net/url"
	"slices"
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
		shown
		Archs   []string
		Sorts   [][2]string
		Found   *api.Search
		Newest  []api.Image
		Message string
		Host    string
	}{Frame: auth.FrameOf(r.Context(), "Library", "library"), shown: shown{q.Get("arch"), q.Get("signed"), q.Get("encrypted"), q.Get("sort")}, Host: s.host(),
		Archs: []string{"amd64", "arm64", "ppc64le", "riscv64", "s390x"}, Sorts: [][2]string{{"", "newest"}, {"name", "name"}, {"size", "size"}, {"downloads", "downloads"}}}
	v.Search = strings.TrimSpace(q.Get("q"))
	var err error
	switch {
	case v.Search == "":
		v.Newest, err = s.newest(r, "60")
		v.Newest = v.images(v.Newest)
	case len(v.Search) < 3:
		v.Message = "A search needs at least 3 characters."
	default:
		found, e := get[api.Search](s, r.Context(), "/v1/search?"+url.Values{"value": {v.Search}, "arch": {v.Arch}, "signed": {strings.ReplaceAll(v.Signed, "known", "true")}}.Encode())
		found.Images = v.images(found.Images)
		v.Found, err = &found, e
		v.Title = "Search: " + v.Search
	}
	if err != nil {
		return err
	}
	return show(w, "explore.html", v)
}

// shown is which images a list shows, and in which order.
type shown struct{ Arch, Signed, Encrypted, Sort string }

// images are those of a list, the newest first, that are to be shown.
func (f shown) images(in []api.Image) (out []api.Image) {
	for _, i := range in {
		signed := i.Signed != nil && *i.Signed
		if (f.Arch == "" || i.Arch == f.Arch) && (f.Signed == "" || f.Signed == "true" && signed || f.Signed == "known" && len(i.Fingerprints) > 0 || f.Signed == "false" && !signed) && (f.Encrypted == "" || i.Encrypted) {
			out = append(out, i)
		}
	}
	switch f.Sort {
	case "name":
		slices.SortStableFunc(out, func(a, b api.Image) int {
			return cmp.Or(cmp.Compare(a.ContainerName, b.ContainerName), cmp.Compare(a.EntityName, b.EntityName), cmp.Compare(a.CollectionName, b.CollectionName))
		})
	case "size":
		slices.SortStableFunc(out, func(a, b api.Image) int { return cmp.Compare(b.Size, a.Size) })
	case "downloads":
		slices.SortStableFunc(out, func(a, b api.Image) int { return cmp.Compare(b.ContainerDownloads, a.ContainerDownloads) })
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
		Text       template.HTML
		Next       string
		May        rights
		Host       string
	}{Frame: auth.FrameOf(ctx, entity+"/"+name, "library"), Host: s.host()}
	var err error
	v.Collection, err = get[api.Collection](s, ctx, path("/v1/collections/", entity, name))
	if missing(err) && entity == "default" {
		// As in references, where library/default is understood.
		http.Redirect(w, r, path("/library/library/default/", name), http.StatusSeeOther)
		return nil
	}
	if err != nil {
		return err
	}
	if v.Text, err = render(v.Collection.FullDescription); err != nil {
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

package web

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// formView is a page with a form. What a service refuses is shown above the form
// with all that was typed still in it.
type formView struct {
	page.Frame
	Message     string
	Action      string
	Kind        string // entity, collection, container or image
	In          string // where a new one goes
	Path        string
	Owners      []string
	Name        string
	Description string
	Full        string
	Preview     template.HTML
	Private     bool
	ReadOnly    bool
	Immutable   string
	Days, Keep  int
	KeepTags    string
	Quota       string
	Manage      bool
	Gone        gone
}

// gone is what a deletion takes away.
type gone struct {
	Images int
	Size   int64
	Tags   []string
}

func (v *formView) read(r *http.Request) {
	v.Name, v.Description = strings.TrimSpace(r.PostFormValue("name")), strings.TrimSpace(r.PostFormValue("description"))
	v.Full = strings.ReplaceAll(r.PostFormValue("full"), "\r\n", "\n")
	v.Private, v.ReadOnly = r.PostFormValue("private") != "", r.PostFormValue("readonly") != ""
	v.Immutable, v.KeepTags, v.Quota = r.PostFormValue("immutable"), r.PostFormValue("keeptags"), strings.TrimSpace(r.PostFormValue("quota"))
	v.Days, _ = strconv.Atoi(r.PostFormValue("days"))
	v.Keep, _ = strconv.Atoi(r.PostFormValue("keep"))
}

// again shows a form once more with what is wrong.
func again(w http.ResponseWriter, name string, v formView, err error) error {
	var e *route.Error
	if !errors.As(err, &e) || e.Status >= 500 || e.Status == http.StatusNotFound {
		return err
	}
	v.Message = e.Message
	return page.Write(w, templates, e.Status, name, v)
}

// newPage asks for a new collection, or with ?in=ENTITY/COLLECTION for a new
// container.
func (s *Service) newPage(w http.ResponseWriter, r *http.Request) error {
	v, err := s.newView(r, r.FormValue("in"))
	if err != nil {
		return err
	}
	return show(w, "new.html", v)
}

func (s *Service) newView(r *http.Request, in string) (formView, error) {
	c, err := person(r.Context())
	v := formView{Frame: auth.FrameOf(r.Context(), "New collection", "library"), Kind: "collection", In: in}
	if strings.Contains(in, "/") {
		v.Kind, v.Title = "container", "New container"
	}
	v.Owners = []string{c.Name}
	for _, g := range c.Groups() {
		v.Owners = append(v.Owners, g.Name)
	}
	if v.In == "" {
		v.In = c.Name
	}
	if known := len(v.Owners); v.Kind == "collection" && v.In != c.Name {
		v.Owners = append(v.Owners[:known], v.In)
	}
	return v, err
}

func (s *Service) newForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v, err := s.newView(r, r.PostFormValue("in"))
	if err != nil {
		return err
	}
	v.read(r)
	at := ""
	if v.Kind == "container" {
		at, err = s.addContainer(ctx, v)
	} else {
		at, err = s.addCollection(ctx, v)
	}
	if err != nil {
		return again(w, "new.html", v, err)
	}
	http.Redirect(w, r, at, http.StatusSeeOther)
	return nil
}

// addCollection makes a collection, and the entity if this is its first.
func (s *Service) addCollection(ctx context.Context, v formView) (string, error) {
	e, err := get[api.Entity](s, ctx, path("/v1/entities/", v.In))
	if missing(err) {
		var made api.Envelope[api.Entity]
		err = s.call(ctx, http.MethodPost, "/v1/entities", map[string]string{"name": v.In}, &made)
		e = made.Data
	}
	if err != nil {
		return "", err
	}
	if _, err := get[api.Collection](s, ctx, path("/v1/collections/", v.In, v.Name)); err == nil {
		return "", route.Errorf(http.StatusConflict, "there is a collection %s/%s already", v.In, v.Name)
	}
	err = s.call(ctx, http.MethodPost, "/v1/collections", map[string]any{"name": v.Name, "description": v.Description, "entity": e.ID, "private": v.Private}, nil)
	return path("/library/", v.In, v.Name), err
}

func (s *Service) addContainer(ctx context.Context, v formView) (string, error) {
	entity, collection, _ := strings.Cut(v.In, "/")
	c, err := get[api.Collection](s, ctx, path("/v1/collections/", entity, collection))
	if err != nil {
		return "", err
	}
	if _, err := get[api.Container](s, ctx, path("/v1/containers/", entity, collection, v.Name)); err == nil {
		return "", route.Errorf(http.StatusConflict, "there is a container %s/%s already", v.In, v.Name)
	}
	err = s.call(ctx, http.MethodPost, "/v1/containers", map[string]any{"name": v.Name, "description": v.Description, "fullDescription": v.Full, "private": v.Private, "collection": c.ID}, nil)
	return path("/library/", entity, collection, v.Name), err
}

// kinds are the routes of a thing by the number of parts in its path.
var kinds = map[int][2]string{1: {"entity", "/v1/entities/"}, 2: {"collection", "/v1/collections/"}, 3: {"container", "/v1/containers/"}}

// target reads the path of what a form is about.
func target(r *http.Request) (kind, address string, parts []string, err error) {
	parts = strings.Split(r.PathValue("path"), "/")
	k, ok := kinds[len(parts)]
	if !ok {
		return "", "", nil, route.Errorf(http.StatusNotFound, "not found")
	}
	return k[0], path(k[1], append([]string{}, parts...)...), parts, nil
}

func (s *Service) editPage(w http.ResponseWriter, r *http.Request) error {
	v, err := s.editView(r)
	if err != nil {
		return err
	}
	return show(w, "edit.html", v)
}

// editView reads what is to be edited.
func (s *Service) editView(r *http.Request) (formView, error) {
	ctx := r.Context()
	if _, err := person(ctx); err != nil {
		return formView{}, err
	}
	kind, address, parts, err := target(r)
	if err != nil {
		return formView{}, err
	}
	v := formView{Frame: auth.FrameOf(ctx, "Edit "+r.PathValue("path"), "library"), Kind: kind, Path: r.PathValue("path"), Action: path("/edit/", append([]string{}, parts...)...)}
	var o auth.Object
	switch kind {
	case "entity":
		e, err := get[api.Entity](s, ctx, address)
		if err != nil {
			return v, err
		}
		o = auth.Object{Entity: e.Name}
		v.Description, v.Private = e.Description, e.DefaultPrivate
	case "collection":
		c, err := get[api.Collection](s, ctx, address)
		if err != nil {
			return v, err
		}
		o = collectionObject(c)
		v.Description, v.Full, v.Private = c.Description, c.FullDescription, c.Private
	default:
		k, err := get[api.Container](s, ctx, address)
		if err != nil {
			return v, err
		}
		o = containerObject(k)
		v.Description, v.Full, v.Private, v.ReadOnly, v.Immutable = k.Description, k.FullDescription, k.Private, k.ReadOnly, strings.Join(k.ImmutableTags, " ")
		if k.Retention != nil {
			v.Days, v.Keep, v.KeepTags = k.Retention.Days, k.Retention.KeepLast, strings.Join(k.Retention.KeepTags, " ")
		}
	}
	if v.Description == "No description" {
		v.Description = ""
	}
	v.Manage = s.may(ctx, auth.Manage, o)
	return v, nil
}

func (s *Service) editForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	v, err := s.editView(r)
	if err != nil {
		return err
	}
	v.read(r)
	if r.PostFormValue("preview") != "" {
		if v.Preview, err = render(v.Full); err != nil {
			return err
		}
		return show(w, "edit.html", v)
	}
	body := map[string]any{"description": v.Description}
	if v.Kind != "entity" {
		body["fullDescription"] = v.Full
	}
	if v.Manage {
		manage(body, v)
	}
	_, address, parts, _ := target(r)
	if err := s.call(ctx, http.MethodPatch, address, body, nil); err != nil {
		return again(w, "edit.html", v, err)
	}
	http.Redirect(w, r, path("/library/", parts...), http.StatusSeeOther)
	return nil
}

// manage adds what only maintainers may change.
func manage(body map[string]any, v formView) {
	switch v.Kind {
	case "entity":
		body["defaultPrivate"] = v.Private
	case "collection":
		body["private"] = v.Private
	default:
		body["private"], body["readOnly"] = v.Private, v.ReadOnly
		body["immutableTags"] = append([]string{}, strings.Fields(v.Immutable)...)
		body["retention"] = api.Retention{Days: v.Days, KeepLast: v.Keep, KeepTags: strings.Fields(v.KeepTags)}
	}
}

// doomed is what a deletion is about.
func doomed(r *http.Request) (formView, string, error) {
	full := r.PathValue("path")
	v := formView{Frame: auth.FrameOf(r.Context(), "Delete "+full, "library"), Path: full, Action: path("/delete/", strings.Split(full, "/")...)}
	if _, err := person(r.Context()); err != nil {
		return v, "", err
	}
	if name, ref, ok := strings.Cut(full, ":"); ok {
		v.Kind = "image"
		return v, path("/v1/images/", strings.Split(name, "/")...) + ":" + path("", ref), nil
	}
	kind, address, _, err := target(r)
	if v.Kind = kind; kind == "entity" {
		err = route.Errorf(http.StatusNotFound, "not found")
	}
	return v, address, err
}

// deletePage asks before something goes: with scripts or without.
func (s *Service) deletePage(w http.ResponseWriter, r *http.Request) error {
	v, address, err := doomed(r)
	if err != nil {
		return err
	}
	a, err := s.send(r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if v.Gone, err = s.gone(r.Context(), v, address, a); err != nil {
		return err
	}
	return show(w, "delete.html", v)
}

// gone counts what goes with a thing that is to be deleted.
func (s *Service) gone(ctx context.Context, v formView, address string, a *route.Answer) (gone, error) {
	switch v.Kind {
	case "image":
		var i api.Envelope[api.Image]
		err := json.Unmarshal(a.Body.Bytes(), &i)
		return gone{1, i.Data.Size, i.Data.Tags}, err
	case "container":
		l, err := list[api.Image](s, ctx, address+"/images?limit=1000")
		g := gone{Images: len(l.Data)}
		for _, i := range l.Data {
			g.Size += i.Size
			g.Tags = append(g.Tags, i.Tags...)
		}
		return g, err
	}
	return gone{}, nil
}

func (s *Service) deleteForm(w http.ResponseWriter, r *http.Request) error {
	v, address, err := doomed(r)
	if err != nil {
		return err
	}
	if err := s.call(r.Context(), http.MethodDelete, address, nil, nil); err != nil {
		return again(w, "delete.html", v, err)
	}
	up, _, image := strings.Cut(v.Path, ":")
	if !image {
		up = up[:strings.LastIndexByte(up, '/')]
	}
	http.Redirect(w, r, path("/library/", strings.Split(up, "/")...), http.StatusSeeOther)
	return nil
}

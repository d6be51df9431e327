package library

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

func missing(err error) bool { return errors.Is(err, store.ErrNotFound) }

// hide makes of a missing object the answer that a hidden one has.
func hide(ctx context.Context, err error) error {
	if missing(err) {
		return auth.From(ctx).NotFound()
	}
	return err
}

func (e *entity) object() auth.Object {
	return auth.Object{Entity: e.Name, Public: !e.DefaultPrivate}
}

func (c *collection) object() auth.Object {
	return auth.Object{Entity: c.EntityName, Within: []string{c.ID}, Public: !c.Private}
}

// object is the container as what a right is about.
func (s *Service) object(ctx context.Context, k *container) (auth.Object, error) {
	c, err := s.collections.Get(ctx, k.Collection)
	if err != nil {
		return auth.Object{}, err
	}
	return auth.Object{Entity: k.EntityName, Within: []string{k.Collection, k.ID}, Public: !k.Private && !c.Value.Private}, nil
}

func (s *Service) allow(ctx context.Context, a auth.Action, o auth.Object) error {
	return s.auth.Allow(ctx, auth.From(ctx), a, o)
}

// entityFor returns the entity for an action.
func (s *Service) entityFor(ctx context.Context, a auth.Action, name string) (store.Item[entity], error) {
	e, err := s.entities.Find(ctx, "name", name)
	if err != nil {
		return e, hide(ctx, err)
	}
	err = s.allow(ctx, a, e.Value.object())
	if err != nil && a == auth.Read && s.within(ctx, s.visibleCollection, e.Key) {
		err = nil
	}
	return e, err
}

// within tells whether the caller may read something in a thing that is hidden
// from them as a whole: whoever got a role at a container gets there by the
// names above it.
func (s *Service) within(ctx context.Context, visible func(context.Context, auth.Readable, string) (bool, error), id string) bool {
	may, err := s.auth.Readable(ctx, auth.From(ctx))
	if err != nil {
		return false
	}
	found, err := visible(ctx, may, id)
	return err == nil && found
}

func (s *Service) visibleCollection(ctx context.Context, may auth.Readable, entity string) (bool, error) {
	for c, err := range s.collections.All(ctx, store.Query{Index: "entity", Equal: entity}) {
		if err != nil {
			return false, err
		}
		if may.May(c.Value.object()) {
			return true, nil
		}
		if len(may.IDs) == 0 {
			continue
		}
		if found, err := s.visibleContainer(ctx, may, c.Key); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// visibleContainer looks for one in a collection that is hidden, so that only a
// role of its own counts.
func (s *Service) visibleContainer(ctx context.Context, may auth.Readable, collection string) (bool, error) {
	if len(may.IDs) == 0 {
		return false, nil
	}
	for k, err := range s.containers.All(ctx, store.Query{Index: "collection", Equal: collection}) {
		if err != nil || may.IDs[k.Key] {
			return err == nil, err
		}
	}
	return false, nil
}

// collectionFor returns the collection for an action.
func (s *Service) collectionFor(ctx context.Context, a auth.Action, path string) (store.Item[collection], error) {
	c, err := s.collections.Find(ctx, "path", path)
	if err != nil {
		return c, hide(ctx, err)
	}
	err = s.allow(ctx, a, c.Value.object())
	if err != nil && a == auth.Read && s.within(ctx, s.visibleContainer, c.Key) {
		err = nil
	}
	return c, err
}

// containerFor returns the container for an action.
func (s *Service) containerFor(ctx context.Context, a auth.Action, path string) (store.Item[container], error) {
	k, err := s.containers.Find(ctx, "path", path)
	if err != nil {
		return k, hide(ctx, err)
	}
	return k, s.allowContainer(ctx, a, &k.Value)
}

// containerByID is containerFor with an id.
func (s *Service) containerByID(ctx context.Context, a auth.Action, id string) (store.Item[container], error) {
	if !idName.MatchString(id) {
		return store.Item[container]{}, auth.From(ctx).NotFound()
	}
	k, err := s.containers.Get(ctx, id)
	if err == nil && !k.Value.DeletedAt.IsZero() {
		err = store.ErrNotFound
	}
	if err != nil {
		return k, hide(ctx, err)
	}
	return k, s.allowContainer(ctx, a, &k.Value)
}

func (s *Service) allowContainer(ctx context.Context, a auth.Action, k *container) error {
	o, err := s.object(ctx, k)
	if err != nil {
		return hide(ctx, err)
	}
	if err := s.allow(ctx, a, o); err != nil {
		return err
	}
	if k.ReadOnly && (a == auth.Create || a == auth.Write || a == auth.Delete) {
		return route.Errorf(http.StatusForbidden, "the container %s is read-only", k.path())
	}
	return nil
}

func (s *Service) getEntity(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	name, err := pathOf(r, "entity")
	if err != nil {
		return err
	}
	e, err := s.entityFor(ctx, auth.Read, name)
	if err != nil {
		return err
	}
	a := e.Value.answer()
	// What is in use would tell strangers of private images.
	if role, err := s.auth.Role(ctx, auth.From(ctx), e.Value.object()); err == nil && role.AtLeast(auth.Reader) {
		q, err := s.quotaOf(ctx, e.Value.ID)
		if err != nil {
			return err
		}
		a.Size, a.Quota = q.Usage, q.Total
	}
	route.Data(w, a)
	return nil
}

func (s *Service) createEntity(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Name, Description string }
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	if err := checkPart(body.Name); err != nil {
		return err
	}
	e, err := s.addEntity(ctx, body.Name, body.Description)
	if err != nil {
		return err
	}
	route.Data(w, e.Value.answer())
	return nil
}

// addEntity makes an entity: everybody their own, administrators any. One that
// is there already is as good.
func (s *Service) addEntity(ctx context.Context, name, description string) (store.Item[entity], error) {
	c := auth.From(ctx)
	none := store.Item[entity]{}
	// The object is public, so that the answer tells nothing of what is there.
	if err := s.allow(ctx, auth.Create, auth.Object{Entity: name, Public: true}); err != nil {
		return none, err
	}
	if a, err := s.auth.Account(ctx, name); missing(err) || err == nil && !a.Active() {
		if !c.Admin || err == nil {
			return none, route.Errorf(http.StatusForbidden, "not allowed")
		}
		if err := auth.CheckName(name); err != nil && name != "library" {
			return none, err
		}
	} else if err != nil {
		return none, err
	}
	description, err := clean(description, maxDescription, false)
	if err != nil {
		return none, err
	}
	e := entity{ID: store.NewID(), Name: name, Description: description, CreatedBy: c.Name, CreatedAt: s.now().UTC()}
	i, err := s.entities.Insert(ctx, e.ID, e)
	if errors.Is(err, store.ErrExists) {
		return s.entities.Find(ctx, "name", name)
	}
	if err == nil {
		s.auth.Audit(ctx, "entity.create", name, nil, nil)
	}
	return i, err
}

func (s *Service) getCollection(w http.ResponseWriter, r *http.Request) error {
	path, err := pathOf(r, "entity", "collection")
	if err != nil {
		return err
	}
	c, err := s.collectionFor(r.Context(), auth.Read, path)
	if err != nil {
		return err
	}
	route.Data(w, c.Value.answer())
	return nil
}

func (s *Service) createCollection(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name, Description, Entity string
		Private                   bool
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	if err := checkPart(body.Name); err != nil {
		return err
	}
	if !idName.MatchString(body.Entity) {
		return auth.From(ctx).NotFound()
	}
	e, err := s.entities.Get(ctx, body.Entity)
	if err != nil {
		return hide(ctx, err)
	}
	c, err := s.addCollection(ctx, &e.Value, body.Name, body.Description, body.Private)
	if err != nil {
		return err
	}
	route.Data(w, c.Value.answer())
	return nil
}

func (s *Service) addCollection(ctx context.Context, e *entity, name, description string, private bool) (store.Item[collection], error) {
	old, err := s.collections.Find(ctx, "path", e.Name+"/"+name)
	if err == nil && s.allow(ctx, auth.Create, old.Value.object()) == nil {
		return old, nil
	}
	if err != nil && !missing(err) {
		return old, err
	}
	// Whoever may not make one hears the same whether it is there or not.
	if err := s.allow(ctx, auth.Create, e.object()); err != nil {
		return old, err
	}
	if description, err = clean(description, maxDescription, false); err != nil {
		return old, err
	}
	c := collection{ID: store.NewID(), Name: name, Entity: e.ID, EntityName: e.Name, Description: description, Private: private || e.DefaultPrivate,
		CreatedBy: auth.From(ctx).Name, CreatedAt: s.now().UTC()}
	i, err := s.collections.Insert(ctx, c.ID, c)
	if errors.Is(err, store.ErrExists) {
		return s.collections.Find(ctx, "path", c.path())
	}
	if err == nil {
		s.auth.Audit(ctx, "collection.create", c.path(), nil, map[string]string{"private": strconv.FormatBool(c.Private)})
	}
	return i, err
}

func (s *Service) getContainer(w http.ResponseWriter, r *http.Request) error {
	path, err := pathOf(r, "entity", "collection", "container")
	if err != nil {
		return err
	}
	k, err := s.containerFor(r.Context(), auth.Read, path)
	if err != nil {
		return err
	}
	route.Data(w, s.withDownloads(&k.Value).answer())
	return nil
}

func (s *Service) createContainer(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Name, Description, FullDescription, Collection string
		Private                                        bool
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	if err := checkPart(body.Name); err != nil {
		return err
	}
	if !idName.MatchString(body.Collection) {
		return auth.From(ctx).NotFound()
	}
	c, err := s.collections.Get(ctx, body.Collection)
	if err != nil {
		return hide(ctx, err)
	}
	k, err := s.addContainer(ctx, &c.Value, container{Name: body.Name, Description: body.Description, FullDescription: body.FullDescription, Private: body.Private})
	if err != nil {
		return err
	}
	route.Data(w, k.Value.answer())
	return nil
}

// addContainer makes a container of the name, the descriptions and the privacy
// of k.
func (s *Service) addContainer(ctx context.Context, c *collection, k container) (store.Item[container], error) {
	old, err := s.containers.Find(ctx, "path", c.path()+"/"+k.Name)
	if err == nil && s.allowContainer(ctx, auth.Create, &old.Value) == nil {
		return old, nil
	}
	if err != nil && !missing(err) {
		return old, err
	}
	if err := s.allow(ctx, auth.Create, c.object()); err != nil {
		return old, err
	}
	if k.Description, err = clean(k.Description, maxDescription, false); err != nil {
		return old, err
	}
	if k.FullDescription, err = clean(k.FullDescription, maxFullDescription, true); err != nil {
		return old, err
	}
	k.ID, k.Entity, k.EntityName, k.Collection, k.CollectionName = store.NewID(), c.Entity, c.EntityName, c.ID, c.Name
	k.CreatedBy, k.CreatedAt = auth.From(ctx).Name, s.now().UTC()
	i, err := s.containers.Insert(ctx, k.ID, k)
	if errors.Is(err, store.ErrExists) {
		if i, err = s.containers.Find(ctx, "path", k.path()); err == nil {
			err = s.allowContainer(ctx, auth.Create, &i.Value)
		}
		return i, err
	}
	if err == nil {
		s.auth.Audit(ctx, "container.create", k.path(), nil, map[string]string{"private": strconv.FormatBool(k.Private)})
	}
	return i, err
}

// page reads the bounds of a listing.
func page(r *http.Request) (after string, limit int, err error) {
	limit = 100
	if text := r.URL.Query().Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > store.MaxPage {
			return "", 0, route.Errorf(http.StatusBadRequest, "limit is a number from 1 to %d", store.MaxPage)
		}
	}
	return r.URL.Query().Get("after"), limit, nil
}

// answerPage answers with a part of a list.
func answerPage[T any](w http.ResponseWriter, list []T, next string) {
	route.JSON(w, http.StatusOK, api.Listing[T]{Data: list, Page: api.Page{Next: next}})
}

func (s *Service) listCollections(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	name, err := pathOf(r, "entity")
	if err != nil {
		return err
	}
	e, err := s.entityFor(ctx, auth.Read, name)
	if err != nil {
		return err
	}
	return listReadable(s, w, r, s.collections, store.Query{Index: "entity", Equal: e.Value.ID}, func(c *collection) (auth.Object, api.Collection) {
		return c.object(), c.answer()
	})
}

func (s *Service) listContainers(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection")
	if err != nil {
		return err
	}
	c, err := s.collectionFor(ctx, auth.Read, path)
	if err != nil {
		return err
	}
	return listReadable(s, w, r, s.containers, store.Query{Index: "collection", Equal: c.Value.ID}, func(k *container) (auth.Object, api.Container) {
		o := auth.Object{Entity: k.EntityName, Within: []string{k.Collection, k.ID}, Public: !k.Private && !c.Value.Private}
		return o, s.withDownloads(k).answer()
	})
}

// listReadable answers with those things of a page of q that the caller may
// read; show tells what a right to one is about, and how it is shown.
func listReadable[T, A any](s *Service, w http.ResponseWriter, r *http.Request, from *store.Collection[T], q store.Query, show func(*T) (auth.Object, A)) (err error) {
	ctx := r.Context()
	if q.After, q.Limit, err = page(r); err != nil {
		return err
	}
	may, err := s.auth.Readable(ctx, auth.From(ctx))
	if err != nil {
		return err
	}
	items, next, err := from.List(ctx, q)
	if err != nil {
		return err
	}
	list := []A{}
	for _, i := range items {
		if o, answer := show(&i.Value); may.May(o) {
			list = append(list, answer)
		}
	}
	answerPage(w, list, next)
	return nil
}

// listImages lists the images of a container; with ?deleted=true those that can
// be restored, for who could do so.
func (s *Service) listImages(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection", "container")
	if err != nil {
		return err
	}
	after, limit, err := page(r)
	if err != nil {
		return err
	}
	action, q := auth.Read, store.Query{Index: "container", After: after, Limit: limit}
	if r.URL.Query().Get("deleted") == "true" {
		action, q.Index = auth.Delete, "bin"
	}
	k, err := s.containerFor(ctx, action, path)
	if err != nil {
		return err
	}
	q.Equal = k.Key
	items, next, err := s.images.List(ctx, q)
	if err != nil {
		return err
	}
	list := []api.Image{}
	for _, i := range items {
		if i.Value.Uploaded {
			list = append(list, s.shown(&i.Value, &k.Value))
		}
	}
	answerPage(w, list, next)
	return nil
}

package library

import (
	"context"
	"errors"
	"net/http"
	"time"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// deletable refuses deletion where the operator has switched it off, whatever
// the way (SC-141).
func (s *Service) deletable(w http.ResponseWriter) error {
	if s.o.NoDelete {
		w.Header().Set("Allow", "GET, HEAD")
		return route.Errorf(http.StatusMethodNotAllowed, "nothing can be deleted here: the administrator has switched it off")
	}
	return nil
}

func (s *Service) deleteImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	ref, err := parseReference(r)
	if err != nil {
		return err
	}
	if err := s.deletable(w); err != nil {
		return err
	}
	i, k, err := s.imageFor(ctx, auth.Delete, ref)
	if err != nil {
		return err
	}
	if !ref.isHash() && ref.arch == "" {
		return route.Errorf(http.StatusBadRequest, "name the architecture to delete: arch=amd64")
	}
	if err := s.remove(ctx, &k.Value, i, auth.From(ctx).Name, s.now().UTC()); err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

// remove deletes an image with its tags. The record of the image comes first:
// from then on a tag that names it is none.
func (s *Service) remove(ctx context.Context, k *container, i store.Item[image], by string, at time.Time) error {
	tags := k.archTagsOf(i.Key)
	for _, t := range tags {
		if k.immutable(t.Tag) {
			return route.Errorf(http.StatusForbidden, "the tag %q is immutable, so its image stays", t.Tag)
		}
	}
	size := i.Value.Content.Size
	if !i.Value.Uploaded {
		size = 0
	}
	err := s.charge(ctx, i.Value.Entity, -size, func() error {
		_, err := s.images.Update(ctx, i.Key, func(i *image) error {
			if !i.DeletedAt.IsZero() {
				return auth.From(ctx).NotFound()
			}
			i.DeletedAt, i.DeletedBy, i.DeletedTags = at, by, tags
			return nil
		})
		return err
	})
	if err == nil {
		_, err = s.untag(ctx, k.ID, i.Key)
	}
	for _, f := range s.removed {
		if err == nil {
			err = f(ctx, k.ID, i.Value.Hash)
		}
	}
	s.auth.Audit(ctx, "image.delete", i.Value.Path, err, map[string]string{"image": "sha256." + i.Value.Hash, "tags": tagNames(tags)})
	return err
}

// restoreImage undoes a deletion. Tags that have been given to another image
// meanwhile stay there.
func (s *Service) restoreImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	c := auth.From(ctx)
	id := r.PathValue("id")
	if !idName.MatchString(id) {
		return c.NotFound()
	}
	i, err := s.images.Get(ctx, id)
	if err != nil {
		return hide(ctx, err)
	}
	k, err := s.containerByID(ctx, auth.Delete, i.Value.Container)
	if err != nil {
		return err
	}
	if i.Value.DeletedAt.IsZero() || !i.Value.Uploaded {
		return c.NotFound()
	}
	if i, err = s.restore(ctx, k.Key, i); err != nil {
		return err
	}
	if k, err = s.containers.Get(ctx, k.Key); err != nil {
		return err
	}
	route.Data(w, s.shown(&i.Value, &k.Value))
	return nil
}

func (s *Service) restore(ctx context.Context, containerID string, i store.Item[image]) (store.Item[image], error) {
	tags := i.Value.DeletedTags
	err := s.charge(ctx, i.Value.Entity, i.Value.Content.Size, func() (err error) {
		i, err = s.images.Update(ctx, i.Key, func(i *image) error {
			if i.DeletedAt.IsZero() {
				return auth.From(ctx).NotFound()
			}
			i.DeletedAt, i.DeletedBy, i.DeletedTags = time.Time{}, "", nil
			return nil
		})
		return err
	})
	if errors.Is(err, store.ErrExists) {
		err = route.Errorf(http.StatusConflict, "the same image was pushed again meanwhile")
	}
	if err == nil {
		err = s.secure(ctx, i)
	}
	if err == nil {
		_, err = s.containers.Update(ctx, containerID, func(k *container) error {
			for _, t := range tags {
				if k.Tags == nil {
					k.Tags = map[string]map[string]string{}
				}
				if k.Tags[t.Arch] == nil {
					k.Tags[t.Arch] = map[string]string{}
				}
				if k.Tags[t.Arch][t.Tag] != "" || k.tags() >= maxTags {
					continue
				}
				k.Tags[t.Arch][t.Tag] = i.Key
				if err := s.logMove(ctx, k, t.Arch, t.Tag, "sha256:"+i.Value.Hash); err != nil {
					return err
				}
			}
			return nil
		})
	}
	s.auth.Audit(ctx, "image.restore", i.Value.Path, err, map[string]string{"image": "sha256." + i.Value.Hash})
	return i, err
}

// deleteContainer deletes a container with its images, which can be restored no
// more: that the name is free again counts more.
func (s *Service) deleteContainer(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection", "container")
	if err != nil {
		return err
	}
	if err := s.deletable(w); err != nil {
		return err
	}
	k, err := s.containerFor(ctx, auth.Manage, path)
	if err == nil {
		// Whoever deletes needs that right of the token too.
		err = s.allowContainer(ctx, auth.Delete, &k.Value)
	}
	if err != nil {
		return err
	}
	at := s.now().UTC()
	k, err = s.containers.Update(ctx, k.Key, func(k *container) error {
		for _, tags := range k.Tags {
			for tag := range tags {
				if k.immutable(tag) {
					return route.Errorf(http.StatusForbidden, "the tag %q is immutable, so its image stays", tag)
				}
			}
		}
		k.DeletedAt = at
		return s.logEnd(ctx, k)
	})
	if err == nil {
		err = s.empty(ctx, &k.Value, auth.From(ctx).Name)
	}
	s.auth.Audit(ctx, "container.delete", path, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

// empty deletes what is in a container that is deleted.
func (s *Service) empty(ctx context.Context, k *container, by string) error {
	for i, err := range s.images.All(ctx, store.Query{Index: "container", Equal: k.ID}) {
		if err != nil {
			return err
		}
		size := i.Value.Content.Size
		if !i.Value.Uploaded {
			size = 0
		}
		if err := s.charge(ctx, i.Value.Entity, -size, func() error {
			i.Value.DeletedAt, i.Value.DeletedBy = k.DeletedAt, by
			_, err := s.images.Replace(ctx, i)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// deleteCollection deletes a collection that is empty.
func (s *Service) deleteCollection(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection")
	if err != nil {
		return err
	}
	if err := s.deletable(w); err != nil {
		return err
	}
	c, err := s.collectionFor(ctx, auth.Manage, path)
	if err == nil {
		err = s.allow(ctx, auth.Delete, c.Value.object())
	}
	if err != nil {
		return err
	}
	n, err := s.containers.Count(ctx, store.Query{Index: "collection", Equal: c.Key})
	if err == nil && n > 0 {
		err = route.Errorf(http.StatusConflict, "the collection %s has %d containers: delete them first", path, n)
	}
	if err == nil {
		err = s.collections.Delete(ctx, c.Key, c.Rev)
	}
	s.auth.Audit(ctx, "collection.delete", path, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, struct{}{})
	return nil
}

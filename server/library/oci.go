package library

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

// What a registry needs, that offers the same containers to other clients.

// Repository is a container as a registry sees it.
type Repository struct {
	ID, Entity, Path string
	Tags             map[string]string // of OCI images: digests of manifests
}

func repository(k *container) Repository {
	return Repository{ID: k.ID, Entity: k.Entity, Path: k.path(), Tags: k.OCITags}
}

// Repository returns a container for an action.
func (s *Service) Repository(ctx context.Context, a auth.Action, path string) (Repository, error) {
	parts := strings.Split(path, "/")
	if len(parts) != 3 {
		return Repository{}, auth.From(ctx).NotFound()
	}
	for _, p := range parts {
		if err := checkPart(p); err != nil {
			return Repository{}, err
		}
	}
	k, err := s.containerFor(ctx, a, path)
	return repository(&k.Value), err
}

// Ensure returns a container to push to, and makes what is missing on the way to
// it, as far as the caller may.
func (s *Service) Ensure(ctx context.Context, path string) (Repository, error) {
	k, err := s.Repository(ctx, auth.Create, path)
	if !IsMissing(err) {
		return k, err
	}
	parts := strings.Split(path, "/")
	if len(parts) != 3 {
		return k, err
	}
	// Whoever may not push hears nothing of what is there.
	e, err := s.entities.Find(ctx, "name", parts[0])
	if missing(err) {
		e, err = s.addEntity(ctx, parts[0], "")
	}
	if err != nil {
		return k, err
	}
	c, err := s.addCollection(ctx, &e.Value, parts[1], "", false)
	if err != nil {
		return k, err
	}
	made, err := s.addContainer(ctx, &c.Value, container{Name: parts[2]})
	return repository(&made.Value), err
}

// IsMissing tells whether an error says that something is not there, or hidden.
func IsMissing(err error) bool {
	var e *route.Error
	return missing(err) || errors.As(err, &e) && e.Status == http.StatusNotFound
}

// Charge carries out commit, which makes add bytes count for the entity.
func (s *Service) Charge(ctx context.Context, entity string, add int64, commit func() error) error {
	return s.charge(ctx, entity, add, commit)
}

// Count adds to what an entity has in use what f says.
func (s *Service) Count(f func(ctx context.Context, entity string) (int64, error)) {
	s.counters = append(s.counters, f)
}

// Removed has f called after an image was deleted.
func (s *Service) Removed(f func(ctx context.Context, container, sha256 string) error) {
	s.removed = append(s.removed, f)
}

// SetTag lets a tag name a manifest, in place of what it named, be that an image
// of the library; but beside that if the manifest is of one itself.
func (s *Service) SetTag(ctx context.Context, id, tag, digest string, sif bool) error {
	k, err := s.containerByID(ctx, auth.Create, id)
	if err != nil {
		return err
	}
	if err := checkTag(tag); err != nil {
		return err
	}
	refused := s.allowContainer(ctx, auth.Write, &k.Value)
	_, err = s.containers.Update(ctx, id, func(k *container) error {
		before := k.OCITags[tag]
		taken := before != "" || k.native(tag)
		switch {
		case before == digest:
			return nil
		case taken && refused != nil:
			return refused
		case taken && k.immutable(tag):
			return route.Errorf(http.StatusConflict, "the tag %q is immutable here: choose another", tag)
		case !taken && k.tags() >= maxTags:
			return route.Errorf(http.StatusInsufficientStorage, "the container %s has %d tags already", k.path(), maxTags)
		}
		if k.OCITags == nil {
			k.OCITags = map[string]string{}
		}
		k.OCITags[tag] = digest
		for arch := range k.Tags {
			if sif || k.Tags[arch][tag] == "" {
				continue
			}
			delete(k.Tags[arch], tag)
			if err := s.logGone(ctx, k, arch, tag); err != nil {
				return err
			}
		}
		k.UpdatedAt = s.now().UTC()
		return s.logMove(ctx, k, "", tag, digest)
	})
	s.auth.Audit(ctx, "tag.set", k.Value.path()+":"+tag, err, map[string]string{"manifest": digest})
	return err
}

// native tells whether an image of the library has the tag.
func (k *container) native(tag string) bool {
	for _, tags := range k.Tags {
		if tags[tag] != "" {
			return true
		}
	}
	return false
}

// DropTags takes the tags of OCI images for which match says so, if none of them
// is immutable.
func (s *Service) DropTags(ctx context.Context, id string, match func(tag, digest string) bool) (int, error) {
	n := 0
	_, err := s.containers.Update(ctx, id, func(k *container) error {
		n = 0
		for tag, digest := range k.OCITags {
			if !match(tag, digest) {
				continue
			}
			if k.immutable(tag) {
				return route.Errorf(http.StatusForbidden, "the tag %q is immutable", tag)
			}
			delete(k.OCITags, tag)
			if err := s.logGone(ctx, k, "", tag); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// CanDelete refuses where nothing is deleted.
func (s *Service) CanDelete(w http.ResponseWriter) error { return s.deletable(w) }

// AddSIF makes an image of a content that came through the registry.
func (s *Service) AddSIF(ctx context.Context, id, sha256 string) error {
	k, err := s.containerByID(ctx, auth.Create, id)
	if err != nil {
		return err
	}
	c, j, err := s.examine(ctx, sha256)
	if err != nil {
		return err
	}
	i, err := s.addImage(ctx, &k.Value, sha256, "")
	if err != nil {
		return err
	}
	_, err = s.publish(ctx, i.Key, c, j)
	return err
}

// TagSIF gives an image the tag that its manifest has in the registry.
func (s *Service) TagSIF(ctx context.Context, id, sha256, tag string) error {
	i, err := s.images.Find(ctx, "path", id+"/"+sha256)
	if err == nil {
		_, err = s.setTag(ctx, id, "", tag, i.Key, true)
	}
	return err
}

// SIF is an image under a tag.
type SIF struct {
	Tag, Arch, SHA256 string
	Size              int64
}

// Tagged lists the images of a container that have tags.
func (s *Service) Tagged(ctx context.Context, id string) ([]SIF, error) {
	k, err := s.containers.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	var list []SIF
	for arch, tags := range k.Value.Tags {
		for tag, image := range tags {
			i, err := s.images.Get(ctx, image)
			if err != nil && !missing(err) {
				return nil, err
			}
			if err == nil && i.Value.there() {
				list = append(list, SIF{tag, arch, i.Value.Hash, i.Value.Content.Size})
			}
		}
	}
	return list, nil
}

// Has tells the size of an image of a container.
func (s *Service) Has(ctx context.Context, id, sha256 string) (int64, error) {
	i, err := s.images.Find(ctx, "path", id+"/"+sha256)
	if err == nil && !i.Value.there() {
		err = store.ErrNotFound
	}
	return i.Value.Content.Size, err
}

// RemoveSIF deletes the image of a container with that content, if there is one.
func (s *Service) RemoveSIF(ctx context.Context, id, sha256 string) error {
	k, err := s.containerByID(ctx, auth.Delete, id)
	if err != nil {
		return err
	}
	i, err := s.images.Find(ctx, "path", id+"/"+sha256)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.remove(ctx, &k.Value, i, auth.From(ctx).Name, s.now().UTC())
}

// MaxImage is how many bytes an image may have.
func (s *Service) MaxImage() int64 { return s.o.MaxImage }

// Free removes a content that nothing names.
func (s *Service) Free(ctx context.Context, sha256 string) error {
	_, err := s.free(ctx, sha256)
	return err
}

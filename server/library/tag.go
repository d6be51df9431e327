package library

import (
	"context"
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

func (s *Service) archTags(w http.ResponseWriter, r *http.Request) error {
	k, err := s.containerByID(r.Context(), auth.Read, r.PathValue("id"))
	if err != nil {
		return err
	}
	if k.Value.Tags == nil {
		k.Value.Tags = map[string]map[string]string{}
	}
	route.Data(w, k.Value.Tags)
	return nil
}

func (s *Service) flatTags(w http.ResponseWriter, r *http.Request) error {
	k, err := s.containerByID(r.Context(), auth.Read, r.PathValue("id"))
	if err != nil {
		return err
	}
	route.Data(w, k.Value.flat())
	return nil
}

func (s *Service) setArchTag(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Arch, Tag, ImageID string }
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if !archName.MatchString(body.Arch) {
		return route.Errorf(http.StatusBadRequest, "%.40q is no architecture", body.Arch)
	}
	k, err := s.setTag(r.Context(), r.PathValue("id"), body.Arch, body.Tag, body.ImageID, false)
	if err != nil {
		return err
	}
	proof, err := s.proof(w, r, &k.Value, body.Arch, body.Tag)
	if err != nil {
		return err
	}
	route.JSON(w, http.StatusOK, api.Envelope[map[string]map[string]string]{Data: k.Value.Tags, Proof: proof})
	return nil
}

// setFlatTag is for clients that know no architectures: the tag is that of the
// image's own.
func (s *Service) setFlatTag(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Tag, ImageID string }
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	k, err := s.setTag(r.Context(), r.PathValue("id"), "", body.Tag, body.ImageID, false)
	if err != nil {
		return err
	}
	route.Data(w, k.Value.flat())
	return nil
}

// setTag lets a tag name an image of the container, in place of an OCI image that
// it named; but beside that if it is the same one.
func (s *Service) setTag(ctx context.Context, id, arch, tag, imageID string, same bool) (store.Item[container], error) {
	k, err := s.containerByID(ctx, auth.Create, id)
	if err != nil {
		return k, err
	}
	if err := checkTag(tag); err != nil {
		return k, err
	}
	i, err := s.taggable(ctx, &k.Value, imageID)
	if err != nil {
		return k, err
	}
	switch own := i.Value.Content.Arch; {
	case arch == "" && own == "":
		arch = "amd64"
	case arch == "":
		arch = own
	case own != "" && arch != own:
		return k, route.Errorf(http.StatusBadRequest, "the image is for %s, not for %s", own, arch)
	}
	// Security: who may only create never changes a tag that is there (SC-142).
	// What is there is known in the write itself alone.
	refused := s.allowContainer(ctx, auth.Write, &k.Value)
	before := ""
	k, err = s.containers.Update(ctx, k.Key, func(k *container) error {
		if !k.DeletedAt.IsZero() {
			return auth.From(ctx).NotFound()
		}
		before = k.Tags[arch][tag]
		oci := k.OCITags[tag] != ""
		switch {
		case before == imageID && (same || k.OCITags[tag] == ""):
			if _, ok := k.Logged[tagKey(arch, tag)]; ok {
				return nil
			}
		case (before != "" || oci) && refused != nil && !same:
			return refused
		case (before != "" || oci) && k.immutable(tag) && !same:
			return route.Errorf(http.StatusConflict, "the tag %q is immutable here: choose another", tag)
		case before == "" && !oci && k.tags() >= maxTags:
			return route.Errorf(http.StatusInsufficientStorage, "the container %s has %d tags already", k.path(), maxTags)
		}
		if k.Tags == nil {
			k.Tags = map[string]map[string]string{}
		}
		if k.Tags[arch] == nil {
			k.Tags[arch] = map[string]string{}
		}
		k.Tags[arch][tag] = imageID
		if oci && !same {
			delete(k.OCITags, tag)
			if err := s.logGone(ctx, k, "", tag); err != nil {
				return err
			}
		}
		k.UpdatedAt = s.now().UTC()
		return s.logMove(ctx, k, arch, tag, "sha256:"+i.Value.Hash)
	})
	s.auth.Audit(ctx, "tag.set", i.Value.Path+":"+tag, err, map[string]string{"arch": arch, "image": "sha256." + i.Value.Hash, "before": before})
	return k, err
}

// taggable returns the image if a tag of the container may name it.
func (s *Service) taggable(ctx context.Context, k *container, id string) (store.Item[image], error) {
	if !idName.MatchString(id) {
		return store.Item[image]{}, route.Errorf(http.StatusNotFound, "not found: there is no such image in %s", k.path())
	}
	i, err := s.images.Get(ctx, id)
	if missing(err) || err == nil && (i.Value.Container != k.ID || !i.Value.DeletedAt.IsZero()) {
		return i, route.Errorf(http.StatusNotFound, "not found: there is no such image in %s", k.path())
	}
	if err == nil && !i.Value.Uploaded {
		err = route.Errorf(http.StatusConflict, "the image has not come yet: upload it before it gets a tag")
	}
	return i, err
}

// untag takes tags from an image.
func (s *Service) untag(ctx context.Context, containerID, imageID string) ([]archTag, error) {
	var taken []archTag
	_, err := s.containers.Update(ctx, containerID, func(k *container) error {
		taken = k.archTagsOf(imageID)
		for _, t := range taken {
			delete(k.Tags[t.Arch], t.Tag)
			if len(k.Tags[t.Arch]) == 0 {
				delete(k.Tags, t.Arch)
			}
			if err := s.logGone(ctx, k, t.Arch, t.Tag); err != nil {
				return err
			}
		}
		return nil
	})
	return taken, err
}

func (k *container) archTagsOf(imageID string) []archTag {
	var list []archTag
	for arch, tags := range k.Tags {
		for tag, id := range tags {
			if id == imageID {
				list = append(list, archTag{arch, tag})
			}
		}
	}
	return list
}

func tagNames(list []archTag) string {
	var names []string
	for _, t := range list {
		names = append(names, t.Tag+" ("+t.Arch+")")
	}
	return strings.Join(names, ", ")
}

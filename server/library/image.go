package library

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
	"singularity/server/store"
)

const (
	maxImages = 10_000 // of a container
	maxTags   = 1_000
)

// imageFor returns the image of a reference, with its container, for an action.
func (s *Service) imageFor(ctx context.Context, a auth.Action, ref reference) (store.Item[image], store.Item[container], error) {
	k, err := s.containerFor(ctx, a, ref.path)
	if err != nil {
		return store.Item[image]{}, k, err
	}
	i, err := s.find(ctx, &k.Value, ref)
	return i, k, err
}

// find looks up an image of a container.
func (s *Service) find(ctx context.Context, k *container, ref reference) (store.Item[image], error) {
	if hash, ok := strings.CutPrefix(ref.tag, "sha256."); ok && ref.isHash() {
		i, err := s.images.Find(ctx, "path", k.ID+"/"+hash)
		return i, hide(ctx, err)
	}
	if uuid, ok := strings.CutPrefix(ref.tag, "sif."); ok && ref.isHash() {
		items, _, err := s.images.List(ctx, store.Query{Index: "uuid", Equal: k.ID + "/" + uuid, Limit: 1})
		if err != nil || len(items) == 0 {
			return store.Item[image]{}, errors.Join(err, auth.From(ctx).NotFound())
		}
		return items[0], nil
	}
	id, err := k.resolve(ref.tag, ref.arch)
	if err != nil {
		return store.Item[image]{}, err
	}
	i, err := s.images.Get(ctx, id)
	if missing(err) || err == nil && !i.Value.there() {
		return i, k.noTag(ref)
	}
	return i, err
}

// resolve returns the id of the image at a tag.
func (k *container) resolve(tag, arch string) (string, error) {
	if arch != "" {
		if id := k.Tags[arch][tag]; id != "" {
			return id, nil
		}
		return "", k.noTag(reference{tag: tag, arch: arch})
	}
	var archs []string
	for a, tags := range k.Tags {
		if tags[tag] != "" {
			archs = append(archs, a)
		}
	}
	switch {
	case len(archs) == 0:
		return "", k.noTag(reference{tag: tag})
	case len(archs) == 1:
		return k.Tags[archs[0]][tag], nil
	case slices.Contains(archs, "amd64"):
		return k.Tags["amd64"][tag], nil
	}
	slices.Sort(archs)
	return "", route.Errorf(http.StatusBadRequest, "the tag %q is of several architectures: name one of %s", tag, strings.Join(archs, ", "))
}

// noTag says that a tag is not there, to who may read what is.
func (k *container) noTag(ref reference) error {
	if k.OCITags[ref.tag] != "" {
		// Clients look for this text, and ask the registry then.
		return route.Errorf(http.StatusBadRequest, "tag holds an OCI image (application/vnd.oci.image.config.v1+json)")
	}
	names := map[string]bool{}
	for arch, tags := range k.Tags {
		for tag := range tags {
			if ref.arch == "" || ref.arch == arch {
				names[tag] = true
			}
		}
	}
	if len(names) == 0 {
		return route.Errorf(http.StatusNotFound, "not found")
	}
	list := slices.Sorted(maps.Keys(names))
	more := ""
	if len(list) > 10 {
		list, more = list[:10], ", ..."
	}
	return route.Errorf(http.StatusNotFound, "not found: there are the tags %s%s", strings.Join(list, ", "), more)
}

func (s *Service) getImage(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	ref, err := parseReference(r)
	if err != nil {
		return err
	}
	i, k, err := s.imageFor(ctx, auth.Read, ref)
	if err != nil {
		return err
	}
	// What has not come yet is nobody's business but theirs who push.
	if !i.Value.Uploaded && s.allowContainer(ctx, auth.Create, &k.Value) != nil {
		return auth.From(ctx).NotFound()
	}
	a := api.Envelope[api.Image]{Data: s.shown(&i.Value, s.withDownloads(&k.Value))}
	if !ref.isHash() {
		if a.Proof, err = s.proof(w, r, &k.Value, ref.arch, ref.tag); err != nil {
			return err
		}
	}
	route.JSON(w, http.StatusOK, a)
	return nil
}

func (s *Service) createImage(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Hash, Description, Container string }
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	if !hashName.MatchString(body.Hash) {
		return route.Errorf(http.StatusBadRequest, "%.100q is no hash of an image: sha256. and 64 hexadecimal digits are wanted", body.Hash)
	}
	k, err := s.containerByID(ctx, auth.Create, body.Container)
	if err != nil {
		return err
	}
	i, err := s.addImage(ctx, &k.Value, strings.TrimPrefix(body.Hash, "sha256."), body.Description)
	if err != nil {
		return err
	}
	route.Data(w, s.shown(&i.Value, &k.Value))
	return nil
}

// addImage makes the record of an image whose content comes later, or is known
// to the caller already.
func (s *Service) addImage(ctx context.Context, k *container, hash, description string) (store.Item[image], error) {
	none := store.Item[image]{}
	description, err := clean(description, maxDescription, false)
	if err != nil {
		return none, err
	}
	if i, err := s.images.Find(ctx, "path", k.ID+"/"+hash); err == nil || !missing(err) {
		return i, err
	}
	n, err := s.images.Count(ctx, store.Query{Index: "container", Equal: k.ID})
	if err != nil {
		return none, err
	}
	if n >= maxImages {
		return none, route.Errorf(http.StatusInsufficientStorage, "the container %s has %d images already: delete some first", k.path(), n)
	}
	i := image{ID: store.NewID(), Hash: hash, Container: k.ID, Entity: k.Entity, EntityName: k.EntityName, Path: k.path(), Description: description,
		CreatedBy: auth.From(ctx).Name, CreatedAt: s.now().UTC()}
	item, err := s.images.Insert(ctx, i.ID, i)
	if errors.Is(err, store.ErrExists) {
		return s.images.Find(ctx, "path", k.ID+"/"+hash)
	}
	if err != nil {
		return item, err
	}
	return s.adopt(ctx, item)
}

// maxAdopted bounds how many images of a content are looked at.
const maxAdopted = 20

// adopt takes over a content that is here, so that nothing need be sent.
//
// Security: to know a hash is not to have the content (SC-139). Only who may
// read an image that has it already gets it this way.
func (s *Service) adopt(ctx context.Context, i store.Item[image]) (store.Item[image], error) {
	after := s.keyChanges()
	others, _, err := s.images.List(ctx, store.Query{Index: "blob", Equal: i.Value.Hash, Limit: maxAdopted})
	if err != nil {
		return i, err
	}
	for _, o := range others {
		if !o.Value.there() {
			continue
		}
		if _, err := s.containerByID(ctx, auth.Read, o.Value.Container); err != nil {
			continue
		}
		if done, err := s.publish(ctx, i.Key, o.Value.Content, judgement{o.Value.Fingerprints, after}); err == nil {
			return done, nil
		}
	}
	return i, nil
}

// imageByID returns an image with its container, for an action.
func (s *Service) imageByID(ctx context.Context, a auth.Action, id string) (store.Item[image], store.Item[container], error) {
	c := auth.From(ctx)
	if !idName.MatchString(id) {
		return store.Item[image]{}, store.Item[container]{}, c.NotFound()
	}
	i, err := s.images.Get(ctx, id)
	if err != nil {
		return i, store.Item[container]{}, hide(ctx, err)
	}
	k, err := s.containerByID(ctx, a, i.Value.Container)
	if err == nil && !i.Value.DeletedAt.IsZero() {
		err = c.NotFound()
	}
	return i, k, err
}

func (s *Service) noRedirect(w http.ResponseWriter, r *http.Request) error {
	return route.Errorf(http.StatusNotFound, "direct OCI transfer not offered")
}

package library

import (
	"net/http"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
)

// Changes hold pointers: what is not named stays.

func (s *Service) editEntity(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Description    *string
		DefaultPrivate *bool
		Quota          *int64 // by administrators; -1: the one for all
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	name, err := pathOf(r, "entity")
	if err != nil {
		return err
	}
	action := auth.Write
	if body.DefaultPrivate != nil {
		action = auth.Manage
	}
	e, err := s.entityFor(ctx, action, name)
	if err != nil {
		return err
	}
	if body.Quota != nil {
		if err := auth.From(ctx).RequireAdmin(); err != nil {
			return err
		}
		if *body.Quota < -1 {
			return route.Errorf(http.StatusBadRequest, "a quota is a number of bytes; 0 for no limit, -1 for the default")
		}
	}
	e, err = s.entities.Update(ctx, e.Key, func(e *entity) error {
		e.UpdatedAt = s.now().UTC()
		if body.Quota != nil {
			e.Quota = body.Quota
			if *body.Quota == -1 {
				e.Quota = nil
			}
		}
		if body.DefaultPrivate != nil {
			e.DefaultPrivate = *body.DefaultPrivate
		}
		return describe(&e.Description, body.Description, maxDescription, false)
	})
	s.auth.Audit(ctx, "entity.edit", name, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, e.Value.answer())
	return nil
}

func describe(to, from *string, limit int, lines bool) (err error) {
	if from != nil {
		*to, err = clean(*from, limit, lines)
	}
	return err
}

func (s *Service) editCollection(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Description     *string
		FullDescription *string
		Private         *bool
	}
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection")
	if err != nil {
		return err
	}
	action := auth.Write
	if body.Private != nil {
		action = auth.Manage
	}
	c, err := s.collectionFor(ctx, action, path)
	if err != nil {
		return err
	}
	c, err = s.collections.Update(ctx, c.Key, func(c *collection) error {
		c.UpdatedAt = s.now().UTC()
		if body.Private != nil {
			c.Private = *body.Private
		}
		if err := describe(&c.FullDescription, body.FullDescription, maxFullDescription, true); err != nil {
			return err
		}
		return describe(&c.Description, body.Description, maxDescription, false)
	})
	s.auth.Audit(ctx, "collection.edit", path, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, c.Value.answer())
	return nil
}

type containerEdit struct {
	Description     *string
	FullDescription *string
	Private         *bool
	ReadOnly        *bool
	ImmutableTags   *[]string
	Retention       *api.Retention
}

// action is what the edit needs: whoever pushes may describe.
func (b *containerEdit) action() auth.Action {
	if b.Private != nil || b.ReadOnly != nil || b.ImmutableTags != nil || b.Retention != nil {
		return auth.Manage
	}
	return auth.Write
}

func (b *containerEdit) apply(k *container) error {
	if b.Private != nil {
		k.Private = *b.Private
	}
	if b.ReadOnly != nil {
		k.ReadOnly = *b.ReadOnly
	}
	if b.ImmutableTags != nil {
		if err := checkPatterns(*b.ImmutableTags); err != nil {
			return err
		}
		k.Immutable = *b.ImmutableTags
	}
	if b.Retention != nil {
		if err := checkRetention(b.Retention); err != nil {
			return err
		}
		k.Retention = b.Retention
		if b.Retention.Days == 0 && b.Retention.KeepLast == 0 {
			k.Retention = nil
		}
	}
	if err := describe(&k.Description, b.Description, maxDescription, false); err != nil {
		return err
	}
	return describe(&k.FullDescription, b.FullDescription, maxFullDescription, true)
}

func (s *Service) editContainer(w http.ResponseWriter, r *http.Request) error {
	var body containerEdit
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	ctx := r.Context()
	path, err := pathOf(r, "entity", "collection", "container")
	if err != nil {
		return err
	}
	k, err := s.containerFor(ctx, body.action(), path)
	if err != nil {
		return err
	}
	k, err = s.containers.Update(ctx, k.Key, func(k *container) error {
		k.UpdatedAt = s.now().UTC()
		return body.apply(k)
	})
	s.auth.Audit(ctx, "container.edit", path, err, nil)
	if err != nil {
		return err
	}
	route.Data(w, k.Value.answer())
	return nil
}

package library

import (
	"context"
	"crypto/rand"
	"net/http"
	"strconv"

	"singularity/api"
	"singularity/server/route"
)

// logged is the line of the transparency log about a tag.
type logged struct {
	Index int64  `json:"index"`
	Salt  []byte `json:"salt,omitempty"` // of a blind line
}

func tagKey(arch, tag string) string { return tag + " " + arch }

// logMove writes down, before the container is written, that a tag means a digest
// from now on, or nothing any more if that is empty. A write that fails after it
// leaves a line that never came true; the next one about the tag says so.
//
// Security: the log is public. Of a private container it has neither names nor
// digests, and who could read it once cannot read later lines.
func (s *Service) logMove(ctx context.Context, k *container, arch, tag, digest string) error {
	if s.o.Log == nil {
		return nil
	}
	o, err := s.object(ctx, k)
	if err != nil {
		return err
	}
	l := logged{}
	name := api.TagName(k.path(), tag, arch)
	if !o.Public {
		l.Salt = make([]byte, api.SaltSize)
		rand.Read(l.Salt)
		name, digest = api.Blind(l.Salt, name), api.Blind(l.Salt, digest)
	}
	if l.Index, err = s.o.Log.Change(ctx, "tag", name, digest); err != nil {
		return err
	}
	if k.Logged == nil {
		k.Logged = map[string]logged{}
	}
	k.Logged[tagKey(arch, tag)] = l
	return nil
}

// logGone is logMove for a tag that is taken.
func (s *Service) logGone(ctx context.Context, k *container, arch, tag string) error {
	if err := s.logMove(ctx, k, arch, tag, ""); err != nil {
		return err
	}
	delete(k.Logged, tagKey(arch, tag))
	return nil
}

// proof returns the proof of a tag, if the request asks for one, and says in the
// header of the answer that there is a log.
func (s *Service) proof(w http.ResponseWriter, r *http.Request, k *container, arch, tag string) (*api.LogProof, error) {
	text := r.URL.Query().Get("proof")
	if s.o.Log == nil || text == "" {
		return nil, nil
	}
	from, err := strconv.ParseInt(text, 10, 64)
	if err != nil || from < 0 {
		return nil, route.Errorf(http.StatusBadRequest, "proof is no size of the log")
	}
	l, ok := k.Logged[tagKey(arch, tag)]
	if !ok {
		return nil, nil
	}
	p, err := s.o.Log.Prove(r.Context(), l.Index, from)
	if err != nil {
		return nil, err
	}
	p.Salt = l.Salt
	w.Header().Set(api.LogHeader, p.Key)
	return &p, nil
}

// logEnd is logGone for all tags of a container.
func (s *Service) logEnd(ctx context.Context, k *container) error {
	for arch, tags := range k.Tags {
		for tag := range tags {
			if err := s.logGone(ctx, k, arch, tag); err != nil {
				return err
			}
		}
	}
	for tag := range k.OCITags {
		if err := s.logGone(ctx, k, "", tag); err != nil {
			return err
		}
	}
	return nil
}

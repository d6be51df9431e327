package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/route"
)

// ask makes a call of the library in somebody's name: what a build may do is
// what that person may do.
func (s *Service) ask(ctx context.Context, c auth.Caller, method, target string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	a, err := route.Ask(auth.With(ctx, c), s.api, method, target, "", &body)
	if err != nil || out == nil {
		return err
	}
	var e api.Envelope[json.RawMessage]
	if err := json.Unmarshal(a.Body.Bytes(), &e); err != nil {
		return err
	}
	return json.Unmarshal(e.Data, out)
}

func isMissing(err error) bool {
	var e *route.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// container returns the container that a job writes to, and makes it and what it
// is in if they are not there.
func (s *Service) container(ctx context.Context, c auth.Caller, j *job) (api.Container, error) {
	names := strings.Split(j.Path, "/")
	var k api.Container
	err := s.ask(ctx, c, http.MethodGet, "/v1/containers/"+j.Path, nil, &k)
	if !isMissing(err) {
		return k, err
	}
	var e api.Entity
	err = s.ask(ctx, c, http.MethodGet, "/v1/entities/"+names[0], nil, &e)
	if isMissing(err) {
		err = s.ask(ctx, c, http.MethodPost, "/v1/entities", map[string]any{"name": names[0]}, &e)
	}
	if err != nil {
		return k, err
	}
	var col api.Collection
	err = s.ask(ctx, c, http.MethodGet, "/v1/collections/"+names[0]+"/"+names[1], nil, &col)
	if isMissing(err) {
		err = s.ask(ctx, c, http.MethodPost, "/v1/collections", map[string]any{"name": names[1], "entity": e.ID, "private": j.Temporary}, &col)
	}
	if err != nil {
		return k, err
	}
	return k, s.ask(ctx, c, http.MethodPost, "/v1/containers", map[string]any{"name": names[2], "collection": col.ID, "private": j.Temporary}, &k)
}

// arrived tells whether the library has, at the reference of a job, the image
// that its worker announced; and how large it is.
func (s *Service) arrived(ctx context.Context, j *job) (int64, bool, error) {
	if j.ImageHash == "" {
		return 0, false, nil
	}
	c, err := s.auth.OnBehalf(ctx, j.User, auth.LibraryRead)
	if err != nil || c.Invalid {
		return 0, false, err
	}
	ref := j.Path + ":" + j.Tag
	if j.Stage != "" {
		ref = j.Stage
	}
	var i api.Image
	err = s.ask(ctx, c, http.MethodGet, "/v1/images/"+escape(ref)+"?arch="+j.Arch, nil, &i)
	if isMissing(err) {
		return 0, false, nil
	}
	return i.Size, err == nil && i.Uploaded && i.Hash == "sha256."+j.ImageHash, err
}

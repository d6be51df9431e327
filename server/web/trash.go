package web

import (
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
)

type trashView struct {
	page.Frame
	Message string
	Path    string
	Images  []api.Image
}

func (s *Service) trashView(r *http.Request) (trashView, error) {
	ctx, full := r.Context(), r.PathValue("path")
	v := trashView{Frame: auth.FrameOf(ctx, "Deleted images of "+full, "library"), Path: full}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	_, address, parts, err := target(r)
	if err != nil || len(parts) != 3 {
		return v, errGone
	}
	l, err := list[api.Image](s, ctx, address+"/images?deleted=true&limit=1000")
	v.Images = l.Data
	return v, err
}

// trash lists what was deleted from a container and can come back.
func (s *Service) trash(w http.ResponseWriter, r *http.Request) error {
	v, err := s.trashView(r)
	if err != nil {
		return err
	}
	return show(w, "trash.html", v)
}

// trashForm brings an image back.
func (s *Service) trashForm(w http.ResponseWriter, r *http.Request) error {
	if _, err := person(r.Context()); err != nil {
		return err
	}
	if err := s.call(r.Context(), http.MethodPost, path("/v1/images/", r.PostFormValue("id"))+"/_restore", nil, nil); err != nil {
		return s.sayAgain(w, err, "trash.html", func(message string) (any, error) {
			v, err := s.trashView(r)
			v.Message = message
			return v, err
		})
	}
	http.Redirect(w, r, path("/library/", strings.Split(r.PathValue("path"), "/")...), http.StatusSeeOther)
	return nil
}

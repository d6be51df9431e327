package web

import (
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// secretsView is the page of what builds log in to registries with. It has no
// passwords: no answer of the builder has them.
type secretsView struct {
	page.Frame
	Message            string
	Registry, Username string // what was typed
	Secrets            []api.RegistrySecret
}

func (s *Service) secretsView(r *http.Request) (secretsView, error) {
	ctx := r.Context()
	v := secretsView{Frame: auth.FrameOf(ctx, "Registries of your builds", "builder")}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	var err error
	v.Secrets, err = get[[]api.RegistrySecret](s, ctx, "/v1/build-secrets")
	return v, err
}

// secrets lists the registries that somebody's builds log in to.
func (s *Service) secrets(w http.ResponseWriter, r *http.Request) error {
	v, err := s.secretsView(r)
	if err != nil {
		return err
	}
	return show(w, "buildsecrets.html", v)
}

// secretsForm stores a password, or deletes one.
func (s *Service) secretsForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if _, err := person(ctx); err != nil {
		return err
	}
	in := api.RegistrySecret{Registry: strings.TrimSpace(r.PostFormValue("registry")), Username: strings.TrimSpace(r.PostFormValue("username"))}
	var err error
	switch r.PostFormValue("do") {
	case "set":
		in.Password = r.PostFormValue("password")
		err = s.call(ctx, http.MethodPut, "/v1/build-secrets", in, nil)
		if no, ok := err.(*route.Error); ok && no.Status == http.StatusNotImplemented {
			err = route.Errorf(http.StatusConflict, "%s", no.Message)
		}
	case "delete":
		err = s.call(ctx, http.MethodDelete, path("/v1/build-secrets/", in.Registry), nil, nil)
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	if err != nil {
		return s.sayAgain(w, err, "buildsecrets.html", func(message string) (any, error) {
			v, err := s.secretsView(r)
			// Security: the password is not written into a page again.
			v.Message, v.Registry, v.Username = message, in.Registry, in.Username
			return v, err
		})
	}
	http.Redirect(w, r, "/builder/registries", http.StatusSeeOther)
	return nil
}

package web

import (
	"net/http"
	"net/url"
	"strings"

	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type myKeysView struct {
	page.Frame
	Message string
	Text    string
	Keys    []key
}

func (s *Service) myKeysView(r *http.Request) (myKeysView, error) {
	ctx := r.Context()
	v := myKeysView{Frame: auth.FrameOf(ctx, "Your keys", "keys")}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	var err error
	v.Keys, err = get[[]key](s, ctx, "/v1/keys")
	return v, err
}

// myKeys lists the keys that somebody published.
func (s *Service) myKeys(w http.ResponseWriter, r *http.Request) error {
	v, err := s.myKeysView(r)
	if err != nil {
		return err
	}
	return show(w, "mykeys.html", v)
}

// myKeysForm publishes a key, or takes one out of all answers.
func (s *Service) myKeysForm(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if _, err := person(ctx); err != nil {
		return err
	}
	text := r.PostFormValue("keytext")
	var err error
	switch r.PostFormValue("do") {
	case "add":
		_, err = s.sendBody(ctx, http.MethodPost, "/pks/add", "application/x-www-form-urlencoded", strings.NewReader(url.Values{"keytext": {text}}.Encode()))
	case "remove":
		err = s.call(ctx, http.MethodDelete, path("/v1/keys/", r.PostFormValue("fingerprint")), nil, nil)
	default:
		err = route.Errorf(http.StatusBadRequest, "the form says nothing to do")
	}
	if err != nil {
		return s.sayAgain(w, err, "mykeys.html", func(message string) (any, error) {
			v, err := s.myKeysView(r)
			// Security: what may hold a secret key is not written into a page again.
			if v.Message = message; !strings.Contains(text, "PRIVATE") {
				v.Text = text
			}
			return v, err
		})
	}
	http.Redirect(w, r, "/keystore/mine", http.StatusSeeOther)
	return nil
}

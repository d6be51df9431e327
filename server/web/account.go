package web

import (
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

type accountView struct {
	page.Frame
	Message  string
	RealName string
	Email    string
	Entity   *api.Entity
	Percent  int64
	Groups   []auth.Membership
	Robots   []account
	Keys     []key
}

func (s *Service) accountView(r *http.Request) (accountView, error) {
	ctx := r.Context()
	c, err := person(ctx)
	v := accountView{Frame: auth.FrameOf(ctx, "Your account", "account"), RealName: c.RealName, Email: c.Email, Groups: c.Groups()}
	if err != nil {
		return v, err
	}
	e, err := get[api.Entity](s, ctx, path("/v1/entities/", c.Name))
	switch {
	case err == nil:
		v.Entity = &e
		if e.Quota > 0 {
			v.Percent = min(100, e.Size*100/e.Quota)
		}
	case !missing(err):
		return v, err
	}
	if v.Robots, err = get[[]account](s, ctx, "/v1/robots"); err != nil {
		return v, err
	}
	v.Keys, err = get[[]key](s, ctx, "/v1/keys")
	return v, err
}

// account shows who somebody is, and what is theirs.
func (s *Service) account(w http.ResponseWriter, r *http.Request) error {
	v, err := s.accountView(r)
	if err != nil {
		return err
	}
	return show(w, "account.html", v)
}

// accountForm makes a group or a robot.
func (s *Service) accountForm(w http.ResponseWriter, r *http.Request) error {
	if _, err := person(r.Context()); err != nil {
		return err
	}
	name := strings.TrimSpace(r.PostFormValue("name"))
	body := map[string]string{"name": name, "description": strings.TrimSpace(r.PostFormValue("description"))}
	to, next := "/v1/groups", path("/groups/", name)
	if r.PostFormValue("do") == "robot" {
		to, next = "/v1/robots", path("/robots/", name)
		body["belongsTo"] = r.PostFormValue("belongs")
	}
	if err := s.call(r.Context(), http.MethodPost, to, body, nil); err != nil {
		return s.sayAgain(w, err, "account.html", func(message string) (any, error) {
			v, err := s.accountView(r)
			v.Message = message
			return v, err
		})
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// sayAgain shows a page once more, with what a service refused.
func (s *Service) sayAgain(w http.ResponseWriter, err error, name string, view func(message string) (any, error)) error {
	e, ok := err.(*route.Error)
	if !ok || e.Status >= 500 || e.Status == http.StatusNotFound {
		return err
	}
	v, err := view(e.Message)
	if err != nil {
		return err
	}
	return page.Write(w, templates, e.Status, name, v)
}

package web

import (
	"net/http"
	"strings"

	"singularity/api"
	"singularity/server/auth"
	"singularity/server/page"
	"singularity/server/route"
)

// rulesView is what the page with the rules of a collection, or of the site, shows.
type rulesView struct {
	page.Frame
	Message    string
	Saved      bool
	Secret     string // of a new webhook, shown once
	Place      string // ENTITY/COLLECTION, empty for the site
	Action     string
	Rules      api.WatchRules
	Severities []string
}

// rulesOf is where the rules of a collection are, those of the site for none.
func rulesOf(r *http.Request) (place, target, action string) {
	e, c := r.PathValue("entity"), r.PathValue("collection")
	if e == "" {
		return "", "/v1/watch/rules", "/security/rules"
	}
	return e + "/" + c, path("/v1/watch/rules/", e, c), path("/security/rules/", e, c)
}

func (s *Service) rulesView(r *http.Request) (rulesView, error) {
	ctx := r.Context()
	place, target, action := rulesOf(r)
	v := rulesView{Frame: auth.FrameOf(ctx, "Rules of "+place, "security"), Place: place, Action: action, Severities: severities[:len(severities)-1]}
	if place == "" {
		v.Frame = auth.FrameOf(ctx, "Rules of this site", "admin")
	}
	if _, err := person(ctx); err != nil {
		return v, err
	}
	var err error
	v.Rules, err = get[api.WatchRules](s, ctx, target)
	return v, err
}

// rulesPage shows from which severity on images are not served, and who is told.
func (s *Service) rulesPage(w http.ResponseWriter, r *http.Request) error {
	v, err := s.rulesView(r)
	if err != nil {
		return err
	}
	v.Saved = r.FormValue("saved") != ""
	return show(w, "rules.html", v)
}

// rulesForm sets that.
func (s *Service) rulesForm(w http.ResponseWriter, r *http.Request) error {
	v, err := s.rulesView(r)
	if err != nil {
		return err
	}
	_, target, action := rulesOf(r)
	text := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	in := api.WatchRules{Block: text("block"), Grace: text("grace"), BlockUnknown: text("unknown") != "", Notify: text("notify"), Webhook: text("webhook"), Mail: text("mail") != ""}
	if in.Notify != "" && in.Webhook == "" && !in.Mail {
		err = route.Errorf(http.StatusBadRequest, "say where to tell of new findings: by mail, or by a webhook")
	} else {
		err = s.call(r.Context(), http.MethodPut, target, in, &struct{ Data *api.WatchRules }{&v.Rules})
	}
	if err != nil {
		return s.sayAgain(w, err, "rules.html", func(message string) (any, error) {
			in.LastSent, in.LastError = v.Rules.LastSent, v.Rules.LastError
			v.Message, v.Rules = message, in
			return v, nil
		})
	}
	if v.Rules.Secret != "" {
		v.Secret = v.Rules.Secret
		return show(w, "rules.html", v)
	}
	http.Redirect(w, r, action+"?saved=yes", http.StatusSeeOther)
	return nil
}

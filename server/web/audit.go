package web

import (
	"net/http"
	"net/url"

	"singularity/server/auth"
	"singularity/server/page"
)

// audit shows who did what.
func (s *Service) audit(w http.ResponseWriter, r *http.Request) error {
	ctx, q := r.Context(), r.URL.Query()
	v := struct {
		page.Frame
		Field, Value string
		Fields       []string
		Events       []auth.Event
		Next         string
	}{Frame: auth.FrameOf(ctx, "Audit", "admin"), Field: q.Get("field"), Value: q.Get("value"), Fields: []string{"actor", "action", "object"}}
	if _, err := person(ctx); err != nil {
		return err
	}
	ask := url.Values{"after": {q.Get("after")}}
	for _, f := range v.Fields {
		if f == v.Field && v.Value != "" {
			ask.Set(f, v.Value)
		}
	}
	l, err := list[auth.Event](s, ctx, "/v1/admin/audit?"+ask.Encode())
	if err != nil {
		return err
	}
	v.Events = l.Data
	if l.Page.Next != "" {
		v.Next = "/admin/audit?" + url.Values{"field": {v.Field}, "value": {v.Value}, "after": {l.Page.Next}}.Encode()
	}
	return show(w, "audit.html", v)
}

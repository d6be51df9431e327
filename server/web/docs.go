package web

import (
	"net/http"
	"slices"
	"strings"

	"singularity/server/auth"
	"singularity/server/openapi"
	"singularity/server/page"
)

// docs tells how to set a terminal up, with the names of this site.
func (s *Service) docs(w http.ResponseWriter, r *http.Request) error {
	v := struct {
		page.Frame
		URL, Host, Name, Who string
		Plain                bool
	}{Frame: auth.FrameOf(r.Context(), "Set-up", "docs"), URL: s.url, Host: s.host(), Plain: strings.HasPrefix(s.url, "http:")}
	v.Name, _, _ = strings.Cut(v.Host, ":")
	if v.Name, _, _ = strings.Cut(v.Name, "."); v.Name == "" || v.Name == "127" {
		v.Name = "site"
	}
	if v.Who = v.User; v.Who == "" {
		v.Who = "YOU"
	}
	return show(w, "docs.html", v)
}

// call is a call of the API as its page shows it.
type call struct {
	openapi.Operation
	Curl string
}

type callGroup struct {
	Tag, Text string
	Calls     []call
}

// apiDocs lists the calls of the API, from the table that /openapi.json is made
// of.
func (s *Service) apiDocs(w http.ResponseWriter, r *http.Request) error {
	v := struct {
		page.Frame
		URL    string
		Groups []callGroup
	}{Frame: auth.FrameOf(r.Context(), "API", "docs"), URL: s.url}
	for _, t := range openapi.Tags {
		if t[0] == "pages" || t[0] == "internal" {
			continue
		}
		g := callGroup{Tag: t[0], Text: t[1]}
		for _, o := range openapi.Operations() {
			if o.Tag == t[0] {
				g.Calls = append(g.Calls, call{o, s.curl(o)})
			}
		}
		v.Groups = append(v.Groups, g)
	}
	return show(w, "api.html", v)
}

// curl is a call as a command. Parameters in braces are for whoever types it.
func (s *Service) curl(o openapi.Operation) string {
	words := []string{"curl"}
	if m := o.Method(); m != http.MethodGet {
		words = append(words, "-X", m)
	}
	if o.Scope != "" {
		words = append(words, `-H "Authorization: Bearer $TOKEN"`)
	}
	if o.In != nil {
		words = append(words, "-d @request.json")
	}
	address := s.url + o.Path()
	if i := slices.IndexFunc(o.Query, func(p openapi.Param) bool { return p.Required }); i >= 0 {
		address += "?" + o.Query[i].Name + "=..."
	}
	return strings.Join(append(words, "'"+address+"'"), " ")
}

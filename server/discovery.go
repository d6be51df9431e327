package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"singularity/api"
	"singularity/conf"
	"singularity/server/openapi"
	"singularity/server/route"
)

// apiVersion is the version of the library protocol: tags know architectures.
const apiVersion = "2.0.0"

// found are the calls of discovery, for the pages.
type found struct{ routes []route.Route }

// Routes are the calls.
func (f found) Routes() []route.Route { return f.routes }

// discovery are the calls by which clients find the services, and what each says
// of itself.
func (s *Server) discovery() []route.Route {
	version := func(w http.ResponseWriter, r *http.Request) {
		route.Data(w, api.Version{Version: conf.Version, APIVersion: apiVersion})
	}
	// The top level holds objects alone, and one of keystoreAPI and keyserverAPI:
	// clients stumble over anything else.
	u, err := url.Parse(s.config.URL)
	if err != nil {
		u = &url.URL{}
	}
	document := map[string]map[string]string{
		"libraryAPI":  {"uri": s.config.URL, "registryUri": s.config.scheme() + "://" + u.Host},
		"keystoreAPI": {"uri": s.config.URL},
		"builderAPI":  {"uri": s.config.URL},
		"tokenAPI":    {"uri": s.config.URL + "/token"},
		"consentAPI":  {"uri": s.config.URL + "/consent"},
	}
	return []route.Route{
		{Pattern: "GET /assets/config/config.prod.json", Class: route.Free, Presigned: true, Handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=300")
			route.JSON(w, http.StatusOK, document)
		}},
		{Pattern: "GET /version", Handler: version, Class: route.Free, Presigned: true},
		{Pattern: "GET /token/version", Handler: version, Class: route.Free, Presigned: true},
		{Pattern: "GET /consent/version", Handler: version, Class: route.Free, Presigned: true},
		{Pattern: "GET /openapi.json", Handler: s.describe(), Class: route.Free, Presigned: true},
	}
}

// patterns are those of all routes on both listeners.
func (s *Server) patterns() []string {
	list := append(slices.Clone(s.front.patterns), internalPatterns...)
	for _, r := range slices.Concat(s.auth.Internal(), s.builds.Internal()) {
		list = append(list, r.Pattern)
	}
	return list
}

// describe answers with the description of all that is answered here, which is
// made when somebody asks for it first: by then all routes are known.
func (s *Server) describe() http.HandlerFunc {
	document := sync.OnceValues(func() ([]byte, error) {
		return json.Marshal(openapi.Document(conf.Version, s.config.URL, s.patterns()))
	})
	return route.Func(func(w http.ResponseWriter, r *http.Request) error {
		text, err := document()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "max-age=300")
		w.Header().Set("Access-Control-Allow-Origin", "*") // tools that show it in a browser
		w.Write(text)
		return nil
	})
}

// root answers at "/" where no service has pages: a log-in to a key server asks
// there whether its credential is good.
func (s *Server) root() route.Route {
	return route.Route{Pattern: "GET /{$}", Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("singularity-server " + conf.Version + "\n"))
	}}
}
